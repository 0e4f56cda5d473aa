"""Figures of papers, which stay in tables of their own: they were measured on other models, prompts and machines."""

from __future__ import annotations

import tomllib

from fkv import policies
from fkv.resources import asset

from .spec import Strict


class Figure(Strict):
    """What authors state of a method.

    Attributes:
        method: As they call it.
        rule: The policy that is its rule here.
        value: As they write it.
    """

    method: str
    rule: str
    value: str


class Table(Strict):
    """Figures that were measured alike.

    Attributes:
        title: What they are.
        protocol: How they were measured.
        source: Where they are stated.
        figures: Of the methods.
    """

    title: str
    protocol: str
    source: str
    figures: list[Figure]


def tables() -> list[Table]:
    """The tables that ship. Raises ValueError where a rule cannot be read."""
    data = tomllib.loads((asset("board") / "papers.toml").read_text(encoding="utf-8"))
    found = [Table.model_validate(table) for table in data["table"]]
    for table in found:
        for figure in table.figures:
            policies.parse(figure.rule)
    return found
