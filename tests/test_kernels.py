"""The core's inner loops against plain definitions."""

import importlib
import math
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache

import pytest
import torch
from diffusers.models.transformers.transformer_wan import WanRotaryPosEmbed

from fkv.kernels import (
    apply_rope,
    attention,
    choose_attention,
    dispatch,
    frame_mass,
    linear,
    multiplies_fp8,
    packed,
    rope_freqs_cis,
    segment_similarity,
)
from fkv.kernels.linear import linear_onednn, linear_torch
from fkv.kernels.onednn import computes_bfloat16, multiplies_float32


@pytest.mark.parametrize("head_dim", [12, 32, 128])
def test_rope_is_diffusers_rope(head_dim):
    cos, sin = WanRotaryPosEmbed(head_dim, (1, 2, 2), 64)(torch.zeros(1, 1, 3, 8, 12))
    table = rope_freqs_cis(range(3), 4, 6, head_dim)
    assert torch.allclose(table.real, cos[0, :, 0, ::2].float(), atol=1e-5) and torch.allclose(
        table.imag, sin[0, :, 0, 1::2].float(), atol=1e-5
    )


def test_rope_turns_scores_by_distance_alone_at_any_position():
    q, k = torch.randn(1, 4, 2, 12), torch.randn(1, 4, 2, 12)
    scores = [
        (apply_rope(q, rope_freqs_cis([5 + s], 2, 2, 12)) * apply_rope(k, rope_freqs_cis([2 + s], 2, 2, 12))).sum(-1)
        for s in (0, 40, 5000)
    ]
    assert torch.allclose(scores[0], scores[1], atol=1e-4) and torch.allclose(scores[0], scores[2], atol=1e-3)


@pytest.mark.parametrize("block", [1, 7, 256])
def test_frame_mass_is_softmax_summed_over_frames(block):
    q, k = torch.randn(2, 3, 10, 8), torch.randn(2, 3, 15, 8)
    pages = torch.tensor([0, 2, 0, 2, 1])
    mass, frame = frame_mass(q, k, pages, 4, block), pages.repeat_interleave(3)
    full = (q @ k.transpose(-1, -2) / math.sqrt(8)).softmax(-1)
    assert torch.allclose(mass, torch.stack([full[..., frame == f].sum(-1) for f in range(4)], -1), atol=1e-6)
    assert torch.allclose(mass.sum(-1), torch.ones(2, 3, 10), atol=1e-5)


@pytest.mark.parametrize("dtype, limit", [(torch.float32, 1e-6), (torch.bfloat16, 3e-3), (torch.float16, 1e-3)])
@pytest.mark.parametrize("way", [linear, linear_torch, linear_onednn])
def test_a_linear_layer_either_way(dtype, limit, way):
    if way is linear_onednn and not (dtype == torch.bfloat16 and computes_bfloat16()):
        pytest.skip(f"{dtype} is not for oneDNN here")
    torch.manual_seed(0)
    x, weight, bias = (torch.randn(shape).to(dtype) for shape in ((2, 5, 12), (30, 12), (30,)))
    y = x.double() @ weight.double().T + bias.double()
    wanted = 0.5 * y * (1 + torch.tanh(math.sqrt(2 / math.pi) * (y + 0.044715 * y**3)))
    assert (way(x, weight, bias).double() - y).norm() <= limit * y.norm()
    assert (way(x, weight, bias, gelu=True).double() - wanted).norm() <= limit * wanted.norm()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32, torch.float16])
def test_a_packed_weight_makes_the_same_numbers(dtype):
    weight, bias = torch.randn(24, 16).to(dtype), torch.randn(24).to(dtype)
    stored, direct = packed(weight), dtype == torch.bfloat16 and computes_bfloat16()
    assert stored.is_mkldnn == direct and (direct or stored is weight)
    for tokens in (1, 7, 300):
        x = torch.randn(2, tokens, 16).to(dtype)
        assert all(torch.equal(linear(x, stored, bias, gelu), linear(x, weight, bias, gelu)) for gelu in (False, True))


def test_large_weights_and_those_in_eight_bits_are_not_packed():
    for weight in (
        torch.zeros(1024, 1024).bfloat16(),
        torch.zeros(16, 16).to(torch.float8_e4m3fn),
        torch.zeros(4, 4, device="meta"),
    ):
        assert packed(weight) is weight


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_a_linear_layer_compiles_before_it_ever_ran(dtype):
    computes_bfloat16.cache_clear()
    x, weight, bias = (torch.randn(shape).to(dtype) for shape in ((1, 5, 16), (24, 16), (24,)))
    made = torch.compile(linear, fullgraph=True, backend="eager")(x, weight, bias, gelu=True)
    assert (made - linear(x, weight, bias, gelu=True)).norm() <= (
        1e-2 if dtype == torch.bfloat16 else 1e-6
    ) * made.norm()


@pytest.fixture
def products(monkeypatch):
    """Attention as two products, few scores at a time."""
    module = importlib.import_module("fkv.kernels.attention")
    monkeypatch.setattr(module, "SCORES_PER_BLOCK", 500)
    monkeypatch.setattr(module, "MAX_QUERY_ROWS", 20)
    return module.attention_bmm


