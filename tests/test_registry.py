"""Every registered model through the public loader, from a Hub cache with small files of exactly the released forms."""

from __future__ import annotations

import argparse
import dataclasses
import errno
import json
import re
import shutil
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qsl

import huggingface_hub
import pytest
import torch
from diffusers import WanPipeline
from huggingface_hub import constants
from safetensors.torch import save_file
from small_wan import tokenizer, umt5, wan_2_2_vae, wan_vae

from fkv import policies, roles
from fkv.commands.main import main
from fkv.commands.model_options import add_model, load_model
from fkv.models import download, fit, listing, precision, registry, release, text
from fkv.models.convert import empty_model, from_wan_names
from fkv.models.release import TEXT_ENCODER, TOKENIZER, WAN_2_1, WAN_2_2, Base, Source
from fkv.models.taehv import SmallDecoder
from fkv.policies import Full
from fkv.report import stream_record
from fkv.roles import HeadRoles
from fkv.stream import Stream
from fkv.studio import launch, server
from fkv.studio.live.limits import Limits
from fkv.studio.live.live import live
from fkv.studio.live.plan import Plan, Sampling
from fkv.studio.live.queue import Queue
from fkv.studio.live.run import Run
from fkv.studio.live.sessions import Registry
from fkv.studio.media.protocol import unpack
from fkv.studio.page import build
from fkv.transformer.causal import CausalTransformer

SMALL = Base("wan-1.3b", layers=3, heads=4, dim=48, ffn_dim=64, text_dim=32, max_sequence_length=12, freq_dim=32)
SMALL_BASES = {
    "wan-1.3b": SMALL,
    "wan-14b": dataclasses.replace(SMALL, name="wan-14b"),
    "wan2.2-5b": dataclasses.replace(SMALL, name="wan2.2-5b", channels=48, codec=WAN_2_2, fps=24),
}
REAL = [entry.release for entry in registry.MODELS.values() if entry.release]
PROMPT = "a red fox trots through a snowy forest"


def original(base: Base, seed: int = 0) -> dict[str, torch.Tensor]:
    """Random weights under Wan's original names."""
    torch.manual_seed(seed)
    names = {
        "condition_embedder.time_embedder.linear_": "time_embedding.",
        "condition_embedder.text_embedder.linear_": "text_embedding.",
        "condition_embedder.time_proj": "time_projection.1",
        "attn1": "self_attn",
        "attn2": "cross_attn",
        "to_out.0": "o",
        "to_": "",
        "ffn.net.0.proj": "ffn.0",
        "ffn.net.2": "ffn.2",
        "norm2": "norm3",
        "proj_out": "head.head",
    }
    weights = {}
    for name, value in empty_model(base.original).named_parameters():
        for new, old in names.items():
            name = name.replace(new, old)
        name = re.sub(
            r"(time|text)_embedding\.([12])", lambda found: f"{found[1]}_embedding.{2 * (int(found[2]) - 1)}", name
        )
        name = name.replace("scale_shift_table", "modulation" if name.startswith("blocks") else "head.modulation")
        weights[name] = torch.randn(value.shape) * (0.2 if value.dim() > 1 else 0.1) + (
            "norm" in name and name.endswith("weight")
        )
    return weights


def model_(weights):
    return {f"model.{name}": value for name, value in weights.items()}


def adapter_for(weights):
    torch.manual_seed(5)
    lora = {}
    for name in weights:
        if re.fullmatch(r"blocks\.\d+\.((self|cross)_attn\.[qkvo]|ffn\.[02])\.weight", name):
            rows, cols = weights[name].shape
            stem = f"base_model.model.{name.removesuffix('.weight')}"
            lora |= {
                f"{stem}.lora_A.weight": torch.randn(256, cols) * 0.01,
                f"{stem}.lora_B.weight": torch.randn(rows, 256) * 0.01,
            }
    return lora


def fsdp(weights):
    return {f"model._fsdp_wrapped_module.{name}": value for name, value in weights.items()}


