"""Declared parameters: a field's annotation says its type, range, unit and meaning, once.

    window_frames: Annotated[Frames, Field(ge=1, description="attended frames, those of the chunk included")] = 9

Checks and their sentences, help texts, tables and the JSON schema follow from it. Fields may belong to a frozen
dataclass, as those of policies do, or to any class with annotations.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Annotated, Any, TypeVar, get_type_hints

from pydantic import ConfigDict, Field, TypeAdapter, ValidationError

T = TypeVar("T")
Count = Annotated[int, Field(ge=0)]
Frames = Annotated[Count, Field(json_schema_extra={"unit": "latent frames"})]
Share = Annotated[float, Field(ge=0, le=1)]

NOUNS = {"integer": "a whole number", "number": "a number", "boolean": "true or false", "string": "a text"}
STRICT = ConfigDict(strict=True)


@dataclass(frozen=True)
class Parameter:
    """A declared parameter in words.

    Args:
        name: Of the field.
        default: Its default value, None without one.
        values: What it accepts, as in `a whole number of at least 0`.
        unit: Of the value, "" for none.
        help: What it does.
    """

    name: str
    default: Any
    values: str
    unit: str
    help: str


def check(name: str, value: object, annotation: Any) -> Any:
    """Check a value against an annotation, without converting texts.

    Args:
        name: How the error calls the value.
        value: What was given.
        annotation: Type and constraints, such as `Share` or `Annotated[int, Field(ge=1)]`.

    Returns:
        The value; a whole number becomes a float where only that is accepted.

    Raises:
        ValueError: The value is not accepted; one sentence says what is.
    """
    return _checked(name, value, TypeAdapter(annotation, config=STRICT))


def _checked(name: str, value: object, adapter: TypeAdapter[Any]) -> Any:
    try:
        return adapter.validate_python(value)
    except ValidationError:
        raise ValueError(f"{name} must be {accepts(adapter.json_schema())}, not {value!r:.60}") from None


def check_fields(instance: Any) -> None:
    """Check the fields of a dataclass in its `__post_init__`. Raises ValueError as `check` does."""
    for name, adapter in _adapters(type(instance)).items():
        object.__setattr__(instance, name, _checked(name, getattr(instance, name), adapter))


_ADAPTERS: dict[type, dict[str, TypeAdapter[Any]]] = {}


def _adapters(owner: type) -> dict[str, TypeAdapter[Any]]:
    """The validators of a dataclass's parameters, which take a while to build; keyword-only parameters last."""
    if owner not in _ADAPTERS:
        annotations = get_type_hints(owner, include_extras=True)
        fields = sorted(dataclasses.fields(owner), key=lambda field: bool(field.kw_only))
        _ADAPTERS[owner] = {
            field.name: TypeAdapter(annotations[field.name], config=STRICT) for field in fields if field.init
        }
    return _ADAPTERS[owner]


def schema(owner: type) -> dict[str, Any]:
    """The parameters of a dataclass as the JSON schema of an object."""
    properties = {}
    for name, default in defaults(owner).items():
        properties[name] = _adapters(owner)[name].json_schema()
        if default is not dataclasses.MISSING:
            properties[name]["default"] = default
    return {"type": "object", "properties": properties, "additionalProperties": False}


def describe(owner: type) -> tuple[Parameter, ...]:
    """The parameters of a dataclass in words, keyword-only ones last."""
    return tuple(
        Parameter(
            name,
            declared.get("default"),
            accepts(declared),
            declared.get("unit", ""),
            declared.get("description", ""),
        )
        for name, declared in schema(owner)["properties"].items()
    )


def defaults(owner: type) -> dict[str, Any]:
    """The default of each parameter of a dataclass, keyword-only ones last."""
    found = {field.name: field.default for field in dataclasses.fields(owner)}
    return {name: found[name] for name in _adapters(owner)}


def accepts(declared: dict[str, Any]) -> str:
    """The values that a JSON schema accepts, in words."""
    if "anyOf" in declared:
        return " or ".join(accepts(option) for option in declared["anyOf"])
    if "enum" in declared:
        return f"{', '.join(declared['enum'][:-1])} or {declared['enum'][-1]}"
    noun = NOUNS.get(declared.get("type", ""), "a value")
    low = declared.get("minimum")
    high = declared.get("maximum")
    if "exclusiveMinimum" in declared:
        most = "" if high is None else f", at most {high:g}"
        return f"{noun} above {declared['exclusiveMinimum']:g}{most}"
    if low is not None and high is not None:
        return f"{noun} from {low:g} to {high:g}"
    if low is not None:
        return f"{noun} of at least {low:g}"
    return noun if high is None else f"{noun} of at most {high:g}"


def read(owner: type[T], called: str, text: str) -> T:
    """Make a dataclass of declared parameters from `key=value+key=value`; parameters left out have their defaults.

    Args:
        owner: The dataclass, which checks its fields.
        called: How errors call it, as in `strategy 'ets'`.
        text: The parameters, "" for none.

    Raises:
        ValueError: There is no such parameter, or a value is out of range.
    """
    known = defaults(owner)
    values: dict[str, object] = {}
    for part in filter(None, text.split("+")):
        key, _, value = part.partition("=")
        if key not in known:
            has = f"it has {', '.join(known)}" if known else "it has none"
            raise ValueError(f"{called} has no parameter {key!r:.80}; {has}")
        values[key] = _number(value)
    try:
        return owner(**values)
    except ValueError as error:
        raise ValueError(f"{called}: {error}") from None


def _number(text: str) -> object:
    """A number, or the text itself."""
    for number in (int, float):
        try:
            return number(text)
        except ValueError:
            pass
    return text
