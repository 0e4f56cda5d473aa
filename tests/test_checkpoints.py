"""Checkpoints in every form in which they are released, through the loader: the same weights, the same stream."""

from __future__ import annotations

import argparse
import dataclasses
import json
import math
import os
import pickle
import re
import warnings
import zipfile
from pathlib import Path

import numpy as np
import peft
import pytest
import torch
from safetensors.torch import load_file, save_file

from fkv import parity
from fkv.models import download, registry, wan
from fkv.models.adapters import is_part
from fkv.models.checkpoints import check_file, load_transformer, state_dict
from fkv.models.convert import empty_model, from_wan_names
from fkv.models.memory import Peak
from fkv.models.parts import loading
from fkv.models.release import BASES, Source
from fkv.models.weight_files import CheckpointError, files_of, read
from fkv.policies import Full
from fkv.transformer.causal import CausalTransformer


def fsdp(name: str) -> str:
    """A name as a model wrapped whole and block by block saves it."""
    return "model._fsdp_wrapped_module." + re.sub(r"^(blocks\.\d+)\.", r"\1._fsdp_wrapped_module.", name)


def under(weights, rename):
    return {rename(name): value for name, value in weights.items()}


def other(weights):
    return {f"model.{name}": value + 1 for name, value in weights.items()}


FORMS = {
    "self-forcing.pt": lambda w: {"generator_ema": under(w, fsdp)},
    "longlive.pt": lambda w: {
        "generator": under(w, "model.{}".format),
        "generator_ema": other(w),
        "step": torch.tensor(3),
    },
    "causal-forcing.pt": lambda w: {"generator": under(w, "model.{}".format), "critic": {"model.x": torch.ones(2)}},
    "raven.pt": lambda w: dict(w),
    "nested.pt": lambda w: {"model": dict(w), "epoch": 4},
    "compiled.pth": lambda w: {"state_dict": under(w, "module._orig_mod.model.{}".format)},
    "comfy.safetensors": lambda w: under(w, "model.diffusion_model.{}".format),
    "krea.safetensors": lambda w: under(w, "model.{}".format),
}


def write(path, data):
    save_file(
        {name: value.contiguous() for name, value in data.items()}, path
    ) if path.suffix == ".safetensors" else torch.save(data, path)
    return path


def stream(golden, transformer, chunks=2):
    loaded = parity.load(golden)
    loaded.model = dataclasses.replace(loaded.model, transformer=CausalTransformer(transformer))
    running = loaded.stream(Full())
    return torch.stack([running.step().latents[0] for _ in range(chunks)])


@pytest.fixture(scope="module")
def streamed(golden, base, plain):
    return stream(golden, from_wan_names(plain, base.original))


@pytest.mark.parametrize("form", FORMS)
def test_every_form_streams_like_the_plain_state_dict(form, golden, base, plain, streamed, tmp_path):
    path = write(tmp_path / form, FORMS[form](plain))
    loaded = load_transformer(path, base, key="generator" if form == "longlive.pt" else "generator_ema")
    assert torch.equal(stream(golden, loaded), streamed)


def test_golden_latents_come_out_of_the_loader(golden, base, plain, tmp_path):
    loaded = load_transformer(write(tmp_path / "sf.pt", FORMS["self-forcing.pt"](plain)), base)
    expected = load_file(golden / "expected_full.safetensors")["latents"][:3]
    assert (stream(golden, loaded, 3) - expected).abs().max() < 1e-4


def test_old_pickles_and_16_bit_files_are_read(base, plain, tmp_path):
    torch.save(plain, tmp_path / "old.pt", _use_new_zipfile_serialization=False)
    halves = {name: value.bfloat16() for name, value in plain.items()}
    for path in (tmp_path / "old.pt", write(tmp_path / "half.safetensors", under(halves, "model.{}".format))):
        loaded = load_transformer(path, base, precision="bf16")
        assert torch.equal(loaded.blocks[0].attn1.to_q.weight, plain["blocks.0.self_attn.q.weight"].bfloat16())


def test_precision(golden, base, plain, streamed, tmp_path):
    path = write(tmp_path / "plain.pt", plain)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        wide = load_transformer(path, base, precision="bf16")
        narrow = load_transformer(path, base, precision="fp8")
    kept = {name for name, value in wide.named_parameters() if value.dtype == torch.float32}
    assert kept == {n for n, _ in wide.named_parameters() if re.search(r"time_embedder|scale_shift_table|norm2", n)}
    eight = {name for name, value in narrow.named_parameters() if value.dtype == torch.float8_e4m3fn}
    assert len(eight) == 6 * base.layers and all(name.endswith("weight") for name in eight)
    first, second = (stream(golden, model, 1).float() for model in (wide, narrow))
    assert 0 < (first - streamed[:1]).abs().mean() < (second - streamed[:1]).abs().mean() < 0.1


