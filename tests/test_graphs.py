"""Recorded passes against passes that run as usual: on a CPU recorded operation by operation, on a GPU as CUDA graphs.

Such a trace does what a CUDA graph does: it holds the operations on the very memory that they used, and nothing of the
program around them.
"""

import contextlib
import dataclasses
import gc
import itertools
import weakref

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from fkv import policies
from fkv.cache import KVCache
from fkv.kernels.head_table import _rows, head_table
from fkv.models import registry
from fkv.probe import FrameMassProbe
from fkv.roles import HeadRoles
from fkv.stream import Stream
from fkv.transformer.causal import CausalTransformer
from fkv.transformer.graphs import CudaCapture, PassGraphs


class Operations(TorchDispatchMode):
    """Notes every operation, what it was given and its result. Raises where a GPU would have to be waited for."""

    def __init__(self):
        super().__init__()
        self.done = []

    def __torch_dispatch__(self, operation, types, given=(), options=None):
        assert operation is not torch.ops.aten._local_scalar_dense.default, "a number is read from a tensor"
        out = operation(*given, **(options or {}))
        self.done.append((operation, given, options or {}, out))
        return out


class Trace:
    """Records by noting operations; `count`s what was recorded and `replayed`."""

    def __init__(self):
        self.count = self.replayed = 0

    def __call__(self, work):
        self.count += 1
        with Operations() as operations:
            out = work()

        def replay():
            self.replayed += 1
            for operation, given, options, into in operations.done:
                for old, new in zip(tree_leaves(into), tree_leaves(operation(*given, **options)), strict=True):
                    if isinstance(old, torch.Tensor) and old.data_ptr() != new.data_ptr():
                        old.copy_(new)

        return replay, out


@pytest.fixture
def recorded(small):
    """The small model once more, on the same weights, with its passes captured.

    It attends to few keys, so by PyTorch: a trace does not hold the switch that has oneDNN multiply.
    """
    trace = Trace()
    transformer = CausalTransformer(small.transformer.model)
    transformer.capture_graphs(trace)
    return dataclasses.replace(small, transformer=transformer), trace


def both(small, model, policy, **options):
    return [
        Stream(each, policies.parse(policy), "a red ball", seed=3, decode=False, **options) for each in (small, model)
    ]


@pytest.mark.parametrize(
    "policy", ["forcing-kv", "forcing-kv:fp8=true", "sliding-window:window_frames=6", "forcing-kv without 1.0"]
)
def test_replayed_passes_make_the_same_stream(policy, small, recorded):
    model, trace = recorded
    plain, replaying = both(small, model, policy)
    for _ in range(8):
        assert torch.equal(plain.step().latents, replaying.step().latents)
    passes = len(model.schedule.sigmas) + 1
    assert trace.replayed >= 4 * passes and trace.count <= 2 * passes


@pytest.mark.parametrize("policy", ["full", "per-step"])
def test_what_grows_is_never_recorded(policy, small, recorded):
    model, trace = recorded
    plain, growing = both(small, model, policy)
    for _ in range(4):
        assert torch.equal(plain.step().latents, growing.step().latents)
    assert not trace.count


def test_changes_on_the_way_are_followed(small, recorded):
    model, trace = recorded
    streams = both(small, model, "forcing-kv")
    flipped = HeadRoles(
        small.transformer.heads, tuple(tuple(range(small.transformer.heads)) for _ in range(small.transformer.layers))
    )
    changes = {
        5: lambda stream: stream.set_prompt("a blue star over the sea"),
        10: lambda stream: stream.set_roles(flipped),
        15: lambda stream: stream.set_policy(policies.parse("sliding-window:window_frames=6")),
    }
    seen = 0
    for chunk in range(20):
        for stream in streams:
            changes.get(chunk, lambda stream: None)(stream)
        before = trace.replayed
        plain, replayed = (stream.step() for stream in streams)
        assert torch.equal(plain.latents, replayed.latents), f"chunk {chunk}"
        assert chunk not in changes or trace.replayed == before, "the first chunk after a change is not replayed"
        seen += trace.replayed > before
    assert seen >= 8


