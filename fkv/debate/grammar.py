"""A director without a language model: roles that fill the grammar of the toy world by rules, and judge each other's
scenes by figures. It understands nothing but the words of the idea that the toy world knows.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import cast

from fkv.world.captions import COLOURS, MOTIONS, SCENES, SHAPES, TIMES, Scene, Thing, caption, parse, words

from . import scenes
from .scenes import Brief, Take
from .transcript import Message

Story = tuple[Scene, ...]
OWN = 1.5  # weight of an agent's own judgement; those of the other roles weigh 1


@dataclass(frozen=True)
class GrammarAgent:
    """An agent that proposes scenes as its role would, and joins what it hears to them where it likes that better.

    Args:
        name: Its role, a key of `PROPOSALS` and `JUDGEMENTS`.
        brief: What is asked for.
        seed: Chooses what the idea leaves open, the same for all roles.
    """

    name: str
    brief: Brief
    seed: int = 0

    def answer(self, question: str, own: Message | None, heard: Sequence[Message]) -> Message:
        """Propose scenes at first; later choose one proposal's backdrops and one's things."""
        if own is None:
            story = PROPOSALS[self.name](_first_scenes(self.brief, self.seed))
        else:
            stories = [cast(Story, message.answer) for message in (own, *heard)]
            story = max((_joined(a, b) for a in stories for b in stories), key=self._worth)
        takes = [Take(caption(scene), self.brief.chunks) for scene in story]
        text = scenes.write(takes)
        read = sum(len(each.split()) for each in (question, *(message.text for message in heard)))
        return Message(self.name, scenes.meaning(takes, True), text, (), read, len(text.split()))

    def _worth(self, story: Story) -> float:
        return OWN * JUDGEMENTS[self.name](story, self.brief) + sum(
            judge(story, self.brief) for role, judge in JUDGEMENTS.items() if role != self.name
        )


def _joined(backdrops: Story, things: Story) -> Story:
    """The places and times of one proposal with the things of another."""
    return tuple(replace(a, things=b.things) for a, b in zip(backdrops, things, strict=True))


def _first_scenes(brief: Brief, seed: int) -> Story:
    """The idea in every scene: what it names, then what the stream shows already, then chance."""
    rng = random.Random(f"{seed} {brief.idea}")
    named = words(brief.idea)
    try:
        last: Scene | None = parse(brief.so_far[-1]) if brief.so_far else None
    except ValueError:
        last = None

    def choose(table: tuple[str, ...], otherwise: str) -> str:
        return next((word for word in named if word in table), otherwise)

    thing = last.things[0] if last else Thing(rng.choice(COLOURS), rng.choice(SHAPES), rng.choice(MOTIONS))
    first = Thing(choose(COLOURS, thing.colour), choose(SHAPES, thing.shape), choose(MOTIONS, thing.motion))
    scene = Scene(choose(SCENES, last.place if last else rng.choice(SCENES)), TIMES[0], (first,))
    return (scene,) * brief.scenes


def _story(first: Story) -> Story:
    """The day goes by, and the thing travels and comes home."""
    home = SCENES.index(first[0].place)
    count = len(first)
    return tuple(
        replace(
            scene,
            time=TIMES[min(len(TIMES) - 1, number * len(TIMES) // count)],
            place=SCENES[(home + (number if number < count - 1 else 0)) % len(SCENES)],
        )
        for number, scene in enumerate(first)
    )


def _continuity(first: Story) -> Story:
    """The same thing at the same place while the day goes by."""
    return tuple(
        replace(scene, time=TIMES[min(len(TIMES) - 1, number * len(TIMES) // len(first))])
        for number, scene in enumerate(first)
    )


def _picture(first: Story) -> Story:
    """Another motion in every scene, and a second thing of a far colour in every other."""
    taken = []
    for number, scene in enumerate(first):
        thing = replace(
            scene.things[0], motion=MOTIONS[(MOTIONS.index(scene.things[0].motion) + number) % len(MOTIONS)]
        )
        colour = COLOURS[(COLOURS.index(thing.colour) + len(COLOURS) // 2) % len(COLOURS)]
        shape = SHAPES[(SHAPES.index(thing.shape) + 2) % len(SHAPES)]
        second = (Thing(colour, shape, thing.motion),) if number % 2 else ()
        taken.append(replace(scene, things=(thing, *second)))
    return tuple(taken)


def _rules(first: Story) -> Story:
    """The idea word by word; only the time of day changes, once."""
    half = len(first) // 2
    return tuple(
        replace(scene, time=TIMES[-1] if number >= max(1, half) else scene.time) for number, scene in enumerate(first)
    )


def _things(scene: Scene) -> set[tuple[str, str]]:
    return {(thing.colour, thing.shape) for thing in scene.things}


def _share(found: Sequence[bool]) -> float:
    return sum(found) / len(found) if found else 1.0


def _changes(story: Story, brief: Brief) -> float:
    """How often the place or the time of day changes from scene to scene."""
    return _share([(a.place, a.time) != (b.place, b.time) for a, b in pairwise(story)])


def _keeps(story: Story, brief: Brief) -> float:
    """How often a thing stays and no more than one of place and time of day changes."""
    return _share(
        [bool(_things(a) & _things(b)) and (a.place == b.place or a.time == b.time) for a, b in pairwise(story)]
    )


def _varies(story: Story, brief: Brief) -> float:
    """How many of the scenes look like no other: another motion, or another number of things."""
    return len({(scene.things[0].motion, len(scene.things)) for scene in story}) / len(story)


def _obeys(story: Story, brief: Brief) -> float:
    """How much of what the idea names is shown in every scene."""
    known = {*COLOURS, *SHAPES, *MOTIONS, *SCENES}
    named = {word for word in words(brief.idea) if word in known}
    return _share([bool(named <= set(words(caption(scene)))) for scene in story])


PROPOSALS: dict[str, Callable[[Story], Story]] = {
    "story": _story,
    "continuity": _continuity,
    "picture": _picture,
    "rules": _rules,
}
JUDGEMENTS: dict[str, Callable[[Story, Brief], float]] = {
    "story": _changes,
    "continuity": _keeps,
    "picture": _varies,
    "rules": _obeys,
}
