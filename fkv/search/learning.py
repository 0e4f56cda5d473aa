"""Streams with random moves, from which a head learns. Each is kept as a file, so that learning can be resumed."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from fkv.models.base import VideoModel
from fkv.roles import HeadRoles, digest
from fkv.storyboard import Cue, SetPrompt, Storyboard, write
from fkv.world.captions import caption, sample_scene

from .futures import Begin, Futures
from .head import Foresight, Head, Samples, fit, read_tensors, write_tensors
from .looks import weights_of
from .moves import ALL, Moves
from .rewards import Rewards

FIRST_SEED = 1 << 30  # of the runs that are learnt from, so that they are not those of a search
HEAD = "head.safetensors"


@dataclass(frozen=True)
class Lesson:
    """A stream to learn from.

    Args:
        begin: Begins it.
        moves: What may be done.
        seed: Of its noise, and of the choice of moves.
    """

    begin: Begin
    moves: Moves
    seed: int


def lessons(begin: Callable[[str], Begin], moves: Moves, runs: int, toy_world: bool) -> Iterator[Lesson]:
    """Streams like the one that is searched, with other noise.

    Args:
        begin: For a prompt, what begins streams.
        moves: Of the search.
        runs: How many streams.
        toy_world: Whether the model draws the toy world; each stream then has prompts of its own.
    """
    for seed in range(FIRST_SEED, FIRST_SEED + runs):
        own = _other_prompts(moves, random.Random(seed)) if toy_world else moves
        yield Lesson(begin(own.prompt), own, seed)


def _other_prompts(moves: Moves, rng: random.Random) -> Moves:
    """The same moves with random scenes in place of all prompts."""

    def other(cue: Cue) -> Cue:
        if not isinstance(cue.change, SetPrompt):
            return cue
        return replace(cue, change=replace(cue.change, prompt=caption(sample_scene(rng), rng)))

    prompt = caption(sample_scene(rng), rng)
    return replace(moves, prompt=prompt, story=Storyboard(tuple(map(other, moves.story.cues))))


def learn(
    folder: Path,
    model: VideoModel,
    rewards: Rewards,
    lessons: Iterable[Lesson],
    facts: dict[str, Any],
    tick: Callable[[], object] = lambda: None,
) -> Head:
    """Take the lessons that the folder does not have yet, and train a head on all of them.

    Args:
        folder: For the lessons and the head.
        model: The video model.
        rewards: What counts.
        lessons: Streams to learn from.
        facts: What the head is for; lessons in the folder must be for the same.
        tick: Called after each lesson.

    Returns:
        The head, which is also in the folder as `HEAD`.

    Raises:
        ValueError: The folder has lessons of something else, or there is no lesson.
    """
    folder.mkdir(parents=True, exist_ok=True)
    taken = []
    for number, lesson in enumerate(lessons):
        path = folder / f"run-{number:04}.safetensors"
        if not path.exists():
            samples = take(lesson, model, rewards)
            _write(samples, path, facts)
        taken.append(_read(path, facts))
        tick()
    if not taken:
        raise ValueError("a head learns from at least one run")
    head = fit(Samples.joined(taken), {**facts, "runs": len(taken)})
    head.save(folder / HEAD)
    return head


def take(lesson: Lesson, model: VideoModel, rewards: Rewards) -> Samples:
    """Generate a stream with moves at random."""
    rng = random.Random(lesson.seed)
    futures = Futures(lesson.begin, lesson.seed, rewards, newest=1)
    foresight = Foresight(model, lesson.moves)
    node = futures.root()
    states, keys, given = [], [], []
    for _ in range(lesson.moves.chunks):
        move = rng.choice(lesson.moves.of(node.moves, ALL))
        states.append(foresight.state(node))
        (node,) = futures.grow(node, [move])
        futures.keep([node])
        keys.append(move.key)
        given.append(node.reward)
    return Samples(torch.stack(states), tuple(keys), torch.tensor(given), (0,) * len(keys))


def _write(samples: Samples, path: Path, facts: dict[str, Any]) -> None:
    described = {"moves": json.dumps(samples.moves), "facts": json.dumps(facts)}
    write_tensors({"states": samples.states, "rewards": samples.rewards}, path, described)


def _read(path: Path, facts: dict[str, Any]) -> Samples:
    tensors, described = read_tensors(path, "a run to learn from")
    try:
        moves, known = tuple(json.loads(described["moves"])), json.loads(described["facts"])
        samples = Samples(tensors["states"], moves, tensors["rewards"], (0,) * len(moves))
    except (KeyError, TypeError, ValueError):
        raise ValueError(f"{path} is not a run to learn from; remove it") from None
    if known != facts:
        differs = differing(known, facts)
        raise ValueError(f"{path.parent} has runs with {differs}; choose another folder, or remove it")
    return samples


def differing(known: dict[str, Any], facts: dict[str, Any]) -> str:
    """The first of the facts that is otherwise, in words."""
    name = next(name for name in facts if known.get(name) != facts[name])
    return f"{name} {known.get(name)!r:.80}, not {facts[name]!r:.80}"


def facts_of(model: VideoModel, rewards: Rewards, moves: Moves, roles: HeadRoles | None = None) -> dict[str, Any]:
    """What a head is trained for, as JSON holds it; `roles` where they are others than the model's."""
    heads = roles or model.roles
    return {
        **weights_of(model),
        "precision": model.precision,
        "timesteps": list(model.schedule.timesteps),
        "roles": digest(heads) if heads else None,
        "rewards": "+".join(rewards.parts),
        "moves": ",".join(moves.kinds),
        "policy": moves.policy,
        "chunks": moves.chunks,
        "story": write(moves.story),
    }


def check_head(head: Head, facts: dict[str, Any], names: Sequence[str]) -> None:
    """Raise ValueError where a head was trained for something else, by the facts of these names."""
    wanted = {name: facts[name] for name in names}
    if any(head.facts.get(name) != value for name, value in wanted.items()):
        raise ValueError(f"the head was trained for {differing(head.facts, wanted)}; train one with fkv search --learn")


def check_moves(head: Head, moves: Moves) -> None:
    """Raise ValueError where a head knows no move of a search but the plain one."""
    if moves.others and moves.others.isdisjoint(head.moves):
        trained = head.facts.get("moves")
        raise ValueError(f"the head knows none of the moves {','.join(moves.kinds)}; it was trained with {trained}")
