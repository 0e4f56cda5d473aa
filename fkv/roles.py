"""Head roles: which heads are static, which dynamic. Loading, saving, checking, thresholding.

Three JSON forms are read: the official dict (`{"num_layers", "num_heads", "layers": [{"layer_idx", "static_head",
"dynamic_head"}]}`), the official bare list of such layers, and ours (`{"model", "num_layers", "num_heads",
"static_heads": [[...], ...], ...}`), which also carries scores and where they come from.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np

from .files import read_json

Role = Literal["static", "dynamic"]
ROLES: tuple[Role, Role] = ("static", "dynamic")
MAX_FILE_BYTES = 4 << 20
MAX_LAYERS = 1024
MAX_HEADS = 4096  # per layer
MAX_NAMED = 64  # changed heads listed by name; if there are more, only their number is given


class RolesError(ValueError):
    """A head-roles file or table that cannot be used; the message names the place."""


@dataclass(frozen=True)
class HeadRoles:
    """Static heads per layer; the others are dynamic.

    Args:
        num_heads: Heads per layer.
        static: Static heads of each layer.
        scores: The share of attention mass on the newest key frames, from which the roles follow, [layers, heads].
        provenance: Where the roles come from: model, checkpoint hash, threshold, sink, last_k, prompts, source, and
            the mean attention masses from which the scores follow.

    Raises:
        RolesError: A head does not exist or is listed twice.
    """

    num_heads: int
    static: tuple[tuple[int, ...], ...]
    scores: np.ndarray | None = field(default=None, compare=False)
    provenance: dict[str, Any] = field(default_factory=dict, compare=False)

    def __post_init__(self) -> None:
        for layer, heads in enumerate(self.static):
            for head in heads:
                if not isinstance(head, int) or isinstance(head, bool) or not 0 <= head < self.num_heads:
                    raise RolesError(
                        f"layer {layer}: invalid head {head!r:.40}; "
                        f"heads are whole numbers from 0 to {self.num_heads - 1}"
                    )
            if len(set(heads)) != len(heads):
                raise RolesError(f"layer {layer}: a head is listed twice in {list(heads)}")

    def __repr__(self) -> str:
        return f"HeadRoles({self.num_layers} layers x {self.num_heads} heads, {self.summary})"

    @property
    def summary(self) -> str:
        """The roles in a phrase."""
        return f"{sum(map(len, self.static))} of {self.num_layers * self.num_heads} heads static"

    @property
    def num_layers(self) -> int:
        return len(self.static)

    @property
    def static_share(self) -> float:
        """Share of static heads, 0 to 1."""
        return sum(map(len, self.static)) / (self.num_layers * self.num_heads)

    @property
    def threshold(self) -> float | None:
        """The threshold at which the scores give these roles; None where none does, as after flipping a head."""
        threshold = self.provenance.get("threshold")
        if not isinstance(threshold, (int, float)) or self.scores is None:
            return None
        return threshold if self == from_scores(self.scores, threshold) else None

    def heads(self, role: Role) -> tuple[tuple[int, ...], ...]:
        """The heads of one role, layer by layer, ascending."""
        wanted = role == "static"
        return tuple(tuple(h for h in range(self.num_heads) if (h in layer) == wanted) for layer in self.static)

    def is_static(self) -> np.ndarray:
        """Boolean [layers, heads]."""
        return np.array([[head in layer for head in range(self.num_heads)] for layer in self.static])

    def agreement(self, other: HeadRoles) -> float:
        """Share of heads with the same role in both."""
        other.check(self.num_layers, self.num_heads)
        return float((self.is_static() == other.is_static()).mean())

    def flipped(self, layer: int, head: int) -> HeadRoles:
        """The same roles with the role of one head changed. Raises RolesError when there is no such head."""
        if not (0 <= layer < self.num_layers and 0 <= head < self.num_heads):
            raise RolesError(
                f"there is no head {head} in layer {layer}; "
                f"the model has {self.num_layers} layers of {self.num_heads} heads"
            )
        static = [set(heads) for heads in self.static]
        static[layer] ^= {head}
        return HeadRoles(self.num_heads, tuple(tuple(sorted(heads)) for heads in static), self.scores, self.provenance)

    def at_threshold(self, threshold: float) -> HeadRoles:
        """Split the same scores at another threshold.

        Args:
            threshold: Heads with at least this score are static, 0 to 1.

        Returns:
            The new roles, with the same scores and provenance.

        Raises:
            RolesError: There are no scores, or the threshold is not in [0, 1].
        """
        if self.scores is None:
            raise RolesError("this model's heads carry no scores, so no threshold can split them; profile it first")
        if not isinstance(threshold, (int, float)) or not 0 <= threshold <= 1:
            raise RolesError(f"the threshold must be a number from 0 to 1, not {threshold!r:.40}")
        return from_scores(self.scores, **(self.provenance | {"threshold": threshold}))

    def changes(self, before: HeadRoles) -> str:
        """The difference to earlier roles in words: heads by name (`3.2 dynamic`), or the number of very many."""
        now = self.is_static()
        at = np.argwhere(now != before.is_static()).tolist()
        names = [f"{layer}.{head} {'static' if now[layer, head] else 'dynamic'}" for layer, head in at]
        return ", ".join(names) if 0 < len(names) <= MAX_NAMED else f"{len(names)} heads changed"

    def check(self, layers: int, heads: int) -> None:
        """Raise RolesError unless the roles are for a model of this size."""
        if (self.num_layers, self.num_heads) != (layers, heads):
            raise RolesError(
                f"the head roles are for {self.num_layers} layers of {self.num_heads} heads, "
                f"the model has {layers} of {heads}"
            )


def from_scores(scores: np.ndarray, threshold: float = 0.8, **provenance: Any) -> HeadRoles:
    """Split heads by their scores (arXiv 2605.09681).

    Args:
        scores: [layers, heads], as from `fkv.probe.head_scores`.
        threshold: Heads with at least this score are static.
        **provenance: Where the scores come from.
    """
    static = tuple(tuple(np.flatnonzero(row >= threshold).tolist()) for row in scores)
    return HeadRoles(scores.shape[1], static, np.asarray(scores), {"threshold": threshold, **provenance})


def random_roles(like: HeadRoles, seed: int) -> HeadRoles:
    """Roles with as many static heads in every layer as `like` has, but random ones."""
    rng = np.random.default_rng(seed)
    static = tuple(tuple(sorted(rng.permutation(like.num_heads)[: len(heads)].tolist())) for heads in like.static)
    return HeadRoles(like.num_heads, static, provenance={"source": f"random, seed {seed}"})


def _official(layers: Any, num_heads: int | None) -> HeadRoles:
    """Roles from the official list of layers."""
    if not isinstance(layers, list) or not layers:
        raise RolesError("'layers' must be a list with one entry per layer")
    _check_count("layers", len(layers), MAX_LAYERS)
    if num_heads is not None:
        _check_count("num_heads", num_heads, MAX_HEADS)
    found: dict[int, tuple[list, list]] = {}
    for position, entry in enumerate(layers):
        if not isinstance(entry, dict):
            raise RolesError(
                f"entry {position} must be an object with static_head and dynamic_head, it is {entry!r:.80}"
            )
        index = entry.get("layer_idx", position)
        if not isinstance(index, int) or isinstance(index, bool):
            raise RolesError(f"entry {position}: layer_idx must be a whole number, it is {index!r:.80}")
        if index in found:
            raise RolesError(f"layer {index} is listed twice")
        for key in ("static_head", "dynamic_head"):
            if not isinstance(entry.get(key), list):
                raise RolesError(f"layer {index}: {key} must be a list of heads, it is {entry.get(key)!r:.80}")
            _check_count(f"the heads of layer {index}", len(entry[key]), MAX_HEADS, least=0)
        found[index] = (entry["static_head"], entry["dynamic_head"])
    for layer in range(len(found)):
        if layer not in found:
            raise RolesError(f"layer {layer} is missing")
    count = num_heads or len(found[0][0]) + len(found[0][1])
    _check_count("the heads of layer 0", count, MAX_HEADS)
    roles, others = (
        HeadRoles(count, tuple(tuple(found[layer][role]) for layer in range(len(found)))) for role in (0, 1)
    )
    for layer, (static, dynamic) in enumerate(zip(roles.static, others.static, strict=True)):
        if both := set(static) & set(dynamic):
            raise RolesError(f"layer {layer}: head {min(both)} is both static and dynamic")
        if missing := set(range(count)) - set(static) - set(dynamic):
            raise RolesError(f"layer {layer}: head {min(missing)} has no role")
    return roles


def _check_count(what: str, count: Any, most: int, least: int = 1) -> None:
    """Raise RolesError unless a number that loops depend on is a whole one from `least` to `most`."""
    if not isinstance(count, int) or isinstance(count, bool) or not least <= count <= most:
        raise RolesError(f"{what} must be a whole number from {least} to {most:,}, it is {count!r:.40}")


def from_json(data: Any) -> HeadRoles:
    """Roles from any of the three JSON forms. Raises RolesError that names the exact place of what is wrong."""
    if isinstance(data, list):
        return _official(data, None)
    if not isinstance(data, dict):
        raise RolesError(f"a roles file holds an object or a list, not {type(data).__name__}")
    if "layers" in data:
        roles = _official(data["layers"], data.get("num_heads"))
    elif "static_heads" in data:
        static = data["static_heads"]
        num_heads: Any = data.get("num_heads")
        _check_count("num_heads", num_heads, MAX_HEADS)
        if not isinstance(static, list) or not static:
            raise RolesError("static_heads must be a list with one list of heads per layer")
        _check_count("layers", len(static), MAX_LAYERS)
        for layer, heads in enumerate(static):
            if not isinstance(heads, list):
                raise RolesError(f"layer {layer}: static_heads must be a list of heads, it is {heads!r:.80}")
            _check_count(f"the heads of layer {layer}", len(heads), MAX_HEADS, least=0)
        scores = _scores(data["scores"], len(static), num_heads) if data.get("scores") is not None else None
        provenance = {k: v for k, v in data.items() if k not in ("static_heads", "scores", "num_layers", "num_heads")}
        roles = HeadRoles(num_heads, tuple(map(tuple, static)), scores, provenance)
    else:
        raise RolesError("a roles file needs 'layers' (official form) or 'static_heads'")
    expected = data.get("num_layers", roles.num_layers)
    if expected != roles.num_layers:
        too_few = isinstance(expected, int) and expected > roles.num_layers
        missing = f"layer {roles.num_layers} is missing: " if too_few else ""
        raise RolesError(f"{missing}num_layers is {expected!r:.40}, but there are {roles.num_layers} layers")
    return roles


def _scores(data: Any, layers: int, heads: int) -> np.ndarray:
    """Scores from JSON, [layers, heads]."""
    try:
        scores = np.asarray(data, dtype=np.float64)
    except (TypeError, ValueError, OverflowError):
        raise RolesError("scores must be numbers, one row per layer") from None
    if scores.shape != (layers, heads) or not np.isfinite(scores).all():
        raise RolesError(f"scores must be {layers} rows of {heads} finite numbers, their shape is {scores.shape}")
    return scores


def load(path: str | Path) -> HeadRoles:
    """Read a roles file. Raises RolesError when it is missing, too large, not JSON or malformed."""
    path = Path(path)
    try:
        data = read_json(path, MAX_FILE_BYTES)
    except OSError as error:
        raise RolesError(f"cannot read head roles from {path}: {error.strerror}") from None
    except ValueError as error:
        raise RolesError(f"{error}; head roles are a JSON file") from None
    try:
        return from_json(data)
    except RolesError as error:
        raise RolesError(f"{path.name}: {error}") from None


def to_json(roles: HeadRoles, official: bool = False) -> dict[str, Any]:
    """Write roles as JSON: our form with provenance, or the official dict."""
    sizes = {"num_layers": roles.num_layers, "num_heads": roles.num_heads}
    if official:
        pairs = zip(roles.heads("static"), roles.heads("dynamic"), strict=True)
        layers = [{"layer_idx": i, "static_head": list(s), "dynamic_head": list(d)} for i, (s, d) in enumerate(pairs)]
        return {"format": "forcingkv_offline", **sizes, "layers": layers}
    scores = None if roles.scores is None else np.round(roles.scores, 4).tolist()
    return {**roles.provenance, **sizes, "static_heads": [list(heads) for heads in roles.static], "scores": scores}


def digest(roles: HeadRoles) -> str:
    """The first 16 digits of the SHA-256 of roles as JSON: equal digests mean equal roles."""
    return hashlib.sha256(json.dumps(to_json(roles), sort_keys=True).encode()).hexdigest()[:16]


def save(roles: HeadRoles, path: str | Path, official: bool = False) -> None:
    """Write a roles file in our form or the official one, one entry a line."""
    entries = to_json(roles, official).items()
    text = ",\n".join(f" {json.dumps(name)}: {json.dumps(value)}" for name, value in entries)
    Path(path).write_text(f"{{\n{text}\n}}\n", encoding="utf-8")
