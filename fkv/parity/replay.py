"""Replay all runs of a golden folder and report every difference."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from fkv.models.precision import COMPUTE
from fkv.report import device_name
from fkv.roles import RolesError

from . import official, rules
from .golden import Golden, ParityError, load
from .measures import Report, oks, widen

ROUNDINGS = 8  # how many units in the last place of 1 a type coarser than float32 may be off


def check(
    folder: str | Path, device: str = "cpu", precision: str = "fp32", names: Sequence[str] = ()
) -> dict[str, Any]:
    """Replay runs of a golden folder through the stream that the studio uses, and compare.

    Args:
        folder: A golden folder, such as tests/golden.
        device: Where the model runs.
        precision: Of the model, a key of `fkv.models.precision.COMPUTE`. In another one than fp32, differences within
            `ROUNDINGS` of its type count as none; a choice between near ties may fall differently there.
        names: Of the runs; by default all.

    Returns:
        A report: per run the largest absolute difference per chunk, what must be equal, and `ok` for each and overall
        by the suggested tolerances of the folder.

    Raises:
        ParityError: The folder is not usable, or has no run of such a name.
    """
    golden = load(folder, device, precision)
    try:
        checks = _checks(golden)
        if unknown := [name for name in names if name not in checks]:
            raise ParityError(f"{folder} has no run {unknown[0]!r}; its runs are {', '.join(checks)}")
        runs: dict[str, Any] = {}
        for name in tqdm(names or checks, "parity", disable=len(names or checks) == 1):
            runs |= checks[name]()
    except KeyError as error:
        raise ParityError(f"{golden.folder}: meta.json or a safetensors file has no entry {error}") from None
    except RolesError as error:
        raise ParityError(f"{golden.folder}: {error}") from None
    except ParityError:
        raise
    except (ValueError, RuntimeError, IndexError, TypeError, AttributeError) as error:
        raise ParityError(f"{golden.folder}: the files do not fit each other: {error}") from None
    if precision != "fp32":
        widen(runs, ROUNDINGS * torch.finfo(COMPUTE[precision]).eps)
    return {
        "folder": str(folder),
        "device": device_name(device),
        "precision": precision,
        "runs": runs,
        "ok": all(oks(runs)),
    }


def _checks(golden: Golden) -> dict[str, Callable[[], dict[str, Report]]]:
    """What can be replayed, by name: each returns its part of the report."""
    if "rules" in golden.meta:
        return {name: partial(rules.check, golden, [name]) for name in golden.meta["rules"]}
    return official.checks(golden)
