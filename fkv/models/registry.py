"""The models there are, by name, and how they are loaded."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, fields, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from fkv.kernels.dispatch import setting
from fkv.policies import parse
from fkv.resources import asset
from fkv.sampler import Schedule
from fkv.transformer.causal import CausalTransformer, check_compiler
from fkv.transformer.graphs import check_graphs

from . import tiny
from .base import VideoModel
from .release import BASES, Release, Setup
from .releases import RELEASES, SHIPPED

if TYPE_CHECKING:
    from .checkpoints import Named


@dataclass(frozen=True)
class ModelEntry:
    """A model by name.

    Attributes:
        name: As in `--model`.
        help: One line about it.
        load: Loads it: `load(device=..., **setup)`.
        release: Of a real model; None for the shipped ones.
    """

    name: str
    help: str
    load: Callable[..., VideoModel]
    release: Release | None = None


def _load_release(release: Release, device: str = "cpu", policy: str | None = None, **setup: str) -> VideoModel:
    from . import wan  # late, like every import of diffusers and transformers: the shipped model starts without them

    return wan.load(release, device, policy, **setup)


MODELS = {
    model.name: model
    for model in (
        *(ModelEntry(name, text, partial(tiny.load, asset(name))) for name, text in SHIPPED.items()),
        *(ModelEntry(each.name, each.help, partial(_load_release, each), each) for each in RELEASES),
    )
}


def load(name: str, device: str = "cpu", policy: str | None = None, **setup: str | None) -> VideoModel:
    """Load a model by name.

    Args:
        name: As `fkv models` lists it.
        device: `cpu`, `cuda` or `cuda:N`.
        policy: The cache that it will run under, as text, if that is known: the memory is checked for it.
        **setup: Fields of `Setup` for real models, `precision` for every model; None leaves one at its default.

    Raises:
        ValueError: An unknown name, setting or device, a setting that the model does not support, or a model that
            cannot be downloaded or does not fit.
    """
    check_device(device)
    found = entry(name)
    options = {field: value for field, value in setup.items() if value}
    if found.release is None and (others := set(options) - {"precision"}):
        raise ValueError(f"model {name!r} does not support --{', --'.join(sorted(others))}")
    known = [field.name for field in fields(Setup)]
    if unknown := sorted(set(options) - set(known)):
        raise ValueError(f"models have no option {unknown[0]!r:.80}; they have {', '.join(known)}")
    Setup(**options)
    if found.release is not None and policy:
        options["policy"] = policy
    return found.load(device=device, **options)


def check_device(name: str) -> None:
    """Check that a device is here.

    Raises:
        ValueError: It is not, or the environment has an unknown setting of its kernels.
    """
    setting()
    gpus = ["cuda", *(f"cuda:{i}" for i in range(torch.cuda.device_count()))] if torch.cuda.is_available() else []
    here = ["cpu", *gpus]
    if name not in here:
        raise ValueError(f"there is no device {name!r} here; there is {', '.join(here)}")


def entry(name: str) -> ModelEntry:
    """Return a model's entry.

    Args:
        name: As `fkv models` lists it, or a folder that `fkv.training.publish` wrote.

    Raises:
        ValueError: There is no model of this name; the message lists the names.
    """
    if name in MODELS:
        return MODELS[name]
    if (Path(name) / "transformer").is_dir():
        return ModelEntry(name, "weights of your own, of the shipped model's architecture", partial(tiny.load, name))
    raise ValueError(f"there is no model {name!r}; there are {', '.join(MODELS)}")


def checkpoint_release(checkpoint: str | Path, base: str, lora: Named = None, **sampling: Any) -> Release:
    """Describe a local checkpoint as a release without head roles.

    Args:
        checkpoint: A file, the index of shards, or the folder of either.
        base: Its architecture, a key of `BASES`.
        lora: Files with adapters to merge, as in `Lora.parse`.
        **sampling: `steps`, `shift`, `timesteps`, `frames_per_chunk` and `window` of `Release`, by default those of
            Self Forcing, and every frame kept.

    Raises:
        ValueError: A file is missing, a setting is out of range, the base is unknown, or names and shapes show that the
            file is no checkpoint of it.
    """
    from .checkpoints import check_file, loras_of

    if base not in BASES:
        raise ValueError(f"there is no base {base!r}; there are {', '.join(BASES)}")
    release = Release(Path(checkpoint).stem, base, Path(checkpoint), "its own", **sampling)
    check_sampling(release)
    path = Path(checkpoint)
    loras = loras_of(lora)
    for file in (path, *(one.file for one in loras)):
        if isinstance(file, Path) and not file.exists():
            raise ValueError(f"there is no file {file}")
    check_file(path, BASES[base], loras)
    return replace(release, loras=tuple(loras))


def check_sampling(release: Release) -> None:
    """Raise ValueError for steps, shift, timesteps, chunks or a window that no stream can have."""
    steps = release.steps
    if not steps or not all(1 <= step <= 1000 for step in steps) or sorted(set(steps), reverse=True) != list(steps):
        raise ValueError(f"--steps are falling numbers from 1000 to 1, as in 1000,750,500,250, not {steps}")
    if not 0 < release.shift <= 100:
        raise ValueError(f"--shift must be above 0 and at most 100, not {release.shift:g}")
    if not 1 <= release.frames_per_chunk <= 21:
        raise ValueError(f"--frames-per-chunk must be from 1 to 21, not {release.frames_per_chunk}")
    Schedule.at(release.timesteps or (1000,))
    parse(release.window)


def _assumed(release: Release, sampling: Collection[str]) -> str:
    """Say what was assumed of a checkpoint of one's own. Returns "" where `sampling` has it all."""
    parts = []
    if "timesteps" not in sampling and "steps" not in sampling:
        parts.append(f"steps {','.join(map(str, release.steps))} (--steps or --schedule)")
    if "timesteps" not in sampling and "shift" not in sampling:
        parts.append(f"shift {release.shift:g} (--shift)")
    if "frames_per_chunk" not in sampling:
        parts.append(f"chunks of {release.frames_per_chunk} latent frames (--frames-per-chunk)")
    if "window" not in sampling:
        parts.append("every frame kept (--window and --sink)")
    if not parts:
        return ""
    return f"Assumed of {release.name}: {', '.join(parts)}. Say what it was trained with if that differs."


