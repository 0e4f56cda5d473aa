"""Kernels against float64 definitions: the PyTorch twins, Triton's interpreter, and the GPU where there is one.

The interpreter is chosen when a kernel is defined, so it gets a process of its own.
"""

from __future__ import annotations

import dataclasses
import importlib
import math
import multiprocessing
import os
from concurrent.futures import ProcessPoolExecutor

import numpy
import pytest
import torch
from packaging.version import Version
from torch.utils import _pytree as pytree

from fkv import kernels, policies
from fkv.kernels import dispatch, rope_freqs_cis
from fkv.models import registry
from fkv.parallel.rows import step_rows
from fkv.policies import forcing_kv
from fkv.probe import FrameMassProbe
from fkv.sampler import Schedule
from fkv.stream import Stream
from fkv.transformer import attention

triton = pytest.importorskip("triton")

LIMITS = {torch.float32: 1e-5, torch.float16: 2e-3, torch.bfloat16: 2e-3}
PLACES = ["interpreter", *(["cuda"] if torch.cuda.is_available() else [])]
CASES = [("twin", torch.float32), *((place, dtype) for place in PLACES for dtype in LIMITS)]
cases = pytest.mark.parametrize(
    "run, dtype", CASES, indirect=["run"], ids=lambda case: str(case).removeprefix("torch.")
)


def launch(name, arguments):
    """What the Triton kernel returns, and its arguments as it leaves them."""
    return getattr(kernels, name).triton(*arguments), arguments


class OnGpu(torch.Tensor):
    """A tensor that says that it is on a GPU."""

    is_cuda = property(lambda self: True)


def find_out(name, arguments):
    """What `auto` finds out about a kernel."""
    first, *rest = arguments
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(dispatch, "_choices", {})
        getattr(kernels, name)(first.as_subclass(OnGpu), *rest)
        return next(choice for choice in dispatch.choices() if choice.kernel == name)


def stream(setting, policy):
    """Latents of a watched stream whose tensors say that they are on a GPU, and what was found out meanwhile.

    Before its last chunk the stream is forked.
    """
    from tests.small_tiny import small_model

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(dispatch.TRITON_VARIABLE, setting)
        patch.setattr(dispatch, "_choices", {})
        patch.setattr(torch.Tensor, "is_cuda", property(lambda self: True))
        model = dataclasses.replace(small_model(layers=2), latent=(4, 2, 4), schedule=Schedule.even(1))
        live, probe = Stream(model, policies.parse(policy), "a red ball", decode=False), FrameMassProbe()
        made = [live.step(probe).latents for _ in range(2)]
        made += [each.step(probe).latents for each in (live, live.fork(share=True))]
        return torch.cat(made, 1), [seen.mass for seen in probe.take()], dispatch.choices()


def rows(setting):
    """Latents of streams that are rows of one pass, with Triton as on a GPU, and the rows of each launch of attention.

    The first is a chunk ahead; chunks under forcing-kv lie apart; the last shares its past with the first.
    """
    from tests.small_tiny import small_model

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(dispatch.TRITON_VARIABLE, setting)
        patch.setattr(torch.Tensor, "is_cuda", property(lambda self: setting == "1"))
        model = dataclasses.replace(small_model(layers=2), latent=(4, 2, 4), schedule=Schedule.even(1))
        patch.setattr(forcing_kv, "APART_FROM", 0)
        names = ("full", "sliding-window:window_frames=6", *["forcing-kv:segments_per_frame=2"] * 2)
        streams = [Stream(model, policies.parse(name), "a ball", i, decode=False) for i, name in enumerate(names)]
        streams[0].step()
        streams.append(streams[0].fork(share=True))
        launched, kernel = [], attention.attention_of_rows
        patch.setattr(attention, "attention_of_rows", lambda *given: launched.append(len(given[1])) or kernel(*given))
        made = [chunk.latents for _ in range(2) for chunk in step_rows(streams)]
        return torch.cat(made), launched, model.transformer.layers


