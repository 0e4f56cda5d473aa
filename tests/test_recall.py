"""Recall: a stream that remembers scores 100 %, one that forgets scores at chance, and what was cached is counted."""

import json
from typing import get_args

import numpy as np
import pytest

from fkv import policies
from fkv.analysis import probes, recall
from fkv.commands.main import main
from fkv.policies import parse
from fkv.stream import Stream
from fkv.world import panorama
from fkv.world.story import STORY_GENES, Story, remember_all
from fkv.world.tensors import genes_of

KINDS = get_args(probes.Kind)


def genes_for(probe: probes.Probe, seed: int) -> list[list[float]]:
    """The genes of a seed's noise."""
    noise = probes.ProbeNoise(probe, seed)
    drawn = (noise.initial(chunk, (1, 3, STORY_GENES, 1, 1))[0, 0, :, 0, 0] for chunk in range(len(probe.shots)))
    return [genes_of(corner, STORY_GENES) for corner in drawn]


def streamed(probe: probes.Probe, genes, recalls) -> np.ndarray:
    """The video that a viewer with this memory would generate; only the chunks that are read are drawn."""
    story = Story(recalls)
    video = np.zeros((len(probe.shots) * 12, 96, 160, 3), np.uint8)
    for index, (shot, row) in enumerate(zip(probe.shots, genes, strict=True)):
        chunk = story.extend(shot, row)
        if index in probe.before or index in probe.after:
            video[12 * index : 12 * index + 12] = panorama.draw(chunk.moments)
    return video


def last_two(chunk: int, seen: frozenset[int]) -> frozenset[int]:
    return frozenset(c for c in seen if c >= chunk - 2)


def run(kind, seconds, recalls, count):
    records = []
    for prompt in range(count):
        probe = probes.make_probe(kind, prompt, seconds)
        genes = genes_for(probe, prompt)
        records += probes.score(probe, streamed(probe, genes, recalls), probes.truth_of(probe, genes))
    return records


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("seconds", [3, 20])
def test_a_perfect_stream_recalls_everything(kind, seconds):
    records = run(kind, seconds, remember_all, 6)
    assert all(record["shown"] and record["recalled"] and record["consistent"] for record in records)


def test_a_stream_that_forgets_recalls_at_chance():
    records = [record for kind in KINDS for record in run(kind, 6, last_two, 12)]
    assert all(record["shown"] for record in records)
    right = sum(record["recalled"] for record in records)
    expected = sum(record["chance"] for record in records)
    spread = sum(record["chance"] * (1 - record["chance"]) for record in records) ** 0.5
    assert abs(right - expected) < 3 * spread and right < 0.5 * len(records)


@pytest.mark.parametrize("kind", KINDS)
def test_every_prompt_has_items_of_its_own(kind):
    made = [probes.make_probe(kind, prompt, 3) for prompt in range(12)]
    items = {tuple(probes.truth_of(probe, genes_for(probe, 0)).values()) for probe in made}
    assert len(items) >= 8


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("seconds", [1.0, 3.0, 10.5, 60.0])
def test_a_probe_keeps_its_items_out_of_the_picture_for_that_long(kind, seconds):
    probe = probes.make_probe(kind, 1, seconds)
    story = Story()
    for shot, row in zip(probe.shots, genes_for(probe, 0), strict=True):
        story.extend(shot, row)

    def visible(chunk) -> bool:
        if kind == "panorama":
            return probe.panel in chunk.panels
        return bool((panorama.labels(chunk.moments[8:]) == panorama.THING).sum() > 200)

    shown = [visible(chunk) for chunk in story.chunks]
    assert not any(shown[:2])  # no sink keeps a picture of the items
    hidden = [i for i, seen in enumerate(shown) if not seen and i > probe.before[-1]]
    assert abs(len(hidden) * 12 / 16 - seconds) <= 1.5 and shown[probe.returns] and not shown[probe.returns - 1]


def test_what_a_policy_cached_of_the_items_is_counted(small):
    shares = {}
    for policy in ("full", "sliding-window:window_frames=6"):
        stream = Stream(small, parse(policy), "a red ball", 0)
        chunks = [stream.step() for _ in range(5)]
        shares[policy] = recall.cached_share(chunks[-1], range(3, 6))
    assert shares["full"] == 1 and shares["sliding-window:window_frames=6"] == 0


def stream_record(policy: str, prompt: int, recalled: list[bool], shown=(True, True), **more) -> dict:
    items = [
        {"item": "thing colour", "chance": 0.125, "shown": a, "recalled": b, "consistent": b}
        for a, b in zip(shown, recalled, strict=True)
    ]
    names = dict(zip(recall.KEY, ("tiny", "0", "float32", policy, "thing", prompt, 0, 3.0), strict=False))
    return names | {"cached": 0.5, "kv_bytes_peak": 10, "items": items} | more


