"""Adapters in every form in which those of Wan are passed round: the right weights, or a sentence."""

from __future__ import annotations

import json
import re

import peft
import pytest
import torch
from safetensors.torch import save_file

from fkv.models.checkpoints import check_file, load_transformer
from fkv.models.convert import diffusers_names, empty_model, from_wan_names, original_modules
from fkv.models.release import BASES, Lora
from fkv.models.weight_files import CheckpointError

LAYERS = re.compile(r"blocks\.\d+\.(self_attn|cross_attn)\.[qkvo]\.weight|blocks\.\d+\.ffn\.[02]\.weight")
RANK = 4


@pytest.fixture(scope="module")
def stems(plain) -> list[str]:
    return [name.removesuffix(".weight") for name in plain if LAYERS.fullmatch(name)]


@pytest.fixture(scope="module")
def down(plain, stems) -> dict[str, torch.Tensor]:
    torch.manual_seed(1)
    return {stem: torch.randn(RANK, plain[f"{stem}.weight"].shape[1]) * 0.1 for stem in stems}


@pytest.fixture(scope="module")
def up(plain, stems) -> dict[str, torch.Tensor]:
    torch.manual_seed(2)
    return {stem: torch.randn(plain[f"{stem}.weight"].shape[0], RANK) * 0.1 for stem in stems}


@pytest.fixture(scope="module")
def checkpoint(plain, tmp_path_factory):
    path = tmp_path_factory.mktemp("checkpoint") / "base.safetensors"
    save_file(plain, path)
    return path


@pytest.fixture(scope="module", params=["original names", "diffusers names"])
def either(request, checkpoint, plain, tmp_path_factory):
    """A checkpoint of either naming."""
    if request.param == "original names":
        return checkpoint
    path = tmp_path_factory.mktemp("diffusers") / "base.safetensors"
    save_file({new: plain[old].clone() for new, old in diffusers_names(plain).items()}, path)
    return path


@pytest.fixture
def right(base, plain, down, up):
    """The model with the low-rank products added at a scale, and what else is to be added by original name."""

    def make(scale, **more):
        weights = {name: value.clone() for name, value in plain.items()}
        for stem in down:
            weights[f"{stem}.weight"] += scale * (up[stem] @ down[stem])
        for name, value in more.items():
            weights[name] += value
        return from_wan_names(weights, base.original)

    return make


def save(path, data, header=None):
    if path.suffix == ".safetensors":
        save_file({name: value.contiguous() for name, value in data.items()}, path, header)
    else:
        torch.save(data, path)
    return path


def equal(model, expected):
    for name, value in expected.named_parameters():
        assert (model.get_parameter(name) - value).abs().max() < 2e-6, name


def refused(call) -> str:
    with pytest.raises(CheckpointError) as error:
        call()
    assert "\n" not in str(error.value) and len(str(error.value)) <= 300
    return str(error.value)


def pairs(down, up, form):
    """An adapter under names that `form` gives for a layer and a half (A or B)."""
    halves = {"A": down, "B": up}
    return {form(stem, half): value for half, values in halves.items() for stem, value in values.items()}


def diffusers(stem):
    return next(iter(diffusers_names([f"{stem}.weight"]))).removesuffix(".weight")


UP = {"A": "down", "B": "up"}
FORMS = {
    "comfy": lambda stem, half: f"diffusion_model.{stem}.lora_{half}.weight",
    "comfy, up and down": lambda stem, half: f"diffusion_model.{stem}.lora_{UP[half]}.weight",
    "model.diffusion_model": lambda stem, half: f"model.diffusion_model.{stem}.lora_{half}.weight",
    "peft": lambda stem, half: f"base_model.model.{stem}.lora_{half}.weight",
    "peft in training": lambda stem, half: f"base_model.model.{stem}.lora_{half}.default.weight",
    "peft, named": lambda stem, half: f"base_model.model.{stem}.lora_{half}.style-2.weight",
    "diffusers": lambda stem, half: f"transformer.{diffusers(stem)}.lora_{half}.weight",
    "diffusers, bare": lambda stem, half: f"{diffusers(stem)}.lora_{half}.weight",
    "diffusers, old": lambda stem, half: f"transformer.{diffusers(stem)}.lora.{UP[half]}.weight",
    "original, bare": lambda stem, half: f"{stem}.lora_{half}.weight",
    "DiffSynth": lambda stem, half: f"pipe.dit.{stem}.lora_{half}.default.weight",
    "kohya": lambda stem, half: f"lora_unet_{stem.replace('.', '_')}.lora_{UP[half]}.weight",
    "kohya, diffusers": lambda stem, half: f"lora_transformer_{diffusers(stem).replace('.', '_')}.lora_{half}.weight",
    "wrapped": lambda stem, half: f"module._orig_mod.{stem}.lora_{half}.weight",
}


