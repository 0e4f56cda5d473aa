"""Links: the form as an address says, so that a link brings a run back."""

from __future__ import annotations

import math
import re
from typing import Any

import gradio as gr

from fkv.models.base import VideoModel
from fkv.studio.live.plan import VIEWS

OPENING_STEPS = re.compile(r"1: steps = ([1-9][0-9]?)(?:\n|$)")  # the field of the steps, as a link holds it
LINKED = "This link's settings are loaded{}. Press Go live to generate{}."
RECORDED = "; a sample recording plays until then"
PLANNED = ", and the Storyboard has what changes on the way"
OTHER_MODEL = "This link was made with the model {}; this studio runs {}, so frames will differ."


class Links:
    """Reads addresses.

    Args:
        model: What generates.
        recorded: What the stage shows at first, empty where there is no recording.
    """

    def __init__(self, model: VideoModel, recorded: dict[str, Any]) -> None:
        self._model = model
        self._recorded = recorded

    def restore(self, request: gr.Request) -> list[Any]:
        """The stage, the Storyboard and the form as the address says, so that a link brings a run back."""
        get = request.query_params.get
        text = None
        story, steps = with_steps(self._model, get("story") or "")
        planned = bool(story.strip() or get("branch"))
        linked = LINKED.format(PLANNED if planned else "", RECORDED if self._recorded else "")
        if get("model") not in (None, self._model.name):
            text = OTHER_MODEL.format(get("model"), self._model.name)
        elif self._recorded and get("prompt"):
            text = linked
        read = {
            "prompt": get("prompt"),
            "seed": number(get("seed")),
            "length": number(get("length")),
            "view": get("view") if get("view") in VIEWS else None,
            "a": get("a"),
            "b": get("b"),
            "threshold": share(get("threshold")),
            "story": story if get("story") else None,
            "steps": steps,
            "branch": get("branch"),
            "schedule": seen(gr.Textbox, get("schedule")),
            "frames": seen(gr.Number, number(get("frames"))),
            "path": get("path"),
        }
        if unread := [name for name, value in read.items() if get(name) and value is None]:
            text = f"{text or linked} Not read: {', '.join(f'{name}={get(name)!r:.40}' for name in unread)}."
        stage = {"state": "idle"} | self._recorded | {"text": text} if text else None
        values = [stage, gr.Accordion(open=True) if planned else None, *read.values()]
        return [gr.skip() if value is None else value for value in values]


def with_steps(model: VideoModel, story: str) -> tuple[str, int]:
    """Split a link's storyboard into what the storyboard's field shows and the steps with which the run begins."""
    most = len(model.schedule.sigmas)
    opening = OPENING_STEPS.match(story)
    if opening is None or int(opening[1]) > most:
        return story, most
    return story[opening.end() :], int(opening[1])


def seen(field: type[gr.Textbox | gr.Number], value: Any) -> Any:
    """A field that not every model shows, shown with a value; None without one."""
    return None if value is None else field(value, visible=True)


def share(text: str | None) -> float | None:
    """A number between 0 and 1, None for anything else that an address holds."""
    try:
        read = float(text or "")
    except ValueError:
        return None
    return None if math.isnan(read) else min(1.0, max(0.0, read))


def number(text: str | None) -> int | None:
    """A whole number of at least 0, None for anything else that an address holds."""
    return int(text) if text and text.isdecimal() and len(text) < 12 else None
