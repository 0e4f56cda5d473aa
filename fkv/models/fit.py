"""Does it fit? What a real model needs in memory against what is free, told before anything is downloaded or loaded.

Weights are counted, the cache is the policy's own page table filled on the meta device, and working memory is the largest sum
of live tensors while one pass, or the decoding of one chunk, runs on the meta device. What PyTorch's allocator and the
libraries below it hold on top is not known beforehand; `SLACK` stands for it.
"""

from __future__ import annotations

import argparse
import dataclasses
import itertools
import json
import os
import weakref
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderKLWan
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from .. import policies, roles
from ..attention import CausalTransformer
from ..cache import Geometry, Heads, KVCache
from ..policies import Moment, Policy
from ..roles import HeadRoles
from ..stream import check_chunks
from .convert import empty_model
from .precision import COMPUTE, stored_as
from .release import BASES, RESOLUTIONS, Base, Release, Setup
from .taehv import SmallDecoder
from .vae import StreamingVae

REFERENCE = RESOLUTIONS["480p"]
"""The size at which a decoder is counted; what it needs grows with the area."""
TEXT_ENCODER_PARAMETERS = 5_680_910_336
"""UMT5-XXL, encoder only."""
SIMULATED_CHUNKS = 48
"""A cache that still grows after so many chunks grows evenly from then on."""
SLACK = 0.05
"""Share of what was counted that is added for allocators and libraries."""


class FitError(ValueError):
    """It does not fit; the message says what would."""


@dataclass(frozen=True)
class Need:
    """One row of the table: bytes on the device or on the host. `kind`: `weights`, `cache` or `working` memory."""

    what: str
    bytes: int
    where: str = "device"
    kind: str = "weights"


@dataclass(frozen=True)
class Fit:
    """What a release needs under a setup and policy. `free`: bytes free on the device and on the host; on a CPU they are one."""

    release: Release
    setup: Setup
    policy: str
    chunks: int
    needs: tuple[Need, ...]
    free: dict[str, int]

    def total(self, where: str) -> int:
        """Bytes needed at once: resident memory, the largest working set (they never coincide), and slack."""
        mine = [need for need in self.needs if need.where == where]
        resident = sum(need.bytes for need in mine if need.kind != "working")
        working = max((need.bytes for need in mine if need.kind == "working"), default=0)
        return round((resident + working) * (1 + SLACK))

    @property
    def fits(self) -> bool:
        return all(self.total(where) <= self.free[where] for where in self.free)

    def __str__(self) -> str:
        rows = [(need.what, need.where, need.bytes, "while it runs" if need.kind == "working" else "") for need in self.needs]
        rows += [("together, with slack", where, self.total(where), f"of {_gb(free)} free") for where, free in self.free.items()]
        title = f"{self.release.name} at {self.setup.resolution} in {self.setup.precision}, {self.policy}, {self.chunks} chunks"
        return "\n".join([title, *(f"{what:<42} {where:<6} {_gb(size):>10}  {note}".rstrip() for what, where, size, note in rows)])


def fit(
    release: Release,
    setup: Setup,
    policy: str | None = None,
    chunks: int = 21,
    device: str = "cpu",
    free: dict[str, int] | None = None,
) -> Fit:
    """What `release` needs, row by row. policy : policy text, default the window it was released with.

    free : bytes by place (`device`, `host`) instead of what is free now. Raises ValueError for an unknown policy.
    """
    policy, base = policy or release.window, BASES[release.base]
    needs = [*_transformer(base, setup), *_text(base, setup), _cache(release, setup, policy, chunks), *_decoder(setup, device)]
    needs.append(Need("a pass over one chunk", _pass_bytes(base, setup.resolution, COMPUTE[setup.precision]), kind="working"))
    if not str(device).startswith("cuda"):
        needs = [dataclasses.replace(need, where="device") for need in needs if need.what != TEXT_VISIT]
    return Fit(release, setup, policy, chunks, tuple(needs), free_memory(device) if free is None else free)


