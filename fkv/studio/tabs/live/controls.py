"""All cards of the tab, and which of their components a run reads and changes."""

from __future__ import annotations

from typing import NamedTuple

import gradio as gr

from .next_run import NextRun
from .policies import Policies
from .prompt import Prompt
from .recording import RecordingCard
from .storyboard import Storyboard


class Controls(NamedTuple):
    """The cards of the tab, top to bottom."""

    prompt: Prompt
    next_run: NextRun
    stage: gr.HTML
    policies: Policies
    storyboard: Storyboard
    drawers: gr.Column
    recording: RecordingCard

    @property
    def form(self) -> list[gr.components.Component]:
        """The fields that a link brings back, in the order in which `Links.restore` returns them."""
        return [
            self.prompt.text,
            self.next_run.seed,
            self.next_run.length,
            self.next_run.view,
            self.policies.fields["A"],
            self.policies.fields["B"],
            self.policies.threshold,
            self.storyboard.changes,
            self.policies.steps,
            self.storyboard.branch,
            self.policies.timesteps,
            self.policies.frames,
            self.storyboard.path,
        ]

    @property
    def shown(self) -> list[gr.components.Component]:
        """What a run changes: the stage, the buttons in the order of `buttons_in`, and the download of a recording."""
        return [self.stage, *self.prompt.buttons, self.recording.download]
