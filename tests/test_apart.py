"""Chunks that lie apart from the pages: the same frames, in less memory, at no cost to other policies."""

from __future__ import annotations

from itertools import product

import pytest
import torch

from fkv import policies
from fkv.cache import area, group, kv_cache
from fkv.models.release import BASES
from fkv.policies import POLICIES, forcing_kv
from fkv.probe import FrameMassProbe
from fkv.stream import Stream

APART = (
    "forcing-kv:segments_per_frame=4",
    "forcing-kv:segments_per_frame=4,fp8=true",
    "forcing-kv:segments_per_frame=2,sink_frames=0,dynamic_anchor_frames=3,dynamic_frames=0",
    "no-anchor:segments_per_frame=4,start_chunk=3",
    "forcing-kv:segments_per_frame=4,context_noise=0.05 without 1.2+2.0",
)


@pytest.fixture(autouse=True)
def _large(monkeypatch):
    """Small models count as large ones."""
    monkeypatch.setattr(forcing_kv, "APART_FROM", 0)


def both(small, monkeypatch, text, work):
    """What `work` makes of a stream whose chunks lie apart, and of one that writes them among the other pages."""
    made = []
    for apart in (True, False):
        with monkeypatch.context() as patch:
            if not apart:
                patch.setattr(forcing_kv, "APART_FROM", 10**12)
            stream = Stream(small, policies.parse(text), "a red ball over the sea", seed=3, decode=False)
            made.append(work(stream))
    return made


def assert_same(one, other):
    assert torch.equal(one.latents, other.latents)
    assert (one.kv_tokens, one.kv_bytes, one.kv_bytes_between) == (
        other.kv_tokens,
        other.kv_bytes,
        other.kv_bytes_between,
    )


@pytest.mark.parametrize("text", APART)
def test_frames_are_the_same_to_the_last_bit_and_memory_is_less(small, monkeypatch, text):
    apart, among = both(small, monkeypatch, text, lambda stream: [stream.step() for _ in range(6)])
    for one, other in zip(apart, among, strict=True):
        assert_same(one, other)
    assert apart[-1].kv_bytes_allocated < among[-1].kv_bytes_allocated
    assert among[-1].kv_bytes_allocated == pytest.approx(among[-1].kv_bytes, rel=0.15)


def test_changes_forks_and_repeats_on_the_way_are_the_same(small, monkeypatch):
    def work(stream):
        chunks = [stream.step() for _ in range(3)]
        place = stream.snapshot()
        chunks.append(stream.step())
        stream.restore(place)
        chunks += [stream.step(), stream.fork().step(), stream.step()]
        stream.set_prompt("a blue star", recache=True)
        chunks.append(stream.step())
        stream.set_policy(policies.make("full"))
        chunks += [stream.step() for _ in range(2)]
        stream.set_policy(policies.parse(APART[0]))
        stream.set_roles(small.roles.flipped(1, 3))
        return [*chunks, *(stream.step() for _ in range(3))]

    made, among = both(small, monkeypatch, APART[0], work)
    for one, other in zip(made, among, strict=True):
        assert_same(one, other)
    assert torch.equal(made[3].latents, made[4].latents) and torch.equal(made[5].latents, made[6].latents)


def test_a_fork_that_shares_pages_keeps_its_chunks_among_them(small):
    stream = Stream(small, policies.parse(APART[0]), "a red ball", decode=False)
    [stream.step() for _ in range(3)]
    plain, sharing = stream.fork(), stream.fork(share=True)
    for _ in range(3):
        torch.testing.assert_close(sharing.step().latents, plain.step().latents, atol=1e-4, rtol=1e-3)
    assert sharing.caches[0].shares_pages


def test_probes_see_the_same(small, monkeypatch):
    def work(stream):
        probe = FrameMassProbe(passes=None)
        for _ in range(4):
            stream.step(probe)
        return probe.take()

    for one, other in zip(*both(small, monkeypatch, APART[0], work), strict=True):
        assert one.key_frames == other.key_frames and (one.mass == other.mass).all()


@pytest.mark.parametrize("text", ["full", "sliding-window", APART[0]])
def test_pages_are_copied_for_no_other_policy(small, monkeypatch, text):
    calls = []
    for module, name in product((area, group, kv_cache), ("take", "put")):
        kernel = getattr(module, name)
        monkeypatch.setattr(module, name, lambda *a, name=name, kernel=kernel: calls.append(name) or kernel(*a))
    stream = Stream(small, policies.parse(text), "a red ball", decode=False)
    [stream.step() for _ in range(4)]
    calls.clear()
    chunk = stream.step()
    groups = sum(map(len, stream.caches[0].slices))
    if text == APART[0]:
        # K and V in every pass, what stays in the last one, and the keys by which the policy chooses.
        read_again = len(stream.caches[0].slices[1])
        assert calls.count("put") == 2 * (groups * (chunk.passes + 1) + read_again)
        assert calls.count("take") == calls.count("put") + 1
    else:
        assert calls == []


def test_only_policies_that_read_pages_as_they_are_stored_may_lie_apart(small):
    for policy in (cls() for cls in POLICIES.values()):
        if policy.apart(small.geometry):
            assert type(policy).reads is POLICIES["full"].reads and not policy.edits_pages
            assert not policy.watches_attention and policy.caches == "shared"


def test_small_models_keep_the_faster_layout(small, monkeypatch):
    monkeypatch.undo()
    policy = policies.make("forcing-kv")
    assert not policy.apart(small.geometry) and policy.apart(BASES["wan-1.3b"].geometry("480p"))