@pytest.fixture(scope="module")
def pool():
    """A process in which kernels run in the interpreter."""
    if Version(triton.__version__) < Version("3.7") and Version(numpy.__version__) >= Version("2.4"):
        pytest.skip("the interpreter of Triton before 3.7 needs numpy before 2.4")
    with pytest.MonkeyPatch.context() as patch, ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        patch.setenv("TRITON_INTERPRET", "1")
        pool.submit(os.getpid).result()
        patch.undo()
        yield pool


@pytest.fixture(scope="module")
def interpreter(pool):
    return lambda name, *arguments: pool.submit(launch, name, arguments).result()


@pytest.fixture(scope="module")
def found_out(pool):
    return lambda name, *arguments: pool.submit(find_out, name, arguments).result()


@pytest.fixture(params=["twin", *PLACES])
def run(request):
    """Runs a kernel by name; returns its result and its arguments afterwards."""

    def moved(device, tree):
        return pytree.tree_map(lambda x: x.to(device) if isinstance(x, torch.Tensor) else x, tree)

    if request.param == "interpreter":
        return request.getfixturevalue("interpreter")
    if request.param == "cuda":
        return lambda name, *arguments: moved("cpu", launch(name, moved("cuda", arguments)))
    return lambda name, *arguments: (getattr(kernels, name)(*arguments), arguments)


def random(*shape, dtype=torch.float32, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)).to(dtype)


def check(made, wanted, dtype, limit=None):
    """Compare relative to the norm of the reference.

    Rounding the reference to bfloat16 alone gives 1.6e-3; attention also rounds its weights (as PyTorch's own does,
    whose error is the same), so it gets a limit of its own.
    """
    assert made.shape == wanted.shape and made.isfinite().all()
    assert (made.double() - wanted).norm() <= (limit or LIMITS[dtype]) * wanted.norm()


@cases
@pytest.mark.parametrize("batch, heads, size", [(1, (3,), 12), (2, (1, 0, 3), 16)])
def test_norm_rope_store(run, dtype, batch, heads, size):
    count, tokens, capacity = sum(heads), 5, 9
    qkv, gains = random(batch, tokens, 3 * count * size, dtype=dtype), random(2, count * size, dtype=dtype, seed=1)
    table, groups = rope_freqs_cis([7], 1, tokens, size), []
    for i, held in enumerate(heads):
        slots = torch.randperm(capacity, generator=torch.Generator().manual_seed(i))
        groups.append((*random(2, batch, held, capacity, size, dtype=dtype, seed=2 + i).unbind(0), slots[:tokens]))
    before = [(keys.clone(), values.clone()) for keys, values, _ in groups]
    queries, (*_, stored) = run("norm_rope_store", qkv, gains, 1e-6, table, groups)

    q, k, v = qkv.double().unflatten(2, (3, count, size)).unbind(2)
    q, k = (
        x / (x.square().mean((2, 3), True) + 1e-6).sqrt() * gain.double().view(count, size)
        for x, gain in zip((q, k), gains, strict=True)
    )
    q, k = (torch.view_as_complex(x.unflatten(3, (-1, 2))) * table.to(torch.complex128)[:, None] for x in (q, k))
    q, k, v = (x.transpose(1, 2) for x in (torch.view_as_real(q).flatten(3), torch.view_as_real(k).flatten(3), v))
    check(queries, q, dtype)
    for (keys, values, slots), old, k_part, v_part in zip(
        stored, before, k.split(heads, 1), v.split(heads, 1), strict=True
    ):
        rest = sorted(set(range(capacity)) - set(slots.tolist()))
        check(keys[:, :, slots], k_part, dtype)
        assert torch.equal(values[:, :, slots].double(), v_part)
        assert torch.equal(keys[:, :, rest], old[0][:, :, rest]) and torch.equal(values[:, :, rest], old[1][:, :, rest])


