"""Strategies of a search, one file each.

To add one: write a frozen dataclass that derives from `Strategy`, give it `name`, `help` and `dropped`, override
`children` or `expand`, and list the class in `STRATEGIES`.
"""

from __future__ import annotations

from fkv.parameters import defaults

from .base import Strategy
from .beam import Beam
from .best_of import BestOf
from .dvts import Dvts
from .ets import Ets
from .rebase import Rebase
from .saffron import Saffron

STRATEGIES: dict[str, type[Strategy]] = {
    strategy.name: strategy for strategy in (BestOf, Beam, Dvts, Rebase, Ets, Saffron)
}


def parse(text: str) -> Strategy:
    """Read a strategy as the command line writes it, `name` or `name:key=value+key=value`.

    Raises:
        ValueError: There is no such strategy or parameter, or a value is out of range; says what there is.
    """
    name, _, rest = text.strip().partition(":")
    if name not in STRATEGIES:
        raise ValueError(f"there is no strategy {name!r:.80}; there are {', '.join(STRATEGIES)}")
    rule = STRATEGIES[name]
    known = defaults(rule)
    values: dict[str, object] = {}
    for part in filter(None, rest.split("+")):
        key, _, value = part.partition("=")
        if key not in known:
            has = f"it has {', '.join(known)}" if known else "it has none"
            raise ValueError(f"strategy {name!r} has no parameter {key!r:.80}; {has}")
        values[key] = _number(value)
    try:
        return rule(**values)
    except ValueError as error:
        raise ValueError(f"strategy {name!r}: {error}") from None


def _number(text: str) -> object:
    """A number, or the text itself."""
    for number in (int, float):
        try:
            return number(text)
        except ValueError:
            pass
    return text


__all__ = ["STRATEGIES", "Strategy", "parse"]