def adapted(weights):
    """A base and an adapter in files of their own, and the weights that they make together."""
    lora = adapter_for(weights)

    def merged(name, value):
        stem = f"base_model.model.{name.removesuffix('.weight')}"
        up, down = (lora.get(f"{stem}.lora_{side}.weight") for side in "BA")
        return value if up is None else value + up @ down

    files = [{"generator": model_(weights)}, {"generator_lora": lora, "critic_lora": {}}]
    return files, {name: merged(name, value) for name, value in weights.items()}


def released(one: release.Release):
    """What a release's files hold, file by file, and the weights that should come out."""
    weights = original(SMALL_BASES[one.base])
    if one.loras:
        return adapted(weights)
    if one.name in ("self-forcing", "causal-forcing-framewise", "causal-forcing-2step", "causal-forcing-1step"):
        return [{"generator_ema": fsdp(weights)}], weights
    if one.name in ("self-gradient-forcing", "self-gradient-forcing-framewise", "context-forcing"):
        others = {name: torch.zeros_like(value) for name, value in weights.items()}
        return [{"generator": model_(others), "critic": model_(others), "generator_ema": fsdp(weights)}], weights
    if one.name in ("causal-forcing", "causvid", "longlive-2"):
        return [{"generator": model_(weights)}], weights
    if one.name == "reward-forcing":
        return [model_(weights)], weights
    if one.name == "raven":
        return [weights], weights
    assert one.name == "krea-realtime"
    halves = {name: value.bfloat16() for name, value in weights.items()}
    return [model_(halves)], {name: value.float() for name, value in halves.items()}


def put(cache: Path, source: Source, write) -> None:
    """A file or folder into a Hub cache, as the Hub's own client lays it out."""
    repo = cache / f"models--{source.repo.replace('/', '--')}"
    commit = source.revision if len(source.revision) == 40 else "f" * 40
    (repo / "refs").mkdir(parents=True, exist_ok=True)
    (repo / "refs" / source.revision).write_text(commit)
    path = repo / "snapshots" / commit / source.file
    (path if source.file.endswith("/") else path.parent).mkdir(parents=True, exist_ok=True)
    write(path)


@pytest.fixture(scope="module")
def shelf(tmp_path_factory) -> Path:
    """A Hub cache with every model, small."""
    cache = tmp_path_factory.mktemp("hub")
    put(cache, TEXT_ENCODER, lambda path: umt5().save_pretrained(path))
    put(cache, TOKENIZER, lambda path: tokenizer().save_pretrained(path))
    torch.manual_seed(0)
    for codec, vae, channels in ((WAN_2_1, wan_vae, 16), (WAN_2_2, wan_2_2_vae, 48)):
        put(cache, codec.vae, lambda path, vae=vae: vae().save_pretrained(path))
        small = SmallDecoder(channels, patch=codec.patch).state_dict()
        for source in (codec.small, codec.light):
            put(cache, source, lambda path, small=small: save_file(small, path))
    for one in REAL:
        for source, data in zip(one.sources, released(one)[0], strict=True):
            put(
                cache,
                source,
                lambda path, data=data: (
                    save_file(data, path) if path.suffix == ".safetensors" else torch.save(data, path)
                ),
            )
    return cache


@pytest.fixture
def offline(shelf, tmp_path, monkeypatch):
    """No network, that cache, and sizes to suit."""
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(shelf))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    point_at(monkeypatch, "http://127.0.0.1:9")
    for name, base in SMALL_BASES.items():
        monkeypatch.setitem(release.BASES, name, base)
    monkeypatch.setitem(release.RESOLUTIONS, "480p", (4, 12))
    monkeypatch.setattr(release, "ROLES", tmp_path)
    monkeypatch.setattr(fit, "TEXT_ENCODER_PARAMETERS", 1000)
    for one in filter(lambda one: one.roles, REAL):
        roles.save(HeadRoles(4, ((0, 1), (1, 2), (0,))), tmp_path / f"{one.roles}.json")


