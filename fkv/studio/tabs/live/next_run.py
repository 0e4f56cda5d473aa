"""The second card: example prompts, words for prompts, and what the next run is: stream, chunks, seed."""

from __future__ import annotations

import gradio as gr

from fkv.analysis.oracle_checks import draws_world
from fkv.models.base import VideoModel
from fkv.studio.media.assets import script
from fkv.studio.tabs import policy_field
from fkv.world.captions import COLOURS, MOTIONS, SCENES, SHAPES, SYNONYMS, TIMES

CHUNKS = 40
EXAMPLES = 3
GROUPS = {"colour": COLOURS, "shape": SHAPES, "motion": MOTIONS, "place": SCENES, "time": TIMES}  # of words to pick
ROLL = "() => Math.floor(Math.random() * 1e6)"  # a seed


class NextRun:
    """The card's components.

    Args:
        model: What generates.
        prompt: The field that examples and words write.
    """

    def __init__(self, model: VideoModel, prompt: gr.Textbox) -> None:
        with gr.Row(elem_id="fkv-choices"):
            with gr.Column(scale=5, min_width=320):
                if model.examples:
                    examples = [[text] for text in model.examples[:EXAMPLES]]
                    gr.Examples(examples, prompt, elem_id="fkv-examples", api_visibility="private")
                if draws_world(model):
                    gr.HTML(
                        {"groups": GROUPS, "synonyms": SYNONYMS},
                        js_on_load=script("words"),
                        apply_default_css=False,
                        elem_id="fkv-words",
                    )
            with gr.Column(scale=6, min_width=320), gr.Row():
                choices = policy_field.views(*model.policies)
                self.view = gr.Radio(choices, value="AB", label="Stream", scale=3, min_width=300)
                self.length = gr.Number(CHUNKS, label="Chunks (0: endless)", precision=0, scale=1, min_width=150)
                self.seed = gr.Number(0, label="Seed", precision=0, scale=1, min_width=90)
                self.die = gr.Button("Random", elem_id="fkv-die", size="sm", scale=0, min_width=76)
        self.die.click(None, None, self.seed, js=ROLL, api_visibility="private")
