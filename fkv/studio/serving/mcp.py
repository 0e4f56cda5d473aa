"""Answers of the MCP server as JSON; Gradio would write them as Python."""

from __future__ import annotations

import json
from functools import cache
from typing import Any


@cache
def answer_in_json() -> None:
    """Let Gradio's MCP server write results that are no files as JSON. Needs the package `mcp`."""
    from gradio.mcp import GradioMCPServer

    written = GradioMCPServer.postprocess_output_data

    def postprocess(self: GradioMCPServer, data: Any, root_url: str) -> Any:
        return written(self, [_json(output) for output in data], root_url)

    GradioMCPServer.postprocess_output_data = postprocess  # type: ignore[method-assign]


def _json(output: Any) -> Any:
    """The figures of an endpoint as text; a file stays as Gradio describes it."""
    is_figures = isinstance(output, dict) and "meta" not in output
    return json.dumps(output, indent=1) if is_figures else output
