"""LoRA adapters in the forms in which those of Wan are passed round: every tensor of a file is used, or it is refused.

diffusers has converters for some of these forms (`diffusers.loaders.lora_conversion_utils`), but they leave out
differences of norms and expect every layer; here only names are converted, with diffusers' table for checkpoints.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from fkv.files import parse_json

from .convert import diffusers_names, original_modules
from .weight_files import CheckpointError

PART = re.compile(
    r"(?P<stem>.+?)(?:[._]lora(?:_linear_layer)?[._](?P<side>A|B|down|up)(?:\.(?P<name>(?!weight$|bias$)[\w-]+))?"
    r"(?:\.(?P<what>weight|bias))?|\.lora_magnitude_vector(?:\.(?P<owner>(?!weight$)[\w-]+))?(?P<dora>(?:\.weight)?)"
    r"|\.(?P<other>alpha|diff|diff_b|dora_scale))"
)
FLAT = re.compile(r"^(?:lora_unet|lora_transformer|lycoris|lora)_+(?:diffusion_model_)?")
ALPHAS = ("lora_alpha", "ss_network_alpha", "network_alpha", "alpha")
MAX_PATTERNS = 512  # entries of alpha_pattern
MAX_PATTERN = 256  # characters of one
MAX_REPEATS = 2  # repetitions in one: the time that a match may take grows with each of them
REPEATS = re.compile(r"[*+?{]")
REPEATED_GROUP = re.compile(r"\)[*+{]")
READ = "LoRA, DoRA and plain differences are read, not LoHa, LoKr or whole weights"


@dataclass(frozen=True)
class Config:
    """What a file says of all its layers: a layer's scale is alpha / rank, or alpha / sqrt(rank) where stabilized.

    Attributes:
        alpha: None makes the scale 1.
        patterns: Alphas of layers by an expression for their name, as in peft's `alpha_pattern`.
        stabilized: peft's `use_rslora`.
    """

    alpha: float | None = None
    patterns: Mapping[re.Pattern[str], float] = field(default_factory=dict)
    stabilized: bool = False

    @classmethod
    def of(cls, header: Mapping[str, Any], alpha: float | None = None) -> Config:
        """Read the header of a file, or peft's configuration; `alpha` takes the place of theirs.

        Raises:
            CheckpointError: Its `alpha_pattern` cannot be used, or could take long to match.
        """
        try:
            inner = parse_json(header.get("lora_adapter_metadata", "{}"), "lora_adapter_metadata")
        except (TypeError, ValueError):
            inner = {}
        inner = inner if isinstance(inner, dict) else {}
        plain = dict(header) | {name.removeprefix("transformer."): value for name, value in inner.items()}
        said = next((number for name in ALPHAS if (number := _number(plain.get(name))) is not None), None)
        patterns = _patterns(plain.get("alpha_pattern") or {})
        return cls(said if alpha is None else alpha, patterns if alpha is None else {}, bool(plain.get("use_rslora")))

    def scale(self, stem: str, rank: int, alpha: Tensor | None) -> float:
        """The scale of a layer, whose alpha in a tensor comes before all others."""
        value = next((v for pattern, v in self.patterns.items() if pattern.match(stem)), self.alpha)
        if alpha is not None:
            value = float(alpha)
        return 1.0 if value is None else value / (math.sqrt(rank) if self.stabilized else rank)


@dataclass(frozen=True)
class Change:
    """What an adapter does to a weight or bias: W becomes W + scale * up down + difference, its rows rescaled for DoRA.

    Attributes:
        strength: How much of the change is made.
        scale: Of the product.
        down: [rank, inputs ...].
        up: [outputs, rank ...].
        difference: Of the parameter's shape.
        magnitude: Norms of the rows of the changed weight (DoRA, arXiv 2402.09353).
    """

    strength: float
    scale: float = 1.0
    down: Tensor | None = None
    up: Tensor | None = None
    difference: Tensor | None = None
    magnitude: Tensor | None = None

    def merged(self, weight: Tensor) -> Tensor:
        """Return the changed parameter in float32."""
        weight = weight.float()
        strength = self.strength if self.magnitude is None else 1.0
        new = weight
        if self.up is not None and self.down is not None:
            rows, up, down = new.flatten(1), self.up.float().flatten(1), self.down.float().flatten(1)
            new = torch.addmm(rows, up, down, alpha=self.scale * strength).view_as(weight)
        if self.difference is not None:
            new = new + strength * self.difference.float()
        if self.magnitude is not None:
            rows = new.flatten(1)
            factors = self.magnitude.float().flatten() / rows.norm(dim=1)
            new = weight + self.strength * ((rows * factors[:, None]).view_as(weight) - weight)
        return new

    def misfit(self, shape: tuple[int, ...]) -> str:
        """Return the shape that does not fit a parameter of this shape; "" where all do."""
        rest = math.prod(shape[1:])
        if self.up is not None and self.down is not None:
            up, down = tuple(self.up.shape), tuple(self.down.shape)
            inner = len(up) > 1 and len(down) > 1 and math.prod(up[1:]) == down[0] > 0 and math.prod(down[1:]) == rest
            if not inner or up[0] != shape[0]:
                return f"{up} x {down}"
        if self.difference is not None and tuple(self.difference.shape) != shape:
            return str(tuple(self.difference.shape))
        if self.magnitude is not None and (len(shape) < 2 or self.magnitude.numel() != shape[0]):
            return f"DoRA {tuple(self.magnitude.shape)}"
        return ""


@dataclass(frozen=True)
class Adapter:
    """Changes by the parameters' names in diffusers' model; several files add up."""

    changes: Mapping[str, tuple[Change, ...]] = field(default_factory=dict)

    def merged(self, name: str, weight: Tensor) -> Tensor:
        """Return a parameter with its changes merged in float32, or as it is where there are none.

        Raises:
            CheckpointError: The merged parameter is infinite or not a number.
        """
        changes = self.changes.get(name, ())
        for change in changes:
            weight = change.merged(weight)
        if changes and not torch.isfinite(weight).all():
            raise CheckpointError(f"{name} is not finite once the adapter is merged; its file or strength is wrong")
        return weight

    def __add__(self, other: Adapter) -> Adapter:
        names = dict.fromkeys((*self.changes, *other.changes))
        return Adapter({name: self.changes.get(name, ()) + other.changes.get(name, ()) for name in names})

    def check(self, shapes: Mapping[str, tuple[int, ...]]) -> None:
        """Raise CheckpointError for a change that does not fit its parameter."""
        for name, changes in self.changes.items():
            for change in changes:
                if misfit := change.misfit(shapes[name]):
                    raise CheckpointError(f"the adapter's {name} ({misfit}) does not fit {shapes[name]}")


def is_part(name: str) -> bool:
    """Whether a tensor of this name belongs to an adapter."""
    return PART.fullmatch(name) is not None


def adapter(
    weights: Mapping[str, Tensor],
    parameters: Iterable[str],
    config: Config | None = None,
    strength: float = 1.0,
    file: str = "the checkpoint",
) -> Adapter:
    """Return the adapter that tensors make.

    Args:
        weights: By name, without wrappers' prefixes.
        parameters: Names of the model's parameters, as in diffusers.
        config: What the file says of all layers.
        strength: How much of the adapter is merged.
        file: Where they come from, for messages.

    Raises:
        CheckpointError: A tensor is not of an adapter, or of a layer that the model does not have, or half of a pair.
    """
    layers, left = _layers(weights, file)
    find = _Finder(parameters)
    config = config or Config()
    changes: dict[str, tuple[Change, ...]] = {}
    strange: list[str] = []

    def add(stem: str, what: str, **parts: Any) -> None:
        name = find(stem, what)
        if name is None:
            strange.append(f"{stem}.{what}")
        else:
            changes[name] = (*changes.get(name, ()), Change(strength, **parts))

    for stem, parts in layers.items():
        halves = parts.keys() & {"down", "up"}
        if len(halves) == 1:
            only = "lora_A" if "down" in halves else "lora_B"
            raise CheckpointError(f"the adapter {file} has only {only} for {stem}.weight")
        if whole := next(
            (part for part, value in parts.items() if part != "alpha" and not value.is_floating_point()), ""
        ):
            kind = str(parts[whole].dtype).removeprefix("torch.")
            raise CheckpointError(f"the adapter {file} has {whole} of {stem} in {kind}; only floating point is read")
        alpha, difference, magnitude = parts.get("alpha"), parts.get("diff"), parts.get("dora_scale")
        if not halves:
            left += [f"{stem}.{part}" for part in ("alpha", "dora_scale", "up_bias") if part in parts]
        if alpha is not None and alpha.numel() != 1:
            raise CheckpointError(f"the adapter's {stem}.alpha has shape {tuple(alpha.shape)}; one number is read")
        scale = 1.0
        if halves and not parts["down"].is_meta:
            scale = config.scale(stem, len(parts["down"]), alpha)
            if not math.isfinite(scale):  # addmm may leave the weight as it is then
                known = scale if alpha is None else float(alpha)
                raise CheckpointError(f"the adapter's {stem}.alpha is {known}, so its strength is not known")
        if halves or difference is not None:
            both = {"down": parts.get("down"), "up": parts.get("up")}
            add(stem, "weight", scale=scale, **both, difference=difference, magnitude=magnitude)
        if "diff_b" in parts:
            add(stem, "bias", difference=parts["diff_b"])
        if halves and "up_bias" in parts:
            add(stem, "bias", difference=scale * parts["up_bias"].float())
    if left:
        raise CheckpointError(f"{file} holds {_count(left, 'tensor')} that cannot be used, first {left[0]}; {READ}")
    if strange:
        first = f"{_count(strange, 'weight')} that the model does not have, first {strange[0]}"
        raise CheckpointError(f"the adapter {file} changes {first}; it is of another model")
    return Adapter(changes)


def _layers(weights: Mapping[str, Tensor], file: str) -> tuple[dict[str, dict[str, Tensor]], list[str]]:
    """Return tensors by layer and part, and the names that are of no adapter."""
    found = {name: PART.fullmatch(name) for name in weights}
    names = {match["name"] or match["owner"] for match in found.values() if match} - {None}
    if len(names) > 1:
        raise CheckpointError(
            f"{file} holds several adapters ({', '.join(sorted(names))}); save the one to merge alone"
        )
    layers: dict[str, dict[str, Tensor]] = {}
    left = []
    for name, match in found.items():
        part = None if match is None else _part(match)
        if match is None or part is None:
            left.append(name)
            continue
        if part in layers.setdefault(match["stem"], {}):
            raise CheckpointError(f"the adapter {file} has {part} of {match['stem']} twice")
        layers[match["stem"]][part] = weights[name]
    return layers, left


def _part(found: re.Match[str]) -> str | None:
    """What a tensor is of its layer."""
    if side := found["side"]:
        part = "up" if side in ("B", "up") else "down"
        if found["what"] == "bias":
            return "up_bias" if part == "up" else None
        return part
    return found["other"] or "dora_scale"


class _Finder:
    """Finds the parameter that a layer's name means: original, diffusers' or kohya's, whose dots are underscores."""

    def __init__(self, parameters: Iterable[str]) -> None:
        self.parameters = set(parameters)
        modules = {name.rpartition(".")[0] for name in self.parameters}
        layers = {name.split(".")[1] for name in modules if name.startswith("blocks.")}
        self.flat = {name.replace(".", "_"): name for name in (*original_modules(len(layers)), *modules)}

    def __call__(self, stem: str, what: str) -> str | None:
        stem = self.flat.get(FLAT.sub("", stem), stem)
        for name in (f"{stem}.{what}", stem):
            for new in (name, next(iter(diffusers_names([name])))):
                if new in self.parameters:
                    return new
        return None