def suggest(wanted: Fit, device: str = "cpu") -> Fit | None:
    """The setup that fits with the fewest changes to a fit that does not, the least harmful first; None where none does."""
    sizes = list(RESOLUTIONS)
    options = {
        "text": dict.fromkeys((wanted.setup.text, "offload", "cpu")),
        "decoder": dict.fromkeys((wanted.setup.decoder, "small")),
        "policy": dict.fromkeys((wanted.policy, wanted.release.window, *([wanted.release.hybrid] if wanted.release.roles else []))),
        "precision": dict.fromkeys((wanted.setup.precision, "bf16", "fp8")),
        "resolution": dict.fromkeys(reversed(sizes[: sizes.index(wanted.setup.resolution) + 1])),
    }
    asked = tuple(next(iter(values)) for values in options.values())
    changed = lambda plan: [a != b for a, b in zip(plan, asked)]
    plans = sorted(itertools.product(*options.values()), key=lambda plan: (sum(changed(plan)), changed(plan)[::-1]))
    for text, decoder, policy, precision, resolution in plans:
        found = fit(wanted.release, Setup(resolution, decoder, precision, text), policy, wanted.chunks, device, wanted.free)
        if found.fits:
            return found
    return None


def check(release: Release, setup: Setup, device: str) -> None:
    """Raises FitError, with what would fit, when a first short stream under the release's leanest policy would not."""
    base = BASES[release.base]
    if not str(device).startswith("cuda") and base.dim >= 5120:
        raise FitError(
            f"{release.name} has {parameters(base) / 1e9:.1f} billion parameters, too many to stream on a CPU; use --device cuda, "
            f"or a model of base wan-1.3b, or --model tiny"
        )
    wanted = fit(release, setup, release.hybrid if release.roles else release.window, device=device)
    if not wanted.fits:
        raise FitError(explain(wanted, device))


def explain(wanted: Fit, device: str = "cpu") -> str:
    """One sentence on what is missing and what would fit, for a fit that does not."""
    short = next(where for where in wanted.free if wanted.total(where) > wanted.free[where])
    place = device if short == "device" else "the host"
    lacking = f"{wanted.release.name} needs {_gb(wanted.total(short))} on {place}, {_gb(wanted.free[short])} are free"
    found = suggest(wanted, device)
    if found is None:
        return f"{lacking}, and no setting makes it fit; use a machine with more memory, or --model tiny"
    return f"{lacking}; this would fit: {changes(wanted, found)}"


def changes(wanted: Fit, found: Fit) -> str:
    """The command-line options by which two fits differ, as the second has them."""
    pairs = [("policy", wanted.policy, found.policy)]
    pairs += [(field.name, getattr(wanted.setup, field.name), getattr(found.setup, field.name)) for field in dataclasses.fields(Setup)]
    return " ".join(f"--{name} {new}" for name, old, new in pairs if old != new)


# The rows.

TEXT_VISIT = "text encoder, visiting for a new prompt"


@lru_cache
def _model(base: Base) -> CausalTransformer:
    return CausalTransformer(empty_model(base.original))


def parameters(base: Base) -> int:
    """Parameters of the transformer, counted on the meta device."""
    return sum(p.numel() for p in _model(base).model.parameters())


def _transformer(base: Base, setup: Setup) -> Iterator[Need]:
    compute = COMPUTE[setup.precision]
    model = _model(base).model
    yield Need("transformer", sum(p.numel() * stored_as(model, name, setup.precision).itemsize for name, p in model.named_parameters()))
    yield Need("its self-attention weights in head order", base.layers * (4 * base.dim**2 + 5 * base.dim) * compute.itemsize)


def _text(base: Base, setup: Setup) -> Iterator[Need]:
    size = TEXT_ENCODER_PARAMETERS * 2
    yield Need("text encoder", size, "device" if setup.text == "device" else "host")
    if setup.text == "offload":
        yield Need(TEXT_VISIT, size, kind="working")
    yield Need("a prompt's keys and values", 2 * base.layers * base.text_words * base.dim * COMPUTE[setup.precision].itemsize, kind="cache")


def _cache(release: Release, setup: Setup, policy: str, chunks: int) -> Need:
    made = policies.parse(policy)
    heads = roles.load(release.roles_file) if release.roles_file else None
    geometry = BASES[release.base].geometry(setup.resolution, release.frames_per_chunk)
    size = kv_bytes(geometry, made, heads, chunks, COMPUTE[setup.precision], len(release.steps))
    return Need(f"KV cache, {made.name}", size, kind="cache")


