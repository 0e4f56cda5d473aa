"""Checkpoint files as they are released: weights with Wan's original names, loaded into the model.

Released files differ in container (.pt, .safetensors), nesting (`generator_ema`, `generator`, `model`, none), prefixes
(`model.`, wrappers of FSDP, torch.compile and peft) and in whether a LoRA adapter comes in a file of its own. Names
alone tell these apart; tensors stay on disk (memory-mapped) until each is merged, cast and moved.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from diffusers import WanTransformer3DModel
from torch import Tensor

from . import adapters
from .adapters import Adapter
from .convert import check_fit, diffusers_names, empty_model, load_strictly
from .precision import stored_as, use_fp8
from .release import BASES, Base, Lora
from .weight_files import CheckpointError, check_whole, metadata, read

Named = str | Path | Lora | Sequence[str | Path | Lora] | None  # adapters: none, one or several

WRAPPERS = ("generator_ema", "generator", "model", "state_dict", "module")
LORA_WRAPPERS = ("generator_lora", "lora", "lora_state_dict", *WRAPPERS)
NOISE = re.compile(r"_fsdp_wrapped_module\.|_checkpoint_wrapped_module\.|_orig_mod\.|base_layer\.")
PREFIX = re.compile(r"^(module\.|base_model\.|model\.|diffusion_model\.|generator\.|transformer\.|pipe\.|dit\.)+")
OTHER_MODELS = {
    r"k_img|v_img|img_emb|image_embedder|add_k_proj": "is an image-to-video checkpoint; only text-to-video is streamed",
    r"vace": "is a VACE checkpoint; only text-to-video models can be streamed",
    r"scale_weight|scale_input|weight_scale|input_scale|scaled_fp8|absmax|quant_map|quant_state|qweight|qzeros": (
        "holds weights in 8 or 4 bits with scales beside them, which are not read; get the bf16 or fp16 file"
    ),
}
"""Parts of names that tell checkpoints that cannot be streamed, and what to say of them."""


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
        if not isinstance(name, str):
            raise CheckpointError(f"the checkpoint's weights must have names, one is called {name!r:.40}")
        if name.endswith(".alpha") and isinstance(value, int | float):
            value = torch.tensor(_alpha(name, value))
        if isinstance(value, Tensor):
            plain = PREFIX.sub("", NOISE.sub("", name))
            if plain in weights:
                raise CheckpointError(f"the checkpoint has {plain} twice")
            weights[plain] = value
    return weights


def _alpha(name: str, value: float) -> float:
    try:
        return float(value)
    except OverflowError:
        raise CheckpointError(f"the checkpoint's {name} is too large a number") from None


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
    lora: Named = None,
    lora_alpha: float | None = None,
    precision: str = "fp32",
    device: str | torch.device = "cpu",
) -> WanTransformer3DModel:
    """Load the transformer of a checkpoint.

    Adapters are merged in float32, then weights are cast, one at a time, so host memory holds them once.

    Args:
        path: The checkpoint.
        base: Its architecture.
        key: The state dict to take where there are several.
        lora: A file with an adapter, as in `Lora.parse`, or several; an adapter in the checkpoint is merged too.
        lora_alpha: As in `Lora.alpha`, for the adapter in the checkpoint and for one that is given as a path.
        precision: A key of `fkv.models.precision.COMPUTE`; see `stored_as`.
        device: Where to load it.

    Raises:
        CheckpointError: The checkpoint is of another base or an image-to-video one, weights are missing or left over,
            or an adapter cannot be used or is of another model.
    """
    model, weights, merge = _parts(path, base, key, loras_of(lora, lora_alpha), lora_alpha)

    def prepare(name: str, value: Tensor) -> Tensor:
        return merge.merged(name, value).to(device, stored_as(model, name, precision))

    load_strictly(model, weights, prepare)
    use_fp8(model, precision)
    return model


def check_file(path: str | Path, base: Base, lora: Named = None) -> None:
    """Check names and shapes of a checkpoint and its adapters, before memory is taken for them.

    Args:
        path: The checkpoint.
        base: The expected architecture.
        lora: As in `load_transformer`.

    Raises:
        CheckpointError: As in `load_transformer`, as far as names and shapes tell.
    """
    _parts(path, base, None, loras_of(lora), None, "meta")


def loras_of(lora: Named, alpha: float | None = None) -> list[Lora]:
    """Return the adapters that are named; `alpha` is of those named by a path."""
    several = [] if lora is None else [lora] if isinstance(lora, str | Path | Lora) else lora
    return [one if isinstance(one, Lora) else Lora.parse(one, alpha) for one in several]


def _parts(
    path: str | Path, base: Base, key: str | None, loras: Sequence[Lora], alpha: float | None, place: str = "cpu"
) -> tuple[WanTransformer3DModel, dict[str, Tensor], Adapter]:
    """Return an empty model, a checkpoint's weights under its names, and the adapters to merge into them."""
    path = Path(path)
    weights = state_dict(read(path, place), key)
    inside = {name: value for name, value in weights.items() if adapters.is_part(name)}
    weights = {name: value for name, value in weights.items() if name not in inside}
    _check_base(path, weights, base)
    model = empty_model(base.original)
    weights = {new: weights[old] for new, old in diffusers_names(weights).items()}
    try:
        check_fit(model, weights)
    except ValueError as error:
        check_whole(path)
        raise CheckpointError(f"{path.name}: {error}") from None
    merge = adapters.adapter(inside, weights, adapters.Config(alpha), file=path.name)
    for lora in loras:
        merge += _adapter(lora, weights, place)
    merge.check({name: tuple(value.shape) for name, value in weights.items()})
    return model, weights, merge


def _adapter(lora: Lora, parameters: Iterable[str], place: str) -> Adapter:
    """Return the adapter of a file, for parameters by diffusers' names."""
    assert isinstance(lora.file, Path)  # downloaded by now
    path = lora.file
    data = read(path, place)
    weights = state_dict(data, wrappers=LORA_WRAPPERS)
    if not any(adapters.is_part(name) for name in weights):
        raise CheckpointError(
            f"{path.name} holds no LoRA adapter (no lora_A and lora_B); it holds {next(iter(weights))}"
        )
    config = adapters.Config.of(metadata(path, data), lora.alpha)
    return adapters.adapter(weights, parameters, config, lora.strength, path.name)


def _check_base(path: Path, weights: Mapping[str, Tensor], base: Base) -> None:
    """Raise CheckpointError for a checkpoint whose names and sizes are those of another model."""
    for part, sentence in OTHER_MODELS.items():
        if any(re.search(part, name) for name in weights):
            raise CheckpointError(f"{path.name} {sentence}")
    patch = weights.get("patch_embedding.weight")
    if patch is None or len(patch) != base.dim:
        check_whole(path)
        raise CheckpointError(
            f"{path.name} is {base_of(weights)}, not of {base.name}; name its base with --base ({', '.join(BASES)})"
        )
    if patch.dim() > 1 and patch.shape[1] != base.channels:
        raise CheckpointError(
            f"{path.name} takes latents of {patch.shape[1]} channels instead of {base.channels}, as image-to-video "
            f"models do; only text-to-video models can be streamed"
        )
