"""What must not be shown: a guard over all that a model decodes; `tests/test_bounds.py` has every kind of run."""

from __future__ import annotations

from dataclasses import replace

import pytest

from fkv import policies
from fkv.models.base import VideoModel
from fkv.search import rewards, strategies
from fkv.search.forbidden import Forbidden, GuardedDecoder, guarded
from fkv.search.futures import Cost, Futures
from fkv.search.moves import Moves
from fkv.search.rewards import Outside
from fkv.search.search import FORBIDDEN, Search
from fkv.stream import Stream
from fkv.studio.live import sample_run

PROMPT = "a red ball bouncing over the hills at sunset"


def rejecting(model: VideoModel, *shown: bool) -> VideoModel:
    """The model with a detector that lets these chunks pass or not, and none after them."""
    marks = iter(shown)
    assert model.decoder is not None
    detector = Outside("the detector", lambda video, prompt: float(next(marks, False)))
    return replace(model, decoder=GuardedDecoder(model.decoder, detector))


def test_a_stream_ends_before_the_chunk_that_must_not_be_shown(toy):
    stream = Stream(rejecting(toy, True), policies.make("full"), PROMPT)
    assert stream.step().video_frames
    with pytest.raises(Forbidden, match="shows what the detector rejects"):
        stream.step()


def test_a_future_that_must_not_be_shown_is_left_out_and_the_others_go_on(toy):
    model = rejecting(toy, True, False, True, False, True)

    def begin(noise):
        return Stream(model, policies.make("full"), PROMPT, noise=noise)

    futures = Futures(begin, 0, rewards.parse("continuity"), 3)
    search = Search(strategies.parse("best-of"), Moves(), futures, 3, 3, None, 1000, Cost((5,) * 3, (5,) * 3))
    with pytest.raises(ValueError, match="no future of 1 goes on: whatever follows is forbidden"):
        list(search.run())
    assert [level.passes for level in search.levels] == [9, 6], "a chunk that is refused takes its passes, too"
    assert [(node.depth, node.fate) for node in search.root if node.parent] == [
        (1, FORBIDDEN),
        (1, ""),
        (2, FORBIDDEN),
    ]


def test_a_guarded_studio_says_so_and_plays_no_recording(toy):
    model = guarded(toy, "red,night")
    assert "red or night is seen" in model.assumed[-1] and "no safety guarantee" in model.assumed[-1]
    assert sample_run.replay(model) is None


@pytest.mark.parametrize(
    ("latent", "text", "sentence"),
    [
        ((4, 8, 8), "red", "other videos than those of the tiny model's world"),
        ((4, 12, 20), "swan", "does not read 'swan'"),
        ((4, 12, 20), "no:where", "cannot load"),
    ],
)
def test_a_guard_that_cannot_be_kept_is_refused(toy, latent, text, sentence):
    with pytest.raises(ValueError, match=sentence):
        guarded(replace(toy, latent=latent), text)
