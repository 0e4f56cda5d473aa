"""Views for notebooks: what they read, what they show, and that importing them is cheap."""

from __future__ import annotations

import re
import subprocess
import sys
from html import unescape

import numpy as np
import pytest

from fkv import analysis
from fkv.analysis import record
from fkv.analysis.profile import profile
from fkv.analysis.record import Run
from fkv.policies import ForcingKV, Recompute
from fkv.probe import FrameMassProbe
from fkv.stream import Stream

PROMPT = "a red ball bouncing over the hills at sunset"


@pytest.fixture(scope="module")
def run(small) -> Run:
    return record.capture(Stream(small, ForcingKV(segments_per_frame=2), PROMPT), 3, FrameMassProbe())


def test_importing_the_package_loads_no_library_for_figures():
    code = "import sys, fkv.analysis; print(sorted({'torch', 'plotly', 'matplotlib', 'pandas'} & set(sys.modules)))"
    printed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert printed.strip() == "[]"


def test_all_views_are_offered():
    assert set(analysis.__all__) <= set(dir(analysis))
    assert all(callable(getattr(analysis, name)) for name in analysis.__all__)
    with pytest.raises(AttributeError, match="has no attribute 'ct_scan'"):
        analysis.ct_scan  # noqa: B018


def test_chunks_a_run_and_its_folder_show_the_same(run, tmp_path):
    record.save(run, tmp_path)
    for view in (analysis.xray, analysis.cost):
        tables = [view(source).table for source in (run.chunks, run, tmp_path, str(tmp_path))]
        assert all(table.equals(tables[0]) for table in tables)
    tables = [analysis.frame_mass(source, 1, 2).table for source in (run.masses, run, tmp_path)]
    assert all(table.equals(tables[0]) for table in tables)
    assert analysis.mass_by_age(tmp_path).table.equals(analysis.mass_by_age(run.masses[-1:], run.roles).table)
    assert analysis.head_map(tmp_path).table.equals(analysis.head_map(run.roles).table)


def test_a_model_and_a_profile_have_views(small):
    assert analysis.head_map(small, selected=(1, 2)).roles == small.roles
    found = profile(small, [PROMPT, "a blue box"], chunks=3, threshold=0.5)
    assert analysis.head_map(found).roles == found.roles
    assert len(analysis.stability(found).table) == len(analysis.mass_by_age(found).table) == 12
    matrix = analysis.frame_mass(found, 1, 2).table.drop(columns="query frame")
    np.testing.assert_allclose(matrix, found.mass[:, -1, 1, 2].mean(0), rtol=1e-6)


def test_missing_roles_and_masses_are_named(run, small):
    bare = Run(run.settings, run.chunks)
    for view in (analysis.head_map, analysis.mass_by_age):
        with pytest.raises(ValueError, match="no head roles"):
            view(bare)
    with pytest.raises(ValueError, match="no attention was recorded"):
        analysis.frame_mass(bare, 0, 0)
    with pytest.raises(ValueError, match="no chunk to draw"):
        analysis.xray([])
    with pytest.raises(ValueError, match="no pass 'step 9' was recorded"):
        analysis.frame_mass(run, 0, 0, "step 9")


def test_a_run_that_recomputes_has_an_xray_too(small):
    stream = Stream(small, Recompute(), PROMPT, decode=False)
    chunks = [stream.step() for _ in range(2)]
    assert set(analysis.xray(chunks).table.kind) <= {"kept", "sink", "anchor", "current"}


def test_the_widget_loads_nothing_and_keeps_text_as_text(run):
    view = analysis.xray(run)
    view.title = "<script>alert(1)</script>"
    page = view.to_html("dark")
    assert "<html>" in page[:40] and page.count("plotly.js v") == 1
    assert not re.search(r"<(?:script|link|img|iframe)[^>]+(?:src|href)\s*=", page)
    assert "<script>alert(1)" not in page
    widget = view._repr_html_()
    assert re.fullmatch(r'<iframe title="[^"<>]*" style="[^"<>]*" srcdoc="[^"<>]*"></iframe>', widget)
    assert "plotly.js v" in unescape(widget)