@pytest.mark.parametrize("form", FORMS)
def test_every_form_of_names_is_merged_into_checkpoints_of_either_naming(form, base, either, down, up, right, tmp_path):
    file = save(tmp_path / "lora.safetensors", pairs(down, up, FORMS[form]))
    check_file(either, base, file)
    equal(load_transformer(either, base, lora=file), right(1))


@pytest.mark.parametrize("ending", [".bin", ".pt", ".ckpt"])
def test_pytorch_files_and_mixed_forms_are_merged(ending, base, checkpoint, down, up, right, tmp_path):
    forms = list(FORMS.values())
    data = {}
    for number, stem in enumerate(down):
        data |= pairs({stem: down[stem]}, {stem: up[stem]}, forms[number % len(forms)])
    data = {name.replace("style-2", "default"): value for name, value in data.items()}
    equal(load_transformer(checkpoint, base, lora=save(tmp_path / f"lora{ending}", data)), right(1))


@pytest.mark.parametrize("form", ["comfy, up and down", "kohya", "diffusers", "peft"])
def test_alphas_of_layers_scale_them(form, base, checkpoint, down, up, right, tmp_path):
    data = pairs(down, up, FORMS[form])
    alphas = {re.sub(r"\.lora_.*", ".alpha", name): torch.tensor(2.0, dtype=torch.bfloat16) for name in data}
    file = save(tmp_path / "lora.safetensors", data | alphas, {"ss_network_alpha": "16"})
    equal(load_transformer(checkpoint, base, lora=file), right(0.5))
    equal(load_transformer(checkpoint, base, lora=file, lora_alpha=64), right(0.5))


def test_alphas_that_are_plain_numbers_of_a_pytorch_file_scale_too(base, checkpoint, down, up, right, tmp_path):
    data = pairs(down, up, FORMS["comfy"]) | {f"diffusion_model.{stem}.alpha": 2.0 for stem in down}
    equal(load_transformer(checkpoint, base, lora=save(tmp_path / "lora.pt", data)), right(0.5))
    data = {"lora_alpha": 8, "state_dict": pairs(down, up, FORMS["peft"])}
    equal(load_transformer(checkpoint, base, lora=save(tmp_path / "nested.pt", data)), right(2))


HEADERS = {
    "kohya": ({"ss_network_alpha": "2.0", "ss_network_dim": "4"}, 0.5),
    "a bare key": ({"lora_alpha": "8"}, 2.0),
    "diffusers": ({"lora_adapter_metadata": json.dumps({"transformer.r": 4, "transformer.lora_alpha": 12})}, 3.0),
    "stabilized": ({"lora_adapter_metadata": json.dumps({"lora_alpha": 4, "use_rslora": True})}, 2.0),
    "by layer": ({"lora_adapter_metadata": json.dumps({"lora_alpha": 1, "alpha_pattern": {r"blocks.*": 2}})}, 0.5),
    "none": ({"ss_network_alpha": "Dynamic", "format": "pt"}, 1.0),
}


@pytest.mark.parametrize("case", HEADERS)
def test_the_alpha_of_the_header_scales_every_layer(case, base, checkpoint, down, up, right, tmp_path):
    header, scale = HEADERS[case]
    file = save(tmp_path / "lora.safetensors", pairs(down, up, FORMS["diffusers"]), header)
    equal(load_transformer(checkpoint, base, lora=file), right(scale))
    equal(load_transformer(checkpoint, base, lora=Lora(file, 0.5)), right(scale / 2))


def own_model(plain, base):
    """A model whose weights can be changed."""
    return from_wan_names({name: value.clone() for name, value in plain.items()}, base.original)


