"""The benchmark: what it measures is what a stream does, and its reports say so."""

from __future__ import annotations

import argparse
import dataclasses
import json
import math

import pytest
import torch
from PIL import Image
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from fkv import policies
from fkv.bench import attention, models, streams
from fkv.bench.official import OFFICIAL
from fkv.bench.work import COPY_BYTES, PRODUCT_SIDE, Ceilings, Work, bare_calls, pass_work
from fkv.commands import bench
from fkv.models import registry
from fkv.models.memory import CacheBytes, free_memory
from fkv.models.release import BASES, Base
from fkv.policies import POLICIES
from fkv.stream import Stream
from fkv.transformer.causal import CausalTransformer

LITTLE = Base("wan-1.3b", layers=3, heads=12, dim=144, ffn_dim=32, text_dim=8, max_sequence_length=4, freq_dim=16)


@pytest.fixture(autouse=True, scope="module")
def small_scale(small_by_default):
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(BASES, "wan-1.3b", LITTLE)
        patch.setitem(PRODUCT_SIDE, "cpu", 64)
        patch.setitem(COPY_BYTES, "cpu", 2**20)
        yield


def run(*options):
    parser = argparse.ArgumentParser()
    bench.add_arguments(parser)
    repeats = [] if "--read" in options else ["--repeats", "2"]
    return bench.run(parser.parse_args(["--device", "cpu", *repeats, *options]))


def report(capsys, *options):
    assert run(*options) == 0
    printed = capsys.readouterr()
    return json.loads(printed.out), printed.err


@pytest.fixture(scope="module")
def recorded(tmp_path_factory):
    """A report of two policies at two context lengths, and the file it is in."""
    target = tmp_path_factory.mktemp("bench") / "report.json"
    assert run("--context", "9,15", "--json", str(target)) == 0
    return json.loads(target.read_text()), target


@pytest.mark.parametrize("name", POLICIES)
def test_a_filled_stream_is_where_a_generated_one_would_be(name, small):
    generated = Stream(small, policies.make(name), streams.PROMPT)
    chunk = [generated.step() for _ in range(5)][-1]
    prepared = streams.prepare(small, policies.make(name), context=15)
    place = prepared.snapshot()
    for _ in range(2):
        made = prepared.step()
        assert (made.index, made.kv_bytes, made.kv_tokens) == (4, chunk.kv_bytes, chunk.kv_tokens)
        assert made.context_frames == chunk.context_frames or hasattr(
            policies.make(name), "retention"
        )  # which depends on the keys
        assert {n: sorted(p.frame) for n, p in made.pages.items() if n != "dynamic"} == {
            n: sorted(p.frame) for n, p in chunk.pages.items() if n != "dynamic"
        }
        prepared.restore(place)


def test_repeats_reuse_the_buffers(small):
    stream = streams.prepare(small, policies.make("full"), context=12)
    place, pointers = stream.snapshot(), []
    for _ in range(3):
        stream.step()
        pointers.append([buffer.data_ptr() for group in stream.caches[0].groups.values() for buffer in group.keys])
        stream.restore(place)
    assert pointers[1] == pointers[2]


def linear_flop(x, weight, *rest, out_shape):
    return 2 * math.prod(x) * weight[0]


def counted(call):
    custom = {torch.ops.mkldnn._linear_pointwise: linear_flop}
    with FlopCounterMode(display=False, custom_mapping=custom) as counter, sdpa_kernel(SDPBackend.MATH):
        call()
    return counter.get_total_flops()


@pytest.mark.parametrize("policy", ["full", "forcing-kv"])
def test_operations_are_those_that_torch_counts(policy, small):
    stream = streams.prepare(dataclasses.replace(small, decoder=None), policies.make(policy), context=15)
    place, chunk = stream.snapshot(), stream.step()
    stream.restore(place)
    text, cache, tokens = small.encode(streams.PROMPT), stream.caches[0], 3 * stream.geometry.tokens_per_frame
    heads = {name: group.heads for name, group in cache.groups.items()}
    work = pass_work(small.transformer, heads, chunk.kv_tokens, tokens, text.shape[1], cache.dtype.itemsize)
    assert 3 * work.flops == counted(stream.step)
    prepared = small.transformer.prepare_text(text)
    bare = counted(lambda: bare_calls(small.transformer, cache, chunk.kv_tokens, tokens, prepared))
    assert bare == work.flops


