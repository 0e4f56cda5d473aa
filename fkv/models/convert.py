"""Checkpoints with Wan's original names -> diffusers' model."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from diffusers import WanTransformer3DModel
from diffusers.loaders.single_file_utils import convert_wan_transformer_to_diffusers
from torch import Tensor


def wan_config(original: Mapping[str, Any]) -> dict[str, Any]:
    """Return diffusers' configuration from the constructor arguments of Wan's original model."""
    heads = original["num_heads"]
    return {
        "patch_size": tuple(original["patch_size"]),
        "num_attention_heads": heads,
        "attention_head_dim": original["dim"] // heads,
        "in_channels": original["in_dim"],
        "out_channels": original["out_dim"],
        "text_dim": original["text_dim"],
        "freq_dim": original["freq_dim"],
        "ffn_dim": original["ffn_dim"],
        "num_layers": original["num_layers"],
        "cross_attn_norm": original["cross_attn_norm"],
        "qk_norm": "rms_norm_across_heads" if original["qk_norm"] else None,
        "eps": original["eps"],
    }


def empty_model(original: Mapping[str, Any]) -> WanTransformer3DModel:
    """Make a model without memory for its weights, on the meta device.

    Args:
        original: Constructor arguments of Wan's original model.
    """
    with torch.device("meta"):
        return WanTransformer3DModel(**wan_config(original))


def diffusers_names(names: Iterable[str]) -> dict[str, str]:
    """Return a dict from diffusers' name to the name given, for weights with original names or with diffusers' own."""
    same = {name: name for name in names}
    if any(name.startswith("condition_embedder.") for name in same):
        return same
    return convert_wan_transformer_to_diffusers(same)


def original_modules(layers: int) -> list[str]:
    """Return the original names of the text-to-video model's layers that have a weight.

    Args:
        layers: Number of its transformer blocks.
    """
    attention = [
        f"{kind}_attn.{part}" for kind in ("self", "cross") for part in ("q", "k", "v", "o", "norm_q", "norm_k")
    ]
    block = [*attention, "ffn.0", "ffn.2", "norm3"]
    embeddings = [f"{kind}_embedding.{layer}" for kind in ("text", "time") for layer in (0, 2)]
    blocks = [f"blocks.{layer}.{name}" for layer in range(layers) for name in block]
    return ["patch_embedding", *embeddings, "time_projection.1", *blocks, "head.head"]


def from_wan_names(weights: dict[str, Tensor], original: Mapping[str, Any]) -> WanTransformer3DModel:
    """Make a model from a state dict with original names.

    Args:
        weights: By original name (`blocks.0.self_attn.q.weight`).
        original: Constructor arguments of the original model (`dim`, `num_heads`, ...).

    Raises:
        ValueError: Says how many weights are missing, unexpected or misshapen, and names the first of each.
    """
    model = empty_model(original)
    load_strictly(model, {new: weights[old] for new, old in diffusers_names(weights).items()})
    return model


def load_strictly(
    model: torch.nn.Module,
    weights: Mapping[str, Tensor],
    prepare: Callable[[str, Tensor], Tensor] = lambda name, value: value,
) -> None:
    """Assign weights to a model on the meta device.

    Args:
        model: The model.
        weights: By the model's names.
        prepare: From name and value, the tensor to assign; called once all names and shapes are found to fit.

    Raises:
        ValueError: As in `check_fit`.
    """
    check_fit(model, weights)
    model.load_state_dict({name: prepare(name, value) for name, value in weights.items()}, strict=False, assign=True)


def check_fit(model: torch.nn.Module, weights: Mapping[str, Tensor]) -> None:
    """Check names and shapes of weights.

    Args:
        model: The model that they are for.
        weights: By the model's names.

    Raises:
        ValueError: Says how many are missing, left over or misshapen, and names the first of each.
    """
    wanted = dict(model.named_parameters())
    misshapen = [name for name in wanted if name in weights and weights[name].shape != wanted[name].shape]
    problems = [
        *_first("missing", [name for name in wanted if name not in weights]),
        *_first("unexpected", [name for name in weights if name not in wanted]),
    ]
    for name in misshapen[:1]:
        shapes = f"shape {tuple(weights[name].shape)}, not {tuple(wanted[name].shape)}"
        problems.append(f"{len(misshapen)} of another shape, first {name} has {shapes}")
    if problems:
        raise ValueError("the checkpoint does not fit the model: " + "; ".join(problems))


def _first(what: str, names: list[str]) -> list[str]:
    """Return a count of names and the first of them; nothing where there are none."""
    return [f"{len(names)} {what}, first {names[0]}"] if names else []