def _decoder(setup: Setup, device: str) -> Iterator[Need]:
    if setup.decoder == "none":
        return
    itemsize = 2 if str(device).startswith("cuda") else 4
    area = np.prod(RESOLUTIONS[setup.resolution]) / np.prod(REFERENCE)
    weights, state, peak = _counted_decoder(setup.decoder)
    name = "VAE decoder" if setup.decoder == "vae" else "small decoder"
    yield Need(name, weights * itemsize)
    yield Need(f"{name}, kept between chunks", round(state * itemsize * area), kind="cache")
    yield Need(f"{name}, decoding a chunk", round(peak * itemsize * area), kind="working")


@lru_cache
def _counted_decoder(name: str) -> tuple[int, int, int]:
    """Elements, not bytes: weights, state between chunks, and the most alive on top of both while a chunk is decoded."""
    with torch.device("meta"):
        decoder = StreamingVae(AutoencoderKLWan()) if name == "vae" else SmallDecoder()
    module = decoder.vae if name == "vae" else decoder
    latents = torch.empty(1, 3, 16, *REFERENCE, device="meta")
    with torch.inference_mode(), Peak() as peak:
        _, state = decoder.decode(latents if name == "vae" else latents[0], None)
        decoder.decode(latents if name == "vae" else latents[0], state)
    held = _elements(state)
    return _elements(module.parameters()), held, peak.bytes // 4 - held


def _elements(tensors: Iterable[object]) -> int:
    return sum(tensor.numel() for tensor in tensors if isinstance(tensor, Tensor))


@lru_cache
def _pass_bytes(base: Base, resolution: str, dtype: torch.dtype) -> int:
    """The most that is alive during a pass, beyond weights and cache. All blocks are alike, so two of them tell."""
    model = empty_model(dataclasses.replace(base, layers=2).original)
    for parameter in model.parameters():
        parameter.data = parameter.data.to(dtype)
    transformer = CausalTransformer(model)
    height, width = RESOLUTIONS[resolution]
    geometry = transformer.geometry(height, width, 3)
    cache = KVCache(geometry, geometry.every_head, dtype=dtype, device="meta")
    cache.begin((0, 1, 2))
    table = transformer.rope((0, 1, 2), geometry.rows, geometry.cols)
    text = transformer.prepare_text(torch.empty(1, base.text_words, base.text_dim, device="meta"))
    transformer.weights_for(cache.order)
    with Peak() as peak:
        transformer(torch.empty(1, 3, base.channels, height, width, device="meta"), 500.0, text, cache, table)
    return peak.bytes


def kv_bytes(
    geometry: Geometry,
    policy: Policy,
    heads: HeadRoles | None,
    chunks: int,
    dtype: torch.dtype = torch.bfloat16,
    steps: int = 4,
) -> int:
    """Bytes of K and V at their most in a stream of `chunks` chunks: the real cache, run under `policy` on the meta device.

    Similarities that a policy would look at are random: they decide which pages stay, not how many. For a policy that classes
    heads by their attention, the larger of two extremes: all of it on the first frame, or all on the last one before the chunk.
    """
    looks = (0,) if type(policy).regroup is Policy.regroup else (0, -1)
    return max(_kv_bytes(geometry, policy, heads, chunks, dtype, look) for look in looks) * (steps if policy.caches == "per-step" else 1)


def _kv_bytes(geometry: Geometry, policy: Policy, heads: HeadRoles | None, chunks: int, dtype: torch.dtype, look: int) -> int:
    cache = _Sizes(geometry, policy.groups(geometry, heads) or geometry.every_head, policy.segments, dtype, "meta")
    sizes = []
    for chunk in range(min(chunks, SIMULATED_CHUNKS)):
        frames = tuple(range(chunk * geometry.frames_per_chunk, (chunk + 1) * geometry.frames_per_chunk))
        cache.begin(frames)
        sizes.append(cache.bytes())
        now = Moment(chunk, frames, cache)
        if policy.watches(chunk, cache):
            earlier = tuple(cache.frames())
            mass = np.zeros((geometry.layers, geometry.heads, len(frames), len(earlier)))
            mass[..., 0 if look == 0 else -len(frames) - 1] = 1
            now = dataclasses.replace(now, mass=mass, key_frames=earlier)
        if groups := policy.regroup(now):
            cache = cache.split(groups, policy.segments)
            now = dataclasses.replace(now, cache=cache)
        policy.commit(now)
    growth = sizes[-1] - sizes[-2] if len(sizes) > 1 else 0
    return max(sizes[-1] + growth * (chunks - len(sizes)), *sizes)


