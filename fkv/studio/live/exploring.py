"""A tree of futures for a visitor: a search that grows it, or their own choices; as manifests for the page."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Generator
from contextlib import closing
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np

from fkv import policies
from fkv.cache import unique_bytes
from fkv.models.base import VideoModel
from fkv.sampler import Noise
from fkv.search.futures import Futures, cost_of
from fkv.search.head import Foresight
from fkv.search.rewards import SEEN
from fkv.search.search import FORBIDDEN, Search
from fkv.search.strategies import Ets
from fkv.search.strategies.ets import clusters_of
from fkv.search.tree import Node, sibling_distance
from fkv.storyboard import write_change
from fkv.stream import Stream
from fkv.studio.media.protocol import pack

from . import model_thread
from .explore_plan import BY_HAND, ExplorePlan
from .limits import Limits, span
from .queue import Queue
from .run import Run
from .turn import WAIT, Turn, turn

FUTURES = 4  # that are shown side by side, to choose one by hand
SECONDS = 2.0  # of each
NOT_CHOSEN = "not chosen"
ALIKE = 0.05  # cosine distance of one cluster where siblings tell none

State = tuple[str, str]  # running, choose or done, and a status sentence


@dataclass
class Tree:
    """The nodes of a tree by number, and what the page shows of them.

    Args:
        futures: What grows it.
        distance: Cosine distance at which a strategy cuts clusters of looks; None for that of siblings in the tree.
        nodes: In the order in which they were made.
        decided: Those on the path that was chosen.
        options: Those to choose from.
    """

    futures: Futures
    distance: float | None = None
    nodes: list[Node] = field(default_factory=list)
    decided: list[Node] = field(default_factory=list)
    options: list[Node] = field(default_factory=list)

    def facts(self) -> list[dict[str, Any]]:
        """The nodes as JSON, in the order in which they were made."""
        numbers = {node: number for number, node in enumerate(self.nodes)}
        clusters = self._clusters()
        return [
            {
                "parent": numbers.get(node.parent, -1) if node.parent else -1,
                "depth": node.depth,
                "move": node.move.key if node.move.noise or node.move.name else "plain",
                "noise": node.move.noise,
                "changes": [write_change(change) for change in node.move.changes],
                "reward": node.reward,
                "predicted": not node.is_judged,
                "parts": node.parts,
                "score": node.score,
                "bytes": node.held.get(node.depth - 1, 0),
                "cluster": clusters[node],
                "why": node.fate,
                "decided": node in self.decided,
            }
            for node in self.nodes
        ]

    def _clusters(self) -> dict[Node, int]:
        """The cluster of each node by its look among those of its depth, from 0."""
        if not self.nodes:
            return {}
        measured = sibling_distance(self.nodes[0].ancestry[0]) if self.distance is None else self.distance
        distance = max(ALIKE if measured is None else measured, 1e-6)
        by_depth: dict[int, list[Node]] = defaultdict(list)
        for node in self.nodes:
            by_depth[node.depth].append(node)
        return {
            node: int(cluster)
            for nodes in by_depth.values()
            for node, cluster in zip(nodes, clusters_of(nodes, distance), strict=True)
        }


def explore(
    model: VideoModel, plan: ExplorePlan, run: Run, queue: Queue, limits: Limits
) -> Generator[dict[str, Any], None, None]:
    """Grow a tree. Stopping `run` or closing the iterator ends it.

    Args:
        model: What generates.
        plan: What the visitor wants.
        run: Its control, and where the frames of nodes are kept, by their number.
        queue: The queue to join.
        limits: The bounds that end it.

    Yields:
        Manifests: the key of the run, its state (queued, running, choose, done or error), a status sentence, the nodes,
        and numbers of those to choose from.
    """
    tree = Tree(_futures(model, plan), plan.strategy.distance if isinstance(plan.strategy, Ets) else None)

    def manifest(state: str, text: str) -> dict[str, Any]:
        return {
            "run": run.key,
            "state": state,
            "text": text,
            "fps": model.fps,
            "nodes": tree.facts(),
            "options": [tree.nodes.index(node) for node in tree.options] if state == "choose" else [],
            "span": per_choice(model),
            "form": plan.form,
        }

    strategy = plan.strategy.name if plan.strategy else BY_HAND
    with turn("explore", run, queue, limits, model, strategy=strategy, seed=plan.seed, prompt=plan.prompt) as current:
        for text in current.wait():
            yield manifest("queued", text)
        if run.stopped:  # it may be another's turn
            yield manifest("done", current.over() or "")
            return
        grow = model_thread.iterating(partial(_search if plan.strategy else _by_hand, model, plan))
        with closing(grow(tree, current)) as states:
            for state, text in states:
                yield manifest(state, text)
    if current.problem:
        yield manifest("error", current.problem)


def per_choice(model: VideoModel) -> int:
    """Chunks of each future that is to choose by hand."""
    return math.ceil(SECONDS / model.chunk_seconds - 1e-9)


def _futures(model: VideoModel, plan: ExplorePlan) -> Futures:
    def begin(noise: Noise) -> Stream:
        return Stream(model, policies.parse(plan.policy), plan.prompt, noise=noise)

    newest = plan.moves.chunks if plan.lookahead is None else plan.lookahead + 1
    return Futures(begin, plan.seed, plan.rewards, newest, Foresight(model, plan.moves, plan.head))


def _search(model: VideoModel, plan: ExplorePlan, tree: Tree, turn: Turn) -> Generator[State, None, None]:
    """Let a strategy grow the tree."""
    assert plan.strategy is not None
    search = Search(
        plan.strategy,
        plan.moves,
        tree.futures,
        plan.moves.chunks,
        plan.width,
        plan.lookahead,
        plan.passes,
        cost_of(model, plan.moves, plan.rewards),
    )
    for event, node in search.events():
        if event == "decided":
            tree.decided.append(node)
            continue
        _count(tree, node, turn, node)
        yield "running", f"Chunk {node.depth} of {plan.moves.chunks}: {_spent(tree, plan)}."
        if text := turn.over():
            yield "done", text
            return
    turn.run.ended = "finished"
    best = tree.decided[-1]
    reward = f"a reward of {_mean(best):.2f} per chunk"
    if plan.head:
        reward = f"a predicted reward of {_mean(best):.2f} per chunk, which was not measured"
    yield "done", f"Finished: {_spent(tree, plan)}; the best future has {reward}."


def _by_hand(model: VideoModel, plan: ExplorePlan, tree: Tree, turn: Turn) -> Generator[State, None, None]:
    """Show the visitor futures of some chunks, and go on from the one that they choose."""
    run = turn.run
    futures = tree.futures
    node = futures.root()
    length = per_choice(model)
    most = cost_of(model, plan.moves, plan.rewards).most

    def dearest() -> int:
        return FUTURES * sum(most[node.depth : node.depth + length])

    while node.depth < plan.moves.chunks and _passes(tree) + dearest() <= plan.passes:
        tree.options = []
        for child in futures.grow(node, plan.moves.of(node.moves, FUTURES)):
            while True:
                _count(tree, child, turn, node)
                yield "running", f"Making future {len(tree.options) + 1}: {_spent(tree, plan)}."
                if text := turn.over():
                    yield "done", text
                    return
                if child.depth == min(node.depth + length, plan.moves.chunks):
                    tree.options.append(child)
                    break
                following = [*futures.grow(child, [plan.moves.plain(child.moves)])]
                if not following:
                    child.fate = FORBIDDEN
                    break
                (child,) = following
        if not tree.options:
            raise ValueError(f"there is no future to choose: {FORBIDDEN}")
        run.pause(True)
        while run.paused:
            if text := turn.over():
                yield "done", text
                return
            keys = "1" if len(tree.options) == 1 else f"1 to {len(tree.options)}"
            yield "choose", f"Press {keys} to go on; a choice may take {span(turn.limits.pause)}."
            run.wait_paused(min(WAIT, turn.limits.pause))
        if text := turn.over():
            yield "done", text
            return
        node = tree.options[min(run.choice, len(tree.options) - 1)]
        for other in tree.options:
            if other is not node:
                other.stream, other.fate = None, NOT_CHOSEN
        tree.decided = list(node.lineage)
        futures.keep([node])
    if not tree.nodes:
        raise ValueError(f"{plan.passes} passes are not enough for {FUTURES} futures; allow at least {dearest()}")
    run.ended = "finished"
    is_short = node.depth < plan.moves.chunks
    ended = "Ended: the passes left do not pay for another choice;" if is_short else "Finished:"
    yield "done", f"{ended} {node.depth} chunks chosen, {_spent(tree, plan)}."


def _count(tree: Tree, node: Node, turn: Turn, parting: Node) -> None:
    """Count a node that was made, put its frames where the page gets them, and forget what no later node needs.

    Args:
        tree: Gets the node.
        node: The node.
        turn: Of the run.
        parting: A node that may still get children.
    """
    run = turn.run
    assert node.chunk is not None and node.chunk.video is not None
    tree.nodes.append(node)
    turn.chunks += 1
    run.put(pack({"node": len(tree.nodes) - 1}, [node.chunk.video]))
    leaves = [each for each in tree.nodes if each.stream]
    needed = {each for leaf in (*leaves, parting) for each in leaf.lineage[-SEEN:]}
    for each in tree.nodes:
        if each not in needed:
            each.chunk = None
    run.frame_bytes = sum(each.chunk.video.nbytes for each in tree.nodes if each.chunk and each.chunk.video is not None)
    caches = [cache for leaf in leaves if leaf.stream for cache in leaf.stream.caches]
    run.kv_bytes = unique_bytes([*caches, *tree.futures.full.caches])


def _passes(tree: Tree) -> int:
    nodes = {*tree.nodes, *(node.parent for node in tree.nodes if node.parent)}
    return sum(node.passes + node.refused_passes for node in nodes)


def _spent(tree: Tree, plan: ExplorePlan) -> str:
    return f"{len(tree.nodes)} chunks, {_passes(tree)} of {plan.passes} passes"


def _mean(node: Node) -> float:
    return float(np.mean([each.reward for each in node.lineage]))