def test_the_roofline_binds_each_call_by_what_is_scarce():
    work = Work(((1000, 10), (10, 1000)))
    assert work.roofline(Ceilings(flops=100, bandwidth=100)) == 10 + 10 and work.flops == work.bytes == 1010
    assert work.times(3).flops == 3030 and work.roofline(Ceilings(1e9, 100)) == pytest.approx(10.1)


def test_a_report_follows_from_its_own_measurements(recorded):
    data, _ = recorded
    assert [(row["policy"], row["context"]) for row in data["results"]] == [
        (p, c) for c in (9, 15) for p in ("full", "forcing-kv")
    ]
    for row in data["results"]:
        spent = row["seconds"]
        assert (
            spent["generate"]["min"] <= spent["generate"]["median"] <= spent["generate"]["max"] < spent["total"]["max"]
        )
        assert (
            row["fps_denoise"]
            == 12 / spent["generate"]["median"]
            > row["fps_end_to_end"]
            == 12 / spent["total"]["median"]
        )
        assert row["tflops"] == pytest.approx(row["tflop"] / spent["generate"]["median"])
        assert row["share_of_roofline"] == pytest.approx(row["roofline_s"] / spent["generate"]["median"])
        assert 0 < row["bare_s"] and row["peak_bytes"] > row["kv_bytes"] > 0 and row["gbyte"] > 0
    full, hybrid = data["results"][2:]
    assert (
        full["context_frames"] == 15
        and full["speed_vs_full"] == 1
        and full["kv_bytes"] == 15 / 9 * data["results"][0]["kv_bytes"]
    )
    assert hybrid["kv_bytes_vs_full"] == hybrid["kv_bytes"] / full["kv_bytes"] < 0.6
    assert data["ceilings"]["tflops"] > 0 < data["ceilings"]["gbps"] and data["kernels"]["FKV_TRITON"] == "auto"
    assert {"date", "command", "hardware", "versions", "meaning", "repeats"} <= data.keys() and data["hardware"][
        "processor"
    ]


def test_decoding_beside_the_next_chunk_counts_as_the_wait_for_it(small, monkeypatch):
    made, beside = [], streams.Overlap.__call__

    def noted(self, chunks):
        made.append(tuple(beside(self, chunks)))
        return made[-1]

    monkeypatch.setattr(streams.Overlap, "__call__", noted)
    (row,), _ = streams.measure(small, [policies.make("full")], 9, 1, 1, lambda: Ceilings(1.0, 1.0), overlap=True)
    first, second = made[-1]
    assert (
        row["seconds"]["generate"]["median"] == second.timings.generate
        and row["seconds"]["decode"]["median"] == first.timings.decode
    )
    with pytest.raises(ValueError, match="no decoder"):
        streams.measure(dataclasses.replace(small, decoder=None), [policies.make("full")], 9, 1, 1, lambda: None, True)


def test_policies_without_one_cache_are_measured_too(capsys):
    data, table = report(
        capsys, "--context", "9", "--policies", "recompute,per-step,dummy-forcing", "--decoder", "none"
    )
    recompute, per_step, dummy = data["results"]
    assert (
        recompute["seconds"]["rebuild"]["median"] > 0
        and "roofline_s" not in recompute
        and "speed_vs_full" not in recompute
    )
    assert per_step["kv_bytes"] == 2 * recompute["kv_bytes"] and per_step["tflop"] < dummy["tflop"]
    assert data["decoder"] == "none" and dummy["fps_end_to_end"] is None and dummy["roofline_s"] > 0
    assert all(name in table for name in ("recompute", "per-step", "dummy-forcing"))