# Adapters.

TARGETS = re.compile(r"blocks\.\d+\.(self_attn|cross_attn)\.[qkvo]\.weight|blocks\.\d+\.ffn\.[02]\.weight")


def pairs(weights, rank=4, rename="base_model.model.{}".format):
    torch.manual_seed(1)
    out = {}
    for name in filter(TARGETS.fullmatch, weights):
        rows, cols = weights[name].shape
        stem = rename(name.removesuffix(".weight"))
        out |= {
            f"{stem}.lora_A.weight": torch.randn(rank, cols) * 0.1,
            f"{stem}.lora_B.weight": torch.randn(rows, rank) * 0.1,
        }
    return out


def merged_by_hand(weights, lora, scale):
    stem = "base_model.model.{}".format
    product = lambda name: lora[stem(f"{name[:-7]}.lora_B.weight")] @ lora[stem(f"{name[:-7]}.lora_A.weight")]
    return {
        name: value + scale * product(name) if TARGETS.fullmatch(name) else value for name, value in weights.items()
    }


@pytest.mark.parametrize("alpha, scale", [(None, 1.0), (4, 1.0), (2, 0.5)])
def test_an_adapter_is_merged_before_the_cast(alpha, scale, base, plain, tmp_path):
    lora = pairs(plain)
    files = (
        write(tmp_path / "base.pt", FORMS["longlive.pt"](plain)),
        write(tmp_path / "lora.pt", {"generator_lora": lora, "other": {}}),
    )
    expected = from_wan_names(merged_by_hand(plain, lora, scale), base.original)
    exact = load_transformer(files[0], base, "generator", files[1], alpha)
    cast = load_transformer(files[0], base, "generator", files[1], alpha, precision="bf16")
    for name, value in expected.named_parameters():
        assert torch.allclose(exact.get_parameter(name), value, atol=1e-6), name
        assert torch.equal(
            cast.get_parameter(name).float(), exact.get_parameter(name).to(cast.get_parameter(name).dtype).float()
        ), name
    assert sum(bool(TARGETS.fullmatch(name)) for name in plain) == 10 * base.layers


def test_an_adapter_is_merged_as_peft_merges_it(base, plain, tmp_path):
    model = from_wan_names({name: value.clone() for name, value in plain.items()}, base.original)
    names = write(tmp_path / "base.safetensors", {name: value.clone() for name, value in model.state_dict().items()})
    config = peft.LoraConfig(
        r=4, lora_alpha=8, target_modules=["to_q", "to_k", "to_v", "to_out.0", "ffn.net.0.proj", "ffn.net.2"]
    )
    wrapped = peft.get_peft_model(model, config)
    for name, value in wrapped.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(value, std=0.1)
    apart = write(tmp_path / "lora.safetensors", peft.get_peft_model_state_dict(wrapped))
    bundle = write(tmp_path / "bundle.pt", wrapped.state_dict())
    expected = wrapped.merge_and_unload()
    for loaded in (
        load_transformer(names, base, lora=apart, lora_alpha=8),
        load_transformer(bundle, base, lora_alpha=8),
    ):
        for name, value in expected.named_parameters():
            assert torch.allclose(loaded.get_parameter(name), value, atol=1e-6), name


def test_memory_holds_the_weights_once(base, plain, tmp_path):
    files = (
        write(tmp_path / "base.pt", FORMS["self-forcing.pt"](plain)),
        write(tmp_path / "lora.pt", {"generator_lora": pairs(plain)}),
    )
    with Peak("cpu") as peak:
        loaded = load_transformer(files[0], base, lora=files[1], precision="bf16")
    size = sum(value.nbytes for value in loaded.parameters())
    assert size * 0.9 < peak.bytes < 1.2 * size


# What cannot be loaded.


def refused(call) -> str:
    with pytest.raises(CheckpointError) as error:
        call()
    assert "\n" not in str(error.value)
    return str(error.value)


