"""Declared parameters: a field's annotation says its type, range, unit and meaning, once.

    window_frames: Annotated[Frames, Field(ge=1, description="attended frames, those of the chunk included")] = 9

Checks and their sentences, help texts, tables and the JSON schema follow from it. Fields may belong to a frozen
dataclass, as those of policies do, or to any class with annotations.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from functools import cache
from typing import Annotated, Any, get_type_hints

from pydantic import ConfigDict, Field, TypeAdapter, ValidationError

Count = Annotated[int, Field(ge=0)]
Frames = Annotated[Count, Field(json_schema_extra={"unit": "latent frames"})]
Share = Annotated[float, Field(ge=0, le=1)]

NOUNS = {"integer": "a whole number", "number": "a number", "boolean": "true or false", "string": "a text"}
STRICT = ConfigDict(strict=True)


@dataclass(frozen=True)
class Parameter:
    """A declared parameter in words.

    Args:
        name: of the field.
        default: its default value, None without one.
        values: what it accepts, as in `a whole number of at least 0`.
        unit: of the value, "" for none.
        help: what it does.
    """

    name: str
    default: Any
    values: str
    unit: str
    help: str


def check(name: str, value: object, annotation: Any) -> Any:
    """Check a value against an annotation, without converting texts.

    Args:
        name: how the error calls the value.
        value: what was given.
        annotation: type and constraints, such as `Share` or `Annotated[int, Field(ge=1)]`.

    Returns:
        The value; a whole number becomes a float where only that is accepted.

    Raises:
        ValueError: in one sentence that says what is accepted.
    """
    try:
        return TypeAdapter(annotation, config=STRICT).validate_python(value)
    except ValidationError:
        accepted = accepts(TypeAdapter(annotation).json_schema())
        raise ValueError(f"{name} must be {accepted}, not {value!r:.60}") from None


def check_fields(instance: Any) -> None:
    """Check the fields of a dataclass in its `__post_init__`. Raises ValueError as `check` does."""
    for field in dataclasses.fields(instance):
        if field.init:
            value = check(field.name, getattr(instance, field.name), annotations_of(type(instance))[field.name])
            object.__setattr__(instance, field.name, value)


@cache
def annotations_of(owner: type) -> dict[str, Any]:
    """The annotations of a class, with their constraints."""
    return get_type_hints(owner, include_extras=True)


def schema(owner: type) -> dict[str, Any]:
    """The parameters of a dataclass as a JSON schema of one object."""
    properties = {}
    for field in dataclasses.fields(owner):
        properties[field.name] = TypeAdapter(annotations_of(owner)[field.name]).json_schema()
        if field.default is not dataclasses.MISSING:
            properties[field.name]["default"] = field.default
    return {"type": "object", "properties": properties, "additionalProperties": False}


@cache
def describe(owner: type) -> tuple[Parameter, ...]:
    """The parameters of a dataclass in words, keyword-only ones last."""
    declared = schema(owner)["properties"]
    fields = sorted(dataclasses.fields(owner), key=lambda field: field.kw_only)
    return tuple(
        Parameter(
            field.name,
            declared[field.name].get("default"),
            accepts(declared[field.name]),
            declared[field.name].get("unit", ""),
            declared[field.name].get("description", ""),
        )
        for field in fields
    )


def accepts(declared: dict[str, Any]) -> str:
    """The values that a JSON schema accepts, in words."""
    if "anyOf" in declared:
        return " or ".join(accepts(option) for option in declared["anyOf"])
    noun = NOUNS.get(declared.get("type", ""), "a value")
    low = declared.get("minimum")
    high = declared.get("maximum")
    if low is not None and high is not None:
        return f"{noun} from {low:g} to {high:g}"
    if low is not None:
        return f"{noun} of at least {low:g}"
    return noun if high is None else f"{noun} of at most {high:g}"
