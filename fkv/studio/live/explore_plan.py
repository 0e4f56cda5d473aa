"""What a visitor wants to explore: the form of the Explore tab, read and checked."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from fkv import policies, storyboard
from fkv.models.base import VideoModel
from fkv.parameters import check
from fkv.search import rewards as reward_names
from fkv.search import strategies
from fkv.search.head import Head
from fkv.search.learning import check_head, check_moves
from fkv.search.looks import fitted, weights_of
from fkv.search.moves import KINDS, Moves
from fkv.search.rewards import Rewards
from fkv.search.strategies import Strategy
from fkv.storyboard import STREAM
from fkv.stream import check_prompt, check_seed

from . import forms

BY_HAND = "by hand"
MOVES = tuple(kind for kind in KINDS if kind not in ("code", "avoid"))
CHOICES = (BY_HAND, *strategies.STRATEGIES)


@dataclass(frozen=True)
class ExplorePlan:
    """What a visitor wants to explore.

    Args:
        prompt: With which all futures begin.
        seed: Of the noise of the plain stream.
        policy: As on the command line.
        strategy: Of the search, None where the visitor chooses.
        rewards: What counts.
        moves: How futures differ.
        width: Futures side by side.
        lookahead: Chunks by which the tree is ahead of what is decided, None to decide at the end.
        passes: Passes of the model, at most.
        form: The fields of the Live tab that go on from here, as the visitor wrote them.
        head: What predicts rewards, for strategies that go by predictions; None for all others.
    """

    prompt: str
    seed: int
    policy: str
    strategy: Strategy | None
    rewards: Rewards
    moves: Moves
    width: int
    lookahead: int | None
    passes: int
    form: dict[str, Any]
    head: Head | None = None

    @classmethod
    def from_form(
        cls,
        model: VideoModel,
        *,
        prompt: Any,
        seed: Any,
        policy: Any,
        strategy: Any,
        chunks: Any,
        width: Any,
        lookahead: Any,
        passes: Any,
        rewards: Any,
        moves: Any,
        story: Any,
    ) -> ExplorePlan:
        """Read the form.

        Args:
            model: What generates.
            prompt: What the video shows.
            seed: A whole number.
            policy: As on the command line.
            strategy: One of `CHOICES`, with parameters as on the command line.
            chunks: Length of the video.
            width: Futures side by side.
            lookahead: Chunks, or as many as the video has to decide at the end.
            passes: Passes of the model, at most.
            rewards: As on the command line, joined by +.
            moves: Kinds of `MOVES`.
            story: What changes in all futures, as storyboard lines.

        Raises:
            ValueError: With a sentence for the visitor, if a field cannot be used.
        """
        prompt, seed, policy = check_prompt(prompt), check_seed(seed), forms.text(policy, "the policy")
        policies.parse(policy)
        name = forms.text(strategy, "the strategy")
        chosen = None if name == BY_HAND else fitted(strategies.parse(name), model)
        size = {
            each: check(f"the number of {each}", value, annotation)
            for each, value, annotation in (
                ("chunks", chunks, forms.ExploreChunks),
                ("futures side by side", width, forms.ExploreWidth),
                ("chunks to look ahead", lookahead, forms.ExploreAhead),
                ("passes", passes, forms.ExplorePasses),
            )
        }
        parts = reward_names.parse(forms.text(rewards, "the rewards"), outside=False)
        kinds = tuple(kind for kind in MOVES if kind in (moves or []))
        if not kinds:
            raise ValueError("futures must differ in something; choose a move")
        needs_head = chosen is not None and chosen.needs_head
        if needs_head:  # it knows noises that are the same at every chunk
            kinds = tuple("code" if kind == "noise" else kind for kind in kinds)
        length = size["chunks"]
        timeline = storyboard.parse(forms.text(story, "the storyboard"), model.roles, length, model.chunk_seconds)
        timeline.check_fits(length, [STREAM], model.schedule)
        prompt = timeline.opening or prompt
        reward_names.check_model(parts, model)
        reward_names.check_seconds(parts, length * model.chunk_seconds)
        reward_names.check_prompts(parts, [prompt, *timeline.prompts])
        options = Moves(
            timeline,
            kinds,
            prompt,
            policy,
            model.policies if "policy" in kinds else (),
            len(model.schedule.sigmas),
            length,
        )
        head = _head(model, parts, options) if needs_head else None
        return cls(
            prompt=prompt,
            seed=seed,
            policy=policy,
            strategy=chosen,
            rewards=parts,
            moves=options,
            width=size["futures side by side"],
            lookahead=size["chunks to look ahead"] if size["chunks to look ahead"] < length else None,
            passes=size["passes"],
            form={"prompt": prompt, "seed": seed, "policy": policy},
            head=head,
        )


def _head(model: VideoModel, rewards: Rewards, moves: Moves) -> Head:
    """The head that comes with a model. Raises ValueError where there is none, or it predicts something else."""
    head = Head.beside(model)
    if head is None:
        raise ValueError(
            f"saffron goes by a trained head, and {model.name} comes without one; train one with fkv search --learn"
        )
    predicted = head.facts.get("rewards")
    if predicted != "+".join(rewards.parts):
        raise ValueError(f"saffron's head predicts {predicted}; write that under Rewards")
    check_head(head, weights_of(model), ("model", "checkpoint"))
    check_moves(head, moves)
    return head