@pytest.fixture
def mine(tmp_path) -> Path:
    """A checkpoint of one's own."""
    path = tmp_path / "mine.pt"
    torch.save({"model": original(SMALL, seed=3)}, path)
    return path


def latents_of(model, policy="full", chunks=2):
    stream = Stream(model, policies.parse(policy), PROMPT, decode=False)
    return torch.stack([stream.step().latents for _ in range(chunks)])


@pytest.mark.parametrize("one", REAL, ids=lambda one: one.name)
def test_every_model_loads_and_streams(one, offline):
    model = registry.load(one.name, precision="fp32", decoder="none")
    original_config = SMALL_BASES[one.base].original
    own = CausalTransformer(from_wan_names(released(one)[1], original_config))
    ours, theirs = (latents_of(each) for each in (model, dataclasses.replace(model, transformer=own)))
    assert torch.equal(ours, theirs) if not one.loras else torch.allclose(ours, theirs, atol=1e-4)
    assert ours.std() > 0.1 and ours.shape[2:] == (one.frames_per_chunk, *model.latent)
    if one.roles:
        hybrid = policies.parse(f"{one.hybrid}{',' if ':' in one.hybrid else ':'}segments_per_frame=4")
        stream = Stream(model, hybrid, PROMPT, decode=False)
        chunks = [stream.step() for _ in range(5)]
        assert chunks[-1].kv_tokens["static"] < chunks[-1].kv_tokens["dynamic"]
    assert latents_of(model, one.window, chunks=3).isfinite().all()
    assert model.schedule.sigmas == one.schedule.sigmas and model.first_schedule == one.first_schedule
    assert (model.fps, model.frames_per_chunk) == (24 if one.base == "wan2.2-5b" else 16, one.frames_per_chunk)
    assert one.window in model.policies and all(path.exists() for path in model.weights)


FOUR = (1.0, 0.9375, 0.83333, 0.625)
SAMPLING = {  # latent frames of a chunk, noise levels, and those of the first chunk
    "self-forcing": (3, FOUR, None),
    "causal-forcing-framewise": (1, FOUR, None),
    "causal-forcing-2step": (1, (1.0, 0.83333), FOUR),
    "causal-forcing-1step": (1, (1.0,), FOUR),
    "self-gradient-forcing-framewise": (1, FOUR, None),
    "causvid": (3, (1.0, 0.757, 0.522), None),
    "longlive-2": (8, (0.99980, 0.93727, 0.83306, 0.62469), None),
}


@pytest.mark.parametrize("name", SAMPLING)
def test_models_are_sampled_as_their_authors_do(name):
    frames, levels, first_levels = SAMPLING[name]
    one = registry.MODELS[name].release
    assert one.frames_per_chunk == frames and one.schedule.sigmas == pytest.approx(levels, abs=1e-5)
    assert (one.first_schedule and one.first_schedule.sigmas) == (first_levels and pytest.approx(FOUR, abs=1e-5))


def test_a_first_frame_takes_more_steps(offline):
    few, four = (
        registry.load(name, precision="fp32", decoder="none")
        for name in ("causal-forcing-1step", "causal-forcing-framewise")
    )
    streams = [Stream(model, policies.parse("full"), PROMPT) for model in (few, four)]
    ours, theirs = ([stream.step() for _ in range(3)] for stream in streams)
    assert [chunk.steps for chunk in ours] == [4, 1, 1] and [chunk.passes for chunk in ours] == [5, 2, 2]
    assert torch.equal(ours[0].latents, theirs[0].latents) and not torch.equal(ours[1].latents, theirs[1].latents)
    assert few.most_steps == four.most_steps == 4 and few.with_steps(1) is few
    two = registry.load("causal-forcing-2step", decoder="none")
    assert Stream(two.with_steps(1), policies.parse("full"), PROMPT).step().steps == 1
    per_step = Stream(two, policies.parse("per-step"), PROMPT)
    assert [per_step.step().steps for _ in range(2)] == [2, 2]