def test_streams_of_one_model_do_not_replay_each_other(small, recorded):
    model, _ = recorded
    pairs = [both(small, model, policy) for policy in ("forcing-kv", "forcing-kv:retention=0.5")]
    for _ in range(7):
        for plain, replaying in pairs:
            assert torch.equal(plain.step().latents, replaying.step().latents)


def test_a_probe_sees_every_pass_that_it_wants(small, recorded):
    model, trace = recorded
    _, stream = both(small, model, "forcing-kv")
    probe, passes = FrameMassProbe(), len(model.schedule.sigmas) + 1
    for _ in range(8):
        stream.step(probe)
        assert [record.name for record in probe.take()] == ["context"]
    assert trace.count % (passes - 1) == 0 and trace.replayed >= 4 * (passes - 1)


def test_streams_side_by_side_are_replayed_where_weights_are_kept_in_few_orders(small, recorded, monkeypatch):
    monkeypatch.setattr("fkv.transformer.causal.MAX_ORDER_BYTES", 0)
    model, trace = recorded
    pairs = [both(small, model, policy) for policy in ("sliding-window:window_frames=6", "forcing-kv")]
    for _ in range(7):
        for plain, replaying in pairs:
            assert torch.equal(plain.step().latents, replaying.step().latents)
    assert trace.replayed >= 2 * 3 * (len(model.schedule.sigmas) + 1)


def test_a_result_is_the_callers_own(small):
    graphs, cache = PassGraphs(Trace()), KVCache(small.geometry, small.geometry.every_head)
    cache.begin(range(3))
    made = [graphs.run(lambda x: 2 * x, (torch.full((1,), float(i)),), 0.0, cache, ()) for i in range(4)]
    assert [float(x) for x in made] == [0, 2, 4, 6]


def test_nothing_is_kept_of_a_stream_that_is_gone(recorded):
    model, _ = recorded
    stream = Stream(model, policies.parse("forcing-kv"), "a red ball", decode=False)
    for _ in range(6):
        stream.step()
    assert len(model.transformer._graphs._passes) == 1
    del stream
    gc.collect()
    assert not model.transformer._graphs._passes


def test_a_device_without_graphs_is_refused_in_words(small):
    with pytest.raises(ValueError, match="add --device cuda"):
        CausalTransformer(small.transformer.model).capture_graphs()


class PretendedGraph:
    """Stands for a CUDA graph: it is recorded into a pool, and that is all it does."""

    def replay(self):
        pass


@pytest.fixture
def pools(monkeypatch):
    """CUDA's graphs without a GPU; the list of pools into which was recorded."""
    used, handles = [], itertools.count()
    monkeypatch.setattr(torch.cuda, "CUDAGraph", PretendedGraph)
    monkeypatch.setattr(torch.cuda, "graph_pool_handle", lambda: next(handles))
    monkeypatch.setattr(torch.cuda, "graph", lambda graph, pool, **options: contextlib.nullcontext(used.append(pool)))
    return used


def test_a_pool_of_memory_ends_with_its_last_graph(pools):
    capture = CudaCapture()
    first, second = capture(list), capture(list)
    del first
    third = capture(list)
    assert pools == [0, 0, 0]
    del second, third
    gc.collect()
    capture(list)
    assert pools == [0, 0, 0, 1]


def test_a_graph_keeps_the_tables_that_its_launches_read(pools):
    def buffers(tokens):
        return torch.zeros(2, 1, 1, tokens, 8).unbind(0)

    keys, values = buffers(4)
    address, tables = weakref.ref(head_table([(keys, values, 4)])), []
    replay, _ = CudaCapture()(lambda: tables.append(weakref.ref(head_table([(keys, values, 4)]))))
    _rows.cache_clear()
    assert tables[0]() is address() is not None
    replay()
    del replay
    gc.collect()
    assert address() is None


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_cuda_graphs_make_the_same_stream():
    plain, replaying = registry.load("tiny", "cuda"), registry.load("tiny", "cuda")
    replaying.transformer.capture_graphs()
    for a, b in zip(
        *([stream.step() for _ in range(8)] for stream in both(plain, replaying, "forcing-kv")), strict=True
    ):
        torch.testing.assert_close(a.latents, b.latents)