def load_checkpoint(
    checkpoint: str | Path,
    base: str,
    device: str = "cpu",
    lora: Named = None,
    sampling: Mapping[str, Any] | None = None,
    policy: str | None = None,
    **setup: str,
) -> VideoModel:
    """Load a local checkpoint.

    Args:
        checkpoint: A file, the index of shards, or the folder of either.
        base: Its architecture, a key of `BASES`.
        device: `cpu`, `cuda` or `cuda:N`.
        lora: Files with adapters to merge, as in `Lora.parse`.
        sampling: How it was trained, as `checkpoint_release` takes it.
        policy: The policy that it shall run, by which its memory is judged, as in `load`.
        **setup: How it runs, as `load` takes it.

    Raises:
        ValueError: As in `load` and `checkpoint_release`.
    """
    check_device(device)
    release = checkpoint_release(checkpoint, base, lora, **(sampling or {}))
    model = _load_release(release, device, policy, **setup)
    return replace(model, assumed=tuple(filter(None, [_assumed(release, sampling or {})])))


def check_speed(device: str, compile: bool, graphs: bool) -> None:
    """Check that the options of `speed_up` are available on a device.

    Raises:
        ValueError: There is no C++ compiler for `compile`, or the device has no CUDA graphs.
    """
    if compile:
        check_compiler()
    if graphs:
        check_graphs(device)


def speed_up(transformer: CausalTransformer, compile: bool, graphs: bool) -> None:
    """Make a transformer faster without changing what it computes.

    Args:
        transformer: The transformer to change in place.
        compile: Fuse what lies between attention calls with `torch.compile`.
        graphs: Replay the passes of a steady stream as CUDA graphs.

    Raises:
        ValueError: As in `check_speed`.
    """
    if compile:
        transformer.compile()
    if graphs:
        transformer.capture_graphs()
