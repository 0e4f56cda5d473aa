"""Moves: how siblings differ. A move is a noise and changes of the stream, as a storyboard has them."""

from __future__ import annotations

import random
import re
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace

from fkv import policies
from fkv.sampler import CODE
from fkv.storyboard import STREAM, Change, Flush, SetPolicy, SetPrompt, SetSteps, Storyboard
from fkv.world import shots
from fkv.world.captions import COLOURS, SCENES, SHAPES, TIMES, Scene, Thing, caption, parse, words
from fkv.world.shots import Shot

KINDS = ("noise", "code", "wording", "recache", "when", "policy", "steps", "avoid")
ALL = 1 << 16  # more children than any node has moves of other kinds than noise
CODES = 8  # noises of the kind code, that of the plain stream among them
WORDINGS = 3  # other wordings of a prompt, at most
AVOIDING = 2  # prompts without forbidden words, at most
WORD = r"[^\W\d_]+"  # of a prompt
MOST_WAIT = 2  # chunks by which a change may come later

Changes = tuple[Change, ...]


@dataclass(frozen=True)
class Move:
    """How a chunk begins.

    Args:
        noise: Its branch, see `fkv.sampler.BranchNoise`; 0 for the noise of the plain stream.
        changes: What changes with it.
        held: Changes that were due and come a chunk later.
        name: What it does otherwise than the plain stream, "" for nothing; the same word at every chunk. Where policies
            differ, it is the policy, that of the plain stream too.
    """

    noise: int = 0
    changes: Changes = ()
    held: Changes = ()
    name: str = field(default="", compare=False)

    @property
    def key(self) -> str:
        """Its name and noise, by which a head knows it in any stream; branches of `noise` mean nothing to a head."""
        noise = f"code {self.noise - CODE}" if self.noise >= CODE else f"noise {self.noise}"
        return f"{noise}, {self.name}" if self.name else noise


