"""What searches find and take: strategies on equal passes over held-out prompts and seeds, and guarded streams.

Every search is one record, appended to a file from which a later run continues. `python -m docs.search` runs it.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

import pandas as pd
from tqdm import tqdm

from fkv import policies
from fkv.models.base import VideoModel
from fkv.models.identity import identity_of
from fkv.records import Record, append_record, resume_records
from fkv.sampler import Noise
from fkv.search import rewards, strategies
from fkv.search.forbidden import detector
from fkv.search.futures import Begin, Futures, Paths, cost_of, under_full
from fkv.search.guard import Guard
from fkv.search.head import Foresight, Head
from fkv.search.learning import facts_of, learn, lessons
from fkv.search.looks import fitted
from fkv.search.moves import Move, Moves
from fkv.search.report import found, replay, rewarded, story_of
from fkv.search.search import Search
from fkv.search.tree import Node
from fkv.storyboard import Cue, SetPrompt, Storyboard
from fkv.stream import Chunk, Stream
from fkv.world.captions import caption

from .evaluation_table import interval
from .held_out import held_out_scene, held_out_shot, held_out_text, switched_scene

KEY = ("model", "checkpoint", "precision", "task", "policy", "strategy", "width", "prompt", "seed")
PLAIN = "plain"
GUARD = "guard"
LOOKAHEAD = 2
GUARDED = 6  # chunks of a guarded stream
SHORT = "short-"  # before the names of tasks for a model whose noise decides the opening alone
POLICY = "full"


@dataclass(frozen=True)
class Task:
    """What is searched for.

    Args:
        chunks: Length of the video.
        reward: What counts.
        kinds: How futures differ.
        switch: The chunk, from 0, with which the prompt changes; None for never.
        lessons: Streams from which the head learns.
        others: Policies besides `POLICY` under which ETS and REBASE are compared. They drop something of a video of
            that length, else they would be the full cache.
        shots: Whether a model of the memory world gets every other prompt with a camera that turns. `change` reads
            scenes alone, and a wish needs a thing.
    """

    chunks: int
    reward: str
    kinds: tuple[str, ...]
    switch: int | None = None
    lessons: int = 40
    others: tuple[str, ...] = ()
    shots: bool = False


TASKS = {
    "opening": Task(3, "wish:left", ("code",)),
    "change": Task(
        9,
        "continuity+change",
        ("code", "recache", "when", "wording"),
        3,
        others=("sliding-window:window_frames=21", "forcing-kv"),
    ),
    "steady": Task(6, "continuity+truth", ("code", "policy", "steps"), shots=True),
    f"{SHORT}opening": Task(2, "wish:left", ("code",), lessons=12),
    f"{SHORT}change": Task(
        4, "continuity+change", ("recache", "when", "wording"), 2, 12, others=("sliding-window", "forcing-kv")
    ),
    f"{SHORT}steady": Task(4, "continuity+truth", ("policy", "steps"), lessons=12),
}
"""(i) Openings with a wish, (ii) changes from one prompt to another, (iii) steady streams; and the same in few chunks
for a model whose noise decides the opening alone, with the moves that change anything behind it."""
FULL = tuple(name for name in TASKS if not name.startswith(SHORT))


@dataclass(frozen=True)
class Job:
    """One record to make; the fields are those of `KEY` behind the model's."""

    task: str
    policy: str
    strategy: str
    width: int
    prompt: int
    seed: int


def jobs(prompts: int, seeds: int, widths: Sequence[int], names: Sequence[str], tasks: Sequence[str]) -> list[Job]:
    """All records of a study.

    Args:
        prompts: Held-out prompts.
        seeds: For each of them.
        widths: Futures side by side; a search may take the passes of so many plain streams.
        names: Strategies.
        tasks: Of `TASKS`, and `GUARD`.
    """
    places = list(product(range(prompts), range(seeds)))
    made = []
    for task in tasks:
        if task == GUARD:
            made += [Job(GUARD, POLICY, name, 1, *place) for name in (PLAIN, GUARD) for place in places]
            continue
        made += [Job(task, POLICY, PLAIN, 1, *place) for place in places]
        made += [Job(task, POLICY, name, width, *place) for name, width in product(names, widths) for place in places]
        others = product(TASKS[task].others, ("rebase", "ets"))
        made += [Job(task, policy, name, max(widths), *place) for policy, name in others for place in places]
    return sorted(made, key=lambda job: (job.seed, job.prompt))  # an unfinished study has whole prompts


