"""The live loop: step the streams of a run, apply what changes, encode the chunks, and say what is going on."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Collection, Generator, Iterable, Mapping, Sequence
from contextlib import closing
from typing import Any, Protocol

from fkv import policies
from fkv.models.base import VideoModel
from fkv.sampler import BranchNoise
from fkv.storyboard import happened
from fkv.stream import Chunk, Stream, video_of
from fkv.studio.media.protocol import MOST_AHEAD, pack, record

from .attention_probe import Steps, Watch
from .limits import span
from .pending import Pending
from .plan import Branch, Plan, side_by_side
from .quality import Quality
from .run import Run
from .turn import WAIT, Turn, counted

MOST_CHANGES = 3  # of the policy of one stream that the last sentence lists

Streams = dict[str, Stream]
Generate = Callable[[Plan, Turn], Generator[tuple[str, str], None, None]]  # `generate` for one model


class Stepping(Protocol):
    """What generates chunks, as `attention_probe.Steps` does."""

    @property
    def busy(self) -> Collection[str]: ...

    def step(
        self, streams: Streams, turn: Sequence[str], watch: Watch | None, seconds: float | None = None
    ) -> tuple[dict[str, Chunk], dict[str, dict[str, Any]]]: ...

    def close(self) -> None: ...


def generate(
    model: VideoModel, plan: Plan, turn: Turn, stepping: Callable[[], Stepping] = Steps
) -> Generator[tuple[str, str], None, None]:
    """Generate the chunks of a plan; a failure is left to `Turn.explained`.

    Streams that compute at once go on each at its own pace, the faster one at most `MOST_AHEAD` chunks ahead. What is
    changed meanwhile holds from the same chunk on in all of them, the first one that none has begun.

    Args:
        model: What generates.
        plan: What the visitor wants.
        turn: The run and its bounds; its chunks and tallies are counted here.
        stepping: Makes what generates the chunks of a run.

    Yields:
        A state (live, paused or done) and a status sentence.
    """
    run = turn.run
    model = plan.sampling.of(model)
    if run.stopped:
        run.ended = "stopped"
        yield "done", "Stopped before the first chunk."
        return
    yield "live", f"Starting {plan.streams}."
    if plan.branch and model.decoder is not None:
        model.decoder.copy(None)  # a decoder whose state cannot be had twice refuses before the past is generated
    begun = [name for name in plan.policies if name == "A" or plan.branch is None]
    noise = BranchNoise(plan.seed, plan.path)
    streams = {name: Stream(model, plan.policies[name], plan.prompt, roles=plan.roles, noise=noise) for name in begun}
    tape = _Tape(plan, turn, streams)
    clock = _Clock(run, turn.limits.lead, model.fps)
    pending = Pending()
    story = 0  # the first chunk whose changes by the storyboard are not known to the run
    notice = ""
    with closing(stepping()) as steps:
        while running := {name: stream for name, stream in streams.items() if tape.counts[name] != plan.chunks}:
            while run.paused and not steps.busy and not turn.exceeded():
                yield "paused", f"Paused after {turn.progress}; a pause may last at most {span(turn.limits.pause)}."
                run.wait_paused(min(WAIT, turn.limits.pause))
            if text := turn.over():
                yield "done", text
                return
            if plan.branch and len(streams) == 1 and tape.counts["A"] == plan.branch.chunk:
                streams["B"] = running["B"] = plan.branch.begin(streams["A"], plan.policies["B"])
                tape.branch()
            front = max(count + (name in steps.busy) for name, count in tape.counts.items())
            for chunk in range(story, front + 1):
                for change in plan.story.changes(chunk):
                    run.add_change(change)
            story = front + 1
            changes = run.take_changes()
            for change in changes:
                pending.add(change, front, streams)
            idle = [name for name in running if name not in steps.busy]
            said = pending.apply(streams, idle)
            if changes and front == plan.chunks:
                said.append("Not applied: the last chunk has begun.")
            if changes or said:
                notice = " ".join(said)
            rests = clock.rests({name: tape.frames[name] for name in idle})
            most = min(tape.counts[name] for name in running) + MOST_AHEAD
            go = [name for name in idle if rests[name] <= 0 and tape.counts[name] < most and not run.paused]
            soonest = min((seconds for seconds in rests.values() if seconds > 0), default=None)
            if not go and not steps.busy:
                run.rest(soonest or 0)
                continue
            # The streams take turns at being first.
            order = go if run.count % 2 == 0 else go[::-1]
            run.begun = max([run.begun, *(tape.counts[name] + 1 for name in order)])
            made, watched = steps.step(running, order, run.watch, soonest)
            tape.put(streams, made, watched)
            if made:
                yield "live", f"{_streaming(plan, tape, streams)}. {notice}".strip()
    run.ended = "finished"
    video = max(tape.frames.values()) / model.fps
    yield "done", f"Finished: {counted(run.count)}, {video:.1f} s of video, {_ran(tape.ran, plan.branch)}."


class _Clock:
    """Keeps generation at most `lead` seconds ahead of playback; a pause does not count.

    Args:
        run: The run that rests.
        lead: Seconds of video.
        fps: Frames of a second of video.
    """

    def __init__(self, run: Run, lead: float, fps: int) -> None:
        self._run = run
        self._lead = lead
        self._fps = fps
        self._began = time.monotonic() - run.paused_seconds

    def rests(self, frames: Mapping[str, int]) -> dict[str, float]:
        """For how many seconds streams shall rest, by their frames so far; not at all while the visitor steps."""
        if self._run.control.paused:
            return dict.fromkeys(frames, 0.0)
        playing = time.monotonic() - self._began - self._run.paused_seconds
        return {name: count / self._fps - self._lead - playing for name, count in frames.items()}


class _Tape:
    """The chunks of a run: counts, hashes and measures them, and puts them where the page gets them.

    Args:
        plan: What the visitor wants.
        turn: The run; its chunks and tallies are counted.
        streams: By name.

    Attributes:
        counts: Chunks of each stream.
        frames: Video frames of each stream.
        ran: By stream, from which chunk it ran under which policy.
    """

    def __init__(self, plan: Plan, turn: Turn, streams: Iterable[str]) -> None:
        self.counts = dict.fromkeys(streams, 0)
        self.frames = dict.fromkeys(streams, 0)
        self.ran: dict[str, list[tuple[int, str]]] = {name: [] for name in plan.policies}
        self._plan = plan
        self._turn = turn
        self._hashes = {name: hashlib.sha256() for name in streams}
        self._kv_bytes: dict[str, int] = {}
        self._quality = Quality()
        self._before: dict[int, dict[str, Any]] = {}  # by chunk, what was told of it with the stream that had it first

    def branch(self) -> None:
        """B leaves A."""
        self.counts["B"] = self.counts["A"]
        self.frames["B"] = self.frames["A"]
        self._hashes["B"] = self._hashes["A"].copy()

    def put(self, streams: Streams, made: dict[str, Chunk], watched: dict[str, dict[str, Any]]) -> None:
        """Count chunks and put a file of each number; `watched` is what else their files tell, by stream."""
        run = self._turn.run
        for index in sorted({chunk.index for chunk in made.values()}):
            chunks = {name: made[name] for name in streams if name in made and made[name].index == index}
            for name, chunk in chunks.items():
                self._count(name, chunk, policies.write(streams[name].policy))
            facts = self._facts(streams, chunks)
            for name in chunks:
                facts |= watched.get(name, {})
            run.put(pack(facts, [video_of([chunk]) for chunk in chunks.values()]), index)
        run.kv_bytes = sum(self._kv_bytes.values())
        self._turn.chunks = run.count

    def _count(self, name: str, chunk: Chunk, policy: str) -> None:
        self.counts[name] += 1
        self.frames[name] += chunk.video_frames
        self._hashes[name].update(video_of([chunk]).tobytes())
        self._kv_bytes[name] = chunk.kv_bytes
        self._turn.tallies[name].add(chunk)
        if not self.ran[name] or self.ran[name][-1][1] != policy:
            self.ran[name].append((chunk.index + 1, policy))

    def _facts(self, streams: Streams, chunks: dict[str, Chunk]) -> dict[str, Any]:
        """What a file tells of a chunk of some streams. What a branch changes of B is no event of the run."""
        name, chunk = next(iter(chunks.items()))
        stream = streams[name]
        branch = self._plan.branch if self._plan.branch and self._plan.branch.chunk == chunk.index else None
        before = self._before.pop(chunk.index, {"events": []})
        later = [name for name, count in self.counts.items() if count <= chunk.index]
        told = {name: chunk for name, chunk in chunks.items() if not (branch and name == "B")}
        facts = {
            "prompt": before.get("prompt", chunk.prompt) if name == "B" else chunk.prompt,
            "events": happened(streams, told, before["events"]),
        }
        if later:
            self._before[chunk.index] = facts
        hashes = {name: self._hashes[name].hexdigest()[:16] for name in chunks}
        return {
            "index": chunk.index,
            "frame": chunk.frames[-1],
            "per_latent": stream.model.video_frames_per_latent,
            "grid": [stream.geometry.rows, stream.geometry.cols],
            **facts,
            "quality": self._quality.of(chunks, bool(later)),
            "streams": {name: record(each, streams[name], hashes[name]) for name, each in chunks.items()},
            **({"branch": f"branch {branch.write()}"} if branch else {}),
            **({"later": later} if later else {}),
        }


def _ran(policies: dict[str, list[tuple[int, str]]], branch: Branch | None) -> str:
    """The policies of a run in words, each with the chunk from which it held where one was changed."""
    if branch:
        return f"A {_then(policies['A'])}; from chunk {branch.chunk + 1} on B {_then(policies['B'])}"
    if all(len(changes) == 1 for changes in policies.values()):
        return side_by_side(changes[0][1] for changes in policies.values())
    texts = [f"{name} {_then(changes)}" for name, changes in policies.items()]
    return "; ".join([*texts, "same noise"] if len(texts) > 1 else texts)


def _then(changes: list[tuple[int, str]]) -> str:
    (_, first), *later = changes
    if len(later) > MOST_CHANGES:
        return f"{first}, after {len(later)} changes {later[-1][1]}"
    return ", ".join([first, *(f"from chunk {chunk} {policy}" for chunk, policy in later)])


def _streaming(plan: Plan, tape: _Tape, streams: Streams) -> str:
    total = f" of {plan.chunks}" if plan.chunks else ""
    written = [policies.write(stream.policy) for stream in streams.values()]
    running = f"{' and '.join(written)}, one past" if plan.branch and len(written) > 1 else side_by_side(written)
    front = max(tape.counts.values())
    behind = "".join(f", {name} at chunk {count}" for name, count in tape.counts.items() if count < front)
    return f"Streaming chunk {front}{total}{behind}: {running}, seed {plan.seed}"
