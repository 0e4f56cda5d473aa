"""What a search found and took, as JSON; and the best path as the plain stream that repeats it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from statistics import median
from typing import Any

from fkv.sampler import BranchNoise
from fkv.storyboard import STREAM, Cue, SetPolicy, SetSteps, Storyboard, write, write_change
from fkv.stream import Chunk

from .futures import Begin
from .rewards import Past, Rewards
from .search import Search
from .tree import Node, sibling_distance


def story_of(path: Sequence[Node]) -> Storyboard:
    """The changes along a path."""
    return Storyboard(tuple(Cue(index, change) for index, node in enumerate(path) for change in node.move.changes))


def replay(begin: Begin, seed: int, path: Sequence[int], story: Storyboard, chunks: int) -> list[Chunk]:
    """Generate a path as a stream that never forks; the empty path is the plain stream.

    Args:
        begin: A new stream with that noise.
        seed: Of the plain stream.
        path: The noise of each chunk.
        story: The changes along the path.
        chunks: Length of the stream.
    """
    stream = begin(BranchNoise(seed, tuple(path)))
    made = []
    for index in range(chunks):
        for cue in story.cues:  # `Storyboard.apply` would leave out another wording of the opening
            if cue.chunk == index:
                cue.change.apply({STREAM: stream})
        made.append(stream.step())
    return made


def rewarded(
    rewards: Rewards, begin: Begin, seed: int, path: Sequence[int], story: Storyboard, chunks: Sequence[Chunk]
) -> dict[str, Any]:
    """Mean reward of a video and of its parts, `reward` and `parts`.

    Args:
        rewards: What counts.
        begin: As of `replay`, and the three that follow.
        seed: Of the plain stream.
        path: The noise of each chunk.
        story: The changes along the path.
        chunks: What `replay` made of them.
    """
    noise, prompts = BranchNoise(seed, tuple(path)), tuple(chunk.prompt for chunk in chunks)
    events = begin(noise).model.transformer.events
    full: Sequence[Chunk | None] = [None] * len(chunks)
    if rewards.need_full:
        cues = [cue for cue in story.cues if not isinstance(cue.change, (SetPolicy, SetSteps))]
        whole = Storyboard((Cue(0, SetPolicy(STREAM, "full")), *cues))
        full = replay(begin, seed, path, whole, len(chunks))
    pasts = [Past(noise, prompts[:end], events, each) for end, each in enumerate(full, 1)]
    each = [rewards(chunks[:end], past) for end, past in enumerate(pasts, 1)]
    parts = {name: sum(parts[name] for _, parts in each) / len(each) for name in rewards.parts}
    return {"reward": sum(reward for reward, _ in each) / len(each), "parts": parts}


def found(search: Search, path: Sequence[Node], chunks: Sequence[Chunk]) -> dict[str, Any]:
    """The path of a search and what the search took.

    Args:
        search: When it is over.
        path: The chunks that it decided on.
        chunks: The same as a plain stream, see `replay`.

    Returns:
        As JSON. `kv_bytes_mean` and `nodes_mean` are what all leaves of a depth hold together, in bytes and in chunks;
        `strategy_share` is the median time of a decision of the strategy, relative to that of one plain chunk.
    """
    levels = search.levels
    reward_calls = sum(level.reward_calls for level in levels)
    strategy_s = sum(level.strategy_s for level in levels)
    chunk_s = sum(chunk.timings.total for chunk in chunks) / len(chunks)
    return {
        "path": list(path[-1].path),
        "story": write(story_of(path)),
        "passes": sum(level.passes for level in levels),
        "passes_per_chunk": sum(level.passes for level in levels) / len(path),
        "reward_calls": reward_calls,
        "reward_calls_per_chunk": reward_calls / len(path),
        "kv_bytes_peak": max(level.kv_bytes for level in levels),
        "kv_bytes_mean": sum(level.kv_bytes for level in levels) / len(levels),
        "kv_bytes_mean_if_copied": sum(level.kv_bytes_copied for level in levels) / len(levels),
        "nodes_mean": sum(level.nodes for level in levels) / len(levels),
        "sibling_distance_p20": sibling_distance(search.root),
        "seconds": sum(level.seconds for level in levels),
        "strategy_s": strategy_s,
        "chunk_s": chunk_s,
        "strategy_share": median(level.strategy_s for level in levels) / chunk_s,
    }


def tree_of(search: Search, path: Sequence[Node]) -> dict[str, Any]:
    """The whole tree: what every chunk took, and every node with its reward and why it ended."""
    numbers = {node: number for number, node in enumerate(search.root)}
    return {
        "levels": [asdict(level) for level in search.levels],
        "nodes": [
            {
                "parent": numbers[node.parent],
                "chunk": node.depth,
                "noise": node.move.noise,
                "changes": list(map(write_change, node.move.changes)),
                "reward": node.reward,
                "is_judged": node.is_judged,
                "parts": node.parts,
                "score": node.score,
                "passes": node.passes,
                "on_path": node in path,
                "why_dropped": node.fate,
            }
            for node in search.root
            if node.parent is not None
        ],
    }
