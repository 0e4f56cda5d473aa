"""What a visitor wants to see: the Live form, read and checked."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any
from urllib.parse import urlencode

from fkv import policies, storyboard
from fkv.models.base import VideoModel
from fkv.parameters import check
from fkv.roles import HeadRoles
from fkv.sampler import Schedule, SeededNoise, read_path, read_timesteps
from fkv.storyboard import Storyboard
from fkv.stream import Stream, check_prompt, check_seed

from . import forms

VIEWS = ("A", "B", "AB")
BRANCH = re.compile(r"(\d{1,6})(?:\s+seed\s*=\s*(\d{1,10}))?\s*(?::\s*(.*))?", re.DOTALL)
BRANCH_EXAMPLE = "9: a blue star, or 9 seed=7: a blue star"


@dataclass(frozen=True)
class Branch:
    """Where B leaves A, which has been the only stream until then.

    Args:
        chunk: The first chunk that B has of its own, counted from 0.
        prompt: Of B from there on; empty for that of A.
        seed: Of B's noise from there on, None for that of A.
    """

    chunk: int
    prompt: str = ""
    seed: int | None = None

    @classmethod
    def read(cls, text: str) -> Branch | None:
        """Read `CHUNK`, `CHUNK: PROMPT` or `CHUNK seed=SEED: PROMPT`, chunks counted from 1; None for no text.

        Raises:
            ValueError: For any other text, and for chunk 1, before which there is no past.
        """
        if not text.strip():
            return None
        found = BRANCH.fullmatch(text.strip())
        if not found:
            raise ValueError(f"a branch is written CHUNK: PROMPT, as in {BRANCH_EXAMPLE}, not {text!r:.60}")
        chunk, seed, prompt = int(found[1]), found[2], (found[3] or "").strip()
        if chunk < 2:
            raise ValueError("a branch needs a past: from chunk 2 on at the earliest")
        return cls(chunk - 1, check_prompt(prompt) if prompt else "", None if seed is None else check_seed(int(seed)))

    def write(self) -> str:
        """Write the branch as `read` reads it."""
        seed = "" if self.seed is None else f" seed={self.seed}"
        return f"{self.chunk + 1}{seed}" + (f": {self.prompt}" if self.prompt else "")

    def begin(self, trunk: Stream, policy: policies.Policy) -> Stream:
        """Fork B from A. Raises ValueError where B cannot take the policy."""
        stream = trunk.fork(None if self.seed is None else SeededNoise(self.seed))
        stream.set_policy(policy)
        if self.prompt:
            stream.set_prompt(self.prompt)
        return stream


@dataclass(frozen=True)
class Sampling:
    """How a run samples the model, where it differs from how the model was loaded.

    Args:
        timesteps: Of the denoising steps; () for the model's own.
        frames: Latent frames of a chunk; None for the model's own.
    """

    timesteps: tuple[float, ...] = ()
    frames: int | None = None

    @classmethod
    def read(cls, timesteps: Any, frames: Any) -> Sampling:
        """Read the fields; empty ones, and 0 frames, leave the model as it is.

        Raises:
            ValueError: With a sentence for the visitor.
        """
        written = forms.text(timesteps, "the timesteps")
        frames = check("latent frames of a chunk (0: the model's own)", frames or 0, forms.ChunkFrames)
        return cls(read_timesteps(written) if written else (), frames or None)

    def of(self, model: VideoModel) -> VideoModel:
        """The model as the run samples it."""
        if self.timesteps:
            model = replace(model, schedule=Schedule.at(self.timesteps), first_schedule=None)
        return replace(model, frames_per_chunk=self.frames or model.frames_per_chunk)

    @property
    def fields(self) -> dict[str, str]:
        """The fields of a link."""
        return {"schedule": ",".join(f"{step:g}" for step in self.timesteps), "frames": str(self.frames or "")}


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
        branch: Where B leaves A; None where both run from the beginning.
        sampling: How the model is sampled.
        path: Noise of each chunk where it is not that of the plain stream, see `fkv.sampler.BranchNoise`.
    """

    prompt: str
    seed: int
    chunks: int | None
    policies: dict[str, policies.Policy]
    texts: dict[str, str]
    link: str
    roles: HeadRoles | None = None
    story: Storyboard = Storyboard()
    branch: Branch | None = None
    sampling: Sampling = Sampling()
    path: tuple[int, ...] = ()

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
        branch: Any = "",
        steps: int | None = None,
        roles: HeadRoles | None = None,
        chunk_seconds: float | None = None,
        sampling: Sampling = Sampling(),
        path: Any = "",
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
            branch: Where B leaves A, see `Branch.read`.
            steps: Denoising steps of a chunk, None for as many as the model has.
            roles: The model's head roles.
            chunk_seconds: Seconds of video in one chunk, for a storyboard with durations.
            sampling: How the model is sampled.
            path: Noise of each chunk, as in 0,3,1.

        Raises:
            ValueError: With a sentence for the visitor, if a field cannot be used.
        """
        prompt = check_prompt(prompt)
        story = forms.text(story, "the storyboard")
        written = {"A": forms.text(a, "the policy of A"), "B": forms.text(b, "the policy of B")}
        if view not in VIEWS:
            raise ValueError(f"the view must be A, B or AB, not {view!r:.40}")
        seed = check_seed(seed)
        noises = read_path(forms.text(path, "the path"))
        length = check("the number of chunks (0: endless)", length, forms.RunChunks)
        chunks = length or None
        split = None if threshold is None else storyboard.at_threshold(roles, threshold)
        timeline = storyboard.parse(story, split or roles, chunks, chunk_seconds)
        prompt = timeline.opening or prompt
        if steps is not None:
            timeline = timeline.opened_by(storyboard.SetSteps(steps))
        fork = Branch.read(forms.text(branch, "the branch"))
        if fork and view != "AB":
            raise ValueError("a branch has two futures; choose A and B as the stream")
        if fork and chunks is not None and fork.chunk >= chunks:
            raise ValueError(f"the branch begins with chunk {fork.chunk + 1}, after the last of {chunks}")
        texts = {name: text for name, text in written.items() if name in view}
        chosen = {name: policies.parse(text) for name, text in texts.items()}
        if fork and chosen["A"].caches != chosen["B"].caches:
            raise ValueError(
                f"B cannot leave A for {chosen['B'].name!r}: it stores other things than {chosen['A'].name!r}; "
                "let both run from the beginning"
            )
        fields = {
            "prompt": prompt,
            "seed": seed,
            "length": length,
            "view": view,
            "a": written["A"],
            "b": written["B"],
            "threshold": threshold,
            "story": storyboard.write(timeline.without_opening()),
            "branch": fork.write() if fork else "",
            **sampling.fields,
            "path": ",".join(map(str, noises)),
        }
        return cls(
            prompt=prompt,
            seed=seed,
            chunks=chunks,
            policies=chosen,
            texts=texts,
            link=urlencode({name: value for name, value in fields.items() if value not in (None, "")}),
            roles=split,
            story=timeline,
            branch=fork,
            sampling=sampling,
            path=noises,
        )

    @property
    def streams(self) -> str:
        """The streams in words."""
        if self.branch:
            return f"{self.texts['A']}, which {self.texts['B']} leaves with chunk {self.branch.chunk + 1}"
        return side_by_side(self.texts.values())


def side_by_side(policies: Iterable[str]) -> str:
    """Streams under these policies, in words."""
    names = list(policies)
    return f"{' and '.join(names)} side by side, same noise" if len(names) > 1 else names[0]
