"""Golden data: replay runs recorded from the official implementation and measure the difference."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor
from tqdm import tqdm

from fkv.models.base import VideoModel
from fkv.models.convert import from_wan_names
from fkv.models.precision import COMPUTE, stored_as
from fkv.policies.forcing_kv import ForcingKV
from fkv.policies.full import Full
from fkv.policies.sliding_window import SlidingWindow
from fkv.transformer.causal import CausalTransformer

from .files import read_json
from .policies import ChunkState, Policy
from .probe import FrameMassProbe, head_scores
from .report import device_name
from .roles import ROLES, HeadRoles, RolesError, from_json
from .sampler import Schedule
from .stream import Chunk, Stream

ROUNDINGS = 8  # how many units in the last place of 1 a type coarser than float32 may be off
MAX_JSON = 4 << 20  # bytes of meta.json


class ParityError(ValueError):
    """A golden folder is not usable; the message names file and place."""


@dataclass(frozen=True)
class RecordedNoise:
    """Noise of a recorded run.

    Args:
        noise: Initial noise of all frames, [1, frames, channels, height, width].
        renoise: Noise between steps, [chunks, steps - 1, frames per chunk, channels, height, width].
    """

    noise: Tensor
    renoise: Tensor

    def initial(self, chunk: int, shape: Sequence[int]) -> Tensor:
        return self.noise[:, chunk * shape[1] : (chunk + 1) * shape[1]]

    def between(self, chunk: int, step: int, shape: Sequence[int]) -> Tensor:
        return self.renoise[chunk, step][None]


@dataclass
class Golden:
    """A loaded golden folder: recorded settings and inputs, and the model with its recorded weights."""

    folder: Path
    meta: dict[str, Any]
    inputs: dict[str, Tensor]
    model: VideoModel

    def expected(self, name: str) -> dict[str, Tensor]:
        """The recorded tensors in a file of the folder."""
        return _tensors(self.folder / name)

    def json(self, name: str) -> Any:
        return _json(self.folder / name)

    def stream(self, policy: Policy, roles: HeadRoles | None = None) -> Stream:
        """A stream of the recorded model on the recorded noise and prompt."""
        noise = RecordedNoise(self.inputs["noise"].float(), self.inputs["renoise"].float())
        return Stream(
            self.model, policy, roles=roles, noise=noise, text=self.inputs["prompt_embeds"].float(), keep_steps=True
        )


def _tensors(path: Path) -> dict[str, Tensor]:
    try:
        return load_file(path)
    except FileNotFoundError:
        raise ParityError(f"{path} is missing") from None
    except (SafetensorError, OSError) as error:
        raise ParityError(f"{path} cannot be read as safetensors: {error}") from None


def _json(path: Path) -> Any:
    try:
        return read_json(path, MAX_JSON)
    except FileNotFoundError:
        raise ParityError(f"{path} is missing") from None
    except (OSError, ValueError) as error:
        raise ParityError(f"{path} cannot be read as JSON: {error}") from None


def load(folder: str | Path, device: str = "cpu", precision: str = "fp32") -> Golden:
    """Load a golden folder.

    Args:
        folder: With meta.json and safetensors files.
        device: Where the model runs.
        precision: Of the model, a key of `fkv.models.precision.COMPUTE`.

    Raises:
        ParityError: Something is missing or does not fit.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise ParityError(f"{folder} is not a folder with golden data")
    meta = _json(folder / "meta.json")
    try:
        latent = meta["latent"]
        sampler = meta["sampler"]
        transformer = from_wan_names(_tensors(folder / meta.get("weights_file", "weights.safetensors")), meta["model"])
        for name, weight in transformer.named_parameters():
            weight.data = weight.data.to(device, stored_as(transformer, name, precision))
        model = VideoModel(
            "golden",
            CausalTransformer(transformer),
            lambda prompt: torch.empty(0),
            Schedule(tuple(sampler["sigmas"])),
            (latent["channels"], latent["height"], latent["width"]),
            frames_per_chunk=meta["frames_per_chunk"],
        )
    except KeyError as error:
        raise ParityError(f"{folder / 'meta.json'} has no entry {error}") from None
    except (TypeError, ValueError, RuntimeError) as error:
        raise ParityError(f"{folder}: weights and meta.json do not fit: {error}") from None
    return Golden(folder, meta, _tensors(folder / meta.get("inputs_file", "inputs.safetensors")), model)


def _worst(made: Iterable[Tensor], expected: Tensor) -> list[float]:
    return [float((ours.cpu() - theirs).abs().max()) for ours, theirs in zip(made, expected, strict=True)]


def _latents(chunks: list[Chunk], expected: Tensor, atol: float) -> dict[str, Any]:
    worst = _worst((chunk.latents[0] for chunk in chunks), expected)
    return {"per_chunk": worst, "max": max(worst), "ok": max(worst) <= atol}


