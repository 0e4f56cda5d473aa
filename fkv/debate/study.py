"""Accuracy of the jury against its cost, on renders whose truth is known."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

from fkv.world.captions import sample_scene
from fkv.world.render import GENES, render

from .engine import Debate
from .jury import FRAME_TOKENS, QUESTION, Juror, in_order, jurors

FRAMES = 72
TWO_THINGS = 0.5  # share of the renders with two things
BIASED = 2 / 3  # share of the jurors with a common bias, in the rows that have some
ONE = "one juror"
ALL_FRAMES = "one juror who looks at all frames"
KINDS = ("vote", "plain debate", "sparse debate")


def records(numbers: Sequence[int], count: int, groups: int) -> Iterator[dict[str, Any]]:
    """Put renders before every kind of jury.

    Args:
        numbers: Of the renders; each chooses a scene, its genes, its first frame and the jurors.
        count: Jurors.
        groups: Groups in which they debate sparsely.

    Yields:
        Per render: `render`, its number, and for each jury whether its verdict is the truth (`right`), whether it is
        that of plain debate among the same jurors (`as_plain`, None for one juror), `tokens`, `calls` and
        `silent_share`.
    """
    for number in numbers:
        rng = random.Random(number)
        scene = sample_scene(rng, two=TWO_THINGS)
        start = rng.randrange(10_000)
        clip = render(scene, range(start, start + FRAMES), [rng.random() for _ in range(GENES)])
        truth = in_order(scene)
        fair = jurors(clip, count, number)
        biased = round(BIASED * count)
        tinted = jurors(clip, count, number, biased)[:biased] + fair[biased:]
        tried = {ONE: _tried([fair[0]], truth), ALL_FRAMES: _tried([replace(fair[0], own=tuple(range(FRAMES)))], truth)}
        tried |= {f"{kind} of {count}": each for kind, each in _juries(fair, truth, groups).items()}
        tried |= {f"{kind} of {count}, {biased} biased": each for kind, each in _juries(tinted, truth, groups).items()}
        yield {"render": number, "juries": tried}


def _juries(seated: Sequence[Juror], truth: Any, groups: int) -> dict[str, dict[str, Any]]:
    """The same jurors vote, debate plainly, and debate sparsely."""
    settings: tuple[dict[str, Any], ...] = (
        {"groups": 1, "stages": 0},
        {"groups": 1, "sparse": False},
        {"groups": groups},
    )
    results = {kind: _tried(seated, truth, **each) for kind, each in zip(KINDS, settings, strict=True)}
    plain = results[KINDS[1]]["verdict"]
    return {kind: result | {"as_plain": result["verdict"] == plain} for kind, result in results.items()}


def _tried(seated: Sequence[Juror], truth: Any, **settings: Any) -> dict[str, Any]:
    transcript = Debate(seated, **{"groups": 1, **settings}).hold(QUESTION)
    verdict = transcript.verdict
    return {
        "verdict": verdict.text if verdict else None,
        "right": verdict is not None and verdict.answer == truth,
        "as_plain": None,
        "tokens": transcript.tokens,
        "calls": transcript.calls,
        "silent_share": transcript.silent_share,
    }


def summary(found: Sequence[dict[str, Any]], count: int, groups: int) -> dict[str, Any]:
    """Sum the `records` of juries up.

    Returns:
        The settings, and per jury: right verdicts (`right`, of `renders`), how many of them where the one juror was
        wrong (`gained`), wrong ones where that juror was right (`lost`), verdicts equal to plain debate's
        (`as_plain`), and means per render of tokens, calls and the share of turns that were silent.
    """
    juries = {}
    one = [record["juries"][ONE]["right"] for record in found]
    for name in found[0]["juries"]:
        rows = [record["juries"][name] for record in found]
        juries[name] = {
            "right": sum(row["right"] for row in rows),
            "gained": sum(row["right"] and not alone for row, alone in zip(rows, one, strict=True)),
            "lost": sum(alone and not row["right"] for row, alone in zip(rows, one, strict=True)),
            "as_plain": None if rows[0]["as_plain"] is None else sum(row["as_plain"] for row in rows),
            **{key: sum(row[key] for row in rows) / len(rows) for key in ("tokens", "calls", "silent_share")},
        }
    return {
        "command": f"python -m fkv debate --renders {len(found)} --jurors {count} --groups {groups}",
        "renders": len(found),
        "jurors": count,
        "groups": groups,
        "frames": FRAMES,
        "tokens_per_frame": FRAME_TOKENS,
        "juries": juries,
    }