NEW = [one for one in REAL if one.unverified or one.name == "longlive-relative"]


def test_a_new_model_begins_with_the_rule_that_it_was_released_with():
    assert {one.name: one.policies[0] for one in NEW} == {one.name: one.window for one in NEW}


@pytest.mark.parametrize("one", NEW, ids=lambda one: one.name)
def test_a_model_streams_from_the_command_line(one, offline, tmp_path):
    report, video = tmp_path / "report.json", tmp_path / "video.mp4"
    words = ["stream", "--model", one.name, "--device", "cpu", "--precision", "fp32", "--policy", one.window]
    files = ["--json", str(report), "--out", str(video)]
    assert main([*words, "--chunks", "2", "--prompt", PROMPT, *files]) == 0
    said = json.loads(report.read_text())
    chunks = said["chunks"]
    assert bool(one.unverified) == ("assumed" in said) and one.unverified in str(said.get("assumed"))
    first = 4 * one.frames_per_chunk - 3
    assert [chunk["video_frames"] for chunk in chunks] == [first, first + 3] and video.stat().st_size


FORMS = {(one.base, one.frames_per_chunk, one.first_schedule is None): one for one in NEW}
"""A model of every form that a run on the page can have: the page is built for these alone, which takes longest."""


@pytest.mark.parametrize("one", NEW, ids=lambda one: one.name)
def test_a_model_streams_in_the_studio(one, offline, monkeypatch):
    served = []
    monkeypatch.setattr(server, "serve", lambda model, *_, **options: served.append(model))
    assert launch.main(["--model", one.name, "--device", "cpu", "--precision", "fp32"]) == 0
    [model] = served
    if one in FORMS.values():
        build(model, Registry())
    plan = Plan.from_form(prompt=PROMPT, seed=0, length=2, view="A", a=model.policies[0], b=model.policies[1])
    run = Run(1 << 24)
    *_, last = live(model, plan, run, Queue(), Limits(lead=1e9))
    assert last["state"] == "done" and len(unpack(run.chunks()[1])[1]) == 4 * one.frames_per_chunk


def test_the_studio_streams_a_real_model_under_its_own_policies(offline):
    model = registry.load("longlive")
    build(model, Registry())
    assert model.policies == (registry.MODELS["longlive"].release.hybrid, registry.MODELS["longlive"].release.window)
    plan = Plan.from_form(
        prompt=PROMPT, seed=0, length=3, view="AB", a=f"{model.policies[0]},segments_per_frame=4", b=model.policies[1]
    )
    run = Run(1 << 24)
    *_, last = live(model, plan, run, Queue(), Limits(lead=1e9))
    assert last["state"] == "done" and run.count == 3
    record, jpegs = unpack(run.chunks()[1])
    assert [own["video_frames"] for own in record["streams"].values()] == [12, 12] and len(jpegs) == 24


def test_the_released_roles_fit_their_models():
    for one in filter(lambda one: one.roles, REAL):
        base = release.BASES[one.base]
        roles.load(one.roles_file).check(base.layers, base.heads)
        geometry = base.geometry("1080p")
        geometry.check_segments(policies.parse(one.hybrid).segments_of(geometry))
        assert one.schedule.sigmas[0] == 1


def test_a_prompt_changes_on_the_way_with_recache(offline):
    model = registry.load("longlive", precision="fp32")
    stream = Stream(model, policies.parse(registry.MODELS["longlive"].release.window), PROMPT, decode=False)
    for _ in range(4):
        stream.step()
    stream.set_prompt("a forest", recache=True)
    changed = stream.step()
    assert changed.timings.rebuild > 0 and changed.prompt == "a forest" and changed.context_frames == 12


SETUPS = [{"decoder": "small"}, {"decoder": "light"}, {"decoder": "none"}, {"precision": "fp8"}, {"text": "cpu"}]


