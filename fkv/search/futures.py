"""The futures of a real stream: chunks are generated, rewarded and compared."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from typing import NamedTuple, Protocol

import cv2
import numpy as np

from fkv import policies
from fkv.cache import KVCache
from fkv.models.base import VideoModel
from fkv.sampler import BranchNoise, Noise
from fkv.storyboard import STREAM, SetPolicy, SetSteps
from fkv.stream import Chunk, Stream

from .forbidden import Forbidden
from .moves import Move, Moves
from .rewards import SEEN, Past, Rewards
from .tree import Node, score_of

Begin = Callable[[Noise], Stream]
"""A new stream with that noise, whose chunks have a video."""
Predict = Callable[[Node], dict[str, float]]
"""What is predicted of the reward of a node's children, by `Move.key`."""
LOOK = (20, 12)  # width and height of the small frames that are compared
LOOK_FRAMES = 3


class Grower(Protocol):
    """Gives nodes of a tree their children."""

    def root(self) -> Node:
        """The root of a new tree."""

    def grow(self, parent: Node, moves: Sequence[Move]) -> Iterable[Node]:
        """Add a child for each move, one after the other, if it may be shown. The parent gets no others later."""

    def keep(self, leaves: Sequence[Node]) -> None:
        """Forget what no child of these leaves needs."""


class Paths:
    """Streams by the moves that they took, of which each chunk is generated once.

    Args:
        begin: Begins a stream.
        seed: Of the plain stream.
        share: Whether pages are shared; copies are to the last bit what a stream that never forks has.
    """

    def __init__(self, begin: Begin, seed: int, share: bool = True) -> None:
        self._begin = begin
        self._seed = seed
        self._share = share
        self._made: dict[tuple[Move, ...], tuple[Chunk, Stream]] = {}

    def __contains__(self, path: object) -> bool:
        return path in self._made

    def after(self, path: tuple[Move, ...]) -> tuple[Chunk, Stream]:
        """The newest chunk of a path of at least one move, and the stream behind it, which must not go on itself."""
        if path not in self._made:
            noise = BranchNoise(self._seed, tuple(move.noise for move in path))
            stream = self.after(path[:-1])[1].fork(noise, share=self._share) if len(path) > 1 else self._begin(noise)
            for change in path[-1].changes:
                change.apply({STREAM: stream})
            self._made[path] = stream.step(), stream
        return self._made[path]

    def keep(self, paths: Iterable[tuple[Move, ...]]) -> None:
        """Forget all but the newest chunk of each of these paths."""
        ends = [[path[:end] for end in range(len(path), 0, -1) if path[:end] in self._made] for path in paths]
        newest = {made[0] for made in ends if made}
        self._made = {path: made for path, made in self._made.items() if path in newest}

    @property
    def caches(self) -> list[KVCache]:
        """The caches of all streams."""
        return [cache for _, stream in self._made.values() for cache in stream.caches]


class Futures:
    """Streams that fork where futures part. Their pages are shared.

    Args:
        begin: Begins a stream.
        seed: Of the plain stream.
        rewards: What counts.
        newest: Chunks whose mean reward is the score of a leaf.
        predict: Predicts rewards from a node; where it does, the rewards of chunks are not computed.

    Attributes:
        full: The streams under the full cache that rewards compare with.
    """

    def __init__(
        self, begin: Begin, seed: int, rewards: Rewards, newest: int, predict: Predict = lambda node: {}
    ) -> None:
        self._begin = begin
        self._seed = seed
        self._rewards = rewards
        self._newest = newest
        self._predict = predict
        self.full = Paths(under_full(begin), seed)
        self._compared: set[tuple[Move, ...]] = set()

    def root(self) -> Node:
        """The empty stream."""
        root = Node()
        root.predicted = self._predict(root)
        return root

    def grow(self, parent: Node, moves: Sequence[Move]) -> Iterator[Node]:
        """Generate a chunk for each move, one after the other. Those that must not be shown are left out."""
        streams = [self._stream(parent, move, number == len(moves)) for number, move in enumerate(moves, 1)]
        parent.stream = None
        for move, stream in zip(moves, streams, strict=True):
            try:
                child = self._child(parent, move, stream)
            except Forbidden:
                parent.refused_passes += stream.begun_passes
                continue
            yield child

    def keep(self, leaves: Sequence[Node]) -> None:
        """Forget the chunks and the streams under the full cache that no child of these leaves needs."""
        needed = {node for leaf in leaves for node in leaf.lineage[1 - SEEN :]}
        for node in leaves[0].ancestry[0]:
            if node not in needed:
                node.chunk = None
        self.full.keep(unabridged(leaf.moves) for leaf in leaves)

    def attempt(self, parent: Node, move: Move) -> Node:
        """Generate one chunk, after which the parent may still get others: pages are copied, and equal to the bit."""
        noise = self._noise(parent, move)
        return self._child(parent, move, parent.stream.fork(noise) if parent.stream else self._begin(noise))

    def _noise(self, parent: Node, move: Move) -> Noise:
        return BranchNoise(self._seed, (*parent.path, move.noise))

    def _stream(self, parent: Node, move: Move, last: bool) -> Stream:
        noise = self._noise(parent, move)
        if parent.stream is None:
            return self._begin(noise)
        if not last:
            return parent.stream.fork(noise, share=True)
        parent.stream.noise = noise
        return parent.stream

    def _child(self, parent: Node, move: Move, stream: Stream) -> Node:
        for change in move.changes:
            change.apply({STREAM: stream})
        return self._node(parent, move, stream, stream.step())

    def _node(self, parent: Node, move: Move, stream: Stream, chunk: Chunk) -> Node:
        """A child with its reward. The stream stands behind the chunk."""
        reward = parent.predicted.get(move.key)
        is_judged = reward is None
        parts: dict[str, float] = {}
        compared = 0
        if reward is None:
            reward, parts = self._judge(parent, move, stream, chunk)
            if self._rewards.need_full:
                compared = self._compared_passes(unabridged((*parent.moves, move)))
        child = Node(
            parent=parent,
            move=move,
            reward=reward,
            score=score_of(parent, reward, self._newest),
            parts=parts,
            is_judged=is_judged,
            look=look_of(chunk, parent.chunk),
            held=held_by(stream.caches, len(chunk.frames)),
            passes=chunk.passes + compared,
            prompt=chunk.prompt,
            chunk=chunk,
            stream=stream,
        )
        child.predicted = self._predict(child)
        return child

    def _compared_passes(self, path: tuple[Move, ...]) -> int:
        """Passes of the chunks of a path under the full cache that no earlier node was compared with."""
        new = [path[:end] for end in range(1, len(path) + 1) if path[:end] not in self._compared]
        self._compared.update(new)
        return sum(self.full.after(each)[0].passes for each in new)

    def _judge(self, parent: Node, move: Move, stream: Stream, chunk: Chunk) -> tuple[float, dict[str, float]]:
        """The reward of the chunk that a move made behind a node, and its parts."""
        seen = [node.chunk for node in parent.lineage[1 - SEEN :] if node.chunk is not None]
        prompts = (*(node.prompt for node in parent.lineage), chunk.prompt)
        full = self.full.after(unabridged((*parent.moves, move)))[0] if self._rewards.need_full else None
        return self._rewards([*seen, chunk], Past(stream.noise, prompts, stream.model.transformer.events, full))


