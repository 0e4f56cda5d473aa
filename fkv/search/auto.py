"""Auto policy: the leanest cache whose pictures stay near those of the full one, measured as the stream goes on.

Every few chunks the next one is generated under each candidate and under the full cache, from one past. The candidate
goes on that holds the fewest bytes among those within the tolerance; until the next measurement its loss is predicted
to stay what it was. After Saffron-1 (arXiv 2506.06444), a head that was trained on the reward `faithful` predicts the
loss of every candidate before every chunk instead, and no chunk is generated twice.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from fkv import policies, storyboard
from fkv.comparison import psnr
from fkv.models.memory import cache_bytes
from fkv.storyboard import STREAM, Change, Cue, SetPolicy, Storyboard
from fkv.stream import Chunk, Stream, video_of

from .head import Foresight, Head
from .moves import ALL, Move, Moves
from .rewards import CLEAN_DB
from .tolerance import FULL, Tolerance
from .tree import Node

MEASURED = (
    "PSNR to a stream under the full cache that branches off here, so what was dropped before is missing from both. "
    "Null: equal pictures, or the first chunk. Between measurements the last value is repeated."
)
FORESEEN = (
    f"PSNR to the full cache from the beginning as the head predicts it, at most {CLEAN_DB:.0f}, and not measured; "
    "null: the first chunk, or a cache that the head does not know."
)


@dataclass(frozen=True)
class Choice:
    """What was chosen for a chunk.

    Args:
        policy: Under which it was generated.
        predicted_db: PSNR to the full cache as last measured, or as a head predicts it; None for equal pictures, and
            for a full cache that the head does not know.
        measured_db: The same for each candidate, where it was measured for this chunk.
    """

    policy: str
    predicted_db: float | None
    measured_db: dict[str, float | None] = field(default_factory=dict)


@dataclass
class Auto:
    """A stream whose policy is chosen as it goes on.

    The full cache of a measurement is that of what is still held: what a policy dropped stays dropped.

    Args:
        stream: A new stream under the full cache.
        story: What else changes.
        chunks: Length of the stream.
        wanted: The tolerance.
        head: Predicts losses in place of measurements; None measures.
        choices: One per chunk that was generated.
        spare_passes: Passes of the chunks that were generated to be compared, and dropped.

    Raises:
        ValueError: A candidate cannot be read or does not fit the model, the storyboard chooses policies itself, the
            head knows no candidate, or the model's decoder cannot go on twice where losses are measured.
    """

    stream: Stream
    story: Storyboard
    chunks: int
    wanted: Tolerance
    head: Head | None = None
    choices: list[Choice] = field(default_factory=list)
    spare_passes: int = 0

    def __post_init__(self) -> None:
        model = self.stream.model
        if any(isinstance(cue.change, SetPolicy) for cue in self.story.cues):
            raise ValueError("policy 'auto' chooses policies itself; leave out the storyboard's lines that set one")
        if self.head is None:
            if model.decoder is None:
                raise ValueError("policy 'auto' compares pictures, and there is no decoder; choose one with --decoder")
            model.decoder.copy(None)
        for name in self._candidates:
            rule = policies.parse(name)
            policies.check_fit(rule, model.geometry, self.stream.roles)
            if rule.caches != "shared":
                raise ValueError(f"policy 'auto' switches between shared caches, and {name!r:.60} has none")
        if self.head and self._candidates == [FULL]:
            raise ValueError(
                f"the head was trained with none of {self.wanted.among}; it knows {', '.join(self.head.moves)}"
            )

    @property
    def _candidates(self) -> list[str]:
        """The policies to choose from, the full cache last; without those that a head was not trained with."""
        named = [name.strip() for name in self.wanted.among.split("|")]
        known = [name for name in named if self.head is None or Move(name=name).key in self.head.moves]
        return [*(name for name in known if name != FULL), FULL]

    def run(self) -> Iterator[Chunk]:
        """Generate the stream. The first chunk has no past, so that choices begin with the second."""
        return self._foresee(self.head) if self.head else self._compare()

    def _foresee(self, head: Head) -> Iterator[Chunk]:
        """Go on with the leanest candidate of which the head predicts enough, the full cache where there is none."""
        model = self.stream.model
        moves = Moves(self.story, ("policy",), self.stream.prompt, FULL, tuple(self._candidates), chunks=self.chunks)
        foresight = Foresight(model, moves, head)
        sizes = {name: self._bytes(name) for name in self._candidates}
        node = Node()
        for index in range(self.chunks):
            predicted = {key: CLEAN_DB * reward for key, reward in foresight(node).items()} if index else {}
            within = [
                move
                for move in moves.of(node.moves, ALL)
                if move.name == FULL or predicted.get(move.key, 0.0) >= self.wanted.tolerance
            ]
            chosen = min(within, key=lambda move: sizes[move.name])
            chunk = self._step(self.stream, chosen.changes)
            self.choices.append(Choice(chosen.name, predicted.get(chosen.key)))
            node.chunk = None
            node = Node(node, chosen, chunk=chunk)
            yield chunk

    def _bytes(self, name: str) -> int:
        """Bytes of K and V that stay between chunks of a stream of this length."""
        model = self.stream.model
        heads, dtype = self.stream.roles, model.transformer.dtype
        return cache_bytes(model.geometry, policies.parse(name), heads, self.chunks, dtype).kv_bytes_between

    def _compare(self) -> Iterator[Chunk]:
        """Measure the losses of all candidates, every few chunks."""
        now = Choice(FULL, None)
        for index in range(self.chunks):
            changes = self.story.changes(index)
            if index and (index - 1) % self.wanted.every == 0:
                now, chunk = self._measure(changes)
            else:
                chunk = self._step(self.stream, changes)
                now = Choice(now.policy, now.predicted_db)
            self.choices.append(now)
            yield chunk

    def _measure(self, changes: Sequence[Change]) -> tuple[Choice, Chunk]:
        """Generate the next chunk under every candidate, and go on with the leanest within the tolerance."""
        made: dict[str, tuple[Stream, Chunk]] = {}
        for name in self._candidates:
            branch = self.stream.fork()
            made[name] = branch, self._step(branch, [*changes, SetPolicy(STREAM, name)])
        full = video_of([made[FULL][1]])
        measured = {name: psnr(video_of([chunk]), full) for name, (_, chunk) in made.items()}
        within = [name for name, loss in measured.items() if loss is None or loss >= self.wanted.tolerance]
        chosen = min(within, key=lambda name: made[name][1].kv_bytes_between)
        self.stream, chunk = made[chosen]
        self.spare_passes += sum(each.passes for _, each in made.values()) - chunk.passes
        return Choice(chosen, measured[chosen], measured), chunk

    @staticmethod
    def _step(stream: Stream, changes: Sequence[Change]) -> Chunk:
        for change in changes:
            change.apply({STREAM: stream})
        return stream.step()

    def report(self) -> dict[str, Any]:
        """What was chosen, as JSON; `story` repeats the stream from `--policy full`."""
        cues = [
            Cue(index, SetPolicy(STREAM, choice.policy))
            for index, choice in enumerate(self.choices)
            if index and choice.policy != self.choices[index - 1].policy
        ]
        return {
            "tolerance_db": self.wanted.tolerance,
            "every": 1 if self.head else self.wanted.every,
            "among": self._candidates,
            "note": FORESEEN if self.head else MEASURED,
            "head": self.head.facts if self.head else None,
            "chunks": [asdict(choice) for choice in self.choices],
            "spare_passes": self.spare_passes,
            "story": storyboard.write(Storyboard(tuple(sorted((*self.story.cues, *cues), key=lambda cue: cue.chunk)))),
        }