def test_summary_counts_items_that_were_shown_alone():
    records = [
        stream_record("full", 0, [True, False]),
        stream_record("full", 1, [True, True], shown=(False, True)),
    ]
    row = recall.summary(records).iloc[0]
    assert row["recall"] == pytest.approx(2 / 3) and row["shown"] == 0.75 and row["streams"] == 2
    assert (row["low"], row["high"]) == (0.5, 1.0) and row["chance"] == 0.125
    assert "recall after 3 s" in recall.table(records)


def test_the_interval_does_not_narrow_with_items_of_the_same_prompts():
    few = [stream_record("full", i, [i % 2 == 0] * 2) for i in range(12)]
    many = [record | {"items": record["items"] * 10} for record in few]
    narrow, wide = (recall.summary(records).iloc[0] for records in (few, many))
    assert (narrow["low"], narrow["high"]) == (wide["low"], wide["high"]) and wide["low"] < 0.3
    agreed = recall.summary([stream_record("full", i, [True, True]) for i in range(4)]).iloc[0]
    assert agreed["recall"] == agreed["high"] == 1.0 and 0.4 < agreed["low"] < 0.6
    unseen = recall.summary([stream_record("full", 0, [True, True], shown=(False, False))]).iloc[0]
    assert (unseen["low"], unseen["high"]) == (0.0, 1.0)


def test_the_command_reports_recall(small, monkeypatch, capsys, tmp_path):
    runs = []

    def remember(model, policy, probe, seed):
        runs.append(policy)
        names = (*recall.identity_of(small), policy, probe.kind, probe.prompt, seed, probe.seconds)
        record = stream_record(policy, probe.prompt, [policy == "full"] * 2)
        return record | dict(zip(recall.KEY, names, strict=False))

    monkeypatch.setattr("fkv.models.registry.load", lambda *args, **settings: small)
    monkeypatch.setattr(recall, "check_events", lambda model: None)
    monkeypatch.setattr(recall, "run_probe", remember)
    command = ["eval", "--recall", "--away", "3,20", "--prompts", "2", "--out", str(tmp_path), "--policy"]
    assert main([*command, "full"]) == 0 and len(runs) == 4 * len(KINDS)
    assert main([*command, "full,sliding-window"]) == 0 and runs[16:] == ["sliding-window"] * 16
    out, err = capsys.readouterr()
    rows = json.loads(out[out.rindex('{\n "recall"') :])["recall"]
    assert [(row["policy"], row["away"], row["recall"]) for row in rows] == [
        ("full", 3.0, 1.0),
        ("full", 20.25, 1.0),
        ("sliding-window", 3.0, 0.0),
        ("sliding-window", 20.25, 0.0),
    ]
    assert "recall after 20" in err
    assert {"recall.json", "recall.png", "recall.svg", "recall.csv"} <= {file.name for file in tmp_path.iterdir()}
    assert main([*command, "all"]) == 0 and set(runs[32:]) == set(policies.fitting(small.geometry, small.roles)) - {
        "full",
        "sliding-window",
    }
    few = ["--steps", "1,2", "--json", str(tmp_path / "few.json")]
    assert main([*command, "full", *few]) == 0 and runs[-32:] == ["full"] * 32
    rows = json.loads((tmp_path / "few.json").read_text())["recall"]
    assert [row["policy"] for row in rows] == ["full, 1 step"] * 2 + ["full, 2 steps"] * 2
    assert main(["eval", "--recall", "--away", "soon"]) == 2 and "--away needs seconds" in capsys.readouterr().err


def test_processes_need_a_model_by_name(small):
    with pytest.raises(ValueError, match="by name"):
        recall.recall(["full"], model=small, workers=2)


def test_a_model_of_todays_world_is_refused(small):
    with pytest.raises(ValueError, match="not trained on the memory world"):
        recall.recall(["full"], model=small)
    for seconds in (0.2, float("inf"), float("nan")):
        with pytest.raises(ValueError, match="away for 1 to 3600 seconds"):
            probes.make_probe("thing", 0, seconds)


def test_options_that_recall_does_not_follow_are_refused(capsys, tmp_path):
    command = ["eval", "--recall", "--oracle", "--sheet", str(tmp_path / "sheet.png")]
    assert main(command) == 2 and "leave out --sheet and --oracle" in capsys.readouterr().err
    (tmp_path / "story.txt").write_text("2: a star")
    assert main(["eval", "--recall", "--story", str(tmp_path / "story.txt")]) == 2
    assert "leave out --story" in capsys.readouterr().err