def under_full(begin: Begin) -> Begin:
    """The same streams under the full cache."""

    def begin_full(noise: Noise) -> Stream:
        stream = begin(noise)
        stream.set_policy(policies.make("full"))
        return stream

    return begin_full


def unabridged(path: Iterable[Move]) -> tuple[Move, ...]:
    """A path without its changes of policy and steps."""
    return tuple(
        replace(move, changes=tuple(each for each in move.changes if not isinstance(each, (SetPolicy, SetSteps))))
        for move in path
    )


def look_of(chunk: Chunk, before: Chunk | None) -> np.ndarray:
    """What a chunk shows, as a vector of length 1: small frames of it without the mean colours of the chunk before.

    Chunks that show nothing else, as of a picture that stands still, have one look.
    """
    small = _small(chunk)
    mean = _small(before).mean(0) if before is not None else small.mean((0, 1, 2))
    look = (small - mean).ravel()
    length = float(np.linalg.norm(look))
    return look / length if length > 1e-6 else np.full_like(look, look.size**-0.5)


def _small(chunk: Chunk) -> np.ndarray:
    """Small frames of a chunk, float32 [LOOK_FRAMES, height, width, 3]."""
    assert chunk.video is not None
    moments = np.linspace(0, len(chunk.video) - 1, LOOK_FRAMES).round().astype(int)
    small = [cv2.resize(frame, LOOK, interpolation=cv2.INTER_AREA) for frame in chunk.video[moments]]
    return np.stack(small).astype(np.float32)


def held_by(caches: Sequence[KVCache], frames_per_chunk: int) -> dict[int, int]:
    """Bytes of K and V in the caches of a stream by the chunk, from 0, whose frames they are of."""
    held: dict[int, int] = {}
    for cache in caches:
        for frame, size in cache.bytes_by_frame().items():
            held[frame // frames_per_chunk] = held.get(frame // frames_per_chunk, 0) + size
    return held


class Cost(NamedTuple):
    """Passes of the transformer that the chunks of a search take, those of the full cache included.

    Args:
        usual: Of each chunk that does not recompute the cache under its prompt.
        most: Of each chunk, at most.
    """

    usual: tuple[int, ...]
    most: tuple[int, ...]


def cost_of(model: VideoModel, moves: Moves, rewards: Rewards) -> Cost:
    """The passes that the chunks of a search can take."""
    changes = [cue.change for cue in moves.story.cues]
    named = [moves.policy, *(each.policy for each in changes if isinstance(each, SetPolicy))]
    rules = [policies.parse(name) for name in (*named, *moves.policies)]
    is_rebuilt = any(rule.caches == "none" for rule in rules)
    rewrite = any(rule.overrides("rewrites") for rule in rules)
    streams = 2 if rewards.need_full else 1
    chunks = range(moves.chunks)
    usual = tuple(streams * (model.most_steps + 1) + rewrite + (index if is_rebuilt else 0) for index in chunks)
    rebuilt = (index * (streams - is_rebuilt) if moves.may_recache(index) else 0 for index in chunks)
    return Cost(usual, tuple(map(sum, zip(usual, rebuilt, strict=True))))