@pytest.mark.parametrize("setup", SETUPS)
def test_settings_reach_the_model(setup, offline):
    model = registry.load("self-forcing", **setup)
    stream = Stream(model, Full(), PROMPT)
    chunks = [stream.step(), stream.step()]
    assert all(chunk.latents.isfinite().all() for chunk in chunks)
    shapes = [chunk.video is not None and chunk.video.shape for chunk in chunks]
    assert shapes == ([False] * 2 if setup.get("decoder") == "none" else [(9, 32, 96, 3), (12, 32, 96, 3)])


def test_a_checkpoint_of_ones_own(offline, tmp_path):
    path = tmp_path / "mine.pt"
    torch.save({"model": original(SMALL, seed=3)}, path)
    model = registry.load_checkpoint(path, "wan-1.3b", precision="fp32")
    assert model.name == "mine" and model.roles is None and "fkv profile" in model.hints(PROMPT)[0]
    with pytest.raises(ValueError, match="needs head roles; profile the model"):
        Stream(model, policies.make("forcing-kv"), PROMPT)
    own_roles = HeadRoles(4, ((0,), (1, 2), (3,)))
    assert (
        Stream(model, policies.make("forcing-kv", segments_per_frame=4), PROMPT, roles=own_roles).step().video
        is not None
    )
    for arguments, message in (
        (("no.pt", "wan-1.3b"), "there is no file no.pt"),
        ((path, "wan-5b"), "there are wan-1.3b, wan-14b, wan2.2-5b"),
    ):
        with pytest.raises(ValueError, match=message):
            registry.load_checkpoint(*arguments)


def test_the_report_names_adapters_and_their_strengths(offline, tmp_path):
    path, adapter = tmp_path / "mine.pt", tmp_path / "style.pt"
    weights = original(SMALL, seed=3)
    torch.save({"model": weights}, path)
    torch.save(adapter_for(weights), adapter)
    loras = [f"{adapter}:0.5", adapter]
    model = registry.load_checkpoint(path, "wan-1.3b", lora=loras, precision="fp32", decoder="none")
    chunk = Stream(model, Full(), PROMPT).step()
    assert stream_record([chunk], model, 0, "cpu")["adapters"] == ["style.pt:0.5", "style.pt:1"]
    assert model.weights == (path, adapter, adapter)


def test_a_checkpoint_of_ones_own_is_sampled_as_it_was_trained(offline, tmp_path):
    path = tmp_path / "mine.pt"
    torch.save({"model": original(SMALL, seed=3)}, path)
    sampling = {"steps": (1000, 500), "shift": 1.0, "frames_per_chunk": 1}
    model = registry.load_checkpoint(path, "wan-1.3b", sampling=sampling, precision="fp32", decoder="none")
    assert model.schedule.sigmas == pytest.approx((1.0, 0.5)) and model.frames_per_chunk == 1
    assert Stream(model, Full(), PROMPT).step().latents.shape[1] == 1