class _Sizes(KVCache):
    """A cache of which only the page tables count: on the meta device, with keys of its own where a policy asks for them."""

    def keys_of(self, layer: int, name: str, frames: Sequence[int]) -> Tensor:
        return torch.randn(1, 1, len(frames), self.geometry.tokens_per_frame, 2, generator=torch.Generator().manual_seed(0))

    def split(self, groups: Mapping[str, Heads], segments: int) -> _Sizes:
        """The same frames under other head groups, all of them held whole."""
        new = _Sizes(self.geometry, groups, segments, next(iter(self.groups.values())).keys[0].dtype, "meta")
        new.begin(self.frames())
        return new


class Peak(TorchDispatchMode):
    """Counts the bytes of tensors that are made inside and alive at once, on one kind of device. `bytes`: the most so far."""

    def __init__(self, device: str = "meta") -> None:
        super().__init__()
        self.device, self.bytes, self.alive = device, 0, 0
        self._sizes: dict[int, int] = {}

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        given = {storage._cdata for storage in _storages((args, kwargs))}
        out = func(*args, **(kwargs or {}))
        for storage in _storages(out):
            if storage.device.type == self.device and storage._cdata not in given and storage._cdata not in self._sizes:
                self._sizes[storage._cdata] = storage.nbytes()
                self.alive += storage.nbytes()
                self.bytes = max(self.bytes, self.alive)
                weakref.finalize(storage, self._gone, storage._cdata)
        return out

    def _gone(self, key: int) -> None:
        self.alive -= self._sizes.pop(key)


def _storages(tree: object) -> Iterator[torch.UntypedStorage]:
    for leaf in tree_leaves(tree):
        if isinstance(leaf, Tensor):
            yield leaf.untyped_storage()
        elif isinstance(leaf, torch.UntypedStorage):
            yield leaf


# What is free.


def free_memory(device: str) -> dict[str, int]:
    """Bytes free by place: `device` and `host` for CUDA, `device` alone for a CPU."""
    if str(device).startswith("cuda"):
        return {"device": torch.cuda.mem_get_info(device)[0], "host": host_memory()}
    return {"device": host_memory()}


def host_memory() -> int:
    """Bytes of main memory that a process may still take: what the machine has, within the limit of its container."""
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
        free = next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable"))
    except (OSError, StopIteration):
        free = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    group = Path("/sys/fs/cgroup")
    try:
        limit, used = (int((group / name).read_text()) for name in ("memory.max", "memory.current"))
        stat = dict(line.split() for line in (group / "memory.stat").read_text().splitlines())
        return min(free, limit - used + int(stat["inactive_file"]))
    except (OSError, ValueError, KeyError):
        return free


def _gb(size: float) -> str:
    return f"{size / 1e9:.1f} GB"


# fkv fit


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `fkv fit`."""
    from . import registry

    registry.add_arguments(parser, "cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--policy", help="NAME or NAME:key=value,... (default: the window the model was released with)")
    parser.add_argument("--chunks", type=int, default=21, help="length of the stream (default: 21)")
    parser.add_argument("--memory", type=float, metavar="GB", help="ask for a device with that much free instead of this machine's")
    parser.add_argument("--json", metavar="FILE", help="write the table there too")


def run(args: argparse.Namespace) -> int:
    """Print what a model needs; 1 when it does not fit. Raises ValueError with a sentence for the user."""
    from . import registry

    release = registry.own(args.checkpoint, args.base, args.lora) if args.checkpoint else registry.entry(args.model).release
    if release is None:
        raise ValueError(f"model {args.model!r} ships with the studio and is small; `fkv fit` is for the models that have to be downloaded")
    check_chunks(args.chunks)
    free = None if args.memory is None else {"device": round(args.memory * 1e9), "host": host_memory()}
    device = "cuda" if free else args.device
    found = fit(release, Setup(**registry.setup_of(args)), args.policy, args.chunks, device, free)
    print(found, "it fits" if found.fits else explain(found, device), sep="\n")
    if args.json:
        rows = [dataclasses.asdict(need) for need in found.needs]
        report = {
            "model": release.name,
            **vars(found.setup),
            "policy": found.policy,
            "chunks": found.chunks,
            "device": device,
            "needs": rows,
        }
        totals = {where: found.total(where) for where in found.free}
        Path(args.json).write_text(json.dumps(report | {"total": totals, "free": found.free, "fits": found.fits}, indent=1) + "\n")
    return 0 if found.fits else 1
