"""The prefix tree of jobs: which chunks are computed once for several of them, and what that saves."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from fractions import Fraction

from fkv.policies import Policy

from .jobs import Path
from .opening import Undropped


@dataclass
class Node:
    """Chunks that are computed once.

    Args:
        start: Index of the first one.
        stop: Index behind the last one.
        paths: The jobs that have them.
        children: What comes after; none where a single job ends.
    """

    start: int
    stop: int
    paths: list[Path]
    children: list[Node] = field(default_factory=list)

    def __len__(self) -> int:
        return self.stop - self.start

    def __iter__(self) -> Iterator[Node]:
        """The node and all below it."""
        yield self
        for child in self.children:
            yield from child

    @property
    def computed(self) -> int:
        """Chunks of the node and of all below it."""
        return sum(map(len, self))

    @property
    def policy(self) -> Policy:
        """The policy of the first path; nothing is dropped where paths have several (`fkv.batch.opening`)."""
        first, *others = dict.fromkeys((path.policy, path.job.roles) for path in self.paths)
        return Undropped(first[0]) if others else first[0]


def grow(paths: Sequence[Path], start: int = 0) -> list[Node]:
    """The prefix tree of jobs from a chunk on, where all of them are equal before it.

    Groups come in the order of their own chunks per shared chunk, most first, longer ones first among equals: many
    rows fill the passes as soon as possible, and no long job is left for the end.
    """
    branches: dict[object, list[Path]] = {}
    for path in paths:
        branches.setdefault(path.keys[start] if len(path) > start else path.job.name, []).append(path)
    nodes = []
    for group in branches.values():
        shortest = min(map(len, group))
        stop = start
        while stop < shortest and len({path.keys[stop] for path in group}) == 1:
            stop += 1
        single = len(group) == 1
        nodes.append(Node(start, len(group[0]) if single else stop, group, [] if single else grow(group, stop)))
    return sorted(nodes, key=lambda node: (_own_per_shared(node), max(map(len, node.paths))), reverse=True)


def _own_per_shared(node: Node) -> Fraction:
    shared = len(node) if node.children else 0
    return Fraction(node.computed - shared, max(shared, 1))


def asked(paths: Sequence[Path]) -> int:
    """Chunks of all jobs, one by one."""
    return sum(map(len, paths))


def computed_with_one_level(nodes: Sequence[Node]) -> int:
    """Chunks to compute where a stream may fork only once, as without shared pages of several depths.

    BatchLLM's rule, bottom up: what two jobs share below a node moves up to it, with the node's own chunks repeated,
    where that saves more chunks than it repeats.
    """
    return sum(_one_level(_enlarged(node)) for node in nodes)


@dataclass
class _Shared:
    """Chunks that `leaves` jobs share, the groups below them, and the jobs' own chunks."""

    chunks: int
    leaves: int
    groups: list[_Shared]
    own: int

    @classmethod
    def of(cls, node: Node) -> _Shared:
        groups = [cls.of(child) for child in node.children if child.children]
        own = sum(len(child) for child in node.children if not child.children)
        return cls(len(node), len(node.paths), groups, own)


def _enlarged(node: Node) -> list[_Shared]:
    """The first-level groups that a node becomes; itself first."""
    if not node.children:
        return [_Shared(len(node), 1, [], 0)]
    return _split(_Shared.of(node))


def _split(shared: _Shared) -> list[_Shared]:
    rest = _Shared(shared.chunks, shared.leaves, [], shared.own)
    apart = []
    for group in shared.groups:
        first, *others = _split(group)
        for each in (first, *others):
            if (each.leaves - 1) * each.chunks > shared.chunks:
                apart.append(_Shared(shared.chunks + each.chunks, each.leaves, [], each.own))
                rest.leaves -= each.leaves
            else:
                rest.own += each.leaves * each.chunks + each.own
    return [rest, *apart] if rest.leaves else [_Shared(0, 0, [], 0), *apart]


def _one_level(groups: Sequence[_Shared]) -> int:
    return sum(group.chunks + group.own for group in groups if group.leaves)
