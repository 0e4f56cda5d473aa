"""Run a plan: streams that fork where jobs part, as many at once as rows and memory allow."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

from fkv.models.base import VideoModel
from fkv.parallel.rows import step_counted
from fkv.storyboard import STREAM
from fkv.stream import Chunk, Stream

from .jobs import Path
from .memory import Claim
from .opening import Undropped


@dataclass(frozen=True)
class Made:
    """A chunk that has been generated.

    Args:
        paths: The jobs that have it.
        chunk: The chunk, without video.
    """

    paths: Sequence[Path]
    chunk: Chunk


@dataclass(frozen=True)
class Done:
    """A job that has ended.

    Args:
        path: The job.
        chunks: Its chunks, without video.
        error: Why it failed; None where it did not.
    """

    path: Path
    chunks: tuple[Chunk, ...] = ()
    error: Exception | None = None


@dataclass
class _Row:
    """A stream on its way through one node."""

    claim: Claim
    stream: Stream
    chunks: list[Chunk]


class Batch:
    """Jobs that run as a prefix tree.

    Args:
        model: The model of all jobs.
        roots: What to run, see `fkv.batch.memory.claims`.
        rows: Streams that are stepped at once, at most.
        budget: Bytes of K and V, at most.
        share: Whether forked streams share pages; otherwise they copy them.
        say: Called with a sentence where a job follows only a part of its storyboard.

    Attributes:
        computed: Chunks computed so far.
        kv_bytes_peak: The most bytes of K and V in pages while chunks attended, each shared page once.
    """

    def __init__(
        self,
        model: VideoModel,
        roots: Sequence[Claim],
        rows: int,
        budget: int,
        share: bool,
        say: Callable[[str], None] = lambda sentence: None,
    ) -> None:
        self.computed = 0
        self.kv_bytes_peak = 0
        self._model = model
        self._claims = [claim for root in roots for claim in _below(root)]
        self._roots = roots
        self._rows = rows
        self._budget = budget
        self._share = share
        self._say = say
        self._running: list[_Row] = []
        self._parked: dict[Claim, _Row] = {}

    def run(self) -> Iterator[Made | Done]:
        """Generate everything. Yields each chunk that was computed, and each job as soon as it has ended."""
        while True:
            yield from self._admit()
            if not self._running:
                return
            yield from self._step()

    def _admit(self) -> Iterator[Done]:
        """Begin what rows and memory allow; branches of streams that are parked first."""
        for claim in sorted(filter(lambda claim: claim.ready, self._claims), key=lambda claim: -claim.depth()):
            if len(self._running) >= self._rows:
                return
            claim.state = "running"
            if sum(root.committed for root in self._roots) > self._budget:
                claim.state = "waiting"
                continue
            try:
                row = self._begin(claim)
            except Exception as error:
                yield from self._fail(claim, error)
                continue
            if len(claim.node):
                self._running.append(row)
            else:
                yield from self._end(row)

    def _begin(self, claim: Claim) -> _Row:
        path, policy = claim.node.paths[0], claim.node.policy
        if claim.parent is None:
            stream = Stream(self._model, policy, path.prompt, path.job.seed, path.roles, decode=False)
            return _Row(claim, stream, [])
        trunk = self._parked[claim.parent]
        last = not any(other.state == "waiting" for other in claim.parent.children)
        stream = trunk.stream if last else trunk.stream.fork(share=self._share)
        chunks = list(trunk.chunks)
        if isinstance(stream.policy, Undropped):
            stream.take_over(policy, path.roles)
            chunks = [replace(chunk, policy=policy.name) for chunk in chunks]
        return _Row(claim, stream, chunks)

    def _step(self) -> Iterator[Made | Done]:
        """Generate a chunk of every row."""
        going = []
        for row in list(self._running):
            try:
                for sentence in row.claim.node.paths[0].story.apply(row.stream.index, {STREAM: row.stream}):
                    self._say(f"{row.claim.node.paths[0].job.name}, chunk {row.stream.index + 1}: {sentence}")
                going.append(row)
            except ValueError as error:
                self._running.remove(row)
                yield from self._fail(row.claim, error)
        parked = [row.stream for row in self._parked.values()]
        made, kv_bytes = step_counted([row.stream for row in going], parked) if going else ([], 0)
        self.kv_bytes_peak = max(self.kv_bytes_peak, kv_bytes)
        for row, chunk in zip(going, made, strict=True):
            if isinstance(chunk, Exception):
                self._running.remove(row)
                yield from self._fail(row.claim, chunk)
                continue
            self.computed += 1
            row.chunks.append(chunk)
            yield Made(row.claim.node.paths, chunk)
            if row.stream.index == row.claim.node.stop:
                self._running.remove(row)
                yield from self._end(row)

    def _end(self, row: _Row) -> Iterator[Done]:
        """A row has all chunks of its node: its branches may begin, or its job has ended."""
        if row.claim.children:
            row.claim.state = "parked"
            self._parked[row.claim] = row
            return
        self._finish(row.claim)
        yield Done(row.claim.node.paths[0], tuple(row.chunks))

    def _fail(self, claim: Claim, error: Exception) -> Iterator[Done]:
        for below in _below(claim):
            below.state = "done"
        self._finish(claim)
        for path in claim.node.paths:
            yield Done(path, error=error)

    def _finish(self, claim: Claim) -> None:
        """Forget a node, and those before it of which nothing is left to run."""
        claim.state = "done"
        parent = claim.parent
        if parent is not None and all(child.state == "done" for child in parent.children):
            self._parked.pop(parent, None)
            self._finish(parent)


def _below(claim: Claim) -> Iterator[Claim]:
    yield claim
    for child in claim.children:
        yield from _below(child)
