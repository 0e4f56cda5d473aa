"""Every registered policy passes the same matrix by being registered; then what each one promises."""

import dataclasses
import functools
import re
from typing import Annotated

import numpy as np
import pytest
import torch
from pydantic import Field

from fkv import policies
from fkv.comparison import labels_of
from fkv.parameters import Count, Share, check, describe
from fkv.policies import POLICIES, Policy
from fkv.policies.dummy_forcing import CLASSES
from fkv.policies.forcing_kv import ForcingKV
from fkv.policies.full import Full
from fkv.policies.silenced import silence
from fkv.policies.sliding_window import SlidingWindow
from fkv.policies.wrapper import Wrapper
from fkv.roles import HeadRoles
from fkv.stream import Stream

PARAMETERS = {
    cls: {"segments_per_frame": 6} if "segments_per_frame" in {f.name for f in dataclasses.fields(cls)} else {}
    for cls in POLICIES.values()
}
PARAMETERS[POLICIES["shot-sink"]] = {"window_frames": 21}  # full within the chunks of these tests


def run(model, policy, chunks, **options):
    stream = Stream(model, policy, "a red ball over the sea", seed=1, **options)
    return [stream.step() for _ in range(chunks)]


@pytest.fixture(scope="module")
def streamed(small):
    """The first four chunks of a policy by its name, generated once."""
    return functools.cache(lambda name: run(small, POLICIES[name](**PARAMETERS[POLICIES[name]]), 4))


