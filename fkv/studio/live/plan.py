"""What a visitor wants to see: the Live form, read and checked."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlencode

from fkv import policies, storyboard
from fkv.parameters import check
from fkv.roles import HeadRoles
from fkv.storyboard import Storyboard
from fkv.stream import check_prompt, check_seed

from . import forms

VIEWS = ("A", "B", "AB")


@dataclass(frozen=True)
class Plan:
    """A run as the visitor wants it.

    Args:
        prompt: What the video shows.
        seed: Chooses the noise.
        chunks: Length of the run, None until it is stopped.
        policies: The policy of each stream.
        texts: The same as the visitor wrote them.
        link: The query that brings the form back.
        roles: Head roles, None for the model's.
        story: What changes when.
    """

    prompt: str
    seed: int
    chunks: int | None
    policies: dict[str, policies.Policy]
    texts: dict[str, str]
    link: str
    roles: HeadRoles | None = None
    story: Storyboard = Storyboard()

    @classmethod
    def from_form(
        cls,
        *,
        prompt: Any,
        seed: Any,
        length: Any,
        view: Any,
        a: Any,
        b: Any,
        threshold: float | None = None,
        story: Any = "",
        roles: HeadRoles | None = None,
        chunk_seconds: float | None = None,
    ) -> Plan:
        """Read the form.

        Args:
            prompt: What the video shows, unless the storyboard opens with a prompt.
            seed: A whole number.
            length: Chunks of the run, 0 until it is stopped.
            view: The streams: A, B or AB.
            a: The policy of A, as on the command line.
            b: The policy of B.
            threshold: Where to split the scores of the heads, None for the roles as they are.
            story: The storyboard.
            roles: The model's head roles.
            chunk_seconds: Seconds of video in one chunk, for a storyboard with durations.

        Raises:
            ValueError: With a sentence for the visitor, if a field cannot be used.
        """
        prompt = check_prompt(prompt)
        story = forms.text(story, "the storyboard")
        written = {"A": forms.text(a, "the policy of A"), "B": forms.text(b, "the policy of B")}
        if view not in VIEWS:
            raise ValueError(f"the view must be A, B or AB, not {view!r:.40}")
        seed = check_seed(seed)
        length = check("the number of chunks (0: endless)", length, forms.RunChunks)
        chunks = length or None
        split = None if threshold is None else storyboard.at_threshold(roles, threshold)
        timeline = storyboard.parse(story, split or roles, chunks, chunk_seconds)
        prompt = timeline.opening or prompt
        fields = {
            "prompt": prompt,
            "seed": seed,
            "length": length,
            "view": view,
            "a": written["A"],
            "b": written["B"],
            "threshold": threshold,
            "story": storyboard.write(timeline.without_opening()),
        }
        texts = {name: text for name, text in written.items() if name in view}
        return cls(
            prompt=prompt,
            seed=seed,
            chunks=chunks,
            policies={name: policies.parse(text) for name, text in texts.items()},
            texts=texts,
            link=urlencode({name: value for name, value in fields.items() if value not in (None, "")}),
            roles=split,
            story=timeline,
        )

    @property
    def streams(self) -> str:
        """The streams in words."""
        return side_by_side(self.texts.values())


def side_by_side(policies: Iterable[str]) -> str:
    """Streams under these policies, in words."""
    names = list(policies)
    return f"{' and '.join(names)} side by side, same noise" if len(names) > 1 else names[0]
