"""Streams that share a past: forks go on from it independently, and their noise is reproducible."""

import dataclasses

import numpy as np
import pytest
import torch

from fkv import policies
from fkv.cache import kv_cache, unique_bytes
from fkv.models.vae import StreamingVae
from fkv.policies import POLICIES, Policy
from fkv.sampler import BranchNoise, SeededNoise
from fkv.stream import Stream
from fkv.transformer import attention

POLICIES_BY_NAME = {
    name: cls(
        **({"segments_per_frame": 6} if "segments_per_frame" in {f.name for f in dataclasses.fields(cls)} else {})
    )
    for name, cls in POLICIES.items()
}


def stream(model, policy="forcing-kv:segments_per_frame=6", **options):
    policy = policies.parse(policy) if isinstance(policy, str) else policy
    return Stream(model, policy, "a red ball over the sea", **options)


def assert_equal(chunk, other):
    assert torch.equal(chunk.latents, other.latents) and np.array_equal(chunk.video, other.video)
    assert (chunk.index, chunk.kv_bytes, chunk.kv_tokens) == (other.index, other.kv_bytes, other.kv_tokens)


@pytest.mark.parametrize("name", POLICIES)
def test_both_branches_go_on_as_the_stream_that_was_never_forked(name, small):
    plain, trunk = (stream(small, POLICIES_BY_NAME[name], decode=name == "full") for _ in range(2))
    for _ in range(3):
        assert_equal(trunk.step(), plain.step())
    branch = trunk.fork()
    other = trunk.fork(noise=SeededNoise(9))
    for _ in range(3):
        wanted = plain.step()
        assert_equal(branch.step(), wanted)
        assert not torch.equal(other.step().latents, wanted.latents)
        assert_equal(trunk.step(), wanted)


def test_a_branch_changes_prompt_and_policy_alone(small):
    plain, trunk = stream(small), stream(small)
    [(plain.step(), trunk.step()) for _ in range(3)]
    prompted, switched = trunk.fork(), trunk.fork()
    prompted.set_prompt("a blue star", recache=True)
    switched.set_policy(policies.make("full"))
    switched.set_roles(small.roles.flipped(1, 3))
    for _ in range(2):
        chunks = [live.step() for live in (prompted, switched, trunk)]
        assert [chunk.prompt for chunk in chunks] == ["a blue star", *["a red ball over the sea"] * 2]
        assert [chunk.policy for chunk in chunks] == ["forcing-kv", "full", "forcing-kv"]
        assert_equal(chunks[2], plain.step())


def test_a_stream_with_changes_that_wait_is_not_forked(small):
    live = stream(small)
    with pytest.raises(ValueError, match="changes wait for the next chunk; generate it, then fork"):
        live.fork()
    live.step()
    live.set_policy(policies.make("full"))
    with pytest.raises(ValueError, match="changes wait"):
        live.fork()
    live.step()
    assert live.fork().policy.name == "full"


def test_a_decoder_that_cannot_copy_its_state_leaves_branches_without_video(small):
    class Decoder:
        copy = StreamingVae.copy

        def __call__(self, latents, state):
            return small.decoder(latents, state)

    live = stream(dataclasses.replace(small, decoder=Decoder()))
    live.step()
    with pytest.raises(ValueError, match="too large to copy.*--decoder small"):
        live.fork()
    branch = live.fork(decode=False)
    chunk, wanted = branch.step(), live.step()
    assert chunk.video is None and torch.equal(chunk.latents, wanted.latents) and wanted.video is not None


def test_branch_0_draws_the_plain_noise_and_others_their_own():
    plain, branched = SeededNoise(4), BranchNoise(4, (0, 2))
    shape = (1, 3, 4, 2, 2)
    assert torch.equal(branched.initial(0, shape), plain.initial(0, shape))
    assert torch.equal(branched.between(5, 1, shape), plain.between(5, 1, shape)), "the path has ended"
    drawn = [
        draw
        for noise in (plain, branched, BranchNoise(4, (0, 1)), BranchNoise(5, (0, 2)))
        for draw in (noise.initial(1, shape), noise.between(1, 0, shape))
    ]
    assert not any(torch.equal(a, b) for i, a in enumerate(drawn) for b in drawn[:i])
    assert torch.equal(branched.between(1, 0, shape), BranchNoise(4, (7, 2)).between(1, 0, shape))


def test_a_stream_that_was_never_forked_makes_the_kernel_calls_that_it_made(small, monkeypatch):
    calls = []
    for name in ("hybrid_attention", "attention_over_runs"):
        kernel = getattr(attention, name)
        monkeypatch.setattr(attention, name, lambda *a, name=name, kernel=kernel: calls.append(name) or kernel(*a))
    join = kv_cache.join
    monkeypatch.setattr(kv_cache, "join", lambda buffers: calls.extend(["copy"] * (len(buffers) - 1)) or join(buffers))
    live = stream(small)
    for _ in range(4):
        calls.clear()
        live.step()
        assert calls == ["hybrid_attention"] * 3 * small.transformer.layers, "two steps and the context pass"
    monkeypatch.undo()


def test_a_stream_that_pays_for_its_past_alone_again_is_as_before(small):
    """Once no page of the past is left, and once all branches are gone."""
    trunk = stream(small, "sliding-window:window_frames=6,sink_frames=0")
    [trunk.step() for _ in range(3)]
    branch = trunk.fork(share=True)
    assert unique_bytes([*trunk.caches, *branch.caches]) == unique_bytes(trunk.caches)
    [trunk.step() for _ in range(3)]
    assert not trunk.caches[0].shares_pages and trunk.caches[0].allocated_bytes() == trunk.caches[0].bytes() * 2
    assert branch.caches[0].shares_pages


READS_OTHERWISE = [
    name for name, rule in POLICIES.items() if rule.reads is not Policy.reads or rule.select is not Policy.select
]
"""Policies that read or rewrite pages in ways of their own, to which the number of bits of a key may matter."""


@pytest.mark.parametrize(
    ("name", "fp8"), [*((name, False) for name in POLICIES), *((name, True) for name in ("full", *READS_OTHERWISE))]
)
def test_branches_that_share_pages_show_what_those_show_that_copy_them(name, fp8, small):
    policy = dataclasses.replace(POLICIES_BY_NAME[name], fp8=fp8)
    plain, trunk = (stream(small, policy, decode=False) for _ in range(2))
    branches = []
    for chunk in range(4):
        plain.step(), trunk.step(), [branch.step() for branch in branches]
        if chunk % 2:
            branches.append(trunk.fork(noise=SeededNoise(9), share=True))
            branches.append(trunk.fork(share=True))
    wanted = [plain.step() for _ in range(3)]
    for live in (trunk, branches[1], branches[-1]):
        for chunk in wanted:
            made = live.step()
            torch.testing.assert_close(made.latents, chunk.latents, atol=0.02 if fp8 else 1e-4, rtol=1e-3)
            assert (made.kv_bytes, made.kv_tokens) == (chunk.kv_bytes, chunk.kv_tokens)
