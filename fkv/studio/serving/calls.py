"""Calls of the page's functions: what Gradio cannot read is refused in a sentence, whichever way it came in."""

from __future__ import annotations

import logging
from html import escape
from typing import Any

import gradio as gr
from gradio.blocks import BlockFunction

from fkv.parameters import check
from fkv.studio.errors import sentence

log = logging.getLogger(__name__)

UNREADABLE = "A value of this call is not one that its field takes."


class Page(gr.Blocks):
    """A page that refuses calls of nothing, calls with too few values, and values that their fields do not take.

    Routes, queue and MCP all come through here. The caller reads why; the log has one line.
    """

    async def preprocess_data(
        self, block_fn: BlockFunction, inputs: list[Any], *args: Any, **options: Any
    ) -> list[Any]:
        """Read the values of a call. Raises `gr.Error` with a sentence for the caller."""
        try:
            _check(block_fn, inputs)
            return await super().preprocess_data(block_fn, inputs, *args, **options)
        except Exception as error:
            facts = {"function": block_fn.name, "error": type(error).__name__}
            log.warning("call refused", extra={"facts": facts})
            told = error.message if isinstance(error, gr.Error) else UNREADABLE
            raise gr.Error(escape(told, quote=False), print_exception=False) from None  # the page shows it as HTML


def _check(function: BlockFunction, values: list[Any]) -> None:
    """Raise `gr.Error` for what Gradio would not refuse, or not in words."""
    if function.fn is None:
        raise gr.Error("The page does this by itself; there is nothing to call.")
    if len(values) < len(function.inputs):
        raise gr.Error(f"This takes {len(function.inputs)} values, not {len(values)}.")
    for part, value in zip(function.inputs, values, strict=False):
        if isinstance(part, (gr.Number, gr.Slider)) and value is not None:
            try:
                number = check(str(part.label), value, float)
                if isinstance(part, gr.Number) and part.precision == 0 and not number.is_integer():  # Gradio rounds it
                    check(str(part.label), value, int)
            except ValueError as error:
                raise gr.Error(sentence(error)) from None
