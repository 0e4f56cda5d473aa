"""Does it fit: what is counted beforehand is what is used."""

from __future__ import annotations

import argparse
import dataclasses
import json

import pytest
import torch
from transformers import UMT5Config, UMT5EncoderModel

from fkv import policies, roles
from fkv.cache import GROWTH
from fkv.commands import fit as command
from fkv.commands import main
from fkv.models import fit, memory
from fkv.models.registry import MODELS
from fkv.models.release import BASES, Setup
from fkv.models.taehv import SmallDecoder
from fkv.stream import Stream

PROMPT = "a red ball bouncing over the hills at sunset"
CACHES = (
    "full",
    "sliding-window",
    "sliding-window:sink_frames=2,window_frames=7",
    "per-step",
    "recompute",
    "forcing-kv:segments_per_frame=4",
    "forcing-kv:segments_per_frame=4,retention=5,start_chunk=2",
    "forcing-kv:segments_per_frame=2,sink_frames=0,dynamic_anchor_frames=3,dynamic_frames=0",
)


def plenty(device=100, host=100) -> dict[str, int]:
    return {"device": int(device * 1e9), "host": int(host * 1e9)}


def test_parameters_are_counted_exactly():
    assert memory.parameters(BASES["wan-1.3b"]) == 1_418_996_800
    assert memory.parameters(BASES["wan-14b"]) == 14_288_491_584
    assert memory.parameters(BASES["wan2.2-5b"]) == 4_999_787_712
    with torch.device("meta"):
        encoder = UMT5EncoderModel(
            UMT5Config(vocab_size=256384, d_model=4096, d_kv=64, d_ff=10240, num_layers=24, num_heads=64)
        )
    assert sum(p.numel() for p in encoder.parameters()) == fit.TEXT_ENCODER_PARAMETERS


@pytest.mark.parametrize("text", CACHES)
def test_the_cache_is_what_the_page_table_says(text, small):
    policy = policies.parse(text)
    stream = Stream(small, policy, PROMPT, decode=False)
    made = []
    for chunks in range(1, 8):
        made.append(stream.step())
        counted = memory.cache_bytes(stream.geometry, policy, small.roles, chunks, torch.float32, steps=2)
        for name, count in dataclasses.asdict(counted).items():
            used = max(getattr(chunk, name) for chunk in made)
            assert count == pytest.approx(used, rel=0.01), f"{name} after {chunks} chunks"
        assert counted.kv_bytes_between <= counted.kv_bytes_allocated
        assert counted.kv_bytes <= counted.kv_bytes_allocated or policy.apart(stream.geometry)


def test_heads_classed_on_the_way_are_not_undercounted(small):
    policy = policies.make("dummy-forcing")
    stream = Stream(small, policy, PROMPT, decode=False)
    used = max(stream.step().kv_bytes for _ in range(8))
    assert memory.cache_bytes(stream.geometry, policy, small.roles, 8, torch.float32).kv_bytes >= 0.99 * used


def test_long_streams_are_counted_without_running_them():
    geometry = BASES["wan-1.3b"].geometry("480p")
    frame = 2 * 2 * 30 * 12 * 128 * 1560
    counted = memory.cache_bytes(geometry, policies.make("full"), None, 1000)
    assert counted == memory.CacheBytes(3000 * frame, 3000 * frame, int(3000 * frame * GROWTH))
    window = policies.make("sliding-window", sink_frames=0, window_frames=21)
    assert memory.cache_bytes(geometry, window, None, 1000) == memory.CacheBytes(21 * frame, 18 * frame, 21 * frame)


def test_forcing_kv_allocates_half_of_what_a_chunk_attends_to():
    base, release = BASES["wan-1.3b"], MODELS["self-forcing"].release
    geometry, heads, policy = base.geometry("480p"), roles.load(release.roles_file), policies.make("forcing-kv")
    frame = 2 * 2 * 30 * 12 * 128 * 1560
    counted = memory.cache_bytes(geometry, policy, heads, 100)
    assert counted.kv_bytes_between <= counted.kv_bytes_allocated < 2.85 * frame < 0.82e9
    assert counted.kv_bytes > 5.5 * frame