@dataclass(frozen=True)
class Moves:
    """The moves of a search.

    Args:
        story: What changes in the plain stream.
        kinds: How futures may differ from it, of `KINDS`: another noise; one of a few noises that are the same at every
            chunk and for every seed; another wording of a prompt that begins; with re-cache or without it; a change a
            chunk later; another policy; half of the steps; a prompt without forbidden words.
        prompt: With which the stream begins.
        policy: Under which it begins.
        policies: The policies of the kind `policy`.
        steps: The model's number of denoising steps.
        chunks: Length of the video.
        forbidden: The words that the kind `avoid` leaves out of prompts.

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
    forbidden: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if unknown := [kind for kind in self.kinds if kind not in KINDS]:
            raise ValueError(f"there is no kind of move {unknown[0]!r:.60}; there are {', '.join(KINDS)}")
        if {"policy", "steps"} & set(self.kinds) and policies.parse(self.policy).caches != "shared":
            raise ValueError(f"moves of policy or steps need a shared cache, and {self.policy!r:.60} has none")
        if {"noise", "code"} <= set(self.kinds):
            raise ValueError("moves of noise draw anew at every chunk and those of code do not; name one of them")
        if "avoid" in self.kinds and not self.forbidden:
            raise ValueError("moves that avoid words need forbidden ones, as in --reward rules:red,night")

    def of(self, path: Sequence[Move], count: int) -> list[Move]:
        """The moves of a node's children.

        Args:
            path: The moves up to the node.
            count: How many children it may have.

        Returns:
            At most `count` moves, the plain one first. With noise each child has its own; kinds of changes take turns.
        """
        variants = [self.plain(path), *self._variants(path, self.plain(path).changes)]
        if "noise" in self.kinds:
            return [replace(variants[noise % len(variants)], noise=noise) for noise in range(count)]
        if "code" not in self.kinds:
            return variants[:count]
        places = [divmod(number, CODES) for number in range(min(count, CODES * len(variants)))]
        return [
            replace(variants[(code + round_) % len(variants)], noise=CODE + code if code else 0)
            for round_, code in places
        ]

    @property
    def others(self) -> set[str]:
        """What `Move.key` has for all moves along the plain stream but its own."""
        found: set[str] = set()
        path: list[Move] = []
        for _ in range(self.chunks):
            plain, *others = self.of(path, ALL)
            found.update(move.key for move in others)
            path.append(plain)
        return found

    def plain(self, path: Sequence[Move]) -> Move:
        """The move that does what the plain stream does, and what earlier moves have put off."""
        due = (*(path[-1].held if path else ()), *self.story.changes(len(path)))
        return Move(0, due, name=self._in_force(path, due) if "policy" in self.kinds else "")

    def prompt_after(self, path: Sequence[Move], changes: Changes = ()) -> str:
        """The prompt in force once these changes are made at the end of a path."""
        all_changes = [*(change for move in path for change in move.changes), *changes]
        return next((each.prompt for each in reversed(all_changes) if isinstance(each, SetPrompt)), self.prompt)

    def may_recache(self, index: int) -> bool:
        """Whether the chunk of this index, from 0, can recompute the cache under its prompt."""
        if "avoid" in self.kinds and self._caches == "shared":
            return True
        first = index - (MOST_WAIT if "when" in self.kinds else 0)
        due = [cue.change for cue in self.story.cues if first <= cue.chunk <= index]
        prompts = [change for change in due if isinstance(change, SetPrompt)]
        return any(change.recache or ("recache" in self.kinds and not change.cut) for change in prompts)

    def _variants(self, path: Sequence[Move], due: Changes) -> list[Move]:
        """What may be done in place of the changes that are due."""
        found: list[tuple[str, Changes]] = []
        for place, change in enumerate(due):
            if isinstance(change, SetPrompt):
                others = self._others(change)
                found += [(name, (*due[:place], other, *due[place + 1 :])) for name, other in others]
        if not path and "wording" in self.kinds:
            found += [
                (name, (*due, SetPrompt(wording))) for name, wording in _numbered("wording", wordings(self.prompt))
            ]
        if "avoid" in self.kinds and not any(isinstance(change, SetPrompt) for change in due):
            found += [(name, (*due, other)) for name, other in self._avoiding(SetPrompt(self.prompt_after(path)))]
            if path and self._caches:
                found.append(("flush", (*due, Flush())))
        if "policy" in self.kinds:
            now = self._in_force(path, due)
            found += [(other, (*due, SetPolicy(STREAM, other))) for other in self.policies if other != now]
        if "steps" in self.kinds:
            other_steps = self._other_steps(path)
            found.append((f"steps {other_steps}", (*due, SetSteps(other_steps))))
        late = [Move(0, (), due, "later")] if due and "when" in self.kinds and self._may_wait(path) else []
        return [*late, *(Move(0, changes, (), name) for name, changes in found)]

    def _others(self, change: SetPrompt) -> list[tuple[str, SetPrompt]]:
        """Other ways to begin a prompt, by name."""
        found = []
        if "recache" in self.kinds and not change.cut:  # a cut has no line with re-cache
            found.append(("no re-cache" if change.recache else "re-cache", replace(change, recache=not change.recache)))
        if "wording" in self.kinds:
            others = _numbered("wording", wordings(change.prompt))
            found += [(name, replace(change, prompt=wording)) for name, wording in others]
        if "avoid" in self.kinds:
            found += self._avoiding(change)
        return found

    def _avoiding(self, change: SetPrompt) -> list[tuple[str, SetPrompt]]:
        """The prompt without forbidden words, and with what is cached computed anew under it."""
        found = []
        for name, prompt in _numbered("avoid", avoiding(change.prompt, self.forbidden)):
            found.append((name, replace(change, prompt=prompt)))
            if self._caches == "shared" and not change.cut:
                found.append((f"{name} with re-cache", replace(change, prompt=prompt, recache=True)))
        return found

    @property
    def _caches(self) -> str:
        """What the policy caches, "" for nothing."""
        caches = policies.parse(self.policy).caches
        return "" if caches == "none" else caches

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
    """Other wordings of a prompt that names a scene of the toy world or a shot; none of any other prompt."""
    said = _read(prompt)
    if said is None:
        return []
    written = (_written(said, random.Random(number)) for number in range(4 * WORDINGS))
    return [text for text in dict.fromkeys(written) if text != prompt][:WORDINGS]


def avoiding(prompt: str, forbidden: Sequence[str]) -> list[str]:
    """Prompts without forbidden words.

    Args:
        prompt: The prompt.
        forbidden: Words.

    Returns:
        Of a prompt that names a scene of the toy world or a shot, the same with other words in their place; of any
        other prompt, what is left of it. None where nothing is.
    """
    said = _read(prompt)
    if said is None:
        left = re.sub(WORD, lambda word: "" if words(word[0])[0] in forbidden else word[0], prompt)
        return [" ".join(left.split())] if forbidden and left.strip() else []
    others = [_without(said, forbidden, number) for number in range(AVOIDING)]
    return list(dict.fromkeys(_written(other) for other in others if other is not None))


def _read(prompt: str) -> Scene | Shot | None:
    """What a prompt of the toy world says, with its camera where it names one; None of any other prompt."""
    with suppress(ValueError):
        shot = shots.parse(prompt)
        if shot.subject or "nothing" in words(prompt):  # a dog is not nothing
            return shot
    with suppress(ValueError):
        return parse(prompt)
    return None


def _written(said: Scene | Shot, rng: random.Random | None = None) -> str:
    return shots.caption(said, rng) if isinstance(said, Shot) else caption(said, rng)


def _without(said: Scene | Shot, forbidden: Sequence[str], number: int) -> Scene | Shot | None:
    """The same with the allowed word that comes `number` places later in place of each forbidden one."""

    def allowed(word: str, words: Sequence[str]) -> str:
        if word not in forbidden:
            return word
        left = [other for other in words if other not in forbidden]
        return left[(words.index(word) + number) % len(left)] if left else ""

    place, time = allowed(said.place, SCENES), allowed(said.time, TIMES)
    if isinstance(said, Shot):
        subject = said.subject
        colour, shape = (subject.colour, subject.shape) if subject else (None, None)
        colour, shape = colour and allowed(colour, COLOURS), shape and allowed(shape, SHAPES)
        subject = subject and replace(subject, colour=colour, shape=shape)
        is_said = "" not in (place, time, colour, shape)
        return replace(said, place=place, time=time, subject=subject) if is_said else None
    things = tuple(Thing(allowed(t.colour, COLOURS), allowed(t.shape, SHAPES), t.motion) for t in said.things)
    named = [place, time, *(word for thing in things for word in (thing.colour, thing.shape))]
    return replace(said, things=things, place=place, time=time) if all(named) else None


def _numbered(name: str, texts: Sequence[str]) -> list[tuple[str, str]]:
    return [(f"{name} {number}", text) for number, text in enumerate(texts, 1)]