def _steps(chunks: list[Chunk], expected: dict[str, Tensor], atol: float) -> dict[str, Any]:
    if "x0_steps" not in expected:
        return {}
    worst = _worst((torch.stack([x0[0] for x0 in chunk.x0_steps]) for chunk in chunks), expected["x0_steps"])
    return {"x0_steps": {"per_chunk": worst, "max": max(worst), "ok": max(worst) <= atol}}


def _forcing_kv(run: dict[str, Any], params: dict[str, Any] | None = None) -> ForcingKV:
    p = run | (params or {})
    return ForcingKV(
        sink_frames=p["sink_size"],
        anchor_frames=p["spatial_context_length"],
        dynamic_anchor_frames=p["temporal_context_length"],
        dynamic_frames=p["dynamic_context_length"] if p["dynamic_temporal_enabled"] else 0,
        segments_per_frame=p["num_frame_patch"],
        retention=p["sim_retention_ratio"],
        start_chunk=p["ar_start"],
    )


def _kept(chunk: Chunk, policy: ForcingKV) -> list[int]:
    """Kept segments as the golden data numbers them: candidate frame * segments + segment."""
    pages = chunk.pages["dynamic"]
    mask = chunk.kept["dynamic"]
    first = chunk.frames[-1] - policy.dynamic_anchor_frames + 1 - len(chunk.frames)
    flat = (pages.frame[mask] - first) * policy.segments + pages.segment[mask]
    return sorted(flat[(flat >= 0) & (flat < len(chunk.frames) * policy.segments)].tolist())


def _check_full(golden: Golden, atol: dict[str, float], chunks: int) -> tuple[dict[str, Any], dict[str, Any]]:
    """Full attention, and the attention masses recorded under it."""
    expected = golden.expected(golden.meta["runs"]["full"]["file"])
    attention = golden.meta.get("attention")
    stream = golden.stream(Full())
    made = []
    for index in range(chunks):
        probe = FrameMassProbe(queries=None, passes=None) if attention and index == attention["chunk"] else None
        made.append(stream.step(probe))
        if probe:
            masses = probe.take()
    report = {
        "latents": _latents(made, expected["latents"], atol["latents"]),
        **_steps(made, expected, atol["latents"]),
    }
    sigma = golden.meta["sampler"]["sigmas"][0]
    flow = (golden.inputs["noise"][0, : golden.meta["frames_per_chunk"]].float() - made[0].x0_steps[0][0].cpu()) / sigma
    report["flow_chunk0_step0"] = _within(float((flow - expected["flow_chunk0_step0"]).abs().max()), atol["latents"])
    if "latents_cap21_last" in expected:
        capped = golden.stream(SlidingWindow(sink_frames=0, window_frames=21))
        last = [capped.step() for _ in range(chunks)][-1]
        difference = float((last.latents[0].cpu() - expected["latents_cap21_last"]).abs().max())
        report["latents_cap21_last"] = _within(difference, atol["latents"])
    if not attention:
        return report, {}
    wanted = golden.expected(attention["file"])
    mass = np.stack([record.mass for record in masses])
    scores = head_scores(mass, attention["last_k"], attention["skip_first_k"])
    static = scores >= attention["threshold"]
    return report, {
        "frame_mass": _within(float(np.abs(mass - wanted["frame_mass"].numpy()).max()), atol["frame_mass"]),
        "head_score": _within(float(np.abs(scores - wanted["head_score"].numpy()).max()), atol["head_score"]),
        "roles_equal": {"ok": bool((static == wanted["is_static"].numpy().astype(bool)).all())},
    }


def _within(value: float, limit: float) -> dict[str, Any]:
    return {"max": value, "ok": value <= limit}


def _check_forcing_kv(golden: Golden, atol: dict[str, float], chunks: int) -> dict[str, Any]:
    """The hybrid cache: latents, similarity scores, kept segments and key lengths, then its variants."""
    run = golden.meta["runs"]["forcing_kv"]
    expected = golden.expected(run["file"])
    heads = from_json(_json(golden.folder / run["heads_file"]))
    policy = _NotedForcingKV(**asdict(_forcing_kv(run)))
    scores = policy.noted
    stream = golden.stream(policy, heads)
    made = [stream.step() for _ in range(chunks)]
    scored = run["scored_chunks"]
    differences = [
        float(np.abs(scores[c] - expected["patch_scores"][i].numpy()).max())
        for i, c in enumerate(scored)
        if c in scores
    ]
    lengths = expected["kv_tokens"].tolist()
    tokens_equal = all(
        chunk.kv_tokens[role if layer else "all"] == length
        for chunk, recorded in zip(made, lengths, strict=True)
        for layer, pair in enumerate(recorded)
        for role, length in zip(ROLES, pair, strict=True)
        if layer == 0 or heads.heads(role)[layer]
    )
    report = {
        "latents": _latents(made, expected["latents"], atol["latents"]),
        **_steps(made, expected, atol["latents"]),
        "patch_scores": _within(max(differences, default=0.0), atol["patch_scores"]),
        "scored_chunks_equal": {"ok": sorted(scores) == scored},
        "kept_segments_equal": {
            "ok": all(_kept(made[c], policy) == expected["kept_segments"][i].tolist() for i, c in enumerate(scored))
        },
        "kv_tokens_equal": {"ok": tokens_equal},
    }
    for name, variant in run.get("variants", {}).items():
        if variant["latents"] not in expected:
            continue
        other = _forcing_kv(run, variant["params"])
        stream = golden.stream(other, heads)
        made = [stream.step() for _ in range(chunks)]
        report[name] = {"latents": _latents(made, expected[variant["latents"]], atol["latents"])}
        wanted = variant.get("kept_segments", {})
        report[name]["kept_segments_equal"] = {
            "ok": all(_kept(made[int(c)], other) == kept for c, kept in wanted.items())
        }
    return report