def test_live_tensors_are_counted():
    with memory.Peak("cpu") as peak:
        kept = torch.zeros(100) + 1
        del kept
        both = torch.zeros(300), torch.zeros(200)
        both[0].add_(1)[:10].view(5, 2)
    assert peak.bytes == 4 * 500
    sizes = []
    for device in ("cpu", "meta"):
        decoder, latents = SmallDecoder(4, (16, 8, 8, 8)).to(device), torch.empty(3, 4, 4, 6, device=device)
        with torch.inference_mode(), memory.Peak(device) as peak:
            decoder.decode(latents, None)
        sizes.append(peak.bytes)
    assert sizes[0] == sizes[1] > 100_000


def test_the_table_adds_up():
    found = fit.fit(MODELS["self-forcing"].release, Setup(text="device"), "forcing-kv", 40, "cuda", plenty())
    rows = {need.what: need for need in found.needs}
    assert rows["transformer"].bytes == pytest.approx(2 * 1_418_996_800, rel=0.01)
    assert rows["KV cache, forcing-kv"].bytes < 2e9 < rows["text encoder"].bytes
    assert rows["a prompt's keys and values"].bytes == 30 * 2 * 512 * 1536 * 2
    resident = sum(need.bytes for need in found.needs if need.kind != "working")
    peak = max(need.bytes for need in found.needs if need.kind == "working")
    assert found.total("device") == round((resident + peak) * 1.05) and found.total("host") == 0 and found.fits
    text = str(found)
    assert all(what in text for what in rows) and "together, with slack" in text and "of 100.0 GB free" in text


def test_settings_change_what_is_needed():
    release = MODELS["krea-realtime"].release

    def total(policy="full", where="device", device="cuda", **setup):
        return fit.fit(release, Setup(**setup), policy, 20, device, plenty()).total(where)

    normal = total(text="cpu")
    assert total(text="device") > normal + 11e9 and total(text="offload") > normal
    assert total(text="cpu", decoder="small") < total(text="cpu", decoder="vae") - 1e9
    assert total(text="cpu", precision="fp8") < normal - 9e9 < normal < total(text="cpu", precision="fp32")
    assert total(text="cpu", resolution="720p") > normal and total(release.hybrid, text="cpu") < normal
    plans = (fit.fit(release, Setup(resolution), "full", 20, "cuda", plenty()) for resolution in ("480p", "720p"))
    small, large = ({need.what: need.bytes for need in plan.needs if "decoder," in need.what} for plan in plans)
    assert (
        large == pytest.approx({what: size * (90 * 160) / (60 * 104) for what, size in small.items()})
        and len(large) == 2
    )
    assert (
        total(where="host", text="offload")
        == total(where="host", text="cpu")
        > 11e9
        > total(where="host", text="device")
    )


def test_cuda_graphs_need_a_pass_again_and_the_chunk_in_every_layer():
    release = MODELS["self-forcing"].release
    plain, captured = (
        fit.fit(release, Setup(text="cpu"), "forcing-kv", 20, "cuda", plenty(17.5), graphs) for graphs in (False, True)
    )
    needs = {need.kind: need.bytes for need in captured.needs if need.kind in ("graphs", "working")}
    rows = {need.what: need.bytes for need in captured.needs}
    assert needs["graphs"] == rows["a pass over one chunk"]
    assert captured.cache.kv_bytes_allocated >= captured.cache.kv_bytes == plain.cache.kv_bytes
    assert captured.total("device") - plain.total("device") == pytest.approx(
        1.05 * (needs["graphs"] + captured.cache.kv_bytes_allocated - plain.cache.kv_bytes_allocated), abs=2
    )
    between = dataclasses.replace(captured, free=plenty((plain.total("device") + 1e6) / 1e9))
    assert not between.fits and fit.explain(between, "cuda").endswith("this would fit: without --graphs")
    assert "with CUDA graphs" in str(captured) and "CUDA graphs" not in str(plain)


@pytest.mark.parametrize(
    "device, expected",
    [
        (14, "--policy forcing-kv --text cpu"),
        (8.0, "--policy forcing-kv --decoder small --text cpu"),
        (5.9, "--precision fp8"),
    ],
)
def test_the_suggestion_fits_with_few_changes(device, expected):
    wanted = fit.fit(MODELS["self-forcing"].release, Setup(), "full", 20, "cuda", plenty(device))
    assert not wanted.fits
    found = fit.suggest(wanted, "cuda")
    assert found.fits and expected in fit.changes(wanted, found) and expected in fit.explain(wanted, "cuda")