def peft_model(plain, base, **options):
    layers = ["to_q", "to_k", "to_v", "to_out.0", "ffn.net.0.proj", "ffn.net.2"]
    config = peft.LoraConfig(r=RANK, target_modules=layers, **options)
    model = peft.get_peft_model(own_model(plain, base), config)
    torch.manual_seed(3)
    for name, value in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(value, std=0.1)
        if "magnitude" in name:
            value.data *= 1 + 0.2 * torch.rand_like(value)
    return model


PEFT = {
    "alpha": {"lora_alpha": 8},
    "patterns": {"lora_alpha": 8, "alpha_pattern": {"attn1.to_q": 2, "ffn.net.2": 16}, "rank_pattern": {"to_v": 2}},
    "stabilized": {"lora_alpha": 8, "use_rslora": True},
    "DoRA": {"lora_alpha": 8, "use_dora": True},
    "biases": {"lora_alpha": 8, "lora_bias": True},
}


@pytest.mark.parametrize("case", PEFT)
def test_folders_that_peft_saves_are_merged_as_peft_merges_them(case, base, either, plain, tmp_path):
    model = peft_model(plain, base, **PEFT[case])
    model.save_pretrained(tmp_path)
    merged = model.merge_and_unload()
    for lora in (tmp_path, tmp_path / "adapter_model.safetensors"):
        equal(load_transformer(either, base, lora=lora), merged)


def test_files_that_diffusers_saves_are_merged_as_diffusers_fuses_them(base, checkpoint, plain, tmp_path):
    model = own_model(plain, base)
    torch.manual_seed(4)
    config = peft.LoraConfig(r=RANK, lora_alpha=6, target_modules=["to_q", "proj_out"], init_lora_weights=False)
    model.add_adapter(config, "style")
    model.save_lora_adapter(tmp_path, adapter_name="style")
    model.fuse_lora(adapter_names=["style"], lora_scale=0.5)
    fused = {n.replace(".base_layer", ""): v for n, v in model.named_parameters() if "lora_" not in n}
    [file] = tmp_path.glob("*.safetensors")
    loaded = load_transformer(checkpoint, base, lora=f"{file}:0.5")
    for name, value in loaded.named_parameters():
        assert torch.allclose(value, fused[name], atol=2e-6), name


def test_differences_of_weights_and_biases_are_added(base, either, plain, down, up, right, tmp_path):
    more = {
        "blocks.1.self_attn.norm_q.weight": torch.full_like(plain["blocks.1.self_attn.norm_q.weight"], 0.5),
        "blocks.2.norm3.weight": torch.full_like(plain["blocks.2.norm3.weight"], 0.25),
        "blocks.0.modulation": torch.full_like(plain["blocks.0.modulation"], 2.0),
        "head.head.weight": torch.full_like(plain["head.head.weight"], -1.0),
        "patch_embedding.weight": torch.full_like(plain["patch_embedding.weight"], 0.125),
        "blocks.0.ffn.0.bias": torch.ones_like(plain["blocks.0.ffn.0.bias"]),
        "time_projection.1.bias": torch.ones_like(plain["time_projection.1.bias"]),
        "blocks.3.norm3.bias": torch.ones_like(plain["blocks.3.norm3.bias"]),
    }
    data = pairs(down, up, FORMS["comfy, up and down"])
    for name, value in more.items():
        stem, _, what = name.rpartition(".")
        part = {"weight": f"{stem}.diff", "bias": f"{stem}.diff_b"}.get(what, f"{name}.diff")
        data[f"diffusion_model.{part}"] = value
    file = save(tmp_path / "lora.safetensors", data)
    check_file(either, base, file)
    equal(load_transformer(either, base, lora=file), right(1, **more))
    halves = {name: 0.5 * value for name, value in more.items()}
    equal(load_transformer(either, base, lora=f"{file}:0.5"), right(0.5, **halves))


def test_the_patch_embedding_is_adapted_as_the_convolution_that_it_is(base, checkpoint, plain, tmp_path):
    torch.manual_seed(5)
    weight = plain["patch_embedding.weight"]
    halves = torch.randn(RANK, *weight.shape[1:]), torch.randn(len(weight), RANK, 1, 1, 1)
    names = ("patch_embedding.lora_down.weight", "patch_embedding.lora_up.weight")
    file = save(tmp_path / "lora.safetensors", dict(zip(names, halves, strict=True)))
    product = torch.einsum("rcthw,orxyz->octhw", *halves)
    expected = from_wan_names(plain | {"patch_embedding.weight": weight + product}, base.original)
    equal(load_transformer(checkpoint, base, lora=file), expected)


