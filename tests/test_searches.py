"""The study of searches: records that a later run continues from, and tables worked out by hand."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import numpy as np
import pytest

from docs import search as search_page
from fkv.analysis import searches
from fkv.analysis.searches import GUARD, PLAIN, Job, jobs, study
from fkv.report import frame_hash
from fkv.search import rewards
from fkv.search.futures import cost_of
from fkv.search.moves import Moves
from fkv.search.report import replay, story_of
from fkv.search.search import Search
from fkv.search.strategies import parse
from fkv.stream import Stream

PROMPT = "a red ball bouncing over the hills at sunset"


@pytest.fixture
def toy(small):
    return replace(small, latent=(4, 12, 20))


def test_a_study_lists_every_strategy_on_the_same_prompts_and_seeds():
    todo = jobs(2, 3, [2, 4], ["best-of", "ets"], ["opening", "change", GUARD])
    assert len(todo) == len(set(todo)) == 2 * 3 * ((1 + 4) + (1 + 4 + 4) + 2)
    assert Job("change", "forcing-kv", "ets", 4, 1, 2) in todo and Job("opening", "full", "ets", 2, 0, 0) in todo
    assert Job("change", "full", PLAIN, 1, 1, 2) in todo and Job(GUARD, "full", GUARD, 1, 1, 2) in todo


def test_a_study_continues_from_its_records(toy, tmp_path, monkeypatch):
    monkeypatch.setitem(searches.TASKS, "opening", replace(searches.TASKS["opening"], lessons=2))
    monkeypatch.setattr(searches, "GUARDED", 2)
    todo = jobs(1, 1, [2], ["best-of", "saffron"], ["opening", GUARD])
    file = tmp_path / "searches.jsonl"
    first = study(toy, file, todo)
    assert len(first) == len(file.read_text().splitlines()) == 5
    saffron = next(record for record in first if record["strategy"] == "saffron")
    assert saffron["reward_calls"] == 0 and saffron["head"]["runs"] == 2 and saffron["passes"] <= 2 * 3 * 3
    assert (tmp_path / "saffron-opening" / "head.safetensors").exists()
    for name in ("_search", "_guard", "_head"):
        monkeypatch.setattr(searches, name, None)
    assert study(toy, file, todo) == first
    text = search_page.section(first)
    assert "| opening | saffron | 2 | 1 |" in text and "| guarded | 1 |" in text
    assert "`small` in fp32, held-out" in text and "may take the passes of as many plain" in text
    allowed = [record["passes_allowed"] for record in first if "passes_allowed" in record]
    assert allowed == [2 * 3 * 3] * 2, "what two plain streams take"
    earlier = [{name: value for name, value in each.items() if name != "passes_allowed"} for each in first]
    assert "budgets differed by strategy" in search_page.section(earlier)
    mixed = search_page.section([record | {"precision": record["task"]} for record in first])
    assert "opening (opening), guard (guard), held-out" in mixed
    for change in ({"checkpoint": "0a"}, {"precision": "bf16"}):
        with pytest.raises(ValueError, match="keep one of each for every task in a file"):
            search_page.section([*first, first[0] | change])
    search_page.draw(first).savefig(tmp_path / "figure.png")


def test_a_second_search_of_a_place_makes_no_chunk_again_and_counts_all_of_them(toy, monkeypatch):
    steps, step = [], Stream.step
    monkeypatch.setattr(Stream, "step", lambda self: steps.append(self) or step(self))
    begin = partial(searches.begin, toy, "full", PROMPT)
    faithful, moves = rewards.parse("faithful"), Moves(kinds=("steps",), prompt=PROMPT, steps=2, chunks=3)
    made = searches.Made.of(begin, 0)
    passes, counted = [], []
    for _ in range(2):
        futures = searches.Shared(made, begin, 0, faithful, 3)
        search = Search(parse("beam"), moves, futures, 3, 2, None, 1000, cost_of(toy, moves, faithful))
        path = list(search.run())
        passes.append(sum(level.passes for level in search.levels))
        counted.append(len(steps))
    assert passes[0] == passes[1] and counted[0] == counted[1] > 0
    taken = path[-1].moves
    plain = [made.plain.after(taken[:end])[0] for end in (1, 2, 3)]
    assert frame_hash(plain) == frame_hash(replay(begin, 0, path[-1].path, story_of(path), 3))


def record(strategy, prompt, reward, bytes_=8e6, policy="full", task="change", **others):
    made = {
        "model": "tiny",
        "task": task,
        "policy": policy,
        "strategy": strategy,
        "width": 4,
        "prompt": prompt,
        "seed": 0,
    }
    took = {"passes": 120, "reward_calls_per_chunk": 4, "kv_bytes_mean": bytes_, "nodes_mean": bytes_ / 1e6}
    took |= {"strategy_share": 0.01}
    return made | took | {"reward": reward} | others


def test_strategies_are_compared_with_best_of_on_the_same_prompts():
    rewards = np.linspace(0.3, 0.7, 8)
    records = [record("best-of", i, value) for i, value in enumerate(rewards)]
    records += [record("beam", i, value + 0.1) for i, value in enumerate(rewards)]
    beam = searches.table(records).set_index("strategy").loc["beam"]
    assert beam["above"] == pytest.approx(0.1) and beam["above_low"] == pytest.approx(0.1)
    assert beam["reward"] == pytest.approx(0.6) and beam["reward_low"] < 0.6 < beam["reward_high"]
    assert beam["calls_per_chunk"] == 4 and beam["strategy_share"] == pytest.approx(0.01)
    twice = [*records, record("beam", 7, 0.8, seed=1)]  # an unfinished study has more seeds of some prompts
    assert searches.table(twice).set_index("strategy").loc["beam", "reward"] == pytest.approx(0.6)


def test_ets_is_compared_with_rebase_by_policy():
    records = [record("rebase", i, 0.5, 9e6) for i in range(8)] + [record("ets", i, 0.4, 6e6) for i in range(8)]
    (row,) = searches.bytes_saved(records).to_dict("records")
    assert row["ratio"] == row["nodes"] == pytest.approx(1.5) and row["above"] == pytest.approx(-0.1)


def test_violations_are_counted_per_100_chunks():
    common = {"task": GUARD, "chunks": 10, "stopped": ""}
    records = [
        {"strategy": PLAIN, "violations": 9, "checked": 0, **common},
        {"strategy": GUARD, "violations": 0, "checked": 14, **common},
        {"strategy": GUARD, "violations": 0, "checked": 16, **common | {"stopped": "Stopped.", "chunks": 5}},
    ]
    plain, guarded = searches.guarded(records).to_dict("records")
    assert plain["violations"] == 90 and guarded["violations"] == 0
    assert guarded["checks"] == 2 and guarded["stopped"] == 1