@pytest.mark.parametrize("name", POLICIES)
class TestEveryPolicy:
    def make(self, name):
        return POLICIES[name](**PARAMETERS[POLICIES[name]])

    def test_describes_itself(self, name):
        assert POLICIES[name].name == name and len(POLICIES[name].help) > 20 and POLICIES[name].__doc__

    def test_is_written_and_read_back(self, name):
        assert policies.parse(policies.write(self.make(name))) == self.make(name)

    def test_streams_finite_video_and_reproduces_it(self, name, small, streamed):
        for a, b in zip(streamed(name), run(small, self.make(name), 4, decode=False), strict=True):
            assert torch.isfinite(a.latents).all() and torch.equal(a.latents, b.latents)
            assert a.video.shape == (12, 32, 96, 3) and a.video.dtype == np.uint8

    def test_first_chunk_is_that_of_full(self, name, streamed):
        assert torch.allclose(streamed(name)[0].latents, streamed("full")[0].latents, atol=1e-5)

    def test_streams_nearly_the_same_from_a_quarter_of_the_bytes_in_8_bits(self, name, small, streamed):
        eight = dataclasses.replace(self.make(name), fp8=True)
        assert policies.parse(policies.write(eight)) == eight
        for wide, narrow in zip(streamed(name)[:3], run(small, eight, 3, decode=False), strict=True):
            assert 4 * narrow.kv_bytes == wide.kv_bytes
            assert (narrow.latents - wide.latents).norm() < 0.05 * wide.latents.norm()
        assert not torch.equal(narrow.latents, wide.latents)

    def test_what_survives_was_held_and_bytes_follow_from_pages(self, name, small, streamed):
        policy = self.make(name)
        reads_all = not policy.overrides("reads")
        for chunk in streamed(name):
            assert chunk.kept.keys() == chunk.pages.keys() == chunk.kv_tokens.keys()
            tokens = {group: len(pages) * 12 // chunk.segments for group, pages in chunk.pages.items()}
            token_bytes = {group: sum(map(len, chunk.heads[group])) * 2 * 12 * 4 for group in tokens}
            caches = len(small.schedule.sigmas) if policy.caches == "per-step" else 1
            assert chunk.kv_bytes == caches * sum(tokens[group] * token_bytes[group] for group in tokens)
            assert chunk.kv_tokens == tokens
            assert not reads_all or chunk.kv_tokens_read == tokens
            for group, pages in chunk.pages.items():
                assert chunk.kept[group].shape == (len(pages),)
                assert set(chunk.frames) <= set(pages.frame.tolist())


def test_recomputed_window_carries_nothing_from_before_it(small):
    stream = Stream(small, policies.parse("recompute:window_frames=6"), "a red ball over the sea", seed=1)
    chunks = [stream.step() for _ in range(4)]
    assert [chunk.context_frames for chunk in chunks] == [3, 6, 6, 6] and set(stream._state.latents) == {3}
    full = [chunk.latents for chunk in run(small, policies.make("full"), 2)]
    window = [chunk.latents for chunk in run(small, policies.parse("sliding-window:sink_frames=0,window_frames=6"), 4)]
    torch.testing.assert_close(chunks[1].latents, full[1])
    assert not torch.allclose(chunks[3].latents, window[3])


def test_recompute_shows_what_full_shows(small):
    for a, b in zip(run(small, policies.make("full"), 4), run(small, policies.make("recompute"), 4), strict=True):
        assert torch.allclose(a.latents, b.latents, atol=1e-5)
        assert b.timings.rebuild > 0 or b.index == 0


def test_per_step_holds_a_cache_for_every_step(small):
    full, per_step = run(small, policies.make("full"), 3)[-1], run(small, policies.make("per-step"), 3)[-1]
    assert per_step.kv_bytes == 2 * full.kv_bytes and per_step.timings.context < full.timings.context


def test_a_sliding_window_counts_sink_and_chunk(small):
    chunks = run(small, SlidingWindow(sink_frames=1, window_frames=6), 5)
    assert [chunk.context_frames for chunk in chunks] == [3, 6, 6, 6, 6]
    assert sorted(set(chunks[-1].pages["all"].frame.tolist())) == [0, 10, 11, 12, 13, 14]


def test_hybrid_and_full_agree_exactly_while_nothing_was_dropped(small):
    everything = ForcingKV(anchor_frames=99, dynamic_anchor_frames=99, dynamic_frames=0)
    for a, b in zip(run(small, policies.make("full"), 5), run(small, everything, 5), strict=True):
        assert torch.allclose(a.latents, b.latents, atol=1e-5)


def test_forcing_kv_keeps_sink_anchor_and_k_segments(small):
    policy = ForcingKV(segments_per_frame=4, retention=5)
    for chunk in run(small, policy, 6)[2:]:
        last = chunk.frames[-1]
        kept = {
            g: set(zip(p.frame[chunk.kept[g]].tolist(), p.segment[chunk.kept[g]].tolist(), strict=True))
            for g, p in chunk.pages.items()
        }
        whole = {(f, s) for f in (0, last) for s in range(4)}
        assert kept["static"] == whole
        assert kept["dynamic"] > whole and len(kept["dynamic"] - whole) == 5
        assert {f for f, _ in kept["dynamic"] - whole} <= {last - 3, last - 2, last - 1}


@pytest.mark.parametrize("static", [((), (), ()), ((0, 1, 2, 3),) * 3, ((), (0, 1, 2, 3), (1,))])
def test_layers_with_only_one_kind_of_head(small, static):
    for chunk in run(small, ForcingKV(segments_per_frame=4), 5, roles=HeadRoles(4, static)):
        assert torch.isfinite(chunk.latents).all()


def test_a_batch_shares_one_page_table(small):
    text = torch.cat([small.encode("a red ball"), small.encode("a blue star")])

    class Twice:
        def initial(self, chunk, shape):
            return torch.randn(1, *shape[1:], generator=torch.Generator().manual_seed(chunk)).repeat(2, 1, 1, 1, 1)

        between = lambda self, chunk, step, shape: self.initial(chunk + 100 + step, shape)  # noqa: E731

    both = Stream(small, ForcingKV(segments_per_frame=4), text=text, noise=Twice())
    same = Stream(small, ForcingKV(segments_per_frame=4), text=text[:1].repeat(2, 1, 1), noise=Twice())
    for _ in range(4):
        chunk = both.step()
        a, b = same.step().latents
        assert torch.allclose(a, b, atol=1e-6) and not torch.allclose(chunk.latents[0], chunk.latents[1])


@pytest.mark.parametrize(
    "text, message",
    [
        ("nope", "there is no policy 'nope'; there are full"),
        ("forcing-kv:colour=3", "has no parameter 'colour'; it has sink_frames"),
        ("forcing-kv:retention", "key=value"),
        ("forcing-kv:retention=lots", "retention must be a number, true or false, not 'lots'"),
        ("forcing-kv:retention=0.3,retention=0.5", "retention is given twice"),
        ("full,forcing-kv", "expected one policy, got"),
        ("forcing-kv without", "LAYER.HEAD"),
        (
            "forcing-kv:retention=1.5",
            "policy 'forcing-kv': retention must be a number from 0 to 1 or a whole number of at least 0, not 1.5",
        ),
        (
            "forcing-kv:retention=true",
            "retention must be a number from 0 to 1 or a whole number of at least 0, not True",
        ),
        ("forcing-kv:sink_frames=-1", "sink_frames must be a whole number of at least 0, not -1"),
        ("forcing-kv:segments_per_frame=0", "must be a whole number of at least 1, not 0"),
        ("sliding-window:window_frames=1", "must exceed sink_frames"),
    ],
)
def test_bad_policies_are_refused_in_words(text, message):
    with pytest.raises(ValueError, match=message):
        policies.parse(text)


@pytest.mark.parametrize("name", POLICIES)
def test_every_parameter_is_declared_with_range_and_meaning(name):
    for parameter in describe(POLICIES[name]):
        assert len(parameter.help) > 10 and parameter.values, parameter.name
        assert getattr(POLICIES[name](), parameter.name) == parameter.default
    declared = policies.json_schema()[name]["properties"]
    assert list(declared) and all("description" in each and "default" in each for each in declared.values())


def test_values_are_checked_however_a_policy_is_made():
    for wrong in (lambda: SlidingWindow(sink_frames=-1), lambda: dataclasses.replace(ForcingKV(), retention=2.0)):
        with pytest.raises(ValueError, match="must be"):
            wrong()
    assert isinstance(policies.make("recency", strength=1).strength, float)
    assert isinstance(ForcingKV(retention=1).retention, int), "a number of segments, not a share"


def test_a_share_of_all_and_the_number_one_are_two_policies(small):
    share, number = ForcingKV(retention=1.0), ForcingKV(retention=1)
    assert share != number and number == ForcingKV(retention=1) and len({share, number, ForcingKV(retention=1)}) == 2
    stream = Stream(small, share, "a red ball", decode=False)
    for _ in range(4):
        many = stream.step()
    stream.set_policy(number)
    few = stream.step()
    assert few.events == ("policy: forcing-kv",) and few.kv_tokens["dynamic"] < many.kv_tokens["dynamic"]


@pytest.mark.parametrize(
    "annotation, value, message",
    [
        (int, 2.5, "x must be a whole number, not 2.5"),
        (Count, True, "x must be a whole number of at least 0, not True"),
        (Share, float("nan"), "x must be a number from 0 to 1, not nan"),
        (Annotated[int, Field(ge=1, le=8)], 9, "x must be a whole number from 1 to 8, not 9"),
        (Annotated[int, Field(le=8)], 9, "x must be a whole number of at most 8, not 9"),
        (bool, "true", "x must be true or false, not 'true'"),
    ],
)
def test_a_wrong_value_is_refused_by_what_is_declared(annotation, value, message):
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        check("x", value, annotation)


def test_variants_list_only_what_they_change():
    assert [each.name for each in policies.own_parameters(POLICIES["no-anchor"])] == ["anchor_frames"]
    assert policies.variant_of(POLICIES["random-roles"]) == "forcing-kv"
    assert policies.variant_of(POLICIES["per-step"]) is policies.variant_of(POLICIES["full"]) is None


def test_a_list_of_policies_may_carry_parameters():
    assert policies.split("full,forcing-kv:retention=0.5,start_chunk=2,no-anchor") == [
        "full",
        "forcing-kv:retention=0.5,start_chunk=2",
        "no-anchor",
    ]


def test_dummy_forcing_classes_heads_once_and_keeps_one_frame_for_half_of_them(small):
    stream = Stream(small, policies.make("dummy-forcing", classify_chunk=2), "a ball")
    chunks = [stream.step() for _ in range(6)]
    assert [sorted(chunk.kv_tokens) for chunk in chunks] == [["all"]] * 3 + [["dummy", "neighbour", "sink"]] * 3
    groups = stream.caches[0].groups
    assert sum(map(len, groups["dummy"].heads)) == 6
    for name, cached in (("sink", 1), ("neighbour", 3), ("dummy", 1)):
        assert chunks[-1].kv_tokens[name] == (3 + cached * any(groups[name].heads)) * 12


def test_dummy_forcing_gives_each_head_what_it_looks_at():
    policy = policies.make("dummy-forcing")
    mass = np.array([[[0.6, 0.0, 0.1, 0.3]], [[0.0, 0.5, 0.1, 0.3]]])  # shares of all heads decide, not the masses
    assert [CLASSES[i] for i in policy.classes(mass)[0]] == ["sink", "neighbour", "dummy", "dummy"]


@pytest.mark.parametrize("layer", [0, 1])
@pytest.mark.parametrize("name", [name for name, rule in POLICIES.items() if rule.caches != "none"])
def test_a_layer_can_be_silenced_as_a_whole(small, name, layer):
    base = POLICIES[name](**PARAMETERS[POLICIES[name]])
    for chunk in run(small, silence(base, [(layer, head) for head in range(4)]), 10, decode=False):
        assert chunk.latents.isfinite().all()


def test_all_heads_can_be_silenced(small):
    everything = [(layer, head) for layer in range(3) for head in range(4)]
    for chunk in run(small, silence(policies.make("relax-forcing"), everything), 5, decode=False):
        assert chunk.latents.isfinite().all()


@pytest.mark.parametrize(
    "text, message",
    [
        ("rolling-sink:window_frames=20", "window_frames must be a multiple of the chunk's 3 frames, not 20"),
        ("recompute:window_frames=7", "window_frames must be a multiple of the chunk's 3 frames, not 7"),
        ("ca2-vdm:prefix_frames=25", "prefix_frames must be a multiple of the chunk's 3 frames, not 25"),
        ("tether-cache:recent_frames=2", "recent_frames must be at least the chunk's 3 frames, not 2"),
        ("deep-forcing:recent_frames=2", "recent_frames must be at least the chunk's 3 frames, not 2"),
    ],
)
def test_a_policy_that_needs_whole_chunks_is_refused_without(small, text, message):
    with pytest.raises(ValueError, match=message):
        Stream(small, policies.parse(text), "a red ball")


@pytest.mark.parametrize("name", POLICIES)
def test_no_parameter_is_infinite_or_nan(name):
    for parameter in describe(POLICIES[name]):
        if "a number" in parameter.values:
            for value in ("inf", "-inf", "nan"):
                with pytest.raises(ValueError, match=f"{parameter.name} must be"):
                    policies.parse(f"{name}:{parameter.name}={value}")


def test_a_memory_that_never_fills_lists_only_frames_that_there_are(small):
    policy = policies.make("context-forcing", memory_frames=1_000_000_000)
    assert run(small, policy, 2, decode=False)[-1].context_frames == 6


@dataclasses.dataclass(frozen=True)
class Watching(Full):
    """A policy that asks for a pass that no chunk has."""

    name = "watching"

    def wants_attention(self, chunk, cache):
        return "step 9"


def test_a_pass_that_there_is_not_cannot_be_watched(small):
    with pytest.raises(
        ValueError, match="wants to see pass 'step 9'; a chunk of this model has step 0, step 1, context"
    ):
        Stream(small, Watching(), "a ball").step()


def test_policies_that_share_a_name_are_told_apart():
    listed = [policies.parse(text) for text in ("full", "forcing-kv", "full:fp8=true", "full")]
    assert labels_of(listed) == ["full #1", "forcing-kv", "full:fp8=true", "full #2"]


RECACHED = [name for name, rule in POLICIES.items() if rule.caches == "shared" and name != "full"]


@pytest.mark.parametrize("name", RECACHED)
def test_a_recache_leaves_as_much_to_read_as_before(small, name):
    stream = Stream(small, POLICIES[name](**PARAMETERS[POLICIES[name]]), "a red ball", 3, decode=False)
    before = [stream.step() for _ in range(10)][-1]
    stream.set_prompt("a blue star", recache=True)
    after = stream.step()
    merged = {"veil": 36} if "veil" in before.kv_tokens_read else {}  # without its blocks
    if name != "deep-forcing":  # which reads more from chunk to chunk until it selects
        assert after.kv_tokens_read == before.kv_tokens_read | merged
    assert after.latents.isfinite().all()


@pytest.mark.parametrize("name", POLICIES)
def test_a_stream_goes_on_after_a_flush_and_after_a_cut(small, name):
    stream = Stream(small, policies.make(name), "a red ball", 3, decode=False)
    for _ in range(9):
        stream.step()
    if stream.policy.caches == "none":
        with pytest.raises(ValueError, match="no cache to flush"):
            stream.flush()
        return
    stream.flush()
    if stream.policy.knows_cuts:
        stream.cut()
    chunks = [stream.step() for _ in range(4)]
    assert chunks[0].events[0] == "flush"
    assert all(chunk.latents.isfinite().all() for chunk in chunks)


@pytest.mark.parametrize(
    "name", [name for name, rule in POLICIES.items() if re.fullmatch(r"[SMRC+ \d]+", rule.reading)]
)
def test_a_policy_reads_as_many_frames_as_it_says(small, name):
    stream = Stream(small, policies.make(name), "a red ball", decode=False)
    chunk = [stream.step() for _ in range(14)][-1]
    said = sum(map(int, re.findall(r"\d+", POLICIES[name].reading)))
    assert set(chunk.kv_tokens_read.values()) == {said * stream.geometry.tokens_per_frame}


def test_a_wrapper_forwards_every_hook_that_it_does_not_own():
    stated = "paper family checked compares_keys caches fp8 context_noise".split()  # set as it is made
    by_base = "unsilenced commit_frames overrides page_kind".split()  # follow from others
    public = {name for name in dir(Policy) if not name.startswith("_")}
    assert public - set(vars(Wrapper)) == {*stated, *by_base}