def _patterns(given: Any) -> dict[re.Pattern[str], float]:
    """Compile an `alpha_pattern`: what the end of a layer's name looks like, and the alpha of that layer."""
    if not isinstance(given, dict) or len(given) > MAX_PATTERNS:
        raise CheckpointError(f"the adapter's alpha_pattern must be an object of at most {MAX_PATTERNS} entries")
    found = {}
    for text, value in given.items():
        named = f"the adapter's alpha_pattern {text!r:.40}"
        alpha = _number(value)
        if alpha is None:
            raise CheckpointError(f"{named} must be a number, it is {value!r:.40}")
        if len(text) > MAX_PATTERN or len(REPEATS.findall(text)) > MAX_REPEATS or REPEATED_GROUP.search(text):
            most = f"{MAX_PATTERN} characters, {MAX_REPEATS} repetitions, and no repeated group"
            raise CheckpointError(f"{named} may have at most {most}")
        try:
            found[re.compile(rf"(.*\.)?({text})$")] = alpha
        except re.error as error:
            raise CheckpointError(f"{named} is no regular expression: {error}") from None
    return found


def _number(value: Any) -> float | None:
    """A finite number in a header, None for anything else."""
    try:
        number = float(value)
    except (TypeError, ValueError, OverflowError):
        return None
    return number if math.isfinite(number) else None


def _count(names: list[str], what: str) -> str:
    return f"{len(names)} {what}" + ("" if len(names) == 1 else "s")