def test_models_with_random_weights(capsys):
    options = "--model wan-1.3b --layers 2 --resolution 32x96 --precision bf16 --context 12 --decoder small".split()
    data, _ = report(capsys, *options, "--repeats", "1")
    assert (data["model"], data["layers"], data["latent"], data["dtype"], data["steps"]) == (
        "wan-1.3b",
        2,
        [16, 4, 12],
        "bfloat16",
        4,
    )
    assert (
        data["results"][1]["kv_tokens"].keys() == {"all", "static", "dynamic"}
        and data["results"][0]["fps_end_to_end"] > 0
    )


def test_eight_bit_weights_count_as_such():
    model = models.build("wan-1.3b", torch.device("cpu"), "fp8", "64x96").transformer
    wide = models.build("wan-1.3b", torch.device("cpu"), "bf16", "64x96").transformer
    sizes = {
        "heads": {"all": (tuple(range(12)),) * 3},
        "kv_tokens": {"all": 24},
        "tokens": 24,
        "text_tokens": 4,
        "kv_itemsize": 2,
    }
    weights = 3 * 144 * (2 * 144 + 2 * 32)
    assert model.model.blocks[0].ffn.net[2].weight.dtype == torch.float8_e4m3fn and torch.equal(
        *[m.model.proj_out.bias for m in (wide, wide)]
    )
    assert pass_work(wide, **sizes).bytes - pass_work(model, **sizes).bytes == weights
    assert pass_work(wide, **sizes).flops == pass_work(model, **sizes).flops
    assert pass_work(wide, **sizes).bytes - pass_work(wide, **sizes | {"kv_itemsize": 1}).bytes == 3 * 2 * 24 * 144


def test_compiled_is_said_so(capsys, monkeypatch, small):
    compiled = []
    monkeypatch.setattr(CausalTransformer, "compile", lambda transformer: compiled.append(transformer))
    data, _ = report(capsys, "--context", "9", "--policies", "full", "--repeats", "1", "--compile")
    assert data["compiled"] and compiled == [small.transformer] and "graphs" not in data


def test_recorded_passes_are_said_so_and_settle_before_they_count(capsys, monkeypatch, small):
    recorded = []
    monkeypatch.setattr(registry, "check_graphs", lambda device: None)
    monkeypatch.setattr(CausalTransformer, "capture_graphs", lambda transformer: recorded.append(transformer))
    data, _ = report(capsys, "--context", "9", "--policies", "full", "--repeats", "1", "--graphs")
    assert data["graphs"] and data["warmup"] == 2 and recorded == [small.transformer]


def test_pages_in_8_bits_are_measured_too(capsys):
    data, _ = report(capsys, "--context", "9", "--policies", "full,full:fp8=true,forcing-kv:fp8=true", "--repeats", "1")
    full, eight, _ = data["results"]
    assert eight["kv_bytes_vs_full"] == eight["kv_bytes"] / full["kv_bytes"] < 1 and all(
        row["fps_denoise"] > 0 for row in data["results"]
    )


def need(size: int) -> CacheBytes:
    return CacheBytes(size, size, size)


def test_what_does_not_fit_is_said_so(capsys, monkeypatch):
    huge, small = need(2**60), need(1)
    monkeypatch.setattr(streams, "cache_bytes", lambda geometry, policy, *_: huge if policy.name == "full" else small)
    data, table = report(capsys, "--context", "9")
    assert data["results"][0] == {"policy": "full", "context": 9, "error": "does not fit in memory"}
    assert (
        data["results"][1]["fps_denoise"] > 0
        and "speed_vs_full" not in data["results"][1]
        and "does not fit in memory" in table
    )