def options(*arguments: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    add_model(parser)
    return parser.parse_args(arguments)


@pytest.mark.parametrize(
    ("arguments", "sigmas", "frames", "cache"),
    [
        (["--steps", "1000", "--frames-per-chunk", "1"], (1.0,), 1, "sliding-window"),
        (["--steps", "1000,500,0"], (1.0, 5 / 6), 3, "sliding-window"),
        (["--schedule", "1000,757,522,0"], (1.0, 0.757, 0.522), 3, "sliding-window"),
        (["--schedule", "1000,757.5,522", "--steps", "1"], (1.0,), 3, "sliding-window"),
        (["--shift", "8", "--window", "6"], None, 3, "sliding-window:sink_frames=0,window_frames=6"),
        (["--window", "9", "--sink", "2"], None, 3, "sliding-window:sink_frames=2,window_frames=9"),
    ],
)
def test_checkpoints_of_ones_own_stream_as_the_options_say(arguments, sigmas, frames, cache, offline, mine, capsys):
    model = load_model(options("--checkpoint", str(mine), "--precision", "fp32", "--decoder", "none", *arguments))
    assert sigmas is None or model.schedule.sigmas == pytest.approx(sigmas, abs=1e-4)
    assert model.frames_per_chunk == frames and model.policies == (cache, "full")
    assert latents_of(model, cache).shape[2] == frames
    assert "hint: Assumed of mine: " in capsys.readouterr().err


def test_what_was_assumed_of_a_checkpoint_is_said_everywhere(offline, mine):
    [sentence] = load_model(options("--checkpoint", str(mine), "--precision", "fp32")).assumed
    assert sentence == (
        "Assumed of mine: steps 1000,750,500,250 (--steps or --schedule), shift 5 (--shift), chunks of 3 latent frames "
        "(--frames-per-chunk), every frame kept (--window and --sink). Say what it was trained with if that differs."
    )
    whole = ["--checkpoint", str(mine), "--schedule", "1000,500", "--frames-per-chunk", "1", "--window", "6"]
    assert load_model(options(*whole, "--decoder", "none")).assumed == ()
    model = load_model(options(*whole[:-2]))
    page = str(build(model, Registry()).config)
    assert "Assumed of mine: every frame kept (--window and --sink)." in page
    chunk = Stream(model, Full(), PROMPT).step()
    assert stream_record([chunk], model, 0, "cpu")["assumed"] == list(model.assumed)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--schedule", "1000,500", "--shift", "5"], "--schedule stands in place of --steps and --shift"),
        (["--schedule", "1000,500", "--steps", "1000,500"], "--schedule stands in place of --steps and --shift"),
        (["--schedule", "500,1000"], "timesteps are falling numbers from at most 1000"),
        (["--schedule", "1200,500"], "timesteps are falling numbers from at most 1000"),
        (["--steps", "0"], "the number of steps must be a whole number from 1 to 4"),
        (["--sink", "2"], "--sink is a part of --window"),
        (["--window", "3", "--sink", "3"], "must exceed sink_frames"),
    ],
)
def test_settings_that_no_checkpoint_can_have_are_refused(arguments, message, offline, mine):
    with pytest.raises(ValueError, match=message):
        load_model(options("--checkpoint", str(mine), "--decoder", "none", *arguments))


@pytest.mark.parametrize("option", ["--window=6", "--sink=1", "--schedule=1000,500", "--steps=1000,500"])
def test_settings_of_a_checkpoint_need_one(option):
    with pytest.raises(ValueError, match=f"{option.split('=')[0]} is only for a checkpoint of your own"):
        load_model(options(option))


def test_the_page_streams_a_checkpoint_that_generates_frame_by_frame(offline, mine):
    sampling = {"steps": (1000, 500), "frames_per_chunk": 1, "window": "sliding-window:sink_frames=1,window_frames=4"}
    model = registry.load_checkpoint(mine, "wan-1.3b", sampling=sampling, precision="fp32")
    build(model, Registry())
    plan = Plan.from_form(prompt=PROMPT, seed=0, length=6, view="AB", a=model.policies[0], b=model.policies[1])
    run = Run(1 << 24)
    *_, last = live(model, plan, run, Queue(), Limits(lead=1e9))
    assert last["state"] == "done"
    records = [unpack(chunk)[0]["streams"] for chunk in run.chunks()]
    assert [own["A"]["video_frames"] for own in records] == [1, 4, 4, 4, 4, 4]
    assert [own["A"]["context_frames"] for own in records] == [1, 2, 3, 4, 4, 4]