@pytest.mark.parametrize("strength", [1.0, 0.5, -1.0])
def test_dora_rescales_the_rows_of_merged_weights(strength, base, checkpoint, plain, down, up, tmp_path):
    stem = "blocks.0.ffn.0"
    weight = plain[f"{stem}.weight"]
    changed = weight + up[stem] @ down[stem]
    magnitude = 1 + torch.rand(len(weight))
    rescaled = changed * (magnitude / changed.norm(dim=1))[:, None]
    expected = from_wan_names(plain | {f"{stem}.weight": weight + strength * (rescaled - weight)}, base.original)
    data = pairs({stem: down[stem]}, {stem: up[stem]}, FORMS["comfy"])
    for name, value in (("dora_scale", magnitude[:, None]), ("lora_magnitude_vector", magnitude)):
        file = save(tmp_path / "lora.safetensors", data | {f"diffusion_model.{stem}.{name}": value})
        equal(load_transformer(checkpoint, base, lora=Lora(file, strength)), expected)


def test_several_adapters_add_up_at_their_strengths(base, checkpoint, down, up, right, tmp_path):
    one = save(tmp_path / "one.safetensors", pairs(down, up, FORMS["kohya"]))
    two = save(tmp_path / "two.pt", pairs(down, up, FORMS["diffusers"]))
    equal(load_transformer(checkpoint, base, lora=[one, f"{two}:0.5"]), right(1.5))
    equal(load_transformer(checkpoint, base, lora=[f"{one}:-1", two]), right(0))


def test_an_adapter_in_a_checkpoint_is_merged_beside_one_of_ones_own(base, plain, down, up, right, tmp_path):
    path = save(tmp_path / "bundle.pt", plain | pairs(down, up, FORMS["original, bare"]))
    file = save(tmp_path / "lora.safetensors", pairs(down, up, FORMS["comfy"]))
    equal(load_transformer(path, base), right(1))
    equal(load_transformer(path, base, lora=file), right(2))


def test_strengths_are_read_after_the_last_colon(tmp_path):
    assert Lora.parse("a.safetensors:0.5").strength == 0.5 and str(Lora.parse("x/a.pt:-2e-1")) == "a.pt:-0.2"
    assert Lora.parse(r"C:\loras\a.safetensors").strength == 1
    odd = tmp_path / "a:2"
    odd.touch()
    assert Lora.parse(str(odd)).strength == 1 and Lora.parse(f"{odd}:3") == Lora(odd, 3.0)
    for text in ("a.safetensors:strong", "a.safetensors:", "a.safetensors:nan"):
        with pytest.raises(ValueError, match="--lora takes FILE|strength of an adapter"):
            Lora.parse(text)


UNUSED = {
    "LoHa": ("blocks.0.ffn.0.hada_w1_a", torch.ones(4, 4)),
    "LoKr": ("lora_unet_blocks_0_ffn_0.lokr_w1", torch.ones(4, 4)),
    "a whole weight": ("base_model.model.head.head.modules_to_save.default.weight", torch.ones(4, 4)),
    "a text encoder's": ("text_encoder.layers.0.q.hada_w2_b", torch.ones(4, 4)),
    "a shape": ("diffusion_model.patch_embedding.reshape_weight", torch.ones(5)),
    "a bias of A": ("blocks.0.ffn.0.lora_A.bias", torch.ones(4)),
    "an alpha alone": ("diffusion_model.head.head.alpha", torch.ones(())),
    "a magnitude alone": ("diffusion_model.head.head.dora_scale", torch.ones(4)),
}


@pytest.mark.parametrize("case", UNUSED)
def test_a_tensor_that_is_not_used_refuses_the_file(case, base, checkpoint, down, up, tmp_path):
    name, value = UNUSED[case]
    file = save(tmp_path / "lora.safetensors", pairs(down, up, FORMS["comfy"]) | {name: value})
    for call in (lambda: check_file(checkpoint, base, file), lambda: load_transformer(checkpoint, base, lora=file)):
        message = refused(call)
        assert "lora.safetensors holds 1 tensor that cannot be used, first " in message
        assert name.rpartition(".")[2] in message


