"""The models there are. Adding one is one entry."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from fkv.kernels.dispatch import setting
from fkv.policies import parse
from fkv.sampler import Schedule
from fkv.transformer.causal import CausalTransformer, check_compiler
from fkv.transformer.graphs import check_graphs

from . import tiny
from .base import VideoModel
from .release import BASES, RESOLUTIONS, Lora, Release, Setup, Source

if TYPE_CHECKING:
    from .checkpoints import Named


@dataclass(frozen=True)
class ModelEntry:
    """A model by name.

    Attributes:
        name: As in `--model`.
        help: One line about it.
        load: Loads it: `load(device=..., **setup)`.
        release: Of a real model; None for the shipped one.
    """

    name: str
    help: str
    load: Callable[..., VideoModel]
    release: Release | None = None


def _entry(help: str, release: Release) -> ModelEntry:
    """Make the entry of a release."""
    return ModelEntry(release.name, help, partial(_load_release, release), release)


def _load_release(release: Release, device: str = "cpu", **setup: str) -> VideoModel:
    from . import wan  # late, like every import of diffusers and transformers: the shipped model starts without them

    return wan.load(release, device, **setup)


RELEASES = (
    _entry(
        "Wan 1.3B distilled into a streaming model on its own rollouts (arXiv 2506.08009)",
        Release(
            "self-forcing",
            "wan-1.3b",
            Source(
                "gdhe17/Self-Forcing",
                "checkpoints/self_forcing_dmd.pt",
                5.7,
                "2f8b779212da279d212c22a509b66ad6552f350e",
            ),
            "CC BY-NC-SA 4.0",
            roles="self_forcing",
            window="sliding-window:sink_frames=0,window_frames=21",
        ),
    ),
    _entry(
        "Self Forcing tuned for minutes of video and for prompts that change on the way (arXiv 2509.22622)",
        Release(
            "longlive",
            "wan-1.3b",
            Source(
                "Efficient-Large-Model/LongLive-1.3B",
                "models/longlive_base.pt",
                5.7,
                "cda9138d93872ef109d9a74c270184eb3a5acc6e",
            ),
            "CC BY-NC-SA 4.0",
            key="generator",
            roles="longlive",
            loras=(
                Lora(
                    Source(
                        "Efficient-Large-Model/LongLive-1.3B",
                        "models/lora.pt",
                        2.8,
                        "cda9138d93872ef109d9a74c270184eb3a5acc6e",
                    ),
                    alpha=256,
                ),
            ),
            window="sliding-window:sink_frames=3,window_frames=12",
            hybrid="forcing-kv:start_chunk=2",
        ),
    ),
    _entry(
        "Self Forcing with an autoregressive teacher (arXiv 2602.02214), the chunk-wise model",
        Release(
            "causal-forcing",
            "wan-1.3b",
            Source(
                "zhuhz22/Causal-Forcing", "chunkwise/causal_forcing.pt", 5.7, "634dc0df042be8133173c3eb4d9efb5da1fba9ca"
            ),
            "Apache-2.0",
            key="generator",
            roles="causal_forcing",
            window="sliding-window:sink_frames=0,window_frames=21",
        ),
    ),
    _entry(
        "streaming model trained with clean and noisy history interleaved (arXiv 2605.15190), with CM-GRPO merged",
        Release(
            "raven",
            "wan-1.3b",
            Source("mvp-lab/RAVEN", "cmgrpo_raven_merge.pt", 5.7),
            "CC BY-NC 4.0",
            roles="raven",
            window="sliding-window:sink_frames=0,window_frames=21",
        ),
    ),
    _entry(
        "Wan 14B as a streaming model; a data-centre GPU",
        Release(
            "krea-realtime",
            "wan-14b",
            Source(
                "krea/krea-realtime-video",
                "krea-realtime-video-14b.safetensors",
                28.6,
                "6b5d204f9d14c3c3a59608e49d1da7fad90daf8d",
            ),
            "Apache-2.0",
            roles="krea_realtime_14b",
            window="recompute:window_frames=6",
            hybrid="forcing-kv:sink_frames=0,dynamic_anchor_frames=3,dynamic_frames=0",
        ),
    ),
)

MODELS = {
    model.name: model
    for model in (
        ModelEntry("tiny", "the toy-world model that ships with the studio; streams on two CPU cores", tiny.load),
        *RELEASES,
    )
}


def load(name: str, device: str = "cpu", **setup: str | None) -> VideoModel:
    """Load a model by name.

    Args:
        name: As `fkv models` lists it.
        device: `cpu`, `cuda` or `cuda:N`.
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
    Setup(**options)
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
    **setup: str,
) -> VideoModel:
    """Load a local checkpoint.

    Args:
        checkpoint: As in `checkpoint_release`, like `base` and `lora`.
        base: See there.
        device: As in `load`, like `setup`.
        lora: See there.
        sampling: See there.
        **setup: See there.

    Raises:
        ValueError: As in `load` and `checkpoint_release`.
    """
    check_device(device)
    release = checkpoint_release(checkpoint, base, lora, **(sampling or {}))
    model = _load_release(release, device, **setup)
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


def table() -> str:
    """Return the models as text: what they are, where they come from, and what they need on a GPU by resolution."""
    lines = []
    for model in MODELS.values():
        lines.append(f"{model.name:>16}  {model.help}")
        if model.release:
            lines += [f"{'':>16}  {line}" for line in _facts(model.release)]
    lines.append(
        f"{'':>16}  --checkpoint FILE --base {'|'.join(BASES)} runs a file of your own; "
        f"`fkv profile` then gives its heads roles"
    )
    return "\n".join(lines)


def _facts(release: Release) -> list[str]:
    """Return the lines of a real model in `table`."""
    from . import fit

    files = " + ".join(f"{source.repo}/{source.file} ({source.gigabytes:g} GB)" for source in release.sources)
    needs = {
        size: fit.fit(release, Setup(size), release.hybrid, device="cuda", free={}).total("device") / 1e9
        for size in RESOLUTIONS
    }
    return [
        f"{BASES[release.base].name}, {release.licence}; {files}",
        f"chunks of {release.frames_per_chunk} latent frames, {len(release.steps)} steps, {release.window}; "
        f"or {release.hybrid}",
        "GPU memory with it: " + ", ".join(f"{need:.0f} GB at {size}" for size, need in needs.items()),
    ]
