"""Records survive a file, figures show what the record says, and the exported page needs no network."""

from __future__ import annotations

import argparse
import re
import xml.etree.ElementTree as ElementTree
from dataclasses import replace

import matplotlib.figure
import numpy as np
import pandas as pd
import plotly.graph_objects as go
import pytest

from fkv.analysis import export, figures, record, splits
from fkv.analysis.figures.recall import spread
from fkv.analysis.figures.style import PALETTES, ROLE_SYMBOLS
from fkv.analysis.profile import Profile, profile
from fkv.analysis.record import Run
from fkv.commands import analyze
from fkv.policies import ForcingKV, Full
from fkv.probe import Focus, FrameMassProbe
from fkv.roles import HeadRoles, from_scores
from fkv.stream import Stream

PROMPT = "a red ball bouncing over the hills at sunset"
CHUNKS = 5


@pytest.fixture(scope="module")
def run(small) -> Run:
    probe = FrameMassProbe(passes={"context"}, focus=Focus(1, 0, 1, 3))
    return record.capture(Stream(small, ForcingKV(segments_per_frame=2), PROMPT), CHUNKS, probe)


@pytest.fixture(scope="module")
def full_run(small) -> Run:
    return record.capture(Stream(small, Full(), PROMPT, decode=False), 3, FrameMassProbe())


@pytest.fixture(scope="module")
def found(small) -> Profile:
    return profile(small, [PROMPT, "a blue box swinging in the city by day"], chunks=3, threshold=0.5)


@pytest.fixture
def scored() -> HeadRoles:
    return from_scores(np.array([[0.9, 0.85, 0.1], [0.2, 0.3, 0.8]]), model="m", last_k=4, sink=1, uniform_score=0.2)


# Records.


def test_a_record_survives_a_file(run, tmp_path):
    record.save(run, tmp_path / "deep" / "run")
    loaded = record.load(tmp_path / "deep" / "run")
    assert loaded.settings == run.settings and loaded.roles == run.roles and len(loaded.chunks) == CHUNKS
    for ours, theirs in zip(run.chunks, loaded.chunks, strict=True):
        for name in (*record.SCALARS, "timings"):
            assert getattr(ours, name) == getattr(theirs, name), name
        np.testing.assert_array_equal(ours.latents, theirs.latents)
        assert list(ours.pages) == list(theirs.pages)
        for group in ours.pages:
            for part in ("slot", "frame", "segment"):
                np.testing.assert_array_equal(getattr(ours.pages[group], part), getattr(theirs.pages[group], part))
            np.testing.assert_array_equal(ours.kept[group], theirs.kept[group])
        assert (ours.kinds, ours.heads) == (theirs.kinds, theirs.heads)
    for ours, theirs in zip(run.masses, loaded.masses, strict=True):
        assert (ours.chunk, ours.name, ours.frames, ours.key_frames) == (
            theirs.chunk,
            theirs.name,
            theirs.frames,
            theirs.key_frames,
        )
        np.testing.assert_array_equal(ours.mass, theirs.mass)
        assert list(ours.maps) == list(theirs.maps)
        np.testing.assert_array_equal(ours.maps[0], theirs.maps[0])


def test_damaged_records_are_named(run, tmp_path):
    with pytest.raises(ValueError, match="is not a recorded run: record.json is missing"):
        record.load(tmp_path)
    record.save(run, tmp_path)
    (tmp_path / "record.safetensors").write_bytes(b"not tensors")
    with pytest.raises(ValueError, match="cannot be read"):
        record.load(tmp_path)
    record.save(replace(run, masses=()), tmp_path)
    text = (tmp_path / "record.json").read_text()
    (tmp_path / "record.json").write_text(text.replace('"kv_bytes"', '"other"'))
    with pytest.raises(ValueError, match="is damaged: 'kv_bytes'"):
        record.load(tmp_path)
    (tmp_path / "record.json").write_text("[]")
    with pytest.raises(ValueError, match="schema"):
        record.load(tmp_path)