def study(model: VideoModel, file: Path, todo: Sequence[Job]) -> list[Record]:
    """Make the records that a file does not have yet; heads and what they learnt from are beside it.

    Returns:
        The records of all jobs, in their order.
    """
    identity = identity_of(model)
    finished = {tuple(record[name] for name in KEY): record for record in resume_records(file)}
    keys = [(*identity, *asdict(job).values()) for job in todo]
    missing = [(key, job) for key, job in zip(keys, todo, strict=True) if key not in finished]
    heads: dict[str, Head] = {}
    shared: dict[Place, Made] = {}
    with tqdm(total=len(keys), initial=len(keys) - len(missing), unit="search", file=sys.stderr) as bar:
        for key, job in missing:
            needs_head = job.strategy in strategies.STRATEGIES and strategies.STRATEGIES[job.strategy].needs_head
            if needs_head and job.task not in heads:
                heads[job.task] = _head(model, TASKS[job.task], file.parent / f"saffron-{job.task}")
            measured = _guard(model, job) if job.task == GUARD else _search(model, job, heads.get(job.task), shared)
            finished[key] = dict(zip(KEY, key, strict=True)) | measured
            append_record(file, finished[key])
            bar.update()
    return [finished[key] for key in keys]


def moves_of(model: VideoModel, task: Task, policy: str, prompt: int) -> Moves:
    """The moves of a task on a held-out prompt."""
    other = SetPrompt(caption(switched_scene(prompt)[0], held_out=True))
    story = Storyboard() if task.switch is None else Storyboard((Cue(task.switch, other),))
    is_shot = task.shots and model.transformer.events and prompt % 2
    opening = held_out_shot(prompt) if is_shot else held_out_text(prompt)
    return Moves(story, task.kinds, opening, policy, model.policies, len(model.schedule.sigmas), task.chunks)


def begin(model: VideoModel, policy: str, prompt: str, noise: Noise) -> Stream:
    """Begin a stream."""
    return Stream(model, policies.parse(policy), prompt, noise=noise)


@dataclass
class Made:
    """What searches of the same streams have in common.

    Args:
        paths: The chunks.
        plain: The same as streams that never fork, to the last bit.
        full: The streams under the full cache that rewards compare with.
        judged: Moves up to a chunk -> its reward and the parts of it.
    """

    paths: Paths
    plain: Paths
    full: Paths
    judged: dict[tuple[Move, ...], tuple[float, dict[str, float]]] = field(default_factory=dict)

    @classmethod
    def of(cls, begin: Begin, seed: int) -> Made:
        """Nothing yet."""
        return cls(Paths(begin, seed), Paths(begin, seed, share=False), Paths(under_full(begin), seed))


Place = tuple[str, str, int, int]
"""Task, policy, prompt and seed."""


class Shared(Futures):
    """Futures of which several searches make each chunk once; their passes count as if each had made all of its own.

    Args:
        made: What earlier searches of the same streams made; it gets what this one makes.
        others: As of `Futures`.
    """

    def __init__(self, made: Made, *others: Any) -> None:
        super().__init__(*others)
        self._shared = made
        self.full = made.full

    def grow(self, parent: Node, moves: Sequence[Move]) -> Iterator[Node]:
        """Generate a chunk for each move that was not made before it."""
        for move in moves:
            chunk, stream = self._shared.paths.after((*parent.moves, move))
            yield self._node(parent, move, stream, chunk)

    def keep(self, leaves: Sequence[Node]) -> None:
        """Forget nothing: later searches take it up."""

    def _judge(self, parent: Node, move: Move, stream: Stream, chunk: Chunk) -> tuple[float, dict[str, float]]:
        path = (*parent.moves, move)
        if path not in self._shared.judged:
            self._shared.judged[path] = super()._judge(parent, move, stream, chunk)
        return self._shared.judged[path]


