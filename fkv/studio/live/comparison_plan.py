"""What a visitor or a program wants to compare: the Compare form, read and checked."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product
from typing import Any, get_type_hints

from fkv import policies, storyboard
from fkv.batch.shared import counts, paths_of
from fkv.models.base import VideoModel
from fkv.parameters import check
from fkv.storyboard import Storyboard
from fkv.stream import check_prompt, check_seed

from . import forms

MAX_CHUNKS = 2000  # chunks of one comparison in all


def scenes(prompt: str, chunks: int, chunk_seconds: float) -> tuple[str, Storyboard]:
    """Read a prompt, or scenes with durations such as `a red ball [3c] | a blue star [4c]`.

    Args:
        prompt: A line of the form.
        chunks: Length of the stream.
        chunk_seconds: Seconds of video in one chunk.

    Returns:
        The prompt with which the stream begins, and what changes on its way.

    Raises:
        ValueError: A scene cannot be read, or begins after the end.
    """
    if not storyboard.has_scenes(prompt):
        return prompt, Storyboard()
    story = storyboard.parse(prompt, None, chunks, chunk_seconds)
    return story.opening or "", story


@dataclass(frozen=True)
class ComparisonPlan:
    """Policies to compare on prompts x seeds.

    Args:
        policies: As `fkv.policies.write` writes them; the first is the reference.
        prompts: What the videos show, each a prompt or scenes, see `scenes`.
        seeds: Choose the noise.
        chunks: Length of each stream.
        shared: Whether what policies have in common is computed once, which leaves no speeds to compare.
    """

    policies: tuple[str, ...]
    prompts: tuple[str, ...]
    seeds: tuple[int, ...]
    chunks: int
    shared: bool = False

    @classmethod
    def from_form(
        cls,
        names: Any,
        prompts: Any,
        seeds: Any,
        chunks: Any,
        max_chunks: int = MAX_CHUNKS,
        shared: Any = False,
        chunk_seconds: float = 1.0,
    ) -> ComparisonPlan:
        """Read the form.

        Args:
            names: A list of policies, as on the command line.
            prompts: A prompt, or scenes with durations, on each line.
            seeds: Whole numbers with commas between them.
            chunks: Length of each stream.
            max_chunks: Chunks of the comparison in all.
            shared: Whether what policies have in common is computed once.
            chunk_seconds: Seconds of video in one chunk.

        Raises:
            ValueError: With a sentence for the visitor, if a field cannot be used.
        """
        if not isinstance(names, (list, tuple)):
            raise ValueError("the policies must be a list, such as full and forcing-kv")
        written = [policies.write(policies.parse(forms.text(name, "a policy"))) for name in names]
        lines = [line for line in forms.text(prompts, "the prompts").splitlines() if line.strip()]
        plan = cls(
            policies=tuple(dict.fromkeys(written)),
            prompts=tuple(dict.fromkeys(map(check_prompt, lines))),
            seeds=tuple(dict.fromkeys(map(_seed, forms.text(seeds, "the seeds").replace(",", " ").split()))),
            chunks=chunks,
            shared=bool(shared),
        )
        size = {
            "policies": len(plan.policies),
            "prompts": len(plan.prompts),
            "seeds": len(plan.seeds),
            "chunks": chunks,
        }
        for name, annotation in get_type_hints(forms.ComparisonSize, include_extras=True).items():
            check(f"the number of {name}", size[name], annotation)
        for prompt in plan.prompts:
            scenes(prompt, chunks, chunk_seconds)
        if plan.total > max_chunks:
            raise ValueError(f"this comparison needs {plan.total:,} chunks in all; at most {max_chunks:,} are allowed")
        return plan

    @property
    def runs(self) -> list[tuple[str, int]]:
        """Prompt and seed of every run; each has a stream per policy."""
        return list(product(self.prompts, self.seeds))

    def where(self, number: int) -> str:
        """Name a run by its number, counted from 1."""
        return f"prompt and seed {number} of {len(self.runs)}" if len(self.runs) > 1 else f"seed {self.seeds[0]}"

    def counts(self, model: VideoModel) -> dict[str, Any]:
        """What a report says of all runs together where they share, see `fkv.batch.shared.counts`."""
        chosen = [policies.parse(name) for name in self.policies]
        paths = []
        for prompt, seed in self.runs:
            opening, story = scenes(prompt, self.chunks, model.chunk_seconds)
            paths += paths_of(model, chosen, opening, seed, self.chunks, story=story)
        return counts(paths)

    def texts(self, chunk_seconds: float) -> list[str]:
        """Every prompt that a stream sees."""
        found = []
        for prompt in self.prompts:
            opening, story = scenes(prompt, self.chunks, chunk_seconds)
            found += [opening, *story.prompts]
        return found

    @property
    def total(self) -> int:
        """Chunks of all streams."""
        return len(self.runs) * len(self.policies) * self.chunks


def _seed(text: str) -> int:
    if not text.isdecimal():
        raise ValueError(
            f"seeds are whole numbers with commas between them, as in 0, 1; {text!r:.40} is not an integer"
        )
    return check_seed(int(text))
