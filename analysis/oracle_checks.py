"""Which models and storyboards the toy world's oracle can read."""

from __future__ import annotations

from fkv.models.base import VideoModel
from fkv.storyboard import SetPrompt, Storyboard, write_change
from fkv.world import HEIGHT, WIDTH
from fkv.world.captions import parse as parse_caption
from fkv.world.story import CHUNK


def draws_world(model: VideoModel) -> bool:
    """Tell whether the model decodes video of the toy world's size, so that the oracle can read it."""
    chunk = model.frames_per_chunk * model.video_frames_per_latent
    return model.decoder is not None and model.latent[1:] == (HEIGHT // 8, WIDTH // 8) and chunk == CHUNK


def check_world(model: VideoModel) -> None:
    """Raise ValueError unless the model generates the toy world."""
    if not draws_world(model):
        raise not_readable(model.name)


def check_story(story: Storyboard, prompts: int) -> None:
    """Check that the oracle can measure a storyboard.

    Args:
        story: Its prompts must be captions of the toy world.
        prompts: How many prompts the evaluation runs.

    Raises:
        ValueError: It changes more than prompts, or has a prompt that is no caption, or leaves no other prompt to run.
    """
    for cue in story.cues:
        line = f"{cue.chunk + 1}: {write_change(cue.change)}"
        if not isinstance(cue.change, SetPrompt):
            raise ValueError(f"an evaluation changes prompts only; leave out {line!r} of the storyboard")
        try:
            parse_caption(cue.change.prompt)
        except ValueError as error:
            raise ValueError(f"the oracle cannot read a prompt of the storyboard: {error}") from None
    if story.opening is not None and prompts != 1:
        raise ValueError(f"the storyboard begins with a prompt, so prompts must be 1, not {prompts}")


def not_readable(model: str) -> ValueError:
    """Return the error that a model of this name does not generate the toy world."""
    return ValueError(
        f"model {model!r} does not generate the toy world, and the oracle reads nothing else; evaluate the tiny model"
    )
