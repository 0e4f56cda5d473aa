"""The probe against the official masses and scores, against head grouping, and against planted attention."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from fkv import parity
from fkv import probe as probe_module
from fkv.cache import KVCache
from fkv.pages import Geometry
from fkv.policies import ForcingKV, Full
from fkv.probe import (
    AGES,
    Focus,
    FrameMassProbe,
    PassMass,
    ages_of,
    head_scores,
    patch_maps,
    sampled_tokens,
    uniform_score,
)
from fkv.stream import Stream

PROMPT = "a red ball bouncing over the hills at sunset"


def test_masses_and_scores_equal_the_official_ones(golden):
    if not (golden / "expected_attention.safetensors").exists():
        pytest.skip("no golden attention data")
    data = parity.load(golden)
    expected, rule = data.expected("expected_attention.safetensors"), data.meta["attention"]
    stream, probe = data.stream(Full()), FrameMassProbe(queries=None, passes=None)
    for _ in range(rule["chunk"]):
        stream.step()
    stream.step(probe)
    passes = probe.take()
    mass = np.stack([each.mass for each in passes])
    scores = head_scores(mass, rule["last_k"], rule["skip_first_k"])
    np.testing.assert_allclose(mass, expected["frame_mass"], atol=1e-4)
    np.testing.assert_allclose(scores, expected["head_score"], atol=2e-4)
    assert ((scores >= rule["threshold"]) == expected["is_static"].numpy().astype(bool)).all()
    assert passes[-1].name == "context" and passes[0].key_frames == tuple(range(mass.shape[-1]))


def test_heads_keep_the_models_numbers_however_they_are_grouped(small):
    """In the first chunk every policy sees the same, so grouped and ungrouped heads must report the same masses."""
    masses = []
    for policy in (Full(), ForcingKV(segments_per_frame=2)):
        probe = FrameMassProbe()
        Stream(small, policy, PROMPT, decode=False).step(probe)
        masses.append(probe.take()[0].mass)
    np.testing.assert_allclose(masses[0], masses[1], atol=1e-5)
    assert np.abs(masses[0][1, 0] - masses[0][1, 1]).max() > 1e-4


def test_layers_looked_at_together_are_seen_as_each_alone(small, monkeypatch):
    records, calls, frame_mass = [], [], probe_module.frame_mass
    for at_once in (1, probe_module.FLUSH_ELEMENTS):
        calls.append(0)

        def counted(*seen):
            calls[-1] += 1
            return frame_mass(*seen)

        monkeypatch.setattr(probe_module, "frame_mass", counted)
        monkeypatch.setattr(probe_module, "FLUSH_ELEMENTS", at_once)
        stream, probe = (
            Stream(small, ForcingKV(segments_per_frame=2), PROMPT, decode=False),
            FrameMassProbe(passes=None),
        )
        for _ in range(3):
            stream.step(probe)
        records.append(probe.take())
    held = [group.name for layer in stream.caches[0].slices for group, _ in layer]
    assert calls == [len(held) * len(records[0]), len(set(held)) * len(records[1])] and calls[0] > calls[1]
    for alone, together in zip(*records, strict=True):
        np.testing.assert_allclose(alone.mass, together.mass, atol=1e-6)
        assert (alone.name, alone.key_frames) == (together.name, together.key_frames)


def test_rows_sum_to_one_and_dropped_frames_have_no_mass(small):
    stream, probe = (
        Stream(small, ForcingKV(segments_per_frame=2), PROMPT, decode=False),
        FrameMassProbe(passes={"context"}),
    )
    for _ in range(4):
        chunk = stream.step(probe)
    record = probe.take()[-1]
    assert record.key_frames[0] == 0 and record.frames == chunk.frames == record.key_frames[-3:]
    np.testing.assert_allclose(record.mass.sum(-1), 1, atol=1e-5)
    np.testing.assert_allclose(record.by_age.sum(-1), 1, atol=1e-5)
    static, dynamic = record.mass[1, 1], record.mass[1, 0]
    kept = [i for i, frame in enumerate(record.key_frames) if 0 < frame < chunk.frames[0] - 1]
    assert kept and (static[:, kept] == 0).all() and (dynamic[:, kept] > 0).any()


def test_take_forgets_and_passes_are_filtered(small):
    stream, probe = Stream(small, Full(), PROMPT, decode=False), FrameMassProbe(passes={"step 1", "context"})
    stream.step(probe)
    assert [record.name for record in probe.take()] == ["step 1", "context"]
    assert probe.take() == []


@pytest.mark.parametrize("rows, cols, queries", [(6, 10, 8), (30, 52, 8), (6, 10, 1), (2, 6, 8), (4, 6, 100)])
def test_samples_are_spread_over_all_columns(rows, cols, queries):
    tokens = sampled_tokens(Geometry(1, 1, 4, rows, cols), queries)
    assert (np.diff(tokens) == np.diff(tokens)[:1]).all() and 0 <= tokens[0] and tokens[-1] < rows * cols
    assert len(tokens) >= min(queries, rows * cols)
    if len(tokens) >= cols:
        assert set(tokens % cols) == set(range(cols))
    assert len(sampled_tokens(Geometry(1, 1, 4, rows, cols), None)) == rows * cols


def test_a_sample_costs_less_and_says_nearly_the_same(monkeypatch):
    """Queries of a frame share a preference for one frame; a sample of 8 among 60 finds it."""
    geometry = Geometry(layers=1, heads=2, head_dim=8, rows=6, cols=10)
    cache, seen = KVCache(geometry, geometry.every_head), []
    cache.begin([0, 1, 2])
    generator = torch.Generator().manual_seed(0)
    keys = torch.randn(1, 180, 2, 8, generator=generator)
    keys[:, 60:120] += 1
    cache.write(0, keys, keys)
    query = torch.ones(1, 2, 180, 8) + 0.3 * torch.randn(1, 2, 180, 8, generator=generator)
    kernel = probe_module.frame_mass
    monkeypatch.setattr(probe_module, "frame_mass", lambda q, *rest: seen.append(q.shape[2]) or kernel(q, *rest))
    masses = []
    for queries in (None, 8):
        probe = FrameMassProbe(queries)
        probe.begin(0, (0, 1, 2), "context")
        for group, _, held, _ in cache.read(0):
            probe.record(0, group, group.heads[0], query, held, cache)
        masses.append(probe.take()[0].mass)
    assert seen[0] == 180 and seen[1] <= 180 / 6
    assert masses[0][..., 1].min() > 0.7
    np.testing.assert_allclose(masses[0], masses[1], atol=0.05)


def planted(segments: int = 2) -> tuple[KVCache, torch.Tensor]:
    """A cache with slots out of order and frame 1 half dropped, and keys with one peak in frame 4."""
    geometry = Geometry(layers=1, heads=2, head_dim=8, rows=2, cols=6)
    cache = KVCache(geometry, geometry.every_head, segments)
    cache.begin([0, 1, 2])
    cache.write(0, torch.zeros(1, 36, 2, 8), torch.zeros(1, 36, 2, 8))
    pages = cache.groups["all"].pages
    cache.evict({"all": (pages.frame == 0) | (pages.frame == 1) & (pages.segment == 1)})
    cache.begin([3, 4, 5])
    keys = torch.zeros(1, 36, 2, 8)
    keys[0, 12 + 1 * 6 + 4, 1] = 20.0
    cache.write(0, keys, keys)
    return cache, keys


def test_a_focus_finds_the_planted_patch_and_marks_what_is_gone():
    cache, _ = planted()
    focus = Focus(layer=0, head=1, row=1, col=2, frame=-1)
    query = torch.zeros(1, 2, 36, 8)
    query[0, 1, 24 + 1 * 6 + 2] = 1.0
    group, _, keys, _ = next(iter(cache.read(0)))
    maps = patch_maps(focus, group, (0, 1), query, keys, cache)
    assert list(maps) == [0, 1, 3, 4, 5]
    assert np.isnan(maps[1][0]).all() and not np.isnan(maps[1][1]).any()
    assert np.unravel_index(maps[4].argmax(), (2, 6)) == (1, 4) and maps[4][1, 4] > 0.99
    assert sum(np.nansum(each) for each in maps.values()) == pytest.approx(1, abs=1e-5)


def test_a_probe_records_the_focus_of_its_head_only(small):
    stream, probe = Stream(small, Full(), PROMPT, decode=False), FrameMassProbe(focus=Focus(2, 3, 1, 5))
    stream.step(probe)
    records = probe.take()
    assert all(list(record.maps) == [0, 1, 2] and record.maps[0].shape == (2, 6) for record in records)


@pytest.mark.parametrize(
    "focus, words", [(Focus(9, 0, 0, 0), "no head 0 in layer 9|no such head"), (Focus(0, 0, 2, 0), "no patch at row 2")]
)
def test_a_focus_outside_the_model_is_named(small, focus, words):
    stream, probe = Stream(small, Full(), PROMPT, decode=False), FrameMassProbe(focus=focus)
    with pytest.raises(ValueError, match=words):
        stream.step(probe)
        probe.take()


def test_scores_by_hand():
    mass = np.array([[0.5, 0.1, 0.1, 0.1, 0.1, 0.1], [0.0, 0.2, 0.2, 0.2, 0.2, 0.2]])
    assert head_scores(mass) == pytest.approx((0.4 + 0.8) / (0.5 + 1.0))
    assert head_scores(mass, last_k=2, skip=0) == pytest.approx((0.2 + 0.4) / 2)
    assert head_scores(mass[:, :3]) == 1.0
    uniform = np.full((3, 21), 1 / 21)
    assert head_scores(uniform) == pytest.approx(uniform_score(21)) and uniform_score(21) == 0.2
    with pytest.raises(ValueError, match="cannot score 1 key frames"):
        head_scores(np.ones((3, 1)))


def test_ages():
    assert ages_of([0, 1, 4, 5, 6, 8], 6) == ["sink", "older", "older", "anchor", "current", "current"]
    assert ages_of([0, 1, 2], 0) == ["current"] * 3
    record = PassMass(2, "context", (6, 7, 8), (0, 1, 5, 6, 7, 8), np.full((1, 1, 3, 6), 1 / 6, np.float32))
    assert dict(zip(AGES, record.by_age[0, 0], strict=True)) == pytest.approx(
        {"sink": 1 / 6, "older": 1 / 6, "anchor": 1 / 6, "current": 0.5}
    )