def _head(model: VideoModel, task: Task, folder: Path) -> Head:
    """The head of a task, trained on scenes that are not held out."""
    wanted = rewards.parse(task.reward)
    moves = moves_of(model, task, POLICY, 0)
    streams: Callable[[str], Begin] = lambda prompt: partial(begin, model, POLICY, prompt)  # noqa: E731
    facts = facts_of(model, wanted, moves) | {"prompts": "scenes of the toy world", "story": str(task.switch)}
    return learn(folder, model, wanted, lessons(streams, moves, task.lessons, toy_world=True), facts)


def _search(model: VideoModel, job: Job, head: Head | None, shared: dict[Place, Made]) -> Record:
    """Search, and reward what was found as a plain stream; `shared` keeps what searches of one place have in common."""
    task, wanted = TASKS[job.task], rewards.parse(TASKS[job.task].reward)
    moves = moves_of(model, task, job.policy, job.prompt)
    start = partial(begin, model, job.policy, moves.prompt)
    if job.strategy == PLAIN:
        chunks = replay(start, job.seed, (), moves.story, task.chunks)
        plain = rewarded(wanted, start, job.seed, (), moves.story, chunks)
        return {**plain, "passes": sum(chunk.passes for chunk in chunks), "reward_calls": 0}
    place = (job.task, job.policy, job.prompt, job.seed)
    if place not in shared:
        shared.clear()
        shared[place] = Made.of(start, job.seed)
    made = shared[place]
    strategy = fitted(strategies.parse(job.strategy), model)
    head = head if strategy.needs_head else None
    futures = Shared(made, start, job.seed, wanted, LOOKAHEAD + 1, Foresight(model, moves, head))
    cost = cost_of(model, moves, wanted)
    passes = job.width * sum(cost.usual)
    search = Search(strategy, moves, futures, task.chunks, job.width, LOOKAHEAD, passes, cost)
    path = list(search.run())
    story, noises, taken = story_of(path), path[-1].path, path[-1].moves
    chunks = [made.plain.after(taken[:end])[0] for end in range(1, len(taken) + 1)]
    best = rewarded(wanted, start, job.seed, noises, story, chunks)
    return {**best, "passes_allowed": passes, **found(search, path, chunks), **({"head": head.facts} if head else {})}


def _guard(model: VideoModel, job: Job) -> Record:
    """Stream a prompt whose colour and time of day are forbidden, with a guard or without one."""
    scene = held_out_scene(job.prompt)
    forbidden = detector(f"{scene.things[0].colour},{scene.time}")
    moves = moves_of(model, Task(GUARDED, "", ("code",)), job.policy, job.prompt)
    moves = replace(moves, kinds=("code", "avoid"), forbidden=forbidden.forbidden)
    start = partial(begin, model, job.policy, moves.prompt)
    guard = Guard(start, model, job.seed, moves, forbidden)
    chunks: Sequence[Chunk] = (
        list(guard.run()) if job.strategy == GUARD else replay(start, job.seed, (), moves.story, GUARDED)
    )
    violations = sum(forbidden([chunk])[0] < 1 for chunk in chunks)
    facts = {"chunks": len(chunks), "violations": violations, "checked": sum(guard.tried), "stopped": guard.stopped}
    return facts | {"passes": sum(chunk.passes for chunk in chunks)}


