"""The Board tab: recorded cache rules with what they read, hold and take, their videos, and figures of papers.

The page fetches the rows when the tab is opened; sorting, limits and the wipe are its own work.
"""

from __future__ import annotations

import json
import math
import tempfile
import threading
from collections.abc import Callable, Sequence
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode

import gradio as gr
import pandas as pd
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.staticfiles import StaticFiles

from fkv.board import papers, table
from fkv.board.columns import MEASURES
from fkv.board.result import Result, load_folder
from fkv.board.spec import REFERENCE, TRUTH
from fkv.models.base import VideoModel
from fkv.resources import asset
from fkv.search.forbidden import is_guarded
from fkv.studio.media.assets import page_asset, script
from fkv.studio.media.protocol import page_facts
from fkv.video import ENDING

if TYPE_CHECKING:
    from fkv.analysis.figures import Board

FOLDER = asset("board")
NOTHING = "No such board."


def board_tab() -> None:
    """Build the tab inside the page that is being built."""
    gr.HTML(
        {},
        facts=page_facts(),
        html_template=page_asset("board.html"),
        js_on_load=script("board/tab"),
        apply_default_css=False,
    )


def told(results: Sequence[Result], model: VideoModel, folder: Path = FOLDER) -> dict[str, Any]:
    """Everything that the page shows. Where a guard is on there are no clips: no detector has seen their frames.

    Args:
        results: Of all boards.
        model: Of this studio, which can run the rules of its boards live.
        folder: Where clips lie, in a folder per board.

    Returns:
        `boards`, `rows` (as `fkv.board.table.rows` makes them, with `xray`, whether there is a `clip`, and `live`, the
        query that runs the rule beside the reference), `measures` and `papers`.
    """
    by_name = {(result.protocol.name, result.name): result for result in results}
    rows = []
    for row in table.rows(results):
        result = by_name[row["board"], row["name"]]
        clip = (folder / row["board"] / f"{row['name']}{ENDING}").exists() and not is_guarded(model)
        extras = {"xray": result.xray.model_dump() if result.xray else None, "clip": clip}
        rows.append(row | extras | {"live": live_query(result, model), "differs": differing(row)})
    return {
        "reference": REFERENCE,
        "boards": [_board(result) for result in {result.protocol.name: result for result in results}.values()],
        "rows": rows,
        "measures": {
            name: {"title": each.title, "digits": each.digits, "better": each.better, "help": each.help}
            for name, each in MEASURES.items()
        },
        "papers": [each.model_dump() for each in papers.tables()],
    }


def _board(result: Result) -> dict[str, Any]:
    """What all rules of a board share."""
    protocol = result.protocol
    return {
        "name": protocol.name,
        "model": protocol.model,
        "horizon": protocol.training_horizon,
        "prompts": protocol.prompts,
        "seeds": protocol.seeds,
        "seconds": protocol.seconds,
        "features": protocol.features,
    }


def differing(row: table.Row) -> list[str]:
    """The measures that differ from the reference's by more than chance."""
    return [name for name, measure in row["measures"].items() if table.differs(measure)]


def live_query(result: Result, model: VideoModel) -> str | None:
    """The query of the Live tab that runs a rule beside the reference; None where this studio runs another model."""
    protocol = result.protocol
    if result.policy == TRUTH or model.name != protocol.model:
        return None
    return urlencode(
        {
            "prompt": protocol.prompts[0],
            "seed": protocol.seeds[0],
            "length": math.ceil(protocol.seconds / model.chunk_seconds),
            "view": "AB",
            "a": result.policy,
            "b": REFERENCE,
        }
    )


def figure_of(results: Sequence[Result], board: str, measure: str) -> Board:
    """The figure of a measure of a board. Raises ValueError for one that is not there."""
    from fkv.analysis.figures import Board

    own = [result for result in results if result.protocol.name == board]
    found = [row for row in table.chosen(table.rows(own), measure) if measure in row["measures"]]
    names = {row["policy"]: row["measures"][measure] for row in found}
    rows = pd.DataFrame([{"policy": policy} | each for policy, each in names.items()])
    return Board(rows, MEASURES[measure].title, board, REFERENCE)


def board_routes(model: VideoModel, folder: Path = FOLDER) -> list[Route]:
    """`/board/rows.json`, files of a board as `/board/NAME.ENDING`, and clips as `/board/clips/NAME/RULE.mp4`."""
    drawing = threading.Lock()
    clips = StaticFiles(directory=folder)

    @lru_cache(maxsize=1)
    def results() -> list[Result]:
        return load_folder(folder)

    @lru_cache(maxsize=1)
    def rows() -> bytes:
        return json.dumps(told(results(), model, folder)).encode()

    @lru_cache(maxsize=16)
    def picture(board: str, measure: str, theme: Any) -> bytes:
        with drawing, tempfile.TemporaryDirectory() as place:
            return figure_of(results(), board, measure).save(place, theme)[0].read_bytes()

    def written(board: str, ending: str, request: Request) -> bytes:
        own = [result for result in results() if result.protocol.name == board]
        if not own:
            raise KeyError(board)
        makers: dict[str, Callable[[], bytes]] = {
            "csv": lambda: table.spreadsheet(table.rows(own)).encode(),
            "json": lambda: json.dumps([result.model_dump(mode="json") for result in own]).encode(),
            "png": lambda: picture(board, request.query_params["by"], request.query_params.get("theme", "light")),
        }
        return makers[ending]()

    def all_rows(request: Request) -> Response:
        return Response(rows(), media_type="application/json", headers={"Cache-Control": "no-cache"})

    def file(request: Request) -> Response:
        board, ending = request.path_params["board"], request.path_params["ending"]
        try:
            data = written(board, ending, request)
        except (KeyError, ValueError):
            return Response(NOTHING, 404)
        headers = {"Content-Disposition": f'attachment; filename="board-{board}.{ending}"'}
        types = {"csv": "text/csv", "json": "application/json", "png": "image/png"}
        return Response(data, media_type=types[ending], headers=headers)

    async def clip(request: Request) -> Response:
        if is_guarded(model):
            return Response(NOTHING, 404)
        return await clips.get_response(f"{request.path_params['name']}{ENDING}", request.scope)

    return [
        Route("/board/rows.json", all_rows),
        Route(f"/board/clips/{{name:path}}{ENDING}", clip),
        Route("/board/{board:str}.{ending:str}", file),
    ]