def test_the_fields_of_the_page_sample_a_run_as_the_options_would(offline, mine):
    wanted = Sampling.read("1000, 757,522,0", 1)
    assert wanted == Sampling((1000.0, 757.0, 522.0), 1) and Sampling.read("", 0) == Sampling()
    model = registry.load_checkpoint(mine, "wan-1.3b", precision="fp32")
    plan = Plan.from_form(prompt=PROMPT, seed=0, length=2, view="A", a="full", b="full", sampling=wanted)
    link = dict(parse_qsl(plan.link))
    assert Sampling.read(link["schedule"], int(link["frames"])) == wanted
    run = Run(1 << 24)
    *_, last = live(model, plan, run, Queue(), Limits(lead=1e9))
    own = unpack(run.chunks()[1])[0]["streams"]["A"]
    assert (last["state"], own["video_frames"], own["context_frames"]) == ("done", 4, 2)
    for fields, message in (
        (
            ("1000,x", 0),
            "timesteps are falling numbers from at most 1000 and above 0, .* not '1000,x'",
        ),
        (("0", 0), "timesteps are falling numbers"),
        (("", 22), "latent frames of a chunk"),
    ):
        with pytest.raises(ValueError, match=message):
            Sampling.read(*fields)


def test_names_and_settings_are_checked():
    with pytest.raises(ValueError, match="there is no model 'sora'; there are tiny, tiny-memory, self-forcing"):
        registry.load("sora")
    with pytest.raises(ValueError, match="model 'tiny' does not support --resolution"):
        registry.load("tiny", resolution="720p")
    with pytest.raises(ValueError, match="decoder must be vae, small, light or none"):
        registry.load("self-forcing", decoder="huge")
    with pytest.raises(ValueError, match="precision must be bf16, fp32, fp8 or fp8-fast"):
        registry.load("tiny", precision="fp4")


@pytest.mark.parametrize("name", ["tiny", "self-forcing"])
def test_products_in_eight_bits_are_refused_where_there_are_none(name, monkeypatch):
    monkeypatch.setattr(precision, "multiplies_fp8", lambda device: False)
    with pytest.raises(ValueError, match="cpu does not multiply fp8 here; .* Choose the precision fp8"):
        registry.load(name, precision="fp8-fast")


def test_the_tiny_model_comes_in_every_precision():
    streams = [Stream(registry.load("tiny", precision=name), Full(), PROMPT, decode=False) for name in ("fp32", "fp8")]
    exact, rounded = (stream.step().latents for stream in streams)
    assert 0 < (exact - rounded).norm() < 0.1 * exact.norm()


def test_the_table_names_files_licences_and_memory(offline):
    table = " ".join(listing.table(memory=True).split())
    assert release.DECODERS_UNVERIFIED in table and "1 step (4 first)" in table and "1 steps" not in table
    for one in REAL:
        assert all(each in table for each in (f"{one.name}: {one.help}", one.licence, one.unverified))
        assert all(f"{source.repo}/{source.file}" in table for source in one.sources)
    assert f"tiny: {registry.MODELS['tiny'].help}" in table and "--checkpoint FILE --base" in table
    assert table.count("GB at 1080p") == len(REAL) and "GB at 1080p" not in listing.table()


# The text encoder.


@torch.inference_mode()
def test_embeddings_are_those_of_the_library(offline):
    words = text.load(download.fetch(TEXT_ENCODER), download.fetch(TOKENIZER), 12)
    pipeline = WanPipeline(tokenizer(), umt5().bfloat16(), wan_vae(), scheduler=None)
    expected = pipeline.encode_prompt(PROMPT, do_classifier_free_guidance=False, max_sequence_length=12)[0]
    assert (
        torch.equal(words(PROMPT), expected)
        and words(PROMPT).shape == (1, 12, 32)
        and (words(PROMPT)[0, -1] == 0).all()
    )


