"""Strategies of a search, one file each.

To add one: write a frozen dataclass that derives from `Strategy`, give it `name`, `help` and `dropped`, override
`children` or `expand`, and list the class in `STRATEGIES`.
"""

from __future__ import annotations

from fkv.parameters import read

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
    return read(STRATEGIES[name], f"strategy {name!r}", rest)


__all__ = ["STRATEGIES", "Ets", "Strategy", "parse"]
