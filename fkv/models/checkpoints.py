"""Checkpoint files as they are released: weights with Wan's original names, loaded into the model.

Released files differ in container (.pt, .safetensors), nesting (`generator_ema`, `generator`, `model`, none), prefixes
(`model.`, wrappers of FSDP, torch.compile and peft) and in whether a LoRA adapter comes in a file of its own. Names
alone tell these apart; tensors stay on disk (memory-mapped) until each is merged, cast and moved.
"""

from __future__ import annotations

import pickle
import re
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from diffusers import WanTransformer3DModel
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file
from torch import Tensor

from .convert import diffusers_names, empty_model, load_strictly
from .precision import stored_as, use_fp8
from .release import BASES, Base

WRAPPERS = ("generator_ema", "generator", "model", "state_dict", "module")
LORA_WRAPPERS = ("generator_lora", *WRAPPERS)
NOISE = re.compile(r"_fsdp_wrapped_module\.|_checkpoint_wrapped_module\.|_orig_mod\.|base_layer\.")
PREFIX = re.compile(r"^(module\.|base_model\.|model\.|diffusion_model\.|generator\.)+")
LORA = re.compile(r"(.+)\.lora_([AB])(?:\.default)?\.weight")


class CheckpointError(ValueError):
    """A checkpoint that cannot be used; the message names the file and what to do."""


@dataclass(frozen=True)
class Adapter:
    """A LoRA adapter: W becomes W + scale * B A.

    Attributes:
        pairs: By original name of a weight, A [rank, inputs] and B [outputs, rank].
        alpha: The scale is alpha / rank, 1 where alpha is None.
    """

    pairs: Mapping[str, tuple[Tensor, Tensor]]
    alpha: float | None = None

    def merged(self, name: str, weight: Tensor) -> Tensor:
        """Return a weight with the adapter merged in float32, or unchanged where the adapter does not have it."""
        if name not in self.pairs:
            return weight
        down, up = (factor.float() for factor in self.pairs[name])
        scale = 1.0 if self.alpha is None else self.alpha / len(down)
        return torch.addmm(weight.float(), up, down, alpha=scale)


def read(path: str | Path, place: str = "cpu") -> Any:
    """Read a .pt, .pth, .bin or .safetensors file, memory-mapped, without running code in it.

    Args:
        path: The file.
        place: `cpu`, or `meta` for names and shapes alone.

    Returns:
        What the file holds, usually nested dicts of tensors.

    Raises:
        CheckpointError: The file is missing, incomplete, of another kind, or a pickle that holds more than tensors.
    """
    path = Path(path)
    again = f"delete {path.name} and download it again"
    try:
        with path.open("rb") as file:
            head = file.read(64)
        if head.startswith(b"version https://git-lfs"):
            raise CheckpointError(
                f"{path} is a Git LFS pointer, not the weights themselves; "
                f"fetch it with `git lfs pull` or `hf download`"
            )
        if path.suffix == ".safetensors":
            if place == "meta":
                with safe_open(path, "pt") as tensors:
                    shapes = {name: tensors.get_slice(name).get_shape() for name in tensors.keys()}
                return {name: torch.empty(shape, device=place) for name, shape in shapes.items()}
            return load_file(path)
        return torch.load(path, map_location=place, weights_only=True, mmap=zipfile.is_zipfile(path))
    except OSError as error:
        raise CheckpointError(f"cannot read the checkpoint {path}: {error.strerror or error}") from None
    except SafetensorError as error:
        raise CheckpointError(f"{path} is incomplete or no safetensors file ({error}); {again}") from None
    except pickle.UnpicklingError as error:
        found = re.search(r"(?:GLOBAL|class) ([\w.]+)", str(error))
        if found is None:
            raise CheckpointError(f"{path} is incomplete or no PyTorch checkpoint; {again}") from None
        raise CheckpointError(
            f"{path} holds more than tensors ({found[1]}); nothing in it was run. Only files of plain tensors are "
            f"read: get the weights as .safetensors from a source that you trust"
        ) from None
    except (RuntimeError, EOFError, ValueError, KeyError) as error:
        if isinstance(error, CheckpointError):
            raise
        raise CheckpointError(f"{path} is incomplete or no PyTorch checkpoint; {again}") from None


def state_dict(data: Any, key: str | None = None, wrappers: tuple[str, ...] = WRAPPERS) -> dict[str, Tensor]:
    """Return the weights in what a file holds, with wrappers' prefixes removed from their names.

    Args:
        data: What `read` returned.
        key: The state dict to take where there are several.
        wrappers: Names of state dicts, in order of preference, for where there is no `key`.

    Raises:
        CheckpointError: There are no tensors, or two names become the same.
    """
    while isinstance(data, Mapping):
        inner = next((data[name] for name in (key, *wrappers) if isinstance(data.get(name), Mapping)), None)
        if inner is None:
            break
        data = inner
    if not isinstance(data, Mapping) or not any(isinstance(value, Tensor) for value in data.values()):
        found = ", ".join(map(str, list(data)[:5])) if isinstance(data, Mapping) else f"a {type(data).__name__}"
        raise CheckpointError(
            f"there are no weights under {', '.join(wrappers)} or at the top of the checkpoint; it holds {found}"
        )
    weights: dict[str, Tensor] = {}
    for name, value in data.items():
        if isinstance(value, Tensor):
            plain = PREFIX.sub("", NOISE.sub("", name))
            if plain in weights:
                raise CheckpointError(f"the checkpoint has {plain} twice")
            weights[plain] = value
    return weights


