"""The route that serves the page's modules, and what of them the server and the page must agree on."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from starlette.applications import Starlette
from starlette.testclient import TestClient

from fkv.policies.kinds import KINDS
from fkv.studio.live.attention_probe import first_focus
from fkv.studio.media.assets import ASSETS, module_route, script, style
from fkv.studio.media.protocol import page_facts

MODULES = sorted(path.relative_to(ASSETS).as_posix() for path in ASSETS.rglob("*.js"))
IMPORT = re.compile(r'^import .* from "(\..+?)";$', re.MULTILINE)


def client(folder: Path = ASSETS) -> TestClient:
    return TestClient(Starlette(routes=[module_route(folder)]))


@pytest.mark.parametrize("module", MODULES)
def test_every_module_is_served_as_javascript_and_so_is_all_that_it_imports(module):
    answer = client().get(f"/fkv/{module}")
    assert answer.status_code == 200 and answer.headers["content-type"].startswith("text/javascript")
    for imported in IMPORT.findall(answer.text):
        assert ((ASSETS / module).parent / imported).resolve().relative_to(ASSETS.resolve()).as_posix() in MODULES


def test_a_browser_asks_again_and_gets_a_new_version_or_an_empty_answer(tmp_path):
    (tmp_path / "a.js").write_text("export const a = 1;")
    answer = client(tmp_path).get("/fkv/a.js")
    assert answer.headers["cache-control"] == "no-cache"
    known = {"If-None-Match": answer.headers["etag"]}
    again = client(tmp_path).get("/fkv/a.js", headers=known)
    assert (again.status_code, again.text, again.headers["cache-control"]) == (304, "", "no-cache")
    (tmp_path / "a.js").write_text("export const a = 12;")
    assert client(tmp_path).get("/fkv/a.js", headers=known).text == "export const a = 12;"


@pytest.mark.parametrize(
    "path",
    [
        "",
        "heads",
        "heads/",
        "style.css",
        "stage.html",
        "recorded.bin",
        "missing.js",
        "..%2f..%2fapp.js",
        "%2e%2e/secret.js",
    ],
)
def test_nothing_but_modules_is_served(tmp_path, path):
    (tmp_path / "secret.js").write_text("")
    folder = tmp_path / "studio"
    (folder / "heads").mkdir(parents=True)
    for name in ("style.css", "stage.html", "recorded.bin"):
        (folder / name).write_text("")
    assert client(folder).get(f"/fkv/{path}").status_code == 404


@pytest.mark.parametrize("path", ["/fkv/a.js", "/studio/fkv/a.js"])
def test_a_proxy_may_keep_or_cut_off_the_root_path(tmp_path, path):
    (tmp_path / "a.js").write_text("")
    app = Starlette(routes=[module_route(tmp_path)])
    assert TestClient(app, root_path="/studio").get(path).status_code == 200


def test_no_link_leads_out_of_the_folder(tmp_path):
    folder = tmp_path / "studio"
    folder.mkdir()
    (tmp_path / "outside.js").write_text("")
    (folder / "link.js").symlink_to(tmp_path / "outside.js")
    assert client(folder).get("/fkv/link.js").status_code == 404


def test_modules_cannot_be_written(tmp_path):
    (tmp_path / "a.js").write_text("")
    assert client(tmp_path).post("/fkv/a.js").status_code == 405


def test_nothing_of_the_tools_ships_with_the_page():
    assert not list(ASSETS.rglob("package*.json")) and not list(ASSETS.rglob("node_modules"))


def test_a_script_is_one_line_that_names_its_module_and_its_events():
    line = script("heads/tab", "look", "roles")
    assert "\n" not in line and "/fkv/heads/tab.js" in line
    assert all(f"'{event}'" in line for event in ("look", "roles"))


def test_every_page_kind_has_a_colour_in_both_themes():
    light, _, dark = style().partition("body.dark{")
    for key in KINDS:
        assert f"--fkv-kind-{key}:" in light and f"--fkv-kind-{key}:" in dark.partition("}")[0]


def test_the_head_with_the_lowest_score_is_watched_first(shipped):
    focus = first_focus(shipped.geometry, shipped.roles)
    assert shipped.roles.scores[focus["layer"], focus["head"]] == shipped.roles.scores.min()
    rows, cols = shipped.geometry.rows, shipped.geometry.cols
    assert (focus["row"], focus["col"]) == (rows // 2, cols // 2)
    assert first_focus(shipped.geometry, None) == focus | {"layer": 0, "head": 0}


def test_every_stage_of_a_chunk_has_a_colour():
    for stage in page_facts()["stages"]:
        assert f"--fkv-stage-{stage}:" in style()
