"""What pages are for: policies say it once, and page, exported record and Heads show the same."""

from __future__ import annotations

import json

import pytest

from fkv import policies
from fkv.analysis import figures, record
from fkv.policies import POLICIES, Policy
from fkv.policies.kinds import DROPPED, KINDS, table
from fkv.probe import Focus
from fkv.stream import Chunk, Stream
from fkv.studio.live.attention_probe import Watch
from fkv.xray import xray

CHUNKS = 6
FOCUS = Focus(1, 2, 1, 4)
KREA = "forcing-kv:segments_per_frame=2,sink_frames=0,dynamic_anchor_frames=3,dynamic_frames=0"
Page = tuple[str, int, int]


def text_of(name: str) -> str:
    return f"{name}:segments_per_frame=2" if hasattr(POLICIES[name], "segments_per_frame") else name


SILENT = [
    f"{text_of(name)} without 1.2"
    for name, rule in POLICIES.items()
    if rule.caches != "none" and (name == "full" or rule.groups is not Policy.groups)
]


def stream_of(small, text: str) -> Stream:
    return Stream(small, policies.parse(text), "a red ball", 2)


def on_page(chunk: Chunk) -> dict[Page, str]:
    """Kinds as the page draws them; groups without heads are not drawn."""
    return {
        (group["name"], frame, segment): kind
        for group in xray(chunk)
        for first, last, kind, held in group["runs"]
        for frame in range(first, last + 1)
        for segment in range(group["segments"])
        if held >> segment & 1
    }


@pytest.mark.parametrize("text", [*map(text_of, POLICIES), *SILENT, KREA])
def test_page_export_and_heads_agree(small, tmp_path, text):
    stream, watch = stream_of(small, text), Watch("A", FOCUS)
    chunks, heads = [], []
    for _ in range(CHUNKS):
        probe = watch.probe(stream)
        chunks.append(stream.step(probe))
        heads.append(json.loads(json.dumps(watch.record("A", probe.take()[0], chunks[-1], stream))))
    record.save(record.Run(record.settings_of(stream), tuple(chunks)), tmp_path)
    exported = figures.page_table(record.load(tmp_path).chunks)
    for chunk, seen in zip(chunks, heads, strict=True):
        drawn = on_page(chunk)
        groups = {name for name, heads_of in chunk.heads.items() if any(heads_of)}
        rows = exported[(exported.chunk == chunk.index + 1) & exported.group.isin(groups)]
        filed = dict(zip(zip(rows.group, rows.frame, rows.segment, strict=True), rows.kind, strict=True))
        assert drawn == filed and set(drawn.values()) <= set(KINDS) - {DROPPED}
        for group in groups:
            held = {frame: kind for (name, frame, _), kind in drawn.items() if name == group}
            kinds = dict(zip(seen["key_frames"], seen["kinds"][group], strict=True))
            assert {frame: kind for frame, kind in kinds.items() if kind != DROPPED} == held
        for layer, heads_of in enumerate(seen["groups"]):
            assert all(head in chunk.heads[name][layer] for head, name in enumerate(heads_of))
    for group in groups:
        kinds = figures.page_kinds(chunks, group)[-1]
        for (name, frame, segment), kind in drawn.items():
            assert name != group or kinds[segment * len(kinds) // chunk.segments, frame] == kind


def last_kinds(small, text: str, chunks: int = CHUNKS) -> dict[str, list[str]]:
    """Kinds per frame in the last of some chunks, by group; the chunk's own frames left out."""
    stream = stream_of(small, text)
    for _ in range(chunks):
        chunk = stream.step()
    found: dict[str, list[str]] = {}
    for (group, frame, _), kind in sorted(on_page(chunk).items()):
        assert (kind == "current") == (frame in chunk.frames)
        if kind != "current":
            found.setdefault(group, []).append(kind)
    return found


def test_full_keeps_every_earlier_frame_for_no_other_reason(small):
    assert last_kinds(small, "full") == {"all": ["kept"] * 15}


def test_the_hybrid_cache_has_sink_anchor_and_moved_segments(small):
    kinds = last_kinds(small, "forcing-kv:segments_per_frame=2")
    assert kinds["all"] == kinds["static"] == ["sink"] * 2 + ["anchor"] * 2
    assert kinds["dynamic"] == ["sink"] * 2 + ["moved"] * 2 + ["anchor"] * 2


def test_anchors_of_krea_are_anchors(small):
    kinds = last_kinds(small, KREA)
    assert kinds == {"all": ["anchor"] * 6, "static": ["anchor"] * 2, "dynamic": ["anchor"] * 6}
    assert last_kinds(small, KREA, 2)["static"] == ["anchor"] * 6, "before groups part all keep the longer anchor"


def test_a_window_has_a_sink_and_kept_frames(small):
    assert last_kinds(small, "sliding-window:sink_frames=2,window_frames=8") == {"all": ["sink"] * 2 + ["kept"] * 3}


def test_classes_of_dummy_forcing_keep_what_they_look_at(small):
    kinds = last_kinds(small, "dummy-forcing")
    assert kinds.get("sink", ["sink"]) == ["sink"] and kinds.get("neighbour", ["kept"] * 3) == ["kept"] * 3
    assert kinds["dummy"] == ["kept"]


def test_the_chunk_in_which_heads_are_classed_is_drawn_by_the_groups_that_attended(small):
    stream = stream_of(small, "dummy-forcing")
    assert [[group["name"] for group in xray(stream.step())] for _ in range(2)] == [["all"], ["all"]]


def test_the_table_has_distinct_signs():
    rows = table()
    assert [row["key"] for row in rows] == list(KINDS) and json.dumps(rows)
    for sign in ("key", "letter", "name", "light", "dark"):
        assert len({row[sign] for row in rows}) == len(rows)


@pytest.mark.parametrize(
    "text, kinds",
    [
        ("relax-forcing", {"sink", "held", "recalled", "kept", "current"}),
        ("tether-cache:budget_frames=12", {"sink", "recalled", "held", "kept", "current"}),
        ("rolling-sink:window_frames=9", {"recalled", "held", "kept", "current"}),
        ("mem-rope", {"sink", "recalled", "kept", "current"}),
        ("fade-mem:slots=8", {"sink", "recalled", "kept", "current"}),
        ("commit:12 longlive", {"sink", "held", "kept", "current"}),
    ],
)
def test_published_rules_show_what_they_recall_and_what_they_only_hold(small, text, kinds):
    stream = stream_of(small, text)
    for _ in range(9):
        chunk = stream.step()
    assert {kind for group in chunk.kinds.values() for kind in group} == kinds