def adapter(weights: Mapping[str, Tensor], alpha: float | None = None) -> Adapter:
    """Return the LoRA adapter among weights; empty where there is none.

    Args:
        weights: By original name.
        alpha: As in `Adapter`.

    Raises:
        CheckpointError: A weight has only one of A and B.
    """
    halves: dict[str, dict[str, Tensor]] = {}
    for name, value in weights.items():
        if found := LORA.fullmatch(name):
            halves.setdefault(f"{found[1]}.weight", {})[found[2]] = value
    for name, half in halves.items():
        if len(half) != 2:
            raise CheckpointError(f"the adapter has only lora_{next(iter(half))} for {name}")
    return Adapter({name: (half["A"], half["B"]) for name, half in halves.items()}, alpha)


def base_of(weights: Mapping[str, Tensor]) -> str:
    """Return in words which architecture weights with original names are of; for messages."""
    patch = next((weights[name] for name in weights if name.endswith("patch_embedding.weight")), None)
    if patch is None:
        return "not of a Wan transformer"
    layers = {name.split(".")[1] for name in weights if name.startswith("blocks.")}
    known = next((base.name for base in BASES.values() if (base.dim, base.layers) == (len(patch), len(layers))), None)
    return f"of {known}" if known else f"of a model with {len(layers)} layers of dimension {len(patch)}"


def load_transformer(
    path: str | Path,
    base: Base,
    key: str | None = None,
    lora: str | Path | None = None,
    lora_alpha: float | None = None,
    precision: str = "fp32",
    device: str | torch.device = "cpu",
) -> WanTransformer3DModel:
    """Load the transformer of a checkpoint.

    Its adapter is merged in float32, then weights are cast, one at a time, so host memory holds them once.

    Args:
        path: The checkpoint.
        base: Its architecture.
        key: The state dict to take where there are several.
        lora: A file with the adapter, where it is not in the checkpoint.
        lora_alpha: As in `Adapter.alpha`.
        precision: A key of `fkv.models.precision.COMPUTE`; see `stored_as`.
        device: Where to load it.

    Raises:
        CheckpointError: The checkpoint is of another base or an image-to-video one, or weights are missing or left
            over.
    """
    weights, merge = _parts(path, base, key, lora, lora_alpha)
    model = empty_model(base.original)
    names = diffusers_names(weights)

    def prepare(name: str, value: Tensor) -> Tensor:
        return merge.merged(names[name], value).to(device, stored_as(model, name, precision))

    try:
        load_strictly(model, {new: weights[old] for new, old in names.items()}, prepare)
    except ValueError as error:
        raise CheckpointError(f"{path}: {error}") from None
    use_fp8(model, precision)
    return model


def check_file(path: str | Path, base: Base, lora: str | Path | None = None) -> None:
    """Check names and shapes of a checkpoint and its adapter, before memory is taken for them.

    Args:
        path: The checkpoint.
        base: The expected architecture.
        lora: A file with the adapter.

    Raises:
        CheckpointError: As in `load_transformer`, as far as names and shapes tell.
    """
    _parts(path, base, None, lora, None, "meta")


def _parts(
    path: str | Path, base: Base, key: str | None, lora: str | Path | None, lora_alpha: float | None, place: str = "cpu"
) -> tuple[dict[str, Tensor], Adapter]:
    """Return a checkpoint's weights and the adapter to merge into them."""
    weights = state_dict(read(path, place), key)
    merge = adapter(weights, lora_alpha)
    weights = {name: value for name, value in weights.items() if not LORA.fullmatch(name)}
    if lora is not None:
        merge = adapter(state_dict(read(lora, place), wrappers=LORA_WRAPPERS), lora_alpha)
        if not merge.pairs:
            raise CheckpointError(f"{lora} holds no LoRA adapter (no lora_A and lora_B)")
    _check(Path(path), weights, merge, base)
    return weights, merge


def _check(path: Path, weights: Mapping[str, Tensor], merge: Adapter, base: Base) -> None:
    """Raise CheckpointError for what names and shapes show to be wrong, before anything is computed."""
    if any("k_img" in name or "img_emb" in name for name in weights):
        raise CheckpointError(f"{path.name} is an image-to-video checkpoint; only text-to-video models can be streamed")
    patch = weights.get("patch_embedding.weight")
    if patch is None or len(patch) != base.dim:
        raise CheckpointError(
            f"{path.name} is {base_of(weights)}, not of {base.name}; name its base with --base ({', '.join(BASES)})"
        )
    stray = [name for name in merge.pairs if name not in weights]
    if stray:
        raise CheckpointError(f"the adapter changes weights that {path.name} does not have: {', '.join(stray)}")
    for name, (down, up) in merge.pairs.items():
        if (len(up), down.shape[1]) != tuple(weights[name].shape) or up.shape[1] != len(down):
            product = f"{tuple(up.shape)} x {tuple(down.shape)}"
            raise CheckpointError(f"the adapter's {name} ({product}) does not fit {tuple(weights[name].shape)}")