# What figures show.


def test_the_xray_shows_the_page_table(run):
    for group in run.chunks[-1].pages:
        kinds = figures.page_kinds(run.chunks, group)
        assert kinds.shape == (CHUNKS, 2, 3 * CHUNKS)
        for row, chunk in zip(kinds, run.chunks, strict=True):
            pages = chunk.pages[group]
            cached = ~np.isin(row, ("", "dropped"))
            assert cached.sum() == len(pages)
            assert cached[pages.segment, pages.frame].all()
            assert (row[:, chunk.frames[-1] + 1 :] == "").all()
            assert (row[:, : chunk.frames[0]] != "").all()
            assert (row[:, list(chunk.frames)] == "current").all()
    moved = figures.page_kinds(run.chunks, "dynamic")[-1] == "moved"
    assert moved.sum() == ForcingKV(segments_per_frame=2).kept_segments(3)
    table = figures.page_table(run.chunks)
    assert len(table) == sum(len(pages) for chunk in run.chunks for pages in chunk.pages.values())
    last = table[(table.chunk == CHUNKS) & (table.group == "static")]
    assert dict(last.kind.value_counts()) == {"current": 6, "sink": 2, "anchor": 2}


def test_groups_that_saw_the_same_share_a_panel(run):
    titles = [annotation.text for annotation in figures.CacheXray(run.chunks).plotly().layout.annotations]
    assert [title.split(" heads")[0] for title in titles] == ["first-layer and static", "dynamic"]


def test_the_head_map_marks_roles_and_threshold(scored):
    figure = figures.HeadMap(scored, selected=(1, 2)).plotly()
    heat = figure.data[0]
    np.testing.assert_array_equal(heat.z, scored.scores)
    assert heat.colorscale == figures.HeadMap(scored).plotly("dark").data[0].colorscale
    marks = {
        trace.marker.symbol: list(zip(trace.y, trace.x, strict=True))
        for trace in figure.data
        if trace.type == "scatter"
    }
    assert marks[ROLE_SYMBOLS["static"]] == [(0, 0), (0, 1), (1, 2)] and len(marks[ROLE_SYMBOLS["dynamic"]]) == 3
    assert {shape.y0 for shape in figure.layout.shapes} >= {0.8, 0.2}
    on_bar = [shape for shape in figure.layout.shapes if shape.xsizemode == "pixel"]
    assert {(shape.xanchor, shape.x0, shape.x1) for shape in on_bar} == {(heat.colorbar.x, 0, heat.colorbar.thickness)}
    assert len(on_bar) == 2 and heat.colorbar.xpad == 0, "lines lie on the colour bar, not beside it"
    assert sum(sum(trace.x) for trace in figure.data if trace.type == "bar") == 6


def test_roles_without_scores_have_a_map_too():
    view = figures.HeadMap(HeadRoles(3, ((0,), (1, 2))))
    assert {trace.type for trace in view.plotly().data} == {"scatter"}
    assert isinstance(view.matplotlib(), matplotlib.figure.Figure)


def test_the_frame_matrix_is_lower_triangular_and_misses_what_was_dropped(run, full_run):
    full = figures.frame_matrix(full_run.masses, 0, 1)
    assert full.shape == (9, 9)
    np.testing.assert_allclose(full.sum(axis=1), 1, atol=1e-5)
    expected = np.repeat(np.repeat(np.tril(np.ones((3, 3))), 3, 0), 3, 1).astype(bool)
    np.testing.assert_array_equal(full.notna(), expected)
    static = figures.frame_matrix(run.masses, 1, 1)
    assert set(static.columns[static.loc[14].notna()]) == {0, 11, 12, 13, 14}
    with pytest.raises(ValueError, match="no pass 'step 7'"):
        figures.frame_matrix(run.masses, 0, 0, "step 7")
    with pytest.raises(ValueError, match="no head 4 in layer 0"):
        figures.frame_matrix(run.masses, 0, 4)