def test_pages_in_8_bits_are_written_and_read(run):
    """What is stored is the nearest fp8 number, larger ones are clamped, and attention is over what is stored."""
    heads, size, tokens, slots = (2, 1), 16, 5, torch.tensor([6, 0, 3, 8, 1])
    qkv, gains = random(1, tokens, 3 * 3 * size, dtype=torch.bfloat16), random(2, 3 * size, seed=1)
    qkv[0, 0, -1] = 1000
    table, groups = rope_freqs_cis([7], 1, tokens, size), []
    for held in heads:
        groups.append((*torch.zeros(2, 1, held, 9, size, dtype=torch.float8_e4m3fn).unbind(0), slots))
    exact = [(*torch.zeros(2, 1, held, 9, size).unbind(0), slots) for held in heads]
    kernels.norm_rope_store(qkv.float(), gains, 1e-6, table, exact)
    queries, (*_, stored) = run("norm_rope_store", qkv, gains, 1e-6, table, groups)
    for made, wanted in zip(stored, exact, strict=True):
        for eight, full in zip(made[:2], wanted[:2], strict=True):
            full = full.clamp(-448, 448)
            assert eight.dtype == torch.float8_e4m3fn and (eight.float() - full).abs().le(full.abs() / 14 + 2**-9).all()
    made, _ = run("hybrid_attention", queries, [(keys, values) for keys, values, _ in stored])
    parts = zip(
        queries.double().split(heads, 1), [(keys.double(), values.double()) for keys, values, _ in stored], strict=True
    )
    wanted = [(q @ keys.transpose(2, 3) / size**0.5).softmax(-1) @ values for q, (keys, values) in parts]
    check(made, torch.cat(wanted, 1), torch.bfloat16, 2.5e-3)
    mass, _ = run("frame_mass", queries[:, :2], stored[0][0], torch.arange(9) % 3, 3)
    assert (mass.sum(-1) - 1).abs().max() < 1e-3


@cases
@pytest.mark.parametrize(
    "batch, tokens, size, groups",
    [(2, 35, 16, [(1, 70), (2, 33)]), (1, 5, 12, [(1, 3), (0, 40), (1, 64), (1, 0)])],
    ids=["two groups, batch 2", "odd sizes, a group without heads, one without keys"],
)
def test_hybrid_attention(run, dtype, batch, tokens, size, groups):
    query = random(batch, tokens, sum(heads for heads, _ in groups), size, dtype=dtype).transpose(1, 2)
    buffers = [
        random(2, batch, n, length + 8, size, dtype=dtype, seed=7)[:, :, :, :length].unbind(0) for n, length in groups
    ]
    made, _ = run("hybrid_attention", query, buffers)
    parts = query.double().split([heads for heads, _ in groups], 1)
    wanted = [
        (q @ keys.double().transpose(2, 3) / size**0.5).softmax(-1) @ values.double()
        for q, (keys, values) in zip(parts, buffers, strict=True)
    ]
    check(made, torch.cat(wanted, 1), dtype, 2.5e-3 if dtype == torch.bfloat16 else None)
    assert made.transpose(1, 2).is_contiguous()


@pytest.mark.parametrize("stored", [torch.float32, torch.bfloat16, torch.float8_e4m3fn], ids=["fp32", "bf16", "fp8"])
def test_attention_over_runs_is_attention_over_one_behind_the_other(run, stored):
    dtype = torch.float32 if stored == torch.float32 else torch.bfloat16
    query = random(1, 35, 3, 16, dtype=dtype).transpose(1, 2)
    lengths = [(2, [40, 0, 33]), (1, [70])]
    groups = [
        [random(2, 1, heads, n + 4, 16, seed=n).to(stored)[:, :, :, 2 : n + 2].unbind(0) for n in runs]
        for heads, runs in lengths
    ]
    made, _ = run("attention_over_runs", query, groups)
    joined = [tuple(torch.cat([x.float() for x in side], 2) for side in zip(*runs, strict=True)) for runs in groups]
    wanted, _ = run("hybrid_attention", query.float(), joined)
    torch.testing.assert_close(made.float(), wanted, atol=1e-6 if dtype == torch.float32 else 2e-2, rtol=0)
    assert made.transpose(1, 2).is_contiguous()


