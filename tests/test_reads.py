"""What a pass reads: keys turned from what is stored, weights merged exactly, nothing extra for other policies."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from fkv import policies
from fkv.cache import KVCache
from fkv.kernels import merged_attention, rope_freqs_cis
from fkv.pages import Geometry, Reads
from fkv.policies import POLICIES, Policy
from fkv.stream import Stream

GEOMETRY = Geometry(layers=1, heads=2, head_dim=12, rows=2, cols=3)
PLAIN = [name for name, policy in POLICIES.items() if policy.reads is Policy.reads and policy.select is Policy.select]


def filled(dtype: torch.dtype) -> tuple[KVCache, torch.Tensor]:
    """A cache of one chunk at positions 0 to 2, and its keys, [batch, heads, tokens, head_dim]."""
    cache = KVCache(GEOMETRY, GEOMETRY.every_head, dtype=dtype)
    cache.begin((0, 1, 2))
    keys = torch.randn(1, 18, 2, 12, generator=torch.Generator().manual_seed(0)).to(dtype)
    cache.write(0, keys, keys)
    return cache, keys.transpose(1, 2)


def test_keys_read_far_away_for_320_chunks_do_not_drift_in_bfloat16():
    cache, keys = filled(torch.bfloat16)
    pairs = torch.view_as_complex(keys.double().unflatten(-1, (-1, 2)))
    for chunk in range(1, 321):
        cache.reading.choose({"all": Reads(np.arange(3), np.arange(3) + 3 * chunk)})
        ((_, _, read, _),) = cache.read(0)
    turn = rope_freqs_cis([3 * 320], 1, 1, 12)[0].to(torch.complex128)
    exact = torch.view_as_real(pairs * turn).flatten(-2)
    assert ((read.double() - exact).abs() <= exact.abs() * 2**-8 + 1e-6).all()  # one rounding, not 320


def test_editing_what_was_read_before_rope_changes_nothing():
    cache, keys = filled(torch.float32)
    index = np.array([2, 0])
    cache.edit(0, "all", index, *cache.unrotated(0, "all", index))
    ((_, _, read, _),) = cache.read(0)
    torch.testing.assert_close(read, keys)
    assert cache.groups["all"].pages.edited.tolist() == [True, False, True]


@pytest.mark.parametrize("weights", [(0.0, 0.0), (-1.5, 0.7), (0.0, -30.0)])
def test_merged_segments_equal_attention_to_their_concatenation(weights):
    query, keys, values = (torch.randn(1, 2, tokens, 12, generator=torch.Generator().manual_seed(tokens))
                           for tokens in (5, 9, 10))  # fmt: skip
    values = values[:, :, :9]
    made = merged_attention(
        query, [(keys[:, :, :4], values[:, :, :4], weights[0]), (keys[:, :, 4:], values[:, :, 4:], weights[1])]
    )
    scores = query.double() @ keys.double().transpose(2, 3) * 12**-0.5 + torch.tensor(weights).repeat_interleave(
        torch.tensor([4, 5])
    )
    torch.testing.assert_close(made.double(), scores.softmax(-1) @ values.double(), atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize("name", PLAIN)
def test_a_policy_that_reads_everything_gathers_nothing(small, name, monkeypatch):
    def gathered(*_):
        raise AssertionError("pages were gathered")

    monkeypatch.setattr(KVCache, "_gathered", gathered)
    text = f"{name}:segments_per_frame=4" if hasattr(POLICIES[name], "segments_per_frame") else name
    stream = Stream(small, policies.parse(text), "a ball", decode=False)
    for _ in range(4):
        stream.step()


def test_plain_policies_are_those_of_the_first_release():
    assert {"full", "sliding-window", "forcing-kv", "recompute", "per-step"} <= set(PLAIN)


@pytest.mark.parametrize("name", ["infinity-rope", "recency", "tether-cache", "deep-forcing", "commit:3 ema-sink"])
def test_a_flush_leaves_three_frames_and_a_stream_that_goes_on(small, name):
    stream = Stream(small, policies.parse(name), "a ball", decode=False)
    for _ in range(8):
        stream.step()
    stream.flush()
    chunk = stream.step()
    assert "flush" in chunk.events and torch.isfinite(chunk.latents).all()
    assert torch.isfinite(stream.step().latents).all()