def test_another_base_is_named(base, plain, tmp_path):
    path = write(tmp_path / "other.pt", plain)
    message = refused(lambda: load_transformer(path, BASES["wan-1.3b"]))
    assert "of a model with 4 layers of dimension 128, not of wan-1.3b" in message
    assert "not of a Wan transformer" in refused(
        lambda: load_transformer(write(tmp_path / "no.pt", {"a": torch.ones(2)}), base)
    )
    images = plain | {"blocks.0.cross_attn.k_img.weight": torch.ones(2)}
    assert "image-to-video" in refused(lambda: load_transformer(write(tmp_path / "i2v.pt", images), base))


def test_missing_and_unexpected_weights_are_counted_and_the_first_named(base, plain, tmp_path):
    wrong = {name: value for name, value in plain.items() if name not in ("head.modulation", "blocks.1.ffn.0.bias")}
    wrong |= {"extra.weight": torch.ones(2), "blocks.2.ffn.2.bias": torch.ones(3)}
    path = write(tmp_path / "wrong.pt", wrong)
    for call in (lambda: load_transformer(path, base), lambda: check_file(path, base)):
        message = refused(call)
        for part in (
            "2 missing, first scale_shift_table",
            "1 unexpected, first extra.weight",
            "1 of another shape, first blocks.2.ffn.net.2.bias has shape (3,), not (128,)",
        ):
            assert part in message


def test_an_adapter_that_does_not_fit_is_refused(base, plain, tmp_path):
    path, lora = write(tmp_path / "base.pt", plain), pairs(plain)
    first, stem = next(iter(lora)), "base_model.model.blocks.9.self_attn.q"

    def message(data):
        return refused(lambda: load_transformer(path, base, lora=write(tmp_path / "lora.pt", {"generator_lora": data})))

    stray = {f"{stem}.lora_A.weight": torch.ones(4, 8), f"{stem}.lora_B.weight": torch.ones(8, 4)}
    assert "blocks.9.self_attn.q.weight" in message(lora | stray)
    assert "only lora_B" in message({name: value for name, value in lora.items() if name != first})
    assert "does not fit (128, 128)" in message(lora | {first: torch.ones(4, 7)})
    assert "no LoRA adapter" in message({"a": torch.ones(2)})


class Payload:
    """Makes a file when a pickle of it is loaded carelessly."""

    def __init__(self, mark):
        self.mark = str(mark)

    def __reduce__(self):
        return os.mkdir, (self.mark,)


def test_code_in_a_pickle_is_not_run(tmp_path):
    mark = tmp_path / "ran"
    torch.save({"generator_ema": {"a": torch.ones(2)}, "config": Payload(mark)}, tmp_path / "zip.pt")
    (tmp_path / "raw.pt").write_bytes(pickle.dumps({"config": Payload(mark)}, protocol=2))
    for name in ("zip.pt", "raw.pt"):
        assert "mkdir); nothing in it was run" in refused(lambda name=name: read(tmp_path / name))
    assert not mark.exists()


