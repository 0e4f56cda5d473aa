"""The card Storyboard: what changes at which chunk of a run, where B leaves A, and the noise of each chunk."""

from __future__ import annotations

import gradio as gr

from fkv.studio.live.plan import BRANCH_EXAMPLE

EXAMPLE = (
    "6: a cyan star drifting over the sea at night\n"
    "12: A = sliding-window\n"
    "18: re-cache = a yellow box swinging over the mountains"
)
HELP = (
    "One change per line, each with the number of its chunk: `6: another prompt`, `6: re-cache = another prompt`, "
    "`6: A = policy`, `6: cut = another prompt`, `6: threshold = 0.7`, `6: heads = 3.2 dynamic`, "
    "`6: steps = 2`, `6: flush`, `6: cut`. Or scenes with durations in seconds or chunks: "
    "`a red ball [10s] | the same ball at night [12c#]`; `#` marks a hard cut. "
    "It is read when a run begins. Changes that you make during a run are added to the address in the same form."
)
BRANCH_HELP = (
    "Empty: both run from the beginning. `9: a blue star` lets B begin as A and go its own way from chunk 9 on, under "
    "this prompt and the policy of B; `9 seed=7` with other noise. Branch from here, below the video, fills it in."
)
PATH_HELP = "Empty: drawn from the seed. 0,3,1 repeats a future of the Explore tab or of `fkv search`."


class Storyboard:
    """The card's components."""

    def __init__(self) -> None:
        with gr.Accordion("Storyboard", open=False, elem_id="fkv-story") as self.card:
            self.changes = gr.Textbox(
                "", label="What changes at which chunk", info=HELP, placeholder=EXAMPLE, lines=3, max_lines=12
            )
            self.branch = gr.Textbox(
                "", label="Where B leaves A", info=BRANCH_HELP, placeholder=BRANCH_EXAMPLE, max_lines=1
            )
            self.path = gr.Textbox("", label="Noise of each chunk", info=PATH_HELP, placeholder="0,3,1", max_lines=1)