@pytest.mark.skipif(not multiplies_float32(), reason="oneDNN does not multiply float32 here")
@pytest.mark.parametrize(
    "dtype, stored", [(torch.float32,) * 2, (torch.bfloat16,) * 2, (torch.bfloat16, torch.float8_e4m3fn)]
)
@pytest.mark.parametrize(
    "batch, heads, tokens, held, size", [(2, 3, 35, 40, 16), (1, 5, 7, 3, 12), (1, 2, 20, 700, 128), (1, 0, 4, 5, 8)]
)
def test_attention_by_products(products, dtype, stored, batch, heads, tokens, held, size):
    torch.manual_seed(0)
    query = 3 * torch.randn(batch, tokens, heads, size).to(dtype).transpose(1, 2)
    keys, values = torch.randn(2, batch, heads, held + 8, size).to(stored)[:, :, :, :held].unbind(0)
    before = torch.backends.mkldnn.matmul.fp32_precision
    made = products(query, keys, values)
    exact = (query.double() @ keys.double().transpose(2, 3) / size**0.5).softmax(-1) @ values.double()
    assert made.shape == query.shape and made.dtype == dtype
    assert (made.double() - exact).norm() <= (1e-5 if dtype == torch.float32 else 2e-3) * exact.norm()
    assert torch.backends.mkldnn.matmul.fp32_precision == before


@pytest.mark.skipif(not multiplies_float32(), reason="oneDNN does not multiply float32 here")
def test_other_products_are_as_before_when_many_threads_attend_and_some_fail(products):
    query, short = torch.randn(1, 2, 16, 8).bfloat16(), torch.randn(1, 1, 16, 8).bfloat16()

    def attend(number):
        try:
            return products(query, query, query if number % 3 else short).shape
        except RuntimeError:
            return None

    with ThreadPoolExecutor(4) as pool:
        assert [*pool.map(attend, range(60))] == [query.shape if number % 3 else None for number in range(60)]
    x = torch.full((1, 64), 1 + 2**-12)
    assert torch.backends.mkldnn.matmul.fp32_precision != "bf16" and torch.equal(x @ torch.eye(64), x)


@pytest.mark.parametrize("exact, seconds, fastest", [(True, 0.8, "products"), (True, 0.6, "torch"), (False, 2, None)])
def test_products_attend_to_much_where_they_are_exact_and_pytorch_is_not_much_faster(
    exact, seconds, fastest, monkeypatch
):
    module = importlib.import_module("fkv.kernels.attention")
    monkeypatch.setattr(dispatch, "_choices", {})
    monkeypatch.setattr(module, "MIN_SCORES", 2 * 4 * 6)
    monkeypatch.setattr(module, "_backend_for", lru_cache(module._backend_for.__wrapped__))
    monkeypatch.setattr(module, "multiplies_float32", lambda: exact and multiplies_float32())
    monkeypatch.setattr(
        dispatch,
        "_seconds_of_one_thread",
        lambda run: {"attention_sdpa": seconds, "attention_bmm": 1}[run.func.__name__],
    )
    query, keys = torch.randn(1, 2, 4, 16), torch.randn(1, 2, 6, 16)
    types = ((torch.float32, 1e-5), (torch.bfloat16, 0.02), (torch.float16, 0.002))

    def check(keys):
        for dtype, limit in types:
            q, k = query.to(dtype), keys.to(dtype)
            assert (attention(q, k, k) - module.attention_sdpa(q, k, k)).abs().max() < limit

    check(keys[:, :, :5])
    assert not dispatch.choices()
    for dtype, _ in types:
        choose_attention(16, dtype)
    monkeypatch.setattr(dispatch, "_seconds_of_one_thread", None)  # measured once
    check(keys)
    taken = [(choice.kernel, choice.fastest, choice.seconds) for choice in dispatch.choices()]
    assert taken == [("attention", fastest, {"torch": seconds, "products": 1})] * (
        2 if exact and multiplies_float32() else 0
    )


@pytest.mark.skipif(not multiplies_fp8("cpu"), reason="this CPU does not multiply 8-bit numbers")
def test_a_linear_layer_in_eight_bits():
    torch.manual_seed(0)
    x, bias = (torch.randn(2, 5, 32) * torch.logspace(-6, 6, 5)[:, None]).bfloat16(), torch.randn(48).bfloat16()
    weight = torch.randn(48, 32).to(torch.float8_e4m3fn)
    x[0, 0] = 0
    wide, narrow = (linear(x, weight, bias, gelu=True, fast=fast).double() for fast in (False, True))
    exact = torch.nn.functional.gelu(x.double() @ weight.double().T + bias.double(), approximate="tanh")
    for made, limit in ((wide, 4e-3), (narrow, 4e-2)):
        assert ((made - exact).norm(dim=2) <= limit * exact.norm(dim=2)).all()
    assert torch.equal(narrow[0, 0], wide[0, 0])


def test_similarity_is_one_where_nothing_moved_and_low_where_it_did():
    keys = torch.randn(1, 2, 1, 12, 8).repeat(1, 1, 3, 1, 1)
    keys[:, :, 2, 4:8] = -keys[:, :, 2, 4:8]
    scores = segment_similarity(keys, 3)
    assert torch.allclose(scores, torch.tensor([[1.0, 1.0, 1.0], [1.0, -1.0, 1.0]]), atol=1e-5)