def table(records: Sequence[Record]) -> pd.DataFrame:
    """Searches by task, policy, strategy and width.

    Returns:
        One row each: prompts, passes per search, the mean reward over prompts with its 95 % interval, how much it is
        above best-of-N of the same task, policy and width with its interval, reward calls per chunk of the video, mean
        unique bytes of K and V and chunks that all leaves hold together, and the time of one decision relative to that
        of a chunk.
    """
    frame = _frame([record for record in records if record["task"] != GUARD])
    rows = []
    for (task, policy, strategy, width), group in frame.groupby(["task", "policy", "strategy", "width"], sort=False):
        by_prompt = group.groupby("prompt")["reward"].mean().to_numpy()
        low, high = interval(by_prompt)
        row: dict[str, Any] = {"task": task, "policy": policy, "strategy": strategy, "width": width}
        row |= {
            "streams": len(group),
            "prompts": len(by_prompt),
            "passes": group["passes"].mean(),
            "reward": float(by_prompt.mean()),
        }
        row |= {"reward_low": low, "reward_high": high, **_above(frame, group, "best-of")}
        if strategy != PLAIN:
            row["calls_per_chunk"] = group["reward_calls_per_chunk"].mean()
            row["kv_bytes_mean"] = group["kv_bytes_mean"].mean()
            row["nodes_mean"] = group["nodes_mean"].mean()
            row["strategy_share"] = float(group["strategy_share"].median())
        rows.append(row)
    return pd.DataFrame(rows)


def _frame(records: Sequence[Record]) -> pd.DataFrame:
    """Records as a table, which has the columns of `KEY` also without any record."""
    return pd.DataFrame(records, columns=None if records else list(KEY))


def _above(frame: pd.DataFrame, group: pd.DataFrame, other: str) -> dict[str, float]:
    """How much the rewards of a group are above those of another strategy on the same prompts and seeds."""
    same = ["task", "policy", "width", "prompt", "seed"]
    pairs = group.merge(frame[frame["strategy"] == other], on=same, suffixes=("", "_other"))
    if pairs.empty:
        return {}
    above = (pairs["reward"] - pairs["reward_other"]).groupby(pairs["prompt"]).mean().to_numpy()
    low, high = interval(above)
    return {"above": float(above.mean()), "above_low": low, "above_high": high}


def bytes_saved(records: Sequence[Record]) -> pd.DataFrame:
    """ETS against REBASE on the same prompts and seeds, by policy.

    Returns:
        One row each: unique bytes and chunks that REBASE holds over those of ETS, and the reward of ETS above REBASE's,
        with 95 % intervals over prompts.
    """
    frame = _frame([record for record in records if record["task"] != GUARD])
    ets, rebase = (frame[frame["strategy"] == name] for name in ("ets", "rebase"))
    pairs = ets.merge(rebase, on=["task", "policy", "width", "prompt", "seed"], suffixes=("", "_rebase"))
    rows = []
    for (task, policy, width), group in pairs.groupby(["task", "policy", "width"], sort=False):
        compared = {
            "ratio": group["kv_bytes_mean_rebase"] / group["kv_bytes_mean"],
            "nodes": group["nodes_mean_rebase"] / group["nodes_mean"],
            "above": group["reward"] - group["reward_rebase"],
        }
        row: dict[str, Any] = {"task": task, "policy": policy, "width": width}
        for name, values in compared.items():
            by_prompt = values.groupby(group["prompt"]).mean().to_numpy()
            low, high = interval(by_prompt)
            row |= {name: float(by_prompt.mean()), f"{name}_low": low, f"{name}_high": high}
        rows.append(row)
    return pd.DataFrame(rows)


def guarded(records: Sequence[Record]) -> pd.DataFrame:
    """Violations per 100 chunks without and with a guard: streams, violations, chunks checked per chunk emitted, and
    the streams that were stopped."""
    frame = _frame([record for record in records if record["task"] == GUARD])
    rows = []
    for strategy, group in frame.groupby("strategy", sort=False):
        chunks = group["chunks"].sum()
        row = {"stream": strategy, "streams": len(group), "chunks": int(chunks)}
        row |= {"violations": 100 * group["violations"].sum() / chunks if chunks else 0.0}
        row |= {
            "checks": group["checked"].sum() / chunks if chunks else 0.0,
            "stopped": int((group["stopped"] != "").sum()),
        }
        rows.append(row)
    return pd.DataFrame(rows)
