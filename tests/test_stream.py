"""Streams: changes while they run, endless positions, no hidden copies."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from fkv import policies
from fkv.comparison import interleave
from fkv.kernels import apply_rope, rope_freqs_cis
from fkv.policies.forcing_kv import ForcingKV
from fkv.probe import FrameMassProbe
from fkv.roles import HeadRoles
from fkv.stream import Stream
from fkv.stream.passes import POSITION_LIMIT

HYBRID = ForcingKV(segments_per_frame=4)


def stream(model, policy=HYBRID, prompt="a red ball over the sea", **options):
    return Stream(model, policy, prompt, **options)


def test_public_objects_are_shown_in_a_line(small):
    probe = FrameMassProbe()
    live = stream(small, prompt="a red ball over the sea " * 50)
    chunk = live.step(probe)
    roles = replace(small.roles, provenance={"prompts": ["a ball"] * 1000}, scores=np.zeros((3, 4)))
    model = replace(small, roles=roles)
    shown = [repr(each) for each in (model, roles, live, chunk, live.snapshot(), *probe.take(), small.schedule)]
    shown += [repr(policies.make(name)) for name in policies.POLICIES]
    assert not [text for text in shown if "\n" in text or len(text) > 240]
    assert shown[0].startswith(f"VideoModel({small.name!r}") and "3 layers x 4 heads, fp32 on cpu" in shown[0]
    assert shown[1] == f"HeadRoles(3 layers x 4 heads, {len(np.flatnonzero(roles.is_static()))} of 12 heads static)"
    assert "next chunk 1" in shown[2] and "a red ball" in shown[2]


def test_switching_policy_drops_at_once_and_grows_from_what_is_held(small):
    live = stream(small, policies.make("full"))
    made = []
    for index in range(9):
        if index == 4:
            live.set_policy(HYBRID)
        if index == 6:
            live.set_policy(policies.make("full"))
        made.append(live.step())
    frames = [chunk.context_frames for chunk in made]
    assert frames[:4] == [3, 6, 9, 12]
    assert made[4].kv_bytes < made[3].kv_bytes and frames[4] <= 8
    assert frames[6] < frames[7] < frames[8] and made[8].kv_bytes > made[6].kv_bytes
    assert made[4].events == ("policy: forcing-kv",) and made[5].events == ()


def test_a_switch_between_equal_policies_changes_nothing(small):
    plain, switched = stream(small), stream(small)
    for index in range(6):
        if index == 4:
            switched.set_policy(HYBRID)
        assert torch.equal(plain.step().latents, switched.step().latents)


@pytest.mark.parametrize(
    "change",
    [
        lambda live: live.set_policy(ForcingKV(segments_per_frame=4)),
        lambda live: live.set_roles(HeadRoles(live.roles.num_heads, live.roles.static)),
        lambda live: live.set_prompt("a red ball over the sea"),
        lambda live: [live.set_policy(policies.make("full")), live.set_policy(HYBRID)],
        lambda live: [live.set_roles(live.roles.flipped(1, 1)), live.set_roles(live.roles)],
        lambda live: [live.set_prompt("a blue star"), live.set_prompt("a red ball over the sea")],
    ],
)
def test_a_change_to_what_already_is_has_no_effect_and_no_event(small, change):
    plain, changed = stream(small), stream(small)
    for _ in range(5):
        change(changed)
        chunk = changed.step()
        assert torch.equal(chunk.latents, plain.step().latents) and chunk.events == ()


def test_roles_do_not_touch_the_cache_of_a_policy_that_ignores_them(small):
    plain, changed = (stream(small, policies.make("sliding-window")) for _ in range(2))
    for _ in range(5):
        changed.set_roles(changed.roles.flipped(1, 1))
        assert torch.equal(changed.step().latents, plain.step().latents)


def test_a_policy_that_does_not_fit_the_model_is_refused_and_the_stream_goes_on(small):
    live = stream(small)
    live.step()
    with pytest.raises(ValueError, match="5 segments do not divide the 12 tokens"):
        live.set_policy(ForcingKV(segments_per_frame=5))
    with pytest.raises(ValueError, match="for 1 layers of 4 heads, the model has 3 of 4"):
        live.set_roles(HeadRoles(4, ((0,),)))
    assert live.step().policy == "forcing-kv"


def test_roles_can_be_changed_while_streaming(small):
    live = stream(small)
    [live.step() for _ in range(4)]
    live.set_roles(small.roles.flipped(1, 3))
    chunk = live.step()
    assert 3 in live.caches[0].groups["static"].heads[1] and torch.isfinite(chunk.latents).all()


def test_a_new_prompt_changes_the_video_and_recaching_changes_it_too(small):
    videos = []
    for prompt, recache in ((None, False), ("a blue star over the city", False), ("a blue star over the city", True)):
        live = stream(small)
        [live.step() for _ in range(3)]
        if prompt:
            live.set_prompt(prompt, recache)
        chunk = live.step()
        assert chunk.timings.text > 0 if prompt else chunk.timings.text == 0
        assert (chunk.timings.rebuild > 0) == recache
        videos.append(chunk.latents)
    assert not torch.allclose(videos[0], videos[1]) and not torch.allclose(videos[1], videos[2])


def test_recaching_the_same_prompt_under_full_changes_nothing(small):
    plain, recached = stream(small, policies.make("full")), stream(small, policies.make("full"))
    [(plain.step(), recached.step()) for _ in range(3)]
    recached.set_prompt("a red ball over the sea", recache=True)
    assert torch.allclose(plain.step().latents, recached.step().latents, atol=1e-5)


def test_recaching_holds_the_same_pages(small):
    live = stream(small)
    [live.step() for _ in range(4)]
    before = {n: set(zip(g.pages.frame, g.pages.segment, strict=True)) for n, g in live.caches[0].groups.items()}
    live.set_prompt("a blue star", recache=True)
    chunk = live.step()
    held = {
        n: set(zip(p.frame, p.segment, strict=True)) - {(f, s) for f in chunk.frames for s in range(4)}
        for n, p in chunk.pages.items()
    }
    assert held == before


def test_policies_that_store_different_things_cannot_be_exchanged(small):
    live = stream(small)
    live.step()
    with pytest.raises(ValueError, match="start a new stream"):
        live.set_policy(policies.make("per-step"))
    with pytest.raises(ValueError, match="no shared cache"):
        stream(small, policies.make("per-step")).set_prompt("a ball", recache=True)


@pytest.mark.parametrize(
    "prompt, message", [("", "empty"), ("   ", "empty"), ("a" * 10_000, "10,000 characters; at most 4,000")]
)
def test_bad_prompts(small, prompt, message):
    with pytest.raises(ValueError, match=message):
        Stream(small, HYBRID, prompt)


def test_emoji_prompts_stream(small):
    assert Stream(small, HYBRID, "🎈🎈 ballon rouge ﷽").step().video is not None


@pytest.mark.parametrize("seed", [-1, 2**40, 1.5, True, "7"])
def test_bad_seeds(small, seed):
    with pytest.raises(ValueError, match="seed must be a whole number"):
        Stream(small, HYBRID, "a ball", seed=seed)


def test_memory_and_buffers_stay_put_in_a_steady_stream(small):
    live = stream(small)
    [live.step() for _ in range(5)]
    pointers = lambda: [b.data_ptr() for g in live.caches[0].groups.values() for b in (*g.keys, *g.values)]  # noqa: E731
    before, bytes_before = pointers(), live.step().kv_bytes
    for _ in range(50):
        chunk = live.step()
        assert chunk.kv_bytes == bytes_before
    assert pointers() == before and len(live._state.latents) <= 3


def test_a_steady_pass_concatenates_and_allocates_nothing_of_the_caches_size(small):
    live = stream(small, policies.make("sliding-window", window_frames=60), decode=False)
    [live.step() for _ in range(22)]
    cache = live.caches[0]
    layer_bytes = cache.bytes() // (2 * small.transformer.layers)
    with torch.profiler.profile(profile_memory=True, record_shapes=True) as profile:
        live.step()
    cached_tokens = cache.tokens()["all"]
    for event in profile.events():
        if event.name == "aten::cat":
            assert all(cached_tokens not in shape for shape in event.input_shapes if shape), (
                "cached keys were concatenated"
            )
        if event.name in ("aten::index_copy_", "aten::scaled_dot_product_attention", "aten::index_select"):
            assert event.self_cpu_memory_usage < layer_bytes


def test_a_sink_far_back_moves_along_and_its_stored_keys_with_it(small):
    def keys():
        return (
            live.caches[0].keys_of(0, "all", [0]).flatten(2, 3).transpose(1, 2)
        )  # [batch, tokens, heads, head_dim], as RoPE takes them

    live = stream(small, policies.make("forcing-kv"))
    live.step()
    before, moved = keys(), POSITION_LIMIT // 2
    for distance in (moved, 2 * moved):
        live.restore(replace(live.snapshot(), index=(moved + distance) // 3 + 5))
        chunk = live.step()
        assert live.caches[0].positions_of([0]) == [distance] and torch.isfinite(chunk.latents).all()
        turns = rope_freqs_cis([distance], 1, 1, small.transformer.head_dim).expand(before.shape[1], -1)
        assert torch.allclose(keys(), apply_rope(before, turns), atol=1e-4)


def test_the_sink_moves_along_in_every_cache(small):
    live = stream(small, policies.make("per-step"), decode=False)
    live.step()
    before = [cache.keys_of(0, "all", [0]) for cache in live.caches]
    live.restore(replace(live.snapshot(), index=POSITION_LIMIT // 3 + 5))
    live.step()
    for old, cache in zip(before, live.caches, strict=True):
        assert not torch.equal(old, cache.keys_of(0, "all", [0]))


@pytest.mark.parametrize("name", ["full", "forcing-kv:segments_per_frame=4", "per-step", "recompute:window_frames=6"])
def test_a_restored_stream_generates_the_same_chunk_again(small, name):
    live = stream(small, policies.parse(name), decode=False)
    [live.step() for _ in range(3)]
    place = live.snapshot()
    first = live.step()
    for _ in range(2):
        live.restore(place)
        again = live.step()
        assert again.index == first.index and again.kv_tokens == first.kv_tokens
        assert torch.equal(again.latents, first.latents)


def test_a_stream_is_changed_through_its_methods_alone(small):
    live = stream(small)
    for name in ("index", "prompt", "policy", "roles", "caches", "next_policy"):
        with pytest.raises(AttributeError):
            setattr(live, name, None)


def test_decoding_chunk_by_chunk_is_decoding_the_whole(small):
    live, latents, videos = stream(small), [], []
    for _ in range(3):
        chunk = live.step()
        latents.append(chunk.latents), videos.append(chunk.video)
    whole, _ = small.decoder(torch.cat(latents, 1), None)
    assert np.abs(whole.astype(int) - np.concatenate(videos).astype(int)).max() <= 1


def test_two_streams_share_a_model_without_mixing(small):
    alone = [stream(small, seed=1).step().latents, stream(small, policies.make("full"), seed=2).step().latents]
    a, b = stream(small, seed=1), stream(small, policies.make("full"), seed=2)
    assert torch.equal(a.step().latents, alone[0]) and torch.equal(b.step().latents, alone[1])


def test_streams_in_turn_go_first_by_turns(small):
    assert [which for which, _ in interleave([stream(small), stream(small)], 3)] == [0, 1, 1, 0, 0, 1]


def test_policy_and_roles_changed_at_one_border_are_both_taken(small):
    stream, other = Stream(small, policies.parse("forcing-kv"), "a", seed=1), small.roles.flipped(0, 0)
    stream.step()
    stream.set_policy(policies.parse("forcing-kv:retention=0.5"))
    stream.set_roles(other)
    stream.step()
    assert (stream.policy, stream.roles) == (policies.parse("forcing-kv:retention=0.5"), other)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_values_that_are_not_finite_end_the_stream_with_a_sentence(value, small):
    stream = Stream(small, policies.parse("forcing-kv"), "a red ball")
    stream.step()
    bias = small.transformer.model.proj_out.bias.data
    before = bias.clone()
    bias[0] = value
    try:
        with pytest.raises(ValueError, match=r"chunk 2 came out with values that are not finite .*--precision bf16"):
            stream.step()
    finally:
        bias.copy_(before)
    assert Stream(small, policies.parse("forcing-kv"), "a red ball").step().latents.isfinite().all()


def test_steps_change_between_chunks_and_come_back(small):
    live, plain, short = stream(small), stream(small), stream(small.with_steps(1))
    live.set_steps(2)  # those that it has
    live.set_steps(1)
    one = live.step()
    live.set_steps(2)
    two = live.step()
    assert (one.steps, one.events, two.steps, two.events) == (1, ("steps: 1",), 2, ("steps: 2",))
    assert torch.equal(one.latents, short.step().latents)
    assert not torch.equal(one.latents, plain.step().latents) and small.schedule == plain.model.schedule


def test_steps_are_set_before_a_policy_with_a_cache_for_each(small):
    live = stream(small)
    live.set_steps(1)
    live.set_policy(policies.make("per-step"))
    live.step()
    assert len(live.caches) == 1
    with pytest.raises(ValueError, match="keeps a cache for each step"):
        live.set_steps(2)
