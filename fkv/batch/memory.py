"""Bytes of K and V that jobs need, known before they run."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache, cached_property

from fkv import policies
from fkv.models.base import VideoModel
from fkv.models.memory import cache_bytes
from fkv.roles import HeadRoles
from fkv.storyboard import SetPolicy

from .jobs import Path
from .plan import Node


class Memory:
    """Counts the cache of streams from the page tables of their policies, without tensors.

    Chunks count in every layer, as those of streams that share pages lie there.

    Args:
        model: Of the streams.
        share: Whether streams share the pages of what they have in common.
    """

    def __init__(self, model: VideoModel, share: bool) -> None:
        self.share = share
        steps = len(model.schedule.sigmas)

        @cache
        def peak(policy: str, roles: HeadRoles | None, chunks: int) -> int:
            parsed, heads, dtype = policies.parse(policy), roles or model.roles, model.transformer.dtype
            counted = cache_bytes(model.geometry, parsed, heads, chunks, dtype, steps, apart=False)
            return counted.kv_bytes_allocated

        self._peak = peak

    def of_path(self, path: Path, chunks: int | None = None) -> int:
        """The most bytes of a stream alone in its first `chunks` chunks, under the largest of its policies."""
        chunks = len(path) if chunks is None else chunks
        later = [cue.change.policy for cue in path.story.cues if isinstance(cue.change, SetPolicy)]
        return max(self._peak(policy, path.roles, chunks) for policy in (path.job.policy, *later))

    def of_node(self, node: Node) -> int:
        """The most bytes that the stream of a node adds to those that it forked from."""
        path = node.paths[0]
        alone = self.of_path(path, node.stop)
        if not self.share or node.start == 0:
            return alone
        return min(alone, len(node) * self.of_path(path, 1))


class Claim:
    """The bytes that a node and its descendants need.

    They need them while they wait, run, or are parked until their children have begun.

    Args:
        node: The node.
        memory: Counts bytes.
        parent: The claim of the node that it forks from.
    """

    def __init__(self, node: Node, memory: Memory, parent: Claim | None = None) -> None:
        self.node = node
        self.parent = parent
        self.children = [Claim(child, memory, self) for child in node.children]
        self.state = "waiting"
        self.own = memory.of_node(node)

    @cached_property
    def need(self) -> int:
        """Bytes with which everything can run, one leaf after another."""
        return self.own + max((child.need for child in self.children), default=0)

    @property
    def committed(self) -> int:
        """Bytes to reserve now, so that what has begun can end."""
        if self.state in ("waiting", "done"):
            return 0
        if self.state == "running":
            return self.need
        begun = sum(child.committed for child in self.children)
        return self.own + max([begun, *(child.need for child in self.children if child.state == "waiting")])

    @property
    def ready(self) -> bool:
        """Whether the node can begin."""
        return self.state == "waiting" and (self.parent is None or self.parent.state == "parked")

    def depth(self) -> int:
        """Forks before the node."""
        return 0 if self.parent is None else 1 + self.parent.depth()


def claims(nodes: Sequence[Node], memory: Memory, budget: int) -> list[Claim]:
    """Claims of the roots of a prefix tree. Jobs that fit the budget only one by one share nothing.

    Raises:
        ValueError: A job does not fit the budget even alone.
    """
    found = []
    for node in nodes:
        claim = Claim(node, memory)
        if claim.need <= budget:
            found.append(claim)
            continue
        for path in node.paths:
            alone = Claim(Node(0, len(path), [path]), memory)
            if alone.need > budget:
                raise ValueError(
                    f"line {path.job.line}: {path.job.name!r} needs {alone.need:,} bytes for K and V at its largest, "
                    f"and the budget is {budget:,}; raise --kv-budget, or choose a leaner policy or fewer chunks"
                )
            found.append(alone)
    return found
