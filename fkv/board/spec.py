"""What a board compares: a model, prompts, seeds, a length, and rules on two tracks; read from a file of TOML."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from fkv import policies
from fkv.analysis.features import LAYOUT
from fkv.analysis.held_out import held_out_text
from fkv.analysis.oracle_checks import draws_world
from fkv.files import read_text
from fkv.models.base import VideoModel
from fkv.models.identity import identity_of
from fkv.stream import MAX_SEED, check_prompt
from fkv.world.captions import Scene, parse

from . import budget

REFERENCE = "full"  # what every rule is compared with, paired by prompt and seed
TRUTH = "renders"  # videos that the toy world draws itself: what a perfect model would be given
Noise = Literal["by seed, chunk and step, equal for all rules"]
TrackName = Literal["as released", "same budget", "truth"]
MAX_BYTES = 1 << 20
NAMED = 150  # characters of a prompt that name its videos
NAMED_BYTES = 200  # of them in UTF-8, at most: names of files have 255

Name = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9._-]{0,63}$")]
Setup = dict[Literal["resolution", "decoder", "text"], str]
"""Fields of `fkv.models.release.Setup`; the precision is that of `fkv board run`."""


class Strict(BaseModel):
    """What is read from a file: no unknown fields, no values of another type."""

    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)


class Budget(Strict):
    """The track of equal budgets.

    Attributes:
        frames: Latent frames that denoising may read, the chunk's included, on average over heads.
        rules: Names of `fkv.board.budget.SETTINGS`, or `all`.
    """

    frames: Annotated[list[Annotated[int, Field(ge=4, le=1000)]], Field(min_length=1)] = [7, 9, 12, 21]
    rules: list[str] | Literal["all"] = "all"


class Spec(Strict):
    """A board as its author writes it.

    Attributes:
        name: Of the board.
        model: As in `--model`.
        checkpoint: The hash of its weights, "" for any.
        setup: How a real model is loaded.
        training_horizon: How long its training clips were, in words: it says what is extrapolation.
        prompts: Texts, or how many held-out prompts of the toy world.
        seeds: Of the noise.
        seconds: Length of each video.
        as_released: Policies with the parameters they were released with, or `all` that fit the model.
        same_budget: The other track.
    """

    name: Name
    model: str
    checkpoint: str = ""
    setup: Setup = {}
    training_horizon: str
    prompts: Annotated[int, Field(ge=1, le=1000)] | Annotated[list[str], Field(min_length=1, max_length=2000)]
    seeds: Annotated[list[Annotated[int, Field(ge=0, le=MAX_SEED)]], Field(min_length=1, max_length=1000)]
    seconds: Annotated[float, Field(ge=4, le=3600)]
    as_released: list[str] | Literal["all"] = "all"
    same_budget: Budget | None = None


class Protocol(Strict):
    """What all rules of a board share.

    Attributes:
        name: Of the board.
        model: Its name.
        checkpoint: The hash of its weights.
        precision: Of its transformer.
        setup: See `Spec`.
        training_horizon: See there.
        prompts: Texts.
        seeds: Of the noise.
        seconds: Length of each video.
        fps: Video frames per second.
        noise: How it is drawn.
        features: What likeness is measured by.
    """

    name: Name
    model: str
    checkpoint: str
    precision: str
    setup: Setup = {}
    training_horizon: str
    prompts: list[str]
    seeds: list[int]
    seconds: float
    fps: int
    noise: Noise = "by seed, chunk and step, equal for all rules"
    features: str = LAYOUT


class Track(Strict):
    """A place of a rule on the board.

    Attributes:
        name: As released, same budget, or truth.
        frames: The budget on the second.
    """

    name: TrackName
    frames: int | None = None


class Plan(Strict):
    """A board that can be run.

    Attributes:
        protocol: What all rules share.
        rules: Policy -> its tracks; the reference first.
    """

    protocol: Protocol
    rules: dict[str, list[Track]]


def read_spec(path: str | Path) -> Spec:
    """Read a spec from a file of TOML.

    Raises:
        ValueError: It cannot be read, or a field is missing, unknown or out of range.
    """
    path = Path(path)
    try:
        return Spec.model_validate(tomllib.loads(read_text(path, MAX_BYTES)))
    except OSError as error:
        raise ValueError(f"cannot read the spec {path}: {error.strerror}") from None
    except tomllib.TOMLDecodeError as error:
        raise ValueError(f"{path.name} is not TOML: {error}") from None
    except RecursionError:
        raise ValueError(f"{path.name} is nested too deeply") from None
    except ValidationError as error:
        raise ValueError(f"{path.name}: {first_error(error)}") from None


def first_error(error: ValidationError) -> str:
    """The first thing that is wrong, as a sentence."""
    first = error.errors()[0]
    where = ".".join(map(str, first["loc"])) or "it"
    return f"{where}: {first['msg'][0].lower()}{first['msg'][1:]}"


def plan(spec: Spec, model: VideoModel, features: str = LAYOUT) -> Plan:
    """Resolve a spec for a model.

    Raises:
        ValueError: The weights are others, a rule cannot be read or does not fit the model, or prompts are no prompts.
    """
    name, checkpoint, precision = identity_of(model)
    if spec.checkpoint and spec.checkpoint != checkpoint:
        raise ValueError(
            f"the spec is for the weights {spec.checkpoint} of {spec.model!r}, these are {checkpoint}; "
            "load those, or give the board another name and checkpoint"
        )
    protocol = Protocol(
        name=spec.name,
        model=name,
        checkpoint=checkpoint,
        precision=precision,
        setup=spec.setup,
        training_horizon=spec.training_horizon,
        prompts=prompts_of(spec, model),
        seeds=list(dict.fromkeys(spec.seeds)),
        seconds=spec.seconds,
        fps=model.fps,
        features=features,
    )
    fit = policies.fitting(model.geometry, model.roles)
    rules: dict[str, list[Track]] = {REFERENCE: []}

    def place(policy: str, track: Track) -> None:
        if track not in (tracks := rules.setdefault(policy, [])):
            tracks.append(track)

    for text in fit if spec.as_released == "all" else spec.as_released:
        rule = policies.parse(text)
        policies.check_fit(rule, model.geometry, model.roles)
        place(policies.write(rule), Track(name="as released"))
    if spec.same_budget is not None:
        for frames in spec.same_budget.frames:
            for text in _at_budget(spec.same_budget.rules, frames, fit, model):
                place(text, Track(name="same budget", frames=frames))
    if all(scene_of(model, prompt) for prompt in protocol.prompts):
        rules[TRUTH] = [Track(name="truth")]
    rules[REFERENCE] = rules[REFERENCE] or [Track(name="as released")]
    names: dict[str, str] = {}
    for policy in rules:
        if (other := names.setdefault(slug(policy), policy)) != policy:
            raise ValueError(f"{policy} and {other} would be written to one file, {slug(policy)}.json; leave one out")
    return Plan(protocol=protocol, rules=rules)


def _at_budget(rules: Sequence[str], frames: int, fit: Sequence[str], model: VideoModel) -> list[str]:
    """The rules with settings that read so many frames; rules that cannot read so few are left out."""
    names = [name for name in budget.SETTINGS if name in fit] if rules == "all" else rules
    if unknown := [name for name in names if name not in budget.SETTINGS]:
        raise ValueError(
            f"{unknown[0]!r} has no setting for a number of frames; these have: {', '.join(budget.SETTINGS)}"
        )
    for name in names:
        policies.check_fit(policies.parse(name), model.geometry, model.roles)
    return [text for text in (budget.fitted(model, name, frames) for name in names) if text]


def prompts_of(spec: Spec, model: VideoModel) -> list[str]:
    """The prompts of a spec as texts. Raises ValueError as `plan` does."""
    if isinstance(spec.prompts, int):
        if not draws_world(model):
            raise ValueError(
                f"a number of prompts stands for those of the toy world, which {model.name!r} does not generate; "
                "list prompts instead"
            )
        return [held_out_text(index) for index in range(spec.prompts)]
    prompts = [check_prompt(prompt) for prompt in spec.prompts]
    if len({title(prompt) for prompt in prompts}) < len(prompts):
        raise ValueError(
            f"two prompts are equal in their first {NAMED} characters or {NAMED_BYTES} bytes, by which videos are named"
        )
    return prompts


def scene_of(model: VideoModel, prompt: str) -> Scene | None:
    """The scene that a prompt describes; None where the oracle cannot read the model or the prompt names no scene."""
    try:
        return parse(prompt) if draws_world(model) else None
    except ValueError:
        return None


def title(prompt: str) -> str:
    """A prompt as the name of a file."""
    name = re.sub(r"[/\\\x00-\x1f]", " ", prompt)[:NAMED]
    return name.encode()[:NAMED_BYTES].decode(errors="ignore").strip()


def slug(policy: str) -> str:
    """A policy as the name of a file."""
    return re.sub(r"[^\w.=+-]+", "_", policy)[:100]
