"""Views for notebooks open from a file without a network."""

from __future__ import annotations

from pathlib import Path

import pytest

from fkv import analysis
from fkv.policies import parse
from fkv.stream import Stream

playwright = pytest.importorskip("playwright.sync_api")


@pytest.mark.parametrize("form", ["page", "widget"])
def test_an_xray_opens_from_a_file_offline(chromium, shipped, tmp_path: Path, form):
    stream = Stream(shipped, parse("forcing-kv"), "a red ball", decode=False)
    view = analysis.xray([stream.step() for _ in range(3)])
    file = tmp_path / "view.html"
    file.write_text(
        view.to_html() if form == "page" else f'<!doctype html><meta charset="utf-8">{view._repr_html_()}',
        encoding="utf-8",
    )
    page = chromium.new_page(offline=True)
    requests: list[str] = []
    page.on("request", lambda request: requests.append(request.url))
    page.goto(file.as_uri())
    frame = page.main_frame if form == "page" else page.frame_locator("iframe")
    playwright.expect(frame.locator(".gtitle")).to_have_text("Cache X-ray: forcing-kv")
    playwright.expect(frame.locator(".legendtext").last).to_have_text("×  dropped")
    assert [url for url in requests if not url.startswith(("file:", "data:", "blob:", "about:"))] == []
    page.close()