@pytest.mark.parametrize("stored", [torch.float32, torch.bfloat16, torch.float8_e4m3fn], ids=["fp32", "bf16", "fp8"])
def test_attention_of_rows_is_that_of_each_row(run, stored):
    """Rows of different length, groups, runs and batch, in one launch with a table for each."""
    dtype = torch.float32 if stored == torch.float32 else torch.bfloat16
    shapes = [(1, [(2, [40, 33]), (1, [70])]), (2, [(3, [17])]), (1, [(1, [5, 0, 50]), (2, [64])])]
    rows = [
        [
            [
                random(2, batch, heads, n + 4, 16, seed=7 * n + batch).to(stored)[:, :, :, 2 : n + 2].unbind(0)
                for n in runs
            ]
            for heads, runs in groups
        ]
        for batch, groups in shapes
    ]
    query = random(4, 35, 3, 16, dtype=dtype).transpose(1, 2)
    made, _ = run("attention_of_rows", query, rows)
    parts = query.split([batch for batch, _ in shapes])
    wanted = torch.cat([run("attention_over_runs", part, row)[0] for part, row in zip(parts, rows, strict=True)])
    torch.testing.assert_close(made, wanted, atol=1e-6 if dtype == torch.float32 else 1e-2, rtol=0)
    assert made.transpose(1, 2).is_contiguous()


def test_attention_survives_large_scores(run):
    query, keys = 40 * random(1, 1, 3, 16), 40 * random(1, 1, 50, 16, seed=1)
    made, _ = run("hybrid_attention", query, [(keys, keys)])
    check(made, (query.double() @ keys.double().transpose(2, 3) / 4).softmax(-1) @ keys.double(), torch.float32)


@cases
@pytest.mark.parametrize(
    "batch, heads, queries, tokens, pages, size, frames", [(2, 2, 35, 40, 5, 12, 3), (1, 1, 3, 50, 50, 16, 21)]
)
def test_frame_mass(run, dtype, batch, heads, queries, tokens, pages, size, frames):
    query = random(batch, queries, heads, size, dtype=dtype).transpose(1, 2)
    keys = random(batch, heads, tokens + 5, size, dtype=dtype, seed=1)[:, :, :tokens]
    page_frame = torch.arange(pages) * 7 % (frames - 1)
    made, _ = run("frame_mass", query, keys, page_frame, frames)
    frame = page_frame.repeat_interleave(tokens // pages)
    full = (query.double() @ keys.double().transpose(2, 3) / size**0.5).softmax(-1)
    check(made, torch.stack([full[..., frame == f].sum(-1) for f in range(frames)], -1), dtype)
    assert made.dtype == torch.float32 and (made[..., -1] == 0).all()


@cases
@pytest.mark.parametrize(
    "batch, heads, frames, tokens, segments", [(2, 3, 4, 12, 3), (1, 1, 2, 35, 1), (1, 2, 2, 40, 2)]
)
def test_segment_similarity(run, dtype, batch, heads, frames, tokens, segments):
    keys = random(batch, heads, 1, tokens, 12) + 0.3 * random(batch, heads, frames, tokens, 12, seed=1)
    keys[:, :, 1, 0] = 0
    keys = keys.to(dtype)
    made, _ = run("segment_similarity", keys, segments)
    a, b = (keys.double()[:, :, part].movedim(1, 3).flatten(3) for part in (slice(0, -1), slice(1, None)))
    cosine = torch.nn.functional.cosine_similarity(a, b, dim=-1)
    check(made, cosine.unflatten(2, (segments, -1)).mean((0, 3)), dtype)


BLOCKS = {"BLOCK_M": 16, "BLOCK_N": 16, "BLOCK_D": 16}
SIGNATURES = {
    "norm_rope_store": (
        ["qkv", "q_norm_weight", "k_norm_weight", "out"],
        {"HEADS": 3, "SIZE": 16, "ALIGNED": True, "BLOCK_H": 4, "BLOCK_D": 16},
    ),
    "hybrid_attention": (["query", "out"], {"HEADS": 3, "LINES": 6, "SIZE": 16, "ALIGNED": True, **BLOCKS, "RUNS": 2}),
    "frame_mass": (["query", "keys"], {"HEADS": 3, "SIZE": 16, "PRECISION": "tf32", **BLOCKS, "BLOCK_F": 16}),
    "segment_similarity": (["keys"], {"HEADS": 3, "SIZE": 16, "PARTS": 2, "BLOCK_T": 16, "BLOCK_D": 16}),
}


@pytest.mark.parametrize("name", SIGNATURES)
def test_kernels_compile_for_a_gpu_that_is_not_here(name, tmp_path, monkeypatch):
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))
    kernel, (pointers, constants) = importlib.import_module(f"fkv.kernels.{name}")._kernel, SIGNATURES[name]
    other = {
        "table": "*i64",
        "page_frame": "*i64",
        "freqs_cis": "*fp32",
        "eps": "fp32",
        "scale": "fp32",
        "out": "*fp32",
    }
    types = {argument: other.get(argument, "i32") for argument in kernel.arg_names}
    types |= dict.fromkeys(pointers, "*bf16") | dict.fromkeys(constants, "constexpr")
    for like in ("*bf16", "*fp8e4nv") if "like" in types else ("*bf16",):
        types |= {"like": like} if "like" in types else {}
        compiled = triton.compile(ASTSource(kernel, types, constants), GPUTarget("cuda", 90, 32))
        assert "st.global" in compiled.asm["ptx"]


