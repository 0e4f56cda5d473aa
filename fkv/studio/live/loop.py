"""The live loop: step the streams of a run, apply what changes, encode the chunks, and say what is going on."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Generator, Sequence
from typing import Any

from fkv import policies
from fkv.analysis.measures import video_of
from fkv.models.base import VideoModel
from fkv.sampler import BranchNoise
from fkv.storyboard import happened
from fkv.stream import Chunk, Stream
from fkv.studio.media.protocol import pack, record

from .attention_probe import Watch, step
from .limits import span
from .plan import Branch, Plan, side_by_side
from .quality import Quality
from .run import Run
from .turn import WAIT, Turn, counted

MOST_CHANGES = 3  # of the policy of one stream that the last sentence lists

Streams = dict[str, Stream]
Generate = Callable[[Plan, Turn], Generator[tuple[str, str], None, None]]  # `generate` for one model
Step = Callable[[Streams, Sequence[str], Watch | None], tuple[dict[str, Chunk], list[dict[str, Any]]]]


def generate(model: VideoModel, plan: Plan, turn: Turn, step: Step = step) -> Generator[tuple[str, str], None, None]:
    """Generate the chunks of a plan; a failure is left to `Turn.explained`.

    Args:
        model: What generates.
        plan: What the visitor wants.
        turn: The run and its bounds; its chunks and tallies are counted here.
        step: Generates the next chunk of every stream, as `attention_probe.step` does.

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
    hashes = {name: hashlib.sha256() for name in streams}
    clock = _Clock(run, turn.limits.lead)
    quality = Quality()
    notice = ""
    ran: dict[str, list[tuple[int, str]]] = {name: [] for name in plan.policies}  # from which chunk under which policy
    while plan.chunks is None or run.count < plan.chunks:
        clock.rest()
        while run.paused and not turn.exceeded():
            yield "paused", f"Paused after {turn.progress}; a pause may last at most {span(turn.limits.pause)}."
            run.wait_paused(min(WAIT, turn.limits.pause))
        if text := turn.over():
            yield "done", text
            return
        branches = plan.branch is not None and run.count == plan.branch.chunk
        if plan.branch and branches:
            streams["B"] = plan.branch.begin(streams["A"], plan.policies["B"])
            hashes["B"] = hashes["A"].copy()
        for change in plan.story.changes(run.count):
            run.add_change(change)
        notice = _change(streams, run, notice)
        # The streams take turns at being first.
        order = list(streams) if run.count % 2 == 0 else list(streams)[::-1]
        made, heads = step(streams, order, run.watch)
        chunks = {name: made[name] for name in streams}
        run.kv_bytes = sum(chunk.kv_bytes for chunk in chunks.values())
        for name, chunk in chunks.items():
            hashes[name].update(video_of([chunk]).tobytes())
            turn.tallies[name].add(chunk)
            policy = policies.write(streams[name].policy)
            if not ran[name] or ran[name][-1][1] != policy:
                ran[name].append((run.count + 1, policy))
        digests = {name: each.hexdigest()[:16] for name, each in hashes.items()}
        facts = {"branch": f"branch {plan.branch.write()}"} if plan.branch and branches else {}
        run.put(_encoded(streams, chunks, digests, quality.of(chunks), heads, facts))
        turn.chunks = run.count
        clock.add(next(iter(chunks.values())).video_frames / model.fps)
        yield "live", f"{_streaming(plan, run, streams)}. {notice}".strip()
    run.ended = "finished"
    yield "done", f"Finished: {counted(run.count)}, {clock.video:.1f} s of video, {_ran(ran, plan.branch)}."


class _Clock:
    """Keeps generation at most `lead` seconds ahead of playback; a pause does not count.

    Args:
        run: The run that rests.
        lead: Seconds of video.
    """

    def __init__(self, run: Run, lead: float) -> None:
        self.video = 0.0  # seconds of video so far
        self._run = run
        self._lead = lead
        self._began = time.monotonic() - run.paused_seconds

    def rest(self) -> None:
        """Wait until the video is no longer too far ahead, or the run is stopped or paused."""
        playing = time.monotonic() - self._began - self._run.paused_seconds
        self._run.rest(self.video - self._lead - playing)

    def add(self, seconds: float) -> None:
        """Count the video of a chunk."""
        self.video += seconds


def _change(streams: Streams, run: Run, notice: str) -> str:
    """Apply what the visitor changed.

    Returns:
        What to say of changes that were not applied, or only in part; `notice`, the last such text, while nothing is
        changed.
    """
    changes = run.take_changes()
    if not changes:
        return notice
    texts = []
    for change in changes:
        try:
            texts.append(change.apply(streams))
        except ValueError as error:
            texts.append(f"Not applied: {error}.")
    return " ".join(dict.fromkeys(filter(None, texts)))


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


def _streaming(plan: Plan, run: Run, streams: Streams) -> str:
    total = f" of {plan.chunks}" if plan.chunks else ""
    written = [policies.write(stream.policy) for stream in streams.values()]
    running = f"{' and '.join(written)}, one past" if plan.branch and len(written) > 1 else side_by_side(written)
    return f"Streaming chunk {run.count}{total}: {running}, seed {plan.seed}"


def _encoded(
    streams: Streams,
    chunks: dict[str, Chunk],
    hashes: dict[str, str],
    quality: dict[str, Any],
    heads: list[dict[str, Any]],
    branch: dict[str, str],
) -> bytes:
    """The chunks of all streams as one file for the page. What a branch changes of B is no event of the run."""
    chunk = next(iter(chunks.values()))
    stream = next(iter(streams.values()))
    facts = {
        "index": chunk.index,
        "frame": chunk.frames[-1],
        "per_latent": stream.model.video_frames_per_latent,
        "prompt": chunk.prompt,
        "grid": [stream.geometry.rows, stream.geometry.cols],
        "events": happened(streams, {"A": chunks["A"]} if branch else chunks),
        "quality": quality,
        "streams": {name: record(each, streams[name], hashes[name]) for name, each in chunks.items()},
    }
    watched = dict(zip(("heads", "beside"), heads, strict=False))
    return pack(facts | branch | watched, [video_of([each]) for each in chunks.values()])