STRANGE = {
    "blocks.99.self_attn.q.lora_A.weight": "of another model",
    "diffusion_model.blocks.0.cross_attn.k_img.lora_down.weight": "of another model",
    "lora_te_text_model_layers_0_q.lora_A.weight": "of another model",
    "blocks.0.self_attn.q.lora_A.other.weight": "several adapters (default, other)",
}


@pytest.mark.parametrize("name", STRANGE)
def test_adapters_of_another_model_are_refused_shortly(name, base, checkpoint, down, up, tmp_path):
    data = pairs(down, up, FORMS["peft in training"])
    half = name.replace("lora_A", "lora_B").replace("lora_down", "lora_up")
    data |= {name: torch.ones(RANK, 8), half: torch.ones(8, RANK)}
    file = save(tmp_path / "lora.safetensors", data)
    assert STRANGE[name] in refused(lambda: check_file(checkpoint, base, file))


def test_an_adapter_of_many_strange_layers_is_refused_in_a_short_sentence(base, checkpoint, tmp_path):
    many = {f"blocks.{i}.self_attn.q": torch.ones(4, 4) for i in range(100, 400)}
    file = save(tmp_path / "lora.pt", pairs(many, many, FORMS["comfy"]))
    message = refused(lambda: check_file(checkpoint, base, file))
    assert "changes 300 weights that the model does not have, first blocks.100.self_attn.q.weight" in message


def test_an_adapter_that_would_change_nothing_or_break_the_weights_is_refused(base, checkpoint, down, up, tmp_path):
    empty = {stem: value[:0] for stem, value in down.items()}, {stem: value[:, :0] for stem, value in up.items()}
    file = save(tmp_path / "rank 0.safetensors", pairs(*empty, FORMS["comfy"]))
    assert "x (0, " in refused(lambda: check_file(checkpoint, base, file))
    broken = {stem: value * torch.nan for stem, value in up.items()}
    file = save(tmp_path / "nan.safetensors", pairs(down, broken, FORMS["comfy"]))
    message = refused(lambda: load_transformer(checkpoint, base, lora=file))
    assert "is not finite once the adapter is merged" in message


@pytest.mark.parametrize("alpha", [torch.nan, torch.inf])
def test_an_alpha_that_is_no_number_is_refused(alpha, base, checkpoint, down, up, tmp_path):
    alphas = {f"diffusion_model.{stem}.alpha": torch.tensor(alpha) for stem in down}
    file = save(tmp_path / "lora.safetensors", pairs(down, up, FORMS["comfy"]) | alphas)
    message = refused(lambda: load_transformer(checkpoint, base, lora=file))
    assert f"alpha is {alpha}, so its strength is not known" in message


@pytest.mark.parametrize(
    "name, value, words",
    [
        ("blocks.0.ffn.0.diff", torch.ones(3, 3), "(3, 3)) does not fit"),
        ("blocks.0.ffn.0.diff_b", torch.ones(3), "(3,)) does not fit"),
        ("blocks.0.ffn.0.lora_magnitude_vector", torch.ones(3), "DoRA (3,)) does not fit"),
        ("blocks.0.ffn.0.alpha", torch.ones(3), "one number is read"),
        ("blocks.0.ffn.0.dora_scale", torch.ones(1, 128), "does not fit"),
        ("blocks.0.ffn.0.diff", torch.ones(3, 3, dtype=torch.int64), "has diff of blocks.0.ffn.0 in int64"),
    ],
)
def test_parts_of_another_shape_are_refused(name, value, words, base, checkpoint, down, up, tmp_path):
    file = save(tmp_path / "lora.safetensors", pairs(down, up, FORMS["original, bare"]) | {name: value})
    assert words in refused(lambda: check_file(checkpoint, base, file))


@pytest.mark.parametrize("base_name", BASES)
def test_the_list_of_original_names_is_that_of_diffusers_converter(base_name):
    base = BASES[base_name]
    weights = {name for name in empty_model(base.original).state_dict() if name.endswith("weight")}
    assert set(diffusers_names(f"{name}.weight" for name in original_modules(base.layers))) == weights
