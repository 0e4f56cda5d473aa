"""The Board tab's routes: rows, files and clips of the boards that ship, and what they refuse."""

from __future__ import annotations

import csv
import io
import json
from dataclasses import replace
from urllib.parse import parse_qs

import pytest
from starlette.applications import Starlette
from starlette.testclient import TestClient

from fkv.analysis.figures import Board
from fkv.board import table
from fkv.board.result import load_folder
from fkv.resources import asset
from fkv.search.forbidden import guarded
from fkv.studio.live.plan import Plan
from fkv.studio.tabs import board

SHIPPED = load_folder(asset("board"))


@pytest.fixture(scope="module")
def client(small):
    return TestClient(Starlette(routes=board.board_routes(replace(small, name="tiny"))))


def test_the_page_gets_rows_measures_and_papers(client):
    told = client.get("/board/rows.json").json()
    assert len(told["rows"]) == len(table.rows(SHIPPED)) and told["reference"] == "full"
    assert {board["name"] for board in told["boards"]} == {result.protocol.name for result in SHIPPED}
    row = next(row for row in told["rows"] if row["policy"] == "forcing-kv")
    assert row["xray"]["groups"] and row["clip"] and set(row["measures"]) <= set(told["measures"])
    assert told["papers"] and all(figure["value"] for paper in told["papers"] for figure in paper["figures"])


def test_a_row_runs_live_in_a_studio_of_its_model(client, small):
    told = client.get("/board/rows.json").json()
    row = next(row for row in told["rows"] if (row["board"], row["policy"]) == ("tiny-6s", "longlive"))
    query = {name: values[0] for name, values in parse_qs(row["live"]).items()}
    numbers = {name: int(query.pop(name)) for name in ("seed", "length")}
    plan = Plan.from_form(**query, **numbers)
    assert plan.texts == {"A": "longlive", "B": "full"} and plan.chunks == round(6 / small.chunk_seconds)
    assert next(row for row in told["rows"] if row["policy"] == "renders")["live"] is None
    assert board.live_query(SHIPPED[0], replace(small, name="another")) is None
    longer = SHIPPED[0].protocol.model_copy(update={"seconds": 5.0})  # 6.7 chunks: the board generates 7
    assert "length=7" in board.live_query(
        SHIPPED[0].model_copy(update={"protocol": longer}), replace(small, name="tiny")
    )


def test_a_board_can_be_saved(client):
    name = SHIPPED[0].protocol.name
    lines = list(csv.DictReader(io.StringIO(client.get(f"/board/{name}.csv").text)))
    assert {line["policy"] for line in lines} >= {"full", "forcing-kv"} and lines[0]["adherence.mean"]
    assert json.loads(client.get(f"/board/{name}.json").text)[0]["protocol"]["name"] == name
    png = client.get(f"/board/{name}.png?by=clip_consistency&theme=dark")
    assert png.content.startswith(b"\x89PNG") and name in png.headers["content-disposition"]


@pytest.mark.parametrize("path", ["none.csv", "tiny-small.png", "tiny-small.png?by=beauty", "tiny-small.svg"])
def test_what_is_not_there_is_not_found(client, path):
    assert client.get(f"/board/{path}").status_code == 404


def test_clips_are_served_and_nothing_else(client):
    clip = client.get("/board/clips/tiny-small/forcing-kv.mp4")
    assert clip.status_code == 200 and clip.headers["content-type"] == "video/mp4" and b"ftyp" in clip.content[:12]
    part = client.get("/board/clips/tiny-small/forcing-kv.mp4", headers={"range": "bytes=0-99"})
    assert (part.status_code, len(part.content)) == (206, 100)
    for path in ("tiny-small/none", "../tiny/none", "..%2f..%2fsecret"):
        assert client.get(f"/board/clips/{path}.mp4").status_code == 404


def test_a_guarded_studio_shows_no_clips(small):
    model = guarded(replace(small, latent=(4, 12, 20)), "red")
    client = TestClient(Starlette(routes=board.board_routes(model)))
    assert not any(row["clip"] for row in client.get("/board/rows.json").json()["rows"])
    assert client.get("/board/clips/tiny-small/forcing-kv.mp4").status_code == 404


def test_a_figure_has_error_bars_where_there_are_intervals():
    figure = board.figure_of(SHIPPED, "tiny-small", "adherence")
    assert isinstance(figure, Board) and figure.table["mean"].is_monotonic_decreasing
    drawn = figure.plotly().data[0]
    assert list(drawn.error_x.array) == [0] * len(figure.table)  # two prompts have no interval
    table = figure.table.assign(low=figure.table["mean"] - 0.1, high=figure.table["mean"] + 0.2)
    assert "too few prompts for intervals" in figure.subtitle
    assert "bars: 95 %" in Board(table, "adherence", "try").subtitle
    bars = Board(table, "adherence", "try").plotly().data[0].error_x
    assert list(bars.array) == pytest.approx([0.2] * len(table))
    assert list(bars.arrayminus) == pytest.approx([0.1] * len(table))
    assert Board(table, "adherence", "try").matplotlib().axes[0].get_xlabel() == "adherence"