@pytest.mark.parametrize("name", ["a.pt", "a.safetensors"])
def test_half_downloaded_and_foreign_files_are_told(name, plain, tmp_path):
    path = write(tmp_path / name, plain)
    whole = path.read_bytes()
    for content in (whole[: len(whole) // 2], whole[:-1], b""):
        path.write_bytes(content)
        message = refused(lambda: read(path))
        assert "download it again" in message and "delete" not in message
    path.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\n")
    assert "Git LFS pointer" in refused(lambda: read(path))
    path.unlink()
    assert "No such file" in refused(lambda: read(path))


def test_a_file_without_weights_says_what_it_holds():
    assert "it holds step" in refused(lambda: state_dict({"step": 3}))
    assert "it holds a list" in refused(lambda: state_dict([1]))
    assert "twice" in refused(lambda: state_dict({"model.a": torch.ones(1), "a": torch.ones(1)}))
    assert not is_part("a.weight")


# Files that will not do are refused shortly, by content, from names and shapes alone.


def split(weights, folder, names=("model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors")):
    """Save weights as two shards with an index."""
    folder.mkdir()
    halves = [dict(list(weights.items())[i::2]) for i in range(2)]
    for name, half in zip(names, halves, strict=True):
        write(folder / name, half)
    index = {
        "metadata": {},
        "weight_map": {key: name for name, half in zip(names, halves, strict=True) for key in half},
    }
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    return folder


def test_shards_are_read_through_their_index_or_folder(base, plain, tmp_path):
    folder = split(plain, tmp_path / "shards")
    expected = from_wan_names(plain, base.original)
    for path in (folder, folder / "model.safetensors.index.json"):
        check_file(path, base)
        loaded = load_transformer(path, base)
        assert all(torch.equal(loaded.get_parameter(name), value) for name, value in expected.named_parameters())
    assert [file.name[:11] for file in files_of(folder)] == ["model-00001", "model-00002"]


def test_a_shard_alone_and_missing_shards_are_told(base, plain, tmp_path):
    folder = split(plain, tmp_path / "shards")
    for number in (1, 2):
        path = folder / f"model-0000{number}-of-00002.safetensors"
        assert f"is shard {number} of 2; give the folder" in refused(lambda path=path: check_file(path, base))
    path.unlink()
    message = refused(lambda: check_file(folder, base))
    assert "names 2 shards, of which 1 are not beside it, first model-00002-of-00002.safetensors" in message
    (folder / "model.safetensors.index.json").unlink()
    write(folder / "other.safetensors", plain)
    assert "has 2 files of weights" in refused(lambda: check_file(folder, base))
    assert "has no weights in it" in refused(lambda: check_file(tmp_path, base))


CONTENTS = {
    "GGUF": (b"GGUF" + bytes(200), "is a GGUF file, which is not read"),
    "a page": (b"\n<!DOCTYPE html><html>", "is a web page, not weights"),
    "JSON": (b'{"architectures": ["Wan"]}', "is a JSON file but no index of weights"),
    "a list": (b'{"weight_map": [1, 2]}', "is a JSON file but no index of weights"),
    "gzip": (b"\x1f\x8b\x08" + bytes(99), "is a gzip archive; unpack it"),
    "nothing": (b"", "is incomplete or no PyTorch checkpoint"),
    "noise": (bytes(range(1, 255)), "is incomplete or no PyTorch checkpoint"),
}


@pytest.mark.parametrize("name", ["x.safetensors", "x.gguf", "x.pt", "x"])
@pytest.mark.parametrize("kind", CONTENTS)
def test_files_are_told_by_content_and_never_to_be_deleted(kind, name, base, tmp_path):
    content, words = CONTENTS[kind]
    path = tmp_path / name
    path.write_bytes(content)
    message = refused(lambda: check_file(path, base))
    assert words in message and "delete" not in message and len(message) <= 300


def test_endings_do_not_matter(base, plain, tmp_path):
    for saved, name in (("a.pt", "b.safetensors"), ("c.safetensors", "d.pt"), ("e.safetensors", "f.SAFETENSORS")):
        path = write(tmp_path / saved, plain).rename(tmp_path / name)
        check_file(path, base)
        assert torch.equal(load_transformer(path, base).proj_out.bias, plain["head.head.bias"])


def test_an_archive_is_not_called_incomplete(base, tmp_path):
    with zipfile.ZipFile(tmp_path / "weights.zip", "w") as archive:
        archive.writestr("weights.safetensors", b"...")
    assert "is a zip archive but no PyTorch checkpoint" in refused(lambda: check_file(tmp_path / "weights.zip", base))


def image_to_video(weights):
    patch = weights["patch_embedding.weight"]
    return weights | {"patch_embedding.weight": patch.repeat(1, 3, 1, 1, 1)[:, : patch.shape[1] + 20]}


OTHERS = {
    "Wan 2.2 image-to-video": (image_to_video, "takes latents of 36 channels instead of 16, as image-to-video"),
    "image-to-video": (lambda w: w | {"img_emb.proj.0.weight": torch.ones(2)}, "image-to-video checkpoint"),
    "diffusers' image-to-video": (lambda w: w | {"blocks.0.attn2.add_k_proj.weight": torch.ones(2)}, "image-to-video"),
    "VACE": (lambda w: w | {"vace_blocks.0.before_proj.weight": torch.ones(2)}, "is a VACE checkpoint"),
    "scaled fp8": (
        lambda w: w | {f"{n[:-7]}.scale_weight": torch.ones(()) for n in w if n.endswith(".weight")},
        "bf16",
    ),
    "4 bits": (lambda w: w | {"blocks.0.ffn.0.weight.absmax": torch.ones(2)}, "8 or 4 bits"),
    "half": (lambda w: dict(list(w.items())[:9]) | {"patch_embedding.weight": w["patch_embedding.weight"]}, "missing"),
    "other names": (lambda w: {n.replace("blocks", "layers"): v for n, v in w.items()}, "missing, first blocks.0."),
}


@pytest.mark.parametrize("kind", OTHERS)
def test_other_kinds_of_checkpoints_are_refused_from_names_and_shapes(kind, base, plain, tmp_path):
    change, words = OTHERS[kind]
    path = write(tmp_path / f"{'a' * 60}.safetensors", change(plain))
    message = refused(lambda: check_file(path, base))
    assert words in message and len(message) <= 300


def test_nothing_is_downloaded_for_a_checkpoint_that_will_not_do(monkeypatch, tmp_path):
    monkeypatch.setattr(wan, "fetch", lambda source: pytest.fail(f"{source.file} was downloaded"))
    monkeypatch.setattr(wan.fit, "check", lambda *arguments: None)
    names = {name: [1] for name in empty_model(BASES["wan-1.3b"].original).state_dict()}
    header = json.dumps(
        {name: {"dtype": "F32", "shape": [1], "data_offsets": [4 * i, 4 * i + 4]} for i, name in enumerate(names)}
    ).encode()
    path = tmp_path / "x.safetensors"
    path.write_bytes(len(header).to_bytes(8, "little") + header + bytes(4 * len(names)))
    with pytest.raises(ValueError, match="not of wan-1.3b"):
        registry.load_checkpoint(path, "wan-1.3b")
    shape = [1536, 16, 1, 2, 2]
    spec = {"patch_embedding.weight": {"dtype": "F32", "shape": shape, "data_offsets": [0, 4 * math.prod(shape)]}}
    header = json.dumps(spec).encode()
    path.write_bytes(len(header).to_bytes(8, "little") + header + bytes(4 * math.prod(shape)))
    with pytest.raises(ValueError, match="824 missing, first scale_shift_table"):
        registry.load_checkpoint(path, "wan-1.3b")


HARMLESS = {
    "a loss": lambda: np.float64(0.1),
    "arguments": lambda: argparse.Namespace(lr=1e-4),
    "a path": lambda: Path("/tmp/run"),
    "an array": lambda: np.ones(3),
}


@pytest.mark.parametrize("kind", HARMLESS)
def test_a_training_run_with_harmless_objects_is_told_how_to_save_its_weights(kind, base, plain, tmp_path):
    path = tmp_path / "run.pt"
    torch.save({"model": plain, "beside": HARMLESS[kind]()}, path)
    message = refused(lambda: check_file(path, base))
    assert "holds more than tensors" in message and len(message) <= 300
    line = (
        message.partition("'model' by your key): ")[2]
        .replace("'run.pt'", repr(str(path)))
        .replace("weights.pt", str(tmp_path / "w.pt"))
    )
    exec(line, {"torch": torch})
    check_file(tmp_path / "w.pt", base)


def test_a_harmless_object_does_not_vouch_for_others(tmp_path):
    torch.save({"a": np.float64(1), "config": Payload(tmp_path / "ran")}, tmp_path / "x.pt")
    message = refused(lambda: read(tmp_path / "x.pt"))
    assert "from a source that you trust" in message and "weights_only=False" not in message
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("length", [97056, 80928])
def test_a_header_whose_length_reads_as_text_is_still_one(length, tmp_path):
    path = tmp_path / "x.safetensors"
    header = json.dumps({"w": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}).encode().ljust(length)
    path.write_bytes(length.to_bytes(8, "little") + header + bytes(4))
    assert path.read_bytes()[:2] in (b" {", b" <")
    assert list(read(path)) == ["w"]


def test_weights_without_names_are_refused(tmp_path):
    torch.save({0: torch.ones(2)}, tmp_path / "x.pt")
    assert "must have names, one is called 0" in refused(lambda: state_dict(read(tmp_path / "x.pt")))
    assert "is too large a number" in refused(lambda: state_dict({"a.alpha": 10**400, "a": torch.ones(2)}))


def test_an_unknown_option_of_a_model_is_refused_in_words():
    with pytest.raises(ValueError, match="models have no option 'foo'; they have resolution, decoder"):
        registry.load("self-forcing", foo="x")


def test_a_config_of_another_form_is_a_damaged_part(tmp_path):
    with pytest.raises(ValueError, match="the VAE in .* is missing or damaged"), loading("the VAE", tmp_path, "again"):
        [].get("sample_size")


def test_an_error_of_the_network_without_text_is_named(monkeypatch):
    def fails(*arguments, **options):
        raise TimeoutError

    monkeypatch.setattr(download, "_reachable", lambda: True)
    monkeypatch.setattr(download, "_check_room", lambda *arguments: None)
    monkeypatch.setattr(download, "_download", fails)
    with pytest.raises(download.DownloadError, match=r"failed \(TimeoutError\)"):
        download.fetch(Source("nobody/nothing", "x.safetensors", 1.0))
