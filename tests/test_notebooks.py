"""The notebooks of docs/examples run from top to bottom, and every view in them shows itself.

Their code cells are executed here instead of by nbclient, which would need ipykernel: two dozen packages and a second
process that imports torch, to run plain Python.
"""

from __future__ import annotations

import ast
import json
from pathlib import Path
from typing import Any

import pytest

import fkv
from fkv.analysis.figures import View

EXAMPLES = Path(__file__).parents[1] / "docs" / "examples"


def run(path: Path) -> list[Any]:
    """Execute the code cells of a notebook and return the values of their last lines, as a notebook would show them."""
    notebook = json.loads(path.read_text(encoding="utf-8"))
    names: dict[str, Any] = {"__name__": "__main__"}
    shown = []
    for number, cell in enumerate(notebook["cells"]):
        if cell["cell_type"] != "code":
            continue
        assert not cell["outputs"], "notebooks are committed without outputs"
        *lines, last = ast.parse("".join(cell["source"])).body
        where = f"{path.name}, cell {number}"
        if not isinstance(last, ast.Expr):
            lines.append(last)
        exec(compile(ast.Module(lines, []), where, "exec"), names)
        if isinstance(last, ast.Expr):
            shown.append(eval(compile(ast.Expression(last.value), where, "eval"), names))
    return shown


@pytest.mark.parametrize(
    ("name", "views"),
    [
        ("first_stream", ["cache-xray", "cost", "frames-layer3-head0"]),
        ("profile_your_heads", ["head-map", "stability", "mass-by-age", "frames-layer", "cache-xray"]),
    ],
)
def test_a_notebook_runs_and_shows_its_views(name, views, monkeypatch):
    load = fkv.load
    monkeypatch.setattr(fkv, "load", lambda model: load(model).with_steps(1))
    shown = [value for value in run(EXAMPLES / f"{name}.ipynb") if isinstance(value, View)]
    assert len(shown) == len(views)
    for view, expected in zip(shown, views, strict=True):
        assert view.name.startswith(expected)
        assert "<iframe" in view._repr_html_()


def test_every_notebook_is_tested():
    assert {path.stem for path in EXAMPLES.glob("*.ipynb")} == {"first_stream", "profile_your_heads"}