def test_mass_by_age_adds_up_per_head(full_run, small):
    table = figures.age_table(full_run.masses[-1:], small.roles)
    np.testing.assert_allclose(table[["sink", "older", "anchor", "current"]].sum(axis=1), 1, atol=1e-5)
    assert len(table) == 12 and (table.role == "static").sum() == 5
    with pytest.raises(ValueError, match="head roles are for"):
        figures.age_table(full_run.masses, HeadRoles(2, ((0,),)))


def test_the_atlas_knows_the_released_splits():
    models = splits.released()
    assert {name: round(roles.static_share, 3) for name, roles in models.items()} == {
        "Causal Forcing": 0.372,
        "Krea Realtime 14B": 0.5,
        "LongLive": 0.428,
        "RAVEN": 0.372,
        "Self Forcing": 0.372,
    }
    matrix = figures.agreement_matrix(models)
    assert matrix.loc["Self Forcing", "LongLive"] == pytest.approx(0.917, abs=5e-4)
    assert matrix.loc["Self Forcing", "RAVEN"] == 1.0 and np.isnan(matrix.loc["Krea Realtime 14B", "LongLive"])
    assert (matrix.T.fillna(-1) == matrix.fillna(-1)).all(axis=None)


def test_costs_are_those_of_the_chunks(run):
    view = figures.ChunkCost(run.chunks)
    assert list(view.table.kv_bytes) == [chunk.kv_bytes for chunk in run.chunks]
    assert list(view.table.chunk) == [1, 2, 3, 4, 5]
    totals = [chunk.timings.total for chunk in run.chunks]
    bars = [trace for trace in view.plotly().data if trace.type == "bar"]
    np.testing.assert_allclose(sum(np.array(bar.y) for bar in bars), totals)
    _, seconds = view.matplotlib().axes
    tops = [bar.get_y() + bar.get_height() for bar in seconds.patches[-CHUNKS:]]
    np.testing.assert_allclose(tops, totals)


def test_stability_lists_every_head_with_its_range(found):
    table = figures.HeadStability(found).table
    assert (
        len(table) == 12 and (table.lowest <= table.score + 1e-9).all() and (table.score <= table.highest + 1e-9).all()
    )


# Files and pages.


def test_recall_shows_every_policy_with_its_interval_and_chance(tmp_path):
    rows = pd.DataFrame(
        [
            ("full", 4e7, 0.95, 0.9, 1.0, 0.2),
            ("forcing-kv", 3e6, 0.4, 0.25, 0.55, 0.2),
            ("never-shown", 3e6, np.nan, 0.0, 1.0, 0.2),
        ],
        columns=["policy", "kv_bytes_peak", "recall", "low", "high", "chance"],
    )
    view = figures.Recall(rows)
    assert list(view.table["policy"]) == ["forcing-kv", "full"]
    points = view.plotly().data[-1]
    assert list(points.x) == [3, 40] and list(points.y) == [0.4, 0.95] and list(points.text) == ["forcing-kv", "full"]
    assert np.allclose(points.error_y.array, [0.15, 0.05]) and np.allclose(points.error_y.arrayminus, [0.15, 0.05])
    (axes,) = view.matplotlib("dark").axes
    assert axes.get_xscale() == "log" and [text.get_text() for text in axes.texts] == ["forcing-kv", "full"]
    assert len(view.save(tmp_path)) == 3


def test_names_of_policies_that_recall_as_much_do_not_overlap():
    moved = spread([0.2, 0.5, 0.5, 0.5, 0.99, 1.0], 0.1, 1.0)
    assert np.allclose(moved, [0.2, 0.5, 0.6, 0.7, 0.9, 1.0])


