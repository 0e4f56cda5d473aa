"""What is forbidden: detectors, and a model that gives away no frame in which its detector sees any of it.

What a detector does not see passes, so none of this is a safety guarantee.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from torch import Tensor

from fkv.models.base import Decoder, VideoModel

from .rewards import Outside, Rewards, Rules, check_model, rules

PASSES = 0.5  # a chunk with a lower reward is not emitted
NOTICE = (
    "A guard is on: a run ends before a chunk in which {detector}. "
    "What its detector does not see passes, so it is no safety guarantee."
)


class Forbidden(ValueError):
    """A chunk shows what is forbidden, and nobody gets it."""


def detector(text: str) -> Rewards:
    """Read what is forbidden: words that the oracle sees, as in `red,night`, or a classifier as `module:function`.

    The classifier is called as a reward of the user's own, see `fkv.search.rewards.Outside`: below `PASSES` a chunk is
    not emitted.

    Raises:
        ValueError: The oracle does not read a word, or the classifier cannot be imported.
    """
    if ":" in text:
        return Rewards({text: Outside.load(text)})
    return Rewards(dict([rules(text)]))


def is_guarded(model: VideoModel) -> bool:
    """Whether a detector has to see every frame of a model before anybody does; it has seen none of a recording."""
    return isinstance(model.decoder, GuardedDecoder)


@dataclass(frozen=True)
class GuardedDecoder:
    """A decoder that gives no video away in which a detector sees what is forbidden.

    Every frame that a model generates comes out of its decoder, so that this guards every kind of run.

    Args:
        decoder: Decodes.
        detector: Words that the oracle sees, or a classifier, which gets an empty prompt.
    """

    decoder: Decoder
    detector: Rules | Outside

    def __call__(self, latents: Tensor, state: Any) -> tuple[np.ndarray, Any]:
        """Decode. Raises Forbidden where the video must not be shown."""
        video, state = self.decoder(latents, state)
        if isinstance(self.detector, Rules):
            seen = " and ".join(self.detector.seen_in(video))
        else:
            seen = "" if self.detector.of(video, "") >= PASSES else f"what {self.detector.name} rejects"
        if seen:
            raise Forbidden(f"the run ends before a chunk that shows {seen}, which is forbidden here")
        return video, state

    def copy(self, state: Any) -> Any:
        """Copy a state of the decoder."""
        return self.decoder.copy(state)


def guarded(model: VideoModel, text: str) -> VideoModel:
    """The model with a guard over all that it decodes, and the sentence that says so.

    Args:
        model: The model.
        text: What is forbidden, see `detector`.

    Raises:
        ValueError: It cannot be read, or the model's videos cannot be checked for it.
    """
    forbidden = detector(text)
    check_model(forbidden, model)
    (part,) = forbidden.parts.values()
    assert model.decoder is not None and isinstance(part, (Rules, Outside))
    sees = f"{' or '.join(part.forbidden)} is seen" if isinstance(part, Rules) else f"{part.name} sees what it rejects"
    decoder = GuardedDecoder(model.decoder, part)
    return replace(model, decoder=decoder, assumed=(*model.assumed, NOTICE.format(detector=sees)))