@pytest.mark.parametrize(
    "setting, policy",
    [
        ("1", "full"),
        ("1", "forcing-kv:segments_per_frame=2,start_chunk=0,fp8=true"),
        ("auto", "forcing-kv:segments_per_frame=2,start_chunk=0"),
    ],
)
def test_a_stream_through_the_kernels_is_the_stream_of_their_twins(pool, setting, policy):
    (expected, masses, _), (made, seen, found) = (pool.submit(stream, how, policy).result() for how in ("0", setting))
    limit = 1e-2 if "fp8" in policy else 1e-5
    torch.testing.assert_close(made, expected, atol=limit, rtol=1e-4)
    assert all(abs(ours - theirs).max() < limit for ours, theirs in zip(seen, masses, strict=True))
    assert bool(found) == (setting == "auto") and not any(choice.problem for choice in found)


def test_tokens_with_gaps_are_refused(interpreter):
    keys = random(1, 1, 8, 16)[:, :, ::2]
    with pytest.raises(ValueError, match="one after another"):
        interpreter("hybrid_attention", random(1, 1, 4, 16), [(keys, keys)])


def test_a_setting_that_there_is_not_is_refused_where_a_device_is_named(monkeypatch):
    monkeypatch.setenv(dispatch.TRITON_VARIABLE, "yes")
    with pytest.raises(ValueError, match="FKV_TRITON must be auto, 0 .* or 1 .*, not 'yes'"):
        registry.check_device("cpu")


@pytest.mark.parametrize("setting", [None, "0", "1", "auto"])
def test_cpu_tensors_take_the_twin(setting, monkeypatch):
    monkeypatch.setenv(dispatch.TRITON_VARIABLE, setting) if setting else monkeypatch.delenv(
        dispatch.TRITON_VARIABLE, raising=False
    )
    monkeypatch.setattr(kernels.segment_similarity, "triton", None)
    keys = random(1, 1, 2, 4, 8)
    assert torch.equal(kernels.segment_similarity(keys, 2), kernels.segment_similarity.twin(keys, 2))


@pytest.mark.parametrize(
    "made, problem",
    [
        (torch.tensor([1.0, 2.01]), "its result differs from PyTorch's"),
        (torch.tensor([1.0, math.nan]), "its result differs from PyTorch's"),
        (RuntimeError("out of shared memory"), "RuntimeError: out of shared memory"),
    ],
)
def test_triton_is_not_taken_where_it_fails_or_differs(made, problem, monkeypatch, caplog):
    monkeypatch.setattr(dispatch, "_choices", {})

    def call(implementation):
        if implementation == "torch":
            return [torch.tensor([1.0, 2.0])]
        if isinstance(made, Exception):
            raise made
        return [made]

    choice = dispatch.choose("sine", (torch.zeros(3, 4),), call)
    assert (choice.fastest, choice.problem, list(choice.seconds)) == ("torch", problem, ["torch"])
    assert f"the Triton kernel sine is not used: {problem}" in caplog.text