def test_embeddings_are_kept_and_the_encoder_goes_home(offline, monkeypatch):
    places, encoder = [], umt5()

    def visit(place):
        places.append(place)
        for parameter in encoder.parameters():
            parameter.data = parameter.data.clone()
        return encoder

    monkeypatch.setattr(encoder, "to", visit)
    words = text.TextEncoder(tokenizer(), encoder, 12, home="cpu", device="cpu:0")
    at_home = [parameter.data_ptr() for parameter in encoder.parameters()]
    assert words(f"  {PROMPT}\n") is words(PROMPT.replace(" ", "  ")) and places == ["cpu", "cpu:0"]
    assert [parameter.data_ptr() for parameter in encoder.parameters()] == at_home
    for i in range(text.MAX_PROMPTS + 1):
        words(f"a fox {i}")
    assert words._cached.cache_info().currsize == text.MAX_PROMPTS
    encoded = len(places)
    words(PROMPT)
    assert len(places) == encoded + 1, "the oldest prompt is encoded again"


def test_long_prompts_are_cut_and_said_so(offline):
    words = text.TextEncoder(tokenizer(), umt5(), 12)
    long = " ".join(["fox"] * 40)
    assert words(long).shape == (1, 12, 32) and "first 12 are read" in words.cut(long)[0] and not words.cut(PROMPT)
    assert text.clean(" a &amp;amp; b\t c ") == "a & b c"


def test_damaged_text_parts_are_named(tmp_path, offline):
    with pytest.raises(ValueError, match="tokenizer in .* is missing or damaged"):
        text.load(tmp_path, tmp_path)


# Downloads.


def point_at(monkeypatch, endpoint: str) -> None:
    monkeypatch.setattr(constants, "ENDPOINT", endpoint)
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", endpoint + "/{repo_id}/resolve/{revision}/{filename}")


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """A stand-in for the Hub on this machine that answers every request with an error of one's choice."""
    answer = {"status": 404, "code": "RepoNotFound"}

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(answer["status"])
            self.send_header("X-Error-Code", answer["code"])
            self.send_header("Content-Length", "0")
            self.end_headers()

        do_HEAD = do_GET
        log_message = lambda *_: None

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    point_at(monkeypatch, f"http://127.0.0.1:{server.server_port}")
    yield answer
    server.shutdown()
    server.server_close()


SOURCE = Source("someone/model", "a/weights.pt", 0.001, "0" * 40)


@pytest.mark.parametrize("source", [SOURCE, dataclasses.replace(SOURCE, file="a/")], ids=["file", "folder"])
@pytest.mark.parametrize(
    "status, code, message",
    [
        (403, "GatedRepo", "is gated: accept its terms on https://huggingface.co/someone/model, run `hf auth login`"),
        (404, "RepoNotFound", "the Hub has no .* at revision 0+"),
        (404, "RevisionNotFound", "the Hub has no"),
    ],
)
def test_the_hubs_refusals_become_sentences(source, status, code, message, hub):
    hub |= {"status": status, "code": code}
    with pytest.raises(download.DownloadError, match=message) as refused:
        download.fetch(source, "choose another --decoder")
    assert str(refused.value).endswith("it may have moved: choose another --decoder") or "gated" in message


@pytest.mark.parametrize("source", [SOURCE, dataclasses.replace(SOURCE, file="a/")], ids=["file", "folder"])
def test_without_a_network_the_message_says_how_to_bring_the_files(source, hub, monkeypatch):
    point_at(monkeypatch, "http://127.0.0.1:9")
    with pytest.raises(download.DownloadError, match="is not in the cache .* `hf download someone/model"):
        download.fetch(source)


def test_a_full_disk_is_told_before_and_during_the_download(hub, monkeypatch):
    def full(*args, **kwargs):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", full)
    with pytest.raises(download.DownloadError, match="takes 0.001 GB, which .* has no room for"):
        download.fetch(SOURCE)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(1, 1, 0))
    with pytest.raises(download.DownloadError, match="set HF_HOME to a larger disk"):
        download.fetch(dataclasses.replace(SOURCE, gigabytes=50))


def test_a_cached_file_needs_no_network(shelf, offline):
    for one in REAL:
        assert all(download.fetch(source).is_file() for source in one.sources)
    assert json.loads((download.fetch(WAN_2_1.vae) / "config.json").read_text())["z_dim"] == 16