@dataclass(frozen=True)
class _NotedForcingKV(ForcingKV):
    """Forcing-KV that records its similarity scores, chunk -> scores."""

    noted: dict[int, np.ndarray] = field(init=False, compare=False, default_factory=dict)

    def scores(self, state: ChunkState) -> np.ndarray | None:
        scores = super().scores(state)
        if scores is not None:
            self.noted[state.chunk] = scores
        return scores


def _oks(report: Any) -> Iterable[bool]:
    if isinstance(report, dict):
        for key, value in report.items():
            yield from (value,) if key == "ok" else _oks(value)


def check(
    folder: str | Path, device: str = "cpu", precision: str = "fp32", names: Sequence[str] = ()
) -> dict[str, Any]:
    """Replay runs of a golden folder through the stream that the studio uses, and compare.

    Args:
        folder: A golden folder, such as tests/golden.
        device: Where the model runs.
        precision: Of the model, a key of `fkv.models.precision.COMPUTE`. In another one than fp32, differences within
            `ROUNDINGS` of its type count as none; a choice between near ties may fall differently there.
        names: Of the runs; by default all.

    Returns:
        A report: per run the largest absolute difference per chunk, what must be equal, and `ok` for each and overall
        by the suggested tolerances of the folder.

    Raises:
        ParityError: The folder is not usable, or has no run of such a name.
    """
    golden = load(folder, device, precision)
    try:
        checks = _checks(golden)
        if unknown := [name for name in names if name not in checks]:
            raise ParityError(f"{folder} has no run {unknown[0]!r}; its runs are {', '.join(checks)}")
        runs: dict[str, Any] = {}
        for name in tqdm(names or checks, "parity", disable=len(names or checks) == 1):
            runs |= checks[name]()
    except KeyError as error:
        raise ParityError(f"{golden.folder}: meta.json or a safetensors file has no entry {error}") from None
    except RolesError as error:
        raise ParityError(f"{golden.folder}: {error}") from None
    except ParityError:
        raise
    except (ValueError, RuntimeError) as error:
        raise ParityError(f"{golden.folder}: the files do not fit each other: {error}") from None
    if precision != "fp32":
        _widen(runs, ROUNDINGS * torch.finfo(COMPUTE[precision]).eps)
    return {
        "folder": str(folder),
        "device": device_name(device),
        "precision": precision,
        "runs": runs,
        "ok": all(_oks(runs)),
    }


def _checks(golden: Golden) -> dict[str, Callable[[], dict[str, Any]]]:
    """What can be replayed, by name: each returns its part of the report."""
    if "rules" in golden.meta:
        from .parity_rules import check as check_rules

        return {name: partial(check_rules, golden, [name]) for name in golden.meta["rules"]}
    atol, chunks = golden.meta["suggested_atol"], golden.meta["chunks"]

    def full() -> dict[str, Any]:
        report, attention = _check_full(golden, atol, chunks)
        return {"full": report, "attention": attention}

    def rolling() -> dict[str, Any]:
        run = golden.meta["runs"]["rolling"]
        stream = golden.stream(SlidingWindow(sink_frames=run["sink_size"], window_frames=run["local_attn_size"]))
        made = [stream.step() for _ in range(chunks)]
        return {"rolling": {"latents": _latents(made, golden.expected(run["file"])["latents"], atol["latents"])}}

    return {
        "full": full,
        "rolling": rolling,
        "forcing_kv": lambda: {"forcing_kv": _check_forcing_kv(golden, atol, chunks)},
    }


def _widen(report: dict[str, Any], limit: float) -> None:
    """Take differences of at most `limit` as none."""
    for value in report.values():
        if isinstance(value, dict):
            if "max" in value:
                value["ok"] = value["ok"] or value["max"] <= limit
            _widen(value, limit)