def test_what_does_not_fit_beside_the_others_is_said_so(capsys, monkeypatch):
    free = free_memory("cpu")["device"]
    monkeypatch.setattr(streams, "cache_bytes", lambda *given: need(free * 3 // 5))
    data, _ = report(capsys, "--context", "9")
    assert data["results"][0]["fps_denoise"] > 0
    assert data["results"][1] == {
        "policy": "forcing-kv",
        "context": 9,
        "error": "does not fit in memory beside the others",
    }


def test_one_layer_gives_the_same_with_pages_and_with_concatenation(capsys):
    data, table = report(capsys, "--attention", "--resolution", "32x96", "--precision", "fp32")
    layer = data["attention"]
    assert layer["equal"] and layer["heads"] == {"static": 4, "dynamic": 8} and layer["chunk_tokens"] == 36
    assert layer["kv_tokens"] == {"static": 5 * 12, "dynamic": 6 * 12} and layer["speedup"] > 0
    assert layer["seconds"].keys() == {
        "pages",
        "concatenation",
        "concatenation, the pages' attention",
        "pages: write only",
        "concatenation: gather and cat only",
    }
    assert layer["speedup_same_attention"] > 0 and "as with the same attention; outputs equal" in table


def test_one_layer_that_differs_is_an_error(capsys, monkeypatch):
    monkeypatch.setattr(attention.Layer, "store", lambda layer: None)
    assert run("--attention", "--resolution", "32x96", "--precision", "fp32") == 1
    assert "OUTPUTS DIFFER" in capsys.readouterr().err
    assert attention.are_equal([0.0, 1e-7], torch.float32)
    assert not attention.are_equal([0.0, float("nan")], torch.float32)


def test_two_reports_are_compared_row_by_row(capsys, recorded, tmp_path):
    data, file = recorded
    older = json.loads(file.read_text())
    older["hardware"]["device"], older["results"] = "another machine", older["results"][:2]
    for row in older["results"]:
        row["fps_denoise"], row["kv_bytes"] = row["fps_denoise"] / 2, row["kv_bytes"] * 4
    other = tmp_path / "older.json"
    other.write_text(json.dumps(older))
    made, table = report(capsys, "--read", str(file), "--against", str(other))
    assert made["results"] == data["results"] and set(made["against"]["differ"]) == {"hardware"}
    assert [(row["policy"], row["fps_denoise"], row["kv_bytes"]) for row in made["against"]["ratios"]] == [
        ("full", 2, 0.25),
        ("forcing-kv", 2, 0.25),
    ]
    assert "another machine" in table and "2.00x" in table


def test_reports_whose_kernels_took_other_times_have_the_same_kernels(capsys, recorded, tmp_path):
    _, file = recorded
    reports = [json.loads(file.read_text()) for _ in range(3)]
    for number, each in enumerate(reports):
        seconds = {"torch": 2.0 + number, "products": 1.0}
        each["kernels"]["choices"] = [
            {"kernel": "attention", "seconds": seconds, "fastest": "torch" if number == 2 else "products"}
        ]
    files = [tmp_path / f"{number}.json" for number in range(3)]
    for path, each in zip(files, reports, strict=True):
        path.write_text(json.dumps(each))
    differ = [
        report(capsys, "--read", str(files[0]), "--against", str(other))[0]["against"]["differ"] for other in files[1:]
    ]
    assert differ == [
        {},
        {"kernels": [f"FKV_TRITON=auto; measured and taken: attention by {way}" for way in ("torch", "products")]},
    ]


def test_the_papers_figures_stay_apart(capsys, recorded):
    data, file = recorded
    made, table = report(capsys, "--read", str(file), "--official")
    assert made["results"] == data["results"] and made["official"] == OFFICIAL
    assert "H200" in table and "second hand" in table and data["hardware"]["device"] in table


def test_a_figure_is_drawn(recorded, tmp_path, capsys):
    assert run("--read", str(recorded[1]), "--figure", str(tmp_path / "bench.png")) == 0
    image = Image.open(tmp_path / "bench.png")
    assert image.width > 1000 and len(image.convert("P").getcolors()) > 20


@pytest.mark.parametrize(
    "options, message",
    [
        (["--context", "20"], "multiples of the chunk's 3 latent frames"),
        (["--context", "0"], "multiples of the chunk's 3"),
        (["--context", "many"], "multiples of the chunk's 3"),
        (["--model", "sora"], "there is no model 'sora'"),
        (["--policies", "magic"], "there is no policy 'magic'"),
        (["--layers", "2"], "tiny is measured as it ships"),
        (["--decoder", "vae"], "tiny is measured as it ships"),
        (["--model", "wan-1.3b", "--layers", "99"], "from 2 to the 3 of wan-1.3b"),
        (["--model", "wan-1.3b", "--decoder", "own"], "choose vae, small, light or none"),
        (["--model", "wan-1.3b", "--resolution", "big"], "'big' is no resolution; name 480p"),
        (["--attention", "--resolution", "33x96"], "multiples of 16 pixels"),
        (["--attention", "--resolution", "16x16"], "segments do not divide"),
        (["--repeats", "0"], "must be at least 1"),
        (["--device", "abacus"], "there is no device 'abacus' here"),
        (["--figure", "bench.txt"], "png, svg or pdf"),
        (["--json", "/no/such/folder/r.json"], "does not exist"),
        (["--read", "/no/such/file.json"], "cannot read"),
        (["--against", __file__], "is not JSON"),
        (
            ["--attention", "--context", "42", "--ray", "local"],
            "measures one layer, where --context and --ray would do nothing",
        ),
        (
            ["--read", "r.json", "--precision", "fp32"],
            "--read takes what was measured before, where --precision would do nothing",
        ),
        (["--read", "r.json", "--repeats", "9"], "where --repeats would do nothing"),
        (["--ray", "local", "--context", "9,many"], "multiples of the chunk's 3 latent frames"),
        (["--ray", "local", "--context", "9,20"], "multiples of the chunk's 3 latent frames"),
    ],
)
def test_bad_input_is_refused_in_a_sentence(options, message):
    with pytest.raises(ValueError, match=message):
        run(*options)


@pytest.mark.parametrize(
    "text",
    [
        "[]",
        '{"results": [{}], "hardware": {}}',
        '{"results": [], "hardware": {"device": "x"}}',
        '{"attention": {}, "hardware": {"device": "x"}}',
        '{"ca2": {"cumulative_s": {}}, "hardware": {"device": "x"}, "model": "x"}',
        '{"rows": 5, "hardware": 5, "model": "x"}',
    ],
)
def test_a_damaged_report_is_refused_in_a_sentence(text, tmp_path, capsys):
    file = tmp_path / "r.json"
    file.write_text(text)
    with pytest.raises(ValueError, match="r.json is not a report of fkv bench, or a damaged one"):
        run("--read", str(file))
    assert not capsys.readouterr().out


def test_what_cannot_be_done_with_a_report_is_refused_before_measuring(recorded, tmp_path, monkeypatch):
    def measured(*_):
        raise AssertionError("measured all the same")

    monkeypatch.setattr(bench, "_attention", measured)
    monkeypatch.setattr(bench, "_streams", measured)
    for options in (["--figure", str(tmp_path / "f.png")], ["--against", str(recorded[1])]):
        with pytest.raises(ValueError, match="one layer"):
            run("--attention", *options)
    with pytest.raises(ValueError, match="self-forcing is not measured itself; wan-1.3b"):
        models.build("self-forcing", torch.device("cpu"))


def test_what_was_measured_is_not_lost_where_there_is_nothing_to_compare(recorded, tmp_path, capsys):
    other = json.loads(recorded[1].read_text())
    other["results"] = [row | {"context": 999} for row in other["results"]]
    (tmp_path / "other.json").write_text(json.dumps(other))
    with pytest.raises(ValueError, match="no policy at the same context in common"):
        run("--read", str(recorded[1]), "--against", str(tmp_path / "other.json"))
    printed = capsys.readouterr()
    assert json.loads(printed.out) == recorded[0] and "forcing-kv" in printed.err


def test_reports_of_different_kinds_are_not_compared(recorded, tmp_path, capsys):
    run("--attention", "--resolution", "32x96", "--json", str(tmp_path / "layer.json"))
    with pytest.raises(ValueError, match="can only be compared with another one"):
        run("--read", str(recorded[1]), "--against", str(tmp_path / "layer.json"))
    with pytest.raises(ValueError, match="one layer has none"):
        run("--read", str(tmp_path / "layer.json"), "--figure", str(tmp_path / "f.png"))
