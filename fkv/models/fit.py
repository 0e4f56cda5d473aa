"""How much memory a real model needs and how much is free, checked before anything is downloaded.

What PyTorch's allocator and the libraries below it take beyond what `memory` counts is not known beforehand; `SLACK`
stands for it.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch

from fkv import policies, roles
from fkv.pages import Geometry
from fkv.policies import Policy

from . import memory
from .precision import COMPUTE, stored_as
from .release import BASES, RESOLUTIONS, Base, Release, Setup

TEXT_ENCODER_PARAMETERS = 5_680_910_336  # UMT5-XXL, encoder only
SLACK = 0.05  # share of the counted bytes that is added for allocators and libraries


class FitError(ValueError):
    """It does not fit; the message says what would."""


@dataclass(frozen=True)
class Need:
    """One row of the table.

    Attributes:
        what: In words.
        bytes: Of memory.
        where: `device` or `host`.
        kind: `weights`, `cache`, `graphs` (captured passes) or `working` memory.
    """

    what: str
    bytes: int
    where: str = "device"
    kind: str = "weights"


@dataclass(frozen=True)
class Fit:
    """What a release needs under a setup and policy, and what is free.

    Attributes:
        release: The model.
        setup: How it runs.
        policy: As text.
        chunks: Length of the stream.
        needs: The rows of the table.
        cache: Its keys and values, as `fkv bench` counts them too.
        free: Bytes free on `device` and `host`; on a CPU, `device` alone.
        graphs: Whether steady passes are replayed as CUDA graphs.
    """

    release: Release
    setup: Setup
    policy: str
    chunks: int
    needs: tuple[Need, ...]
    cache: memory.CacheBytes
    free: dict[str, int]
    graphs: bool = False

    def total(self, where: str) -> int:
        """Return the bytes needed at once: resident memory, the largest of the working sets (one at a time), slack."""
        needs = [need for need in self.needs if need.where == where]
        resident = sum(need.bytes for need in needs if need.kind != "working")
        working = max((need.bytes for need in needs if need.kind == "working"), default=0)
        return round((resident + working) * (1 + SLACK))

    @property
    def fits(self) -> bool:
        """Whether everything fits at once."""
        return all(self.total(where) <= self.free[where] for where in self.free)

    def __str__(self) -> str:
        rows = [
            (need.what, need.where, need.bytes, "while it runs" if need.kind == "working" else "")
            for need in self.needs
        ]
        rows += [
            ("together, with slack", where, self.total(where), f"of {_gb(free)} free")
            for where, free in self.free.items()
        ]
        width = max(len(what) for what, *_ in rows)
        setup = f"{self.setup.resolution} in {self.setup.precision}{' with CUDA graphs' if self.graphs else ''}"
        title = f"{self.release.name} at {setup}, {self.policy}, {self.chunks} chunks"
        table = (f"{what:<{width}} {where:<6} {_gb(size):>10}  {note}".rstrip() for what, where, size, note in rows)
        cache = self.cache
        kv = (
            f"keys and values: {_gb(cache.kv_bytes_between)} between chunks, "
            f"{_gb(cache.kv_bytes)} while a chunk attends, {_gb(cache.kv_bytes_allocated)} allocated"
        )
        return "\n".join([title, *table, kv])


def fit(
    release: Release,
    setup: Setup,
    policy: str | None = None,
    chunks: int = 21,
    device: str = "cpu",
    free: dict[str, int] | None = None,
    graphs: bool = False,
) -> Fit:
    """Count what a release needs, row by row.

    Args:
        release: The model.
        setup: How it runs.
        policy: As text; by default the cache that the model begins with.
        chunks: Length of the stream.
        device: Where it runs.
        free: Bytes by place (`device`, `host`), instead of what is free now.
        graphs: Whether steady passes are replayed as CUDA graphs. All graphs of a model share one pool of memory, which
            holds what a pass needs and which nothing else can use; and a chunk cannot lie apart from the pages, so its
            keys and values lie in every layer.

    Raises:
        ValueError: The policy is unknown.
    """
    parsed = policies.parse(policy or release.policies[0])
    base = BASES[release.base]
    cache = _cache(release, setup, parsed, chunks, graphs)
    needs = [
        *_transformer(base, setup),
        *_text(base, setup),
        Need(f"KV cache, {policies.write(parsed)}", cache.kv_bytes_allocated, kind="cache"),
        *_decoder(release, setup, device),
    ]
    pass_bytes = memory.pass_bytes(base, setup.resolution, COMPUTE[setup.precision], release.frames_per_chunk)
    needs.append(Need("a pass over one chunk", pass_bytes, kind="working"))
    if graphs:
        needs.append(Need("memory pool of CUDA graphs, at most", pass_bytes, kind="graphs"))
    if not str(device).startswith("cuda"):
        needs = [dataclasses.replace(need, where="device") for need in needs if need.what != TEXT_VISIT]
    free = memory.free_memory(device) if free is None else free
    return Fit(release, setup, policy or release.policies[0], chunks, tuple(needs), cache, free, graphs)


def suggest(wanted: Fit, device: str = "cpu") -> Fit | None:
    """Return the setup that fits with the fewest changes, the least harmful first; None where none does.

    Args:
        wanted: A fit that does not fit.
        device: Where it would run.
    """
    sizes = list(RESOLUTIONS)
    options: dict[str, dict[Any, None]] = {
        "graphs": dict.fromkeys((wanted.graphs, False)),
        "text": dict.fromkeys((wanted.setup.text, "offload", "cpu")),
        "decoder": dict.fromkeys((wanted.setup.decoder, "small")),
        "policy": dict.fromkeys(
            (wanted.policy, wanted.release.window, *([wanted.release.hybrid] if wanted.release.roles else []))
        ),
        "precision": dict.fromkeys((wanted.setup.precision, "bf16", "fp8")),
        "resolution": dict.fromkeys(reversed(sizes[: sizes.index(wanted.setup.resolution) + 1])),
    }
    asked = tuple(next(iter(values)) for values in options.values())

    def harm(plan: tuple[Any, ...]) -> tuple[int, list[bool]]:
        """How many options change, then which: a change of a later option is more harmful."""
        changed = [value != original for value, original in zip(plan, asked, strict=True)]
        return sum(changed), changed[::-1]

    for graphs, text, decoder, policy, precision, resolution in sorted(itertools.product(*options.values()), key=harm):
        setup = Setup(resolution, decoder, precision, text)
        found = fit(wanted.release, setup, policy, wanted.chunks, device, wanted.free, graphs)
        if found.fits:
            return found
    return None


def check(release: Release, setup: Setup, device: str, policy: str | None = None) -> None:
    """Check that a short first stream fits under the leaner of the cache that the model begins with and that chosen.

    Args:
        release: The model.
        setup: How it would run.
        device: Where.
        policy: The cache that was chosen, as text.

    Raises:
        FitError: It does not fit; the message says what would.
        ValueError: The policy does not fit the model.
    """
    base = BASES[release.base]
    if not str(device).startswith("cuda") and base.dim >= 5120:
        raise FitError(
            f"{release.name} has {memory.parameters(base) / 1e9:.1f} billion parameters, too many to stream on a CPU; "
            f"use --device cuda, or a model of base wan-1.3b, or --model tiny"
        )
    caches = dict.fromkeys((policy or release.policies[0], release.policies[0]))
    needs = [fit(release, setup, cache, device=device) for cache in caches]
    wanted = min(needs, key=lambda need: need.total("device"))
    if not wanted.fits:
        raise FitError(explain(wanted, device))


def explain(wanted: Fit, device: str = "cpu") -> str:
    """Return one sentence on what is missing and what would fit.

    Args:
        wanted: A fit that does not fit.
        device: Where it would run.
    """
    short = next(where for where in wanted.free if wanted.total(where) > wanted.free[where])
    place = device if short == "device" else "the host"
    lacking = f"{wanted.release.name} needs {_gb(wanted.total(short))} on {place}, {_gb(wanted.free[short])} are free"
    found = suggest(wanted, device)
    if found is None:
        return f"{lacking}, and no setting makes it fit; use a machine with more memory, or --model tiny"
    return f"{lacking}; this would fit: {changes(wanted, found)}"


def changes(wanted: Fit, found: Fit) -> str:
    """Return the command-line options by which two fits differ, with the values of the second."""
    pairs = [("policy", wanted.policy, found.policy)]
    pairs += [
        (field.name, getattr(wanted.setup, field.name), getattr(found.setup, field.name))
        for field in dataclasses.fields(Setup)
    ]
    options = [f"--{name} {new}" for name, old, new in pairs if old != new]
    return " ".join(options + ["without --graphs"] * (wanted.graphs and not found.graphs))


# The rows.

TEXT_VISIT = "text encoder, visiting for a new prompt"


def _transformer(base: Base, setup: Setup) -> Iterator[Need]:
    model = memory.transformer(base).model
    sizes = (p.numel() * stored_as(model, name, setup.precision).itemsize for name, p in model.named_parameters())
    yield Need("transformer", sum(sizes))
    fused = base.layers * (4 * base.dim**2 + 5 * base.dim) * COMPUTE[setup.precision].itemsize
    yield Need("its self-attention weights in head order", fused)


def _text(base: Base, setup: Setup) -> Iterator[Need]:
    size = TEXT_ENCODER_PARAMETERS * 2
    yield Need("text encoder", size, "device" if setup.text == "device" else "host")
    if setup.text == "offload":
        yield Need(TEXT_VISIT, size, kind="working")
    cross = 2 * base.layers * base.max_sequence_length * base.dim * COMPUTE[setup.precision].itemsize
    yield Need("a prompt's keys and values", cross, kind="cache")


def _cache(release: Release, setup: Setup, policy: Policy, chunks: int, graphs: bool) -> memory.CacheBytes:
    geometry = BASES[release.base].geometry(setup.resolution, release.frames_per_chunk)
    dtype, steps = COMPUTE[setup.precision], len(release.schedule.sigmas)
    return _counted(geometry, policy, release.roles_file, chunks, dtype, steps, apart=not graphs)


@lru_cache(maxsize=256)  # `suggest` asks for the same again and again
def _counted(
    geometry: Geometry,
    policy: Policy,
    roles_file: Path | None,
    chunks: int,
    dtype: torch.dtype,
    steps: int,
    *,
    apart: bool,
) -> memory.CacheBytes:
    heads = roles.load(roles_file) if roles_file else None
    return memory.cache_bytes(geometry, policy, heads, chunks, dtype, steps, apart)


def _decoder(release: Release, setup: Setup, device: str) -> Iterator[Need]:
    if setup.decoder == "none":
        return
    itemsize = 2 if str(device).startswith("cuda") else 4
    base = BASES[release.base]
    area = np.prod(base.latent_size(setup.resolution)) / np.prod(base.latent_size(memory.REFERENCE))
    weights, state, peak = memory.decoder_elements(setup.decoder, base, release.frames_per_chunk)
    name = f"{'VAE' if setup.decoder == 'vae' else setup.decoder} decoder"
    yield Need(name, weights * itemsize)
    yield Need(f"{name}, kept between chunks", round(state * itemsize * area), kind="cache")
    yield Need(f"{name}, decoding a chunk", round(peak * itemsize * area), kind="working")


def _gb(size: float) -> str:
    return f"{size / 1e9:.1f} GB"
