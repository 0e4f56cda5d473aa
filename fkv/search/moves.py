"""Moves: how siblings differ. A move is a noise and changes of the stream, as a storyboard has them."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, replace

from fkv import policies
from fkv.storyboard import Change, SetPolicy, SetPrompt, SetSteps, Storyboard
from fkv.world.captions import caption, parse

STREAM = "A"  # the one stream of a search, in storyboards
KINDS = ("noise", "wording", "recache", "when", "policy", "steps")
WORDINGS = 3  # other wordings of a prompt, at most
MOST_WAIT = 2  # chunks by which a change may come later

Changes = tuple[Change, ...]


@dataclass(frozen=True)
class Move:
    """How a chunk begins.

    Args:
        noise: Its branch, see `fkv.sampler.BranchNoise`; 0 for the noise of the plain stream.
        changes: What changes with it.
        held: Changes that were due and come a chunk later.
    """

    noise: int = 0
    changes: Changes = ()
    held: Changes = ()


@dataclass(frozen=True)
class Moves:
    """The moves of a search.

    Args:
        story: What changes in the plain stream.
        kinds: How futures may differ from it, of `KINDS`: another noise; another wording of a prompt that begins; with
            re-cache or without it; a change a chunk later; another policy; half of the steps.
        prompt: With which the stream begins.
        policy: Under which it begins.
        policies: The policies of the kind `policy`.
        steps: The model's number of denoising steps.
        chunks: Length of the video.

    Raises:
        ValueError: There is no such kind, or the policy allows none.
    """

    story: Storyboard = Storyboard()
    kinds: tuple[str, ...] = ("noise",)
    prompt: str = ""
    policy: str = "full"
    policies: tuple[str, ...] = ()
    steps: int = 1
    chunks: int = 1

    def __post_init__(self) -> None:
        if unknown := [kind for kind in self.kinds if kind not in KINDS]:
            raise ValueError(f"there is no kind of move {unknown[0]!r:.60}; there are {', '.join(KINDS)}")
        if {"policy", "steps"} & set(self.kinds) and policies.parse(self.policy).caches != "shared":
            raise ValueError(f"moves of policy or steps need a shared cache, and {self.policy!r:.60} has none")

    def of(self, path: Sequence[Move], count: int) -> list[Move]:
        """The moves of a node's children.

        Args:
            path: The moves up to the node.
            count: How many children it may have.

        Returns:
            At most `count` moves, the plain one first. With noise each child has its own; kinds of changes take turns.
        """
        held = path[-1].held if path else ()
        due = (*held, *self.story.changes(len(path)))
        variants = [Move(0, due), *self._variants(path, due)]
        if "noise" not in self.kinds:
            return variants[:count]
        return [replace(variants[noise % len(variants)], noise=noise) for noise in range(count)]

    def _variants(self, path: Sequence[Move], due: Changes) -> list[Move]:
        """What may be done in place of the changes that are due."""
        found: list[Changes] = []
        for place, change in enumerate(due):
            if isinstance(change, SetPrompt):
                found += [(*due[:place], other, *due[place + 1 :]) for other in self._others(change)]
        if not path and "wording" in self.kinds:
            found += [(*due, SetPrompt(wording)) for wording in wordings(self.prompt)]
        if "policy" in self.kinds:
            now = self._in_force(path, due)
            found += [(*due, SetPolicy(STREAM, other)) for other in self.policies if other != now]
        if "steps" in self.kinds:
            found.append((*due, SetSteps(self._other_steps(path))))
        late = [Move(0, (), due)] if due and "when" in self.kinds and self._may_wait(path) else []
        return [*late, *(Move(0, changes) for changes in found)]

    def _others(self, change: SetPrompt) -> list[SetPrompt]:
        """Other ways to begin a prompt."""
        found = [replace(change, recache=not change.recache)] if "recache" in self.kinds else []
        if "wording" in self.kinds:
            found += [replace(change, prompt=wording) for wording in wordings(change.prompt)]
        return found

    def _in_force(self, path: Sequence[Move], due: Changes) -> str:
        """The policy of the next chunk."""
        changes = [*(change for move in path for change in move.changes), *due]
        return next((change.policy for change in reversed(changes) if isinstance(change, SetPolicy)), self.policy)

    def _other_steps(self, path: Sequence[Move]) -> int:
        """Half of the model's steps, or all of them where it is half already."""
        half = max(1, self.steps // 2)
        changes = [change for move in path for change in move.changes if isinstance(change, SetSteps)]
        return self.steps if changes and changes[-1].steps == half else half

    def _may_wait(self, path: Sequence[Move]) -> bool:
        """Whether what is due may come a chunk later: not for ever, and not after the end."""
        waited = [bool(move.held) for move in path[-MOST_WAIT:]]
        return len(path) + 1 < self.chunks and not (len(waited) == MOST_WAIT and all(waited))


def wordings(prompt: str) -> list[str]:
    """Other wordings of a prompt that names a scene of the toy world; none of any other prompt."""
    try:
        scene = parse(prompt)
    except ValueError:
        return []
    written = (caption(scene, random.Random(number)) for number in range(4 * WORDINGS))
    return [text for text in dict.fromkeys(written) if text != prompt][:WORDINGS]