@pytest.mark.parametrize("theme", PALETTES)
def test_every_figure_exists_in_three_forms_and_both_themes(run, found, theme):
    for view in [*export.views_of_run(run), *export.views_of_profile(found)]:
        interactive = view.plotly(theme)
        drawn = view.matplotlib(theme)
        assert isinstance(interactive, go.Figure) and isinstance(drawn, matplotlib.figure.Figure)
        assert isinstance(view.table, pd.DataFrame) and len(view.table), view.name
        assert interactive.layout.title.text == view.title == drawn.texts[0].get_text()
        assert interactive.layout.template.layout.paper_bgcolor == PALETTES[theme].paper


def test_unknown_themes_are_named(scored):
    view = figures.HeadMap(scored)
    for draw in (view.plotly, view.matplotlib):
        with pytest.raises(ValueError, match="there is no theme 'neon'; there are light and dark"):
            draw("neon")


def test_the_command_writes_files_that_open(run, tmp_path):
    record.save(run, tmp_path / "run")
    parser = argparse.ArgumentParser()
    analyze.add_arguments(parser)
    out = tmp_path / "out"
    assert analyze.run(parser.parse_args([str(tmp_path / "run"), "--out", str(out), "--head", "1.2"])) == 0
    names = {path.name for path in out.iterdir()}
    for figure in ("cache-xray", "cost", "head-map", "mass-by-age", "frames-layer1-head2"):
        assert {f"{figure}.png", f"{figure}.svg", f"{figure}.csv"} <= names
        assert (out / f"{figure}.png").read_bytes().startswith(b"\x89PNG")
        assert ElementTree.parse(out / f"{figure}.svg").getroot().tag.endswith("svg")
    states = pd.read_csv(out / "cache-xray.csv")
    assert list(states.columns) == ["chunk", "group", "frame", "segment", "kind", "survives"]
    assert set(states.chunk) == {1, 2, 3, 4, 5}


def test_the_page_is_self_contained_and_escapes_text(run):
    views = export.views_of_run(run)[:2]
    page = export.page(views, "A <run> & more", {"prompt": "<script>alert(1)</script>"})
    assert "A &lt;run&gt; &amp; more" in page and "<script>alert(1)" not in page
    assert not re.search(r"<(?:script|link|img|iframe)[^>]+(?:src|href)\s*=", page)
    assert page.count("plotly.js v") == 1 and all(f'id="{view.name}"' in page for view in views)


def test_heads_to_draw_are_checked(run, tmp_path):
    record.save(replace(run, masses=()), tmp_path / "run")
    parser = argparse.ArgumentParser()
    analyze.add_arguments(parser)
    for head, words in (("3", "LAYER.HEAD"), ("0.0", "has no attention masses")):
        with pytest.raises(ValueError, match=words):
            analyze.run(parser.parse_args([str(tmp_path / "run"), "--out", str(tmp_path), "--head", head]))


def test_the_heads_of_the_frame_maps_are_two_whatever_is_known_of_their_scores():
    unknown = np.nan
    assert export.extremes(np.array([[0.2, 0.9], [0.1, 0.4]])) == [(0, 1), (1, 0)]
    assert export.extremes(np.array([[unknown, 0.9], [0.1, unknown]])) == [(0, 1), (1, 0)]
    for scores in (np.full((2, 3), unknown), np.full((2, 3), 0.5), np.array([[unknown, 0.5], [unknown, unknown]])):
        assert len(set(export.extremes(scores))) == 2


def test_pyramid_forcing_s_classes_of_self_forcing_agree_with_its_roles_in_286_of_360_heads():
    models = splits.with_released(None)
    shares = figures.agreement_matrix(models)
    assert list(models)[-2:] == ["Self Forcing", "Self Forcing (Pyramid)"]
    assert round(shares.loc["Self Forcing", "Self Forcing (Pyramid)"] * 360, 6) == 286
    assert "62e95d38" in models["Self Forcing (Pyramid)"].provenance["source"]