def test_one_launch_attends_for_all_rows(pool):
    (expected, *_), (made, launched, layers) = (pool.submit(rows, how).result() for how in ("0", "1"))
    torch.testing.assert_close(made, expected, atol=1e-5, rtol=1e-4)
    assert sorted(launched) == [2] * 4 * layers + [3] * 4 * layers, "two passes of two chunks, by order of heads"


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_every_kernel_agrees_with_its_twin_when_it_is_found_out(found_out, dtype):
    pages = [tuple(torch.zeros(1, 2, 9, 16, dtype=dtype) for _ in "kv")]
    stored = [(keys, values, torch.tensor([7, 1, 4, 3])) for keys, values in pages]
    query, gains = random(1, 2, 4, 16, dtype=dtype), random(2, 32)
    for name, *arguments in (
        ("norm_rope_store", random(1, 4, 96, dtype=dtype), gains, 1e-6, rope_freqs_cis([0], 2, 2, 16), stored),
        ("hybrid_attention", query, [(query, query)]),
        ("attention_of_rows", query, [[[(query, query)]]]),
        ("frame_mass", query, query, torch.tensor([1, 0]), 2),
        ("segment_similarity", random(1, 2, 2, 4, 16, dtype=dtype), 2),
    ):
        choice = found_out(name, *arguments)
        assert (choice.kernel, choice.problem, set(choice.seconds)) == (name, "", {"torch", "triton"})


def test_pages_that_a_kernel_writes_are_compared_too():
    groups = [(random(1, 2, 6, 8), random(1, 2, 6, 8, seed=1), torch.tensor([4, 1]))]
    keys, values = importlib.import_module("fkv.kernels.norm_rope_store")._written(None, None, 0.0, None, groups)
    assert torch.equal(keys, groups[0][0][:, :, [4, 1]]) and torch.equal(values, groups[0][1][:, :, [4, 1]])


def test_a_kernel_that_writes_nothing_is_not_taken(monkeypatch):
    monkeypatch.setattr(dispatch, "_choices", {})
    page = torch.zeros(4)

    def call(implementation):
        if implementation == "torch":
            page.fill_(1.0)
        return []

    assert (
        dispatch.choose("store", (page,), call, lambda: [page.clone()]).problem == "its result differs from PyTorch's"
    )


@pytest.mark.parametrize("torch_takes, taken", [(0.8, "torch"), (0.9, "triton"), (1.1, "triton")])
def test_chance_does_not_choose_between_ways_that_take_about_as_long(torch_takes, taken, monkeypatch):
    monkeypatch.setattr(dispatch, "_choices", {})
    monkeypatch.setattr(dispatch, "_seconds_of_one_thread", lambda run: run())
    assert (
        dispatch.fastest(
            "sine", (torch.zeros(3),), {"torch": lambda: torch_takes, "triton": lambda: 1.0}, dispatch.TORCH_MARGIN
        )
        == taken
    )


def test_the_faster_one_is_chosen_once_per_size(monkeypatch):
    monkeypatch.setattr(dispatch, "_choices", {})
    calls = []

    def call(implementation):
        calls.append(implementation)
        return [torch.zeros(1) if implementation == "triton" else torch.zeros(1_000_000).sin_()[:1]]

    choice = dispatch.choose("sine", (torch.zeros(3, 4),), call)
    assert (
        choice.fastest == "triton"
        and not choice.problem
        and choice.seconds["triton"] < choice.seconds["torch"]
        and dispatch.choices() == [choice]
    )
    count = len(calls)
    assert dispatch.choose("sine", (torch.ones(4, 3),), call) is choice and len(calls) == count
    assert dispatch.choose("sine", (torch.ones(3, 5),), call) is not choice