def test_no_suggestion_where_nothing_fits():
    wanted = fit.fit(MODELS["krea-realtime"].release, Setup(), device="cuda", free=plenty(8))
    assert fit.suggest(wanted, "cuda") is None and "no setting makes it fit" in fit.explain(wanted, "cuda")


def test_a_model_that_cannot_run_is_refused_before_anything_is_loaded(monkeypatch):
    with pytest.raises(fit.FitError, match=r"krea-realtime has 14.3 billion parameters.*--device cuda"):
        fit.check(MODELS["krea-realtime"].release, Setup(), "cpu")
    monkeypatch.setattr(memory, "free_memory", lambda device: {"device": int(4e9)})
    with pytest.raises(fit.FitError, match="needs .* GB on cpu, 4.0 GB are free"):
        fit.check(MODELS["self-forcing"].release, Setup(), "cpu")


def test_a_leaner_cache_that_was_chosen_is_enough(monkeypatch):
    release = MODELS["causvid"].release
    own, lean, full = (
        fit.fit(release, Setup(), name, device="cpu", free={}) for name in (None, "infinity-rope", "full")
    )
    assert lean.total("device") < own.total("device") < full.total("device")
    monkeypatch.setattr(memory, "free_memory", lambda device: {"device": lean.total("device")})
    fit.check(release, Setup(), "cpu", "infinity-rope")
    for chosen in (None, "full"):
        with pytest.raises(fit.FitError, match="this would fit"):
            fit.check(release, Setup(), "cpu", chosen)


def test_what_pytorch_holds_unused_on_a_gpu_counts_as_free(monkeypatch):
    counts = {"mem_get_info": (7, 80), "memory_reserved": 20, "memory_allocated": 15}
    for name, count in counts.items():
        monkeypatch.setattr(torch.cuda, name, lambda device, count=count: count)
    assert memory.free_memory("cuda")["device"] == 7 + 5


def test_free_memory_of_this_machine():
    assert 1e8 < memory.free_memory("cpu")["device"] < 1e14


def test_settings_are_checked():
    with pytest.raises(ValueError, match="resolution must be 480p, 720p or 1080p, not '4k'"):
        Setup("4k")
    with pytest.raises(ValueError, match="precision must be"):
        Setup(precision="int4")


def test_the_command(capsys, tmp_path):
    def run(*arguments):
        parser = argparse.ArgumentParser()
        command.add_arguments(parser)
        return command.run(parser.parse_args(arguments))

    assert run("--model", "longlive", "--memory", "80", "--json", "-") == 0
    printed = capsys.readouterr()
    assert json.loads(printed.out)["model"] == "longlive" and "it fits" in printed.err
    report = tmp_path / "fit.json"
    assert (
        run("--model", "longlive", "--memory", "80", "--text", "device", "--chunks", "40", "--json", str(report)) == 0
    )
    printed, data = capsys.readouterr().out, json.loads(report.read_text())
    assert "longlive at 480p" in printed and "it fits" in printed
    assert (
        data["fits"] and data["total"]["device"] < data["free"]["device"] == 80_000_000_000 and data["text"] == "device"
    )
    assert data["kv_bytes_between"] <= data["kv_bytes_allocated"] and "between chunks" in printed
    assert run("--model", "longlive", "--memory", "2") == 1 and "no setting makes it fit" in capsys.readouterr().out
    with pytest.raises(ValueError, match="ships with the studio"):
        run("--model", "tiny")
    with pytest.raises(ValueError, match=r"--graphs.* add --device cuda"):
        run("--model", "longlive", "--device", "cpu", "--graphs")
    with pytest.raises(ValueError, match="--compile makes a model faster, not smaller"):
        run("--model", "longlive", "--compile")


@pytest.mark.parametrize("model", ["self-forcing", "causvid", "longlive-2"])
def test_the_command_counts_the_steps_that_are_taken(model, capsys):
    def cache(*steps):
        options = ["--model", model, "--policy", "per-step", "--memory", "900", "--chunks", "2", "--json", "-"]
        assert main.main(["fit", *options, *steps]) == 0
        return json.loads(capsys.readouterr().out)["kv_bytes"]

    assert cache("--steps", "1") * (3 if model == "causvid" else 4) == cache()
    assert main.main(["fit", "--model", model, "--steps", "9"]) == 2
    assert "the number of steps must be a whole number from 1 to" in capsys.readouterr().err
