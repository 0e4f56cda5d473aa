"""Ca2-VDM, WindowKV and MPCache: what each rule keeps and reads, in cases computed by hand."""

from __future__ import annotations

import re

import numpy as np
import pytest
import torch

from fkv import policies
from fkv.pages import Geometry, Pages
from fkv.policies import ChunkState, page_scores
from fkv.policies.mpcache import MPCache
from fkv.policies.selection import digests, frame_digests, scores, two_levels
from fkv.policies.window_kv import WindowKV
from fkv.probe import FrameMassProbe
from fkv.sampler import renoise
from fkv.stream import Stream
from fkv.stream.recache import replay
from fkv.transformer.causal import CausalTransformer


def stream_of(model, text, chunks, **options):
    """A stream and its first chunks."""
    stream = Stream(model, policies.parse(text), "a red ball over the sea", seed=1, **options)
    return stream, [stream.step() for _ in range(chunks)]


class TestCa2Vdm:
    def test_equals_a_window_whose_positions_grow(self, small):
        _, queue = stream_of(small, "ca2-vdm:prefix_frames=6,context_noise=0.0", 6)
        _, window = stream_of(small, "sliding-window:sink_frames=0,window_frames=9", 6)
        for a, b in zip(queue, window, strict=True):
            torch.testing.assert_close(a.latents, b.latents, atol=1e-4, rtol=1e-4)

    def test_a_recache_equals_that_of_a_window(self, small):
        texts = "ca2-vdm:prefix_frames=6,context_noise=0.0", "sliding-window:sink_frames=0,window_frames=9"
        after = []
        for text in texts:
            stream, _ = stream_of(small, text, 6)
            stream.set_prompt("a blue star", recache=True)
            after.append(stream.step().latents)
        torch.testing.assert_close(*after, atol=1e-4, rtol=1e-4)

    def test_positions_never_leave_the_queue(self, small):
        stream, chunks = stream_of(small, "ca2-vdm:prefix_frames=6", 5)
        stream._state.index = 10_000  # the frames in between are as if another policy had dropped them
        chunks += [stream.step() for _ in range(3)]
        for chunk in chunks:
            read = chunk.read["all"]
            assert read.position.max() < 9 and np.array_equal(np.argsort(read.frame), np.argsort(read.position))
            assert torch.isfinite(chunk.latents).all()
        assert sorted(chunks[-1].read["all"].position.tolist()) == list(range(9))

    def test_a_queue_holds_whole_chunks(self, small):
        with pytest.raises(ValueError, match="prefix_frames must be a multiple of the chunk's 3 frames, not 7"):
            Stream(small, policies.parse("ca2-vdm:prefix_frames=7"), "a ball")


class TestContextNoise:
    def test_the_context_pass_reads_noised_latents_and_nothing_else_does(self, small, monkeypatch):
        seen = []
        run = CausalTransformer.__call__

        def seeing(transformer, latents, timestep, *rest):
            seen.append((timestep, latents))
            return run(transformer, latents, timestep, *rest)

        monkeypatch.setattr(CausalTransformer, "__call__", seeing)
        stream, (chunk,) = stream_of(small, "full:context_noise=0.05", 1)
        noise = stream.noise.between(0, len(small.schedule.sigmas) - 1, chunk.latents.shape)
        assert [timestep for timestep, _ in seen] == [1000, 500, 0]
        torch.testing.assert_close(seen[-1][1], renoise(chunk.latents, noise, 0.05))

    def test_a_replay_noises_a_chunk_as_before(self, small):
        stream, _ = stream_of(small, "full:context_noise=0.1", 3)
        replayed = replay(stream._state, range(3))
        for name, group in stream.caches[0].groups.items():
            for before, again in zip(group.keys, replayed.groups[name].keys, strict=True):
                torch.testing.assert_close(again[:, :, : before.shape[2]], before[:, :, : again.shape[2]])

    def test_is_written_and_read_with_any_policy(self):
        text = "commit:6 forcing-kv:context_noise=0.02"
        assert policies.write(policies.parse(text)) == text and policies.parse(text).context_noise == 0.02

    def test_needs_a_context_pass(self):
        with pytest.raises(ValueError, match="policy 'per-step': context_noise needs a context pass"):
            policies.parse("per-step:context_noise=0.05")


class TestSelection:
    # One head, two dimensions, three pages of two keys; the first two pages are of one frame.
    KEYS = torch.tensor([[[1.0, -2.0], [3.0, 0.0]], [[0.0, 1.0], [0.0, 1.0]], [[-1.0, 4.0], [1.0, 2.0]]])[None, None]
    QUERY = torch.tensor([[[[2.0, -1.0]]]])
    FRAME = np.array([0, 0, 1])

    def test_a_digest_holds_the_largest_and_smallest_value_of_each_dimension(self):
        largest, smallest = digests(self.KEYS, "linear")[:, 0, 0]
        assert largest.tolist() == [[3, 0], [0, 1], [1, 4]] and smallest.tolist() == [[1, -2], [0, 1], [-1, 2]]
        largest, smallest = frame_digests(digests(self.KEYS, "exact"), self.FRAME, "exact")[:, 0, 0]
        assert largest.tolist() == [[3, 1], [1, 4]] and smallest.tolist() == [[0, -2], [-1, 2]]
        mean = frame_digests(digests(self.KEYS, "mean"), self.FRAME, "mean")[:, 0, 0]
        assert mean[0].tolist() == mean[1].tolist() == [[1, 0], [0, 3]]

    @pytest.mark.parametrize(
        "bound, expected",
        [
            # q = (2, -1) on the blended values (0.6 M + 0.4 m): (2.2, -0.8), (0, 1), (0.2, 3.2)
            ("linear", [5.2, -1.0, -2.8]),
            # 2 * 3 + -1 * -2, 2 * 0 + -1 * 1, 2 * 1 + -1 * 2
            ("exact", [8.0, -1.0, 0.0]),
            # mean keys (2, -1), (0, 1), (0, 3)
            ("mean", [5.0, -1.0, -3.0]),
        ],
    )
    def test_scores_by_hand(self, bound, expected):
        found = scores(self.QUERY, digests(self.KEYS, bound), bound, 0.6)
        np.testing.assert_allclose(found, [expected], rtol=1e-6)

    def test_the_exact_bound_is_never_below_a_key_and_the_largest_query_counts(self):
        generator = torch.Generator().manual_seed(0)
        keys = torch.randn(1, 2, 5, 4, 8, generator=generator)
        query = torch.randn(1, 2, 3, 8, generator=generator)
        products = torch.einsum("bhqd,bhpkd->hpqk", query, keys)
        assert (scores(query, digests(keys, "exact"), "exact", 0.6) >= products.amax((2, 3)).numpy() - 1e-5).all()

    def test_frames_are_chosen_first_then_pages_of_them(self):
        # 5 frames of 2 pages. Head 0 looks into frame 2, head 1 into frame 3; page 3, of a frame that neither looks
        # into, has the highest score of all.
        frame = np.repeat(np.arange(5), 2)
        frame_scores = np.array([[9.0, 0, 2, 1, 9], [0, 1, 2, 3, 0]])
        page_scores = np.array([[0.0, 0, 0, 9, 1, 2, 8, 8, 0, 0], [0, 0, 9, 9, 9, 9, 2, 1, 0, 0]])
        assert two_levels(frame_scores, page_scores, frame, 0.2, 0.1).tolist() == [[0, 1, 5, 8, 9], [0, 1, 6, 8, 9]]
        assert two_levels(frame_scores, page_scores, frame, 1, 0.1).tolist() == [[0, 1, 3, 8, 9], [0, 1, 2, 8, 9]]

    def test_all_heads_read_as_many_pages_where_frames_hold_few(self):
        frame = np.array([0, 1, 2, 2, 2, 3])
        chosen = two_levels(np.array([[0, 9.0, 1, 0], [0, 1, 9, 0]]), np.zeros((2, 6)), frame, 0.25, 0.5)
        assert chosen.tolist() == [[0, 1, 5], [0, 2, 5]]

    @pytest.mark.parametrize("frames", [1, 2])
    def test_first_and_last_frame_are_always_read(self, frames):
        frame = np.repeat(np.arange(frames), 3)
        chosen = two_levels(np.zeros((2, frames)), np.zeros((2, len(frame))), frame, 0.0, 0.0)
        assert chosen.tolist() == [list(range(len(frame)))] * 2


class TestMPCache:
    ALL = "mpcache:threshold=0,segments_per_frame=4,ratio1=1,ratio2=1"

    def test_reading_everything_is_full(self, small):
        _, chosen = stream_of(small, self.ALL, 5)
        _, full = stream_of(small, "full", 5)
        for a, b in zip(chosen, full, strict=True):
            torch.testing.assert_close(a.latents, b.latents, atol=1e-5, rtol=1e-5)
        assert chosen[-1].kv_tokens_read == chosen[-1].kv_tokens

    @pytest.mark.parametrize(
        "text", ["share_layers=1,first_layers=0", "reuse_steps=false", "bound=exact", "bound=mean"]
    )
    def test_reads_less_than_it_holds(self, small, text):
        stream, chunks = stream_of(small, f"mpcache:threshold=0,segments_per_frame=4,{text}", 6)
        chunk = chunks[-1]
        assert set(chunk.kv_tokens.values()) == {18 * 12} and chunk.kv_bytes == 18 * 12 * 2 * 4 * 3 * 12 * 4
        # A fifth of the 60 earlier pages, those of the first and of the last frame, the chunk's own: 12 + 8 + 12.
        assert set(chunk.kv_tokens_read.values()) == {32 * 3}
        for name, pages in chunk.pages.items():
            read = {(f, s) for f, s in zip(chunk.read[name].frame, chunk.read[name].segment, strict=True)}
            assert (
                {(f, s) for f in (0, 14, 15, 16, 17) for s in range(4)}
                <= read
                < set(zip(pages.frame, pages.segment, strict=True))
            )
            assert "held" in chunk.kinds[name] and "sink" in chunk.kinds[name]

    def test_layers_and_passes_share_a_choice(self, small):
        seen = []

        class Seen:
            begin = lambda self, chunk, frames, name: bool(seen.append({})) or True  # noqa: E731

            def record(self, layer, group, heads, query, keys, cache):
                assert len(heads) == 1 and keys.shape[1] == query.shape[1] == 1
                pages = cache.reading.pages(group, heads[0])
                assert keys.shape[2] == len(pages) * cache.page_tokens
                seen[-1][layer, heads[0]] = tuple(zip(pages.frame, pages.segment, strict=True))

        stream, _ = stream_of(small, "mpcache:segments_per_frame=4,share_layers=2,first_layers=1,threshold=0", 5)
        stream.step(Seen())
        first, *later = seen
        assert len(later) == 2 and all(each == first for each in later)
        assert all(first[1, head] == first[2, head] for head in range(4))
        assert len({first[0, head] for head in range(4)}) > 1 and any(first[0, h] != first[1, h] for h in range(4))

    @pytest.mark.parametrize("change", ["nothing", "a prompt with re-cache", "another bound", "a fork"])
    def test_digests_that_are_kept_equal_those_computed_anew(self, small, change):
        stream, _ = stream_of(small, "mpcache:segments_per_frame=4,threshold=1.2", 5)
        if change == "another bound":
            stream.set_policy(policies.parse("mpcache:segments_per_frame=4,threshold=1.2,bound=mean"))
        elif change == "a prompt with re-cache":
            stream.set_prompt("a blue star over the hills", recache=True)
        elif change == "a fork":
            stream = stream.fork()
        for _ in range(2):
            stream.step()
        cache, bound = stream.caches[0], stream.policy.bound
        for layer, group in ((0, "layer 0"), (2, "layer 2")):
            pages = cache.groups[group].pages
            rows = np.flatnonzero(pages.frame < 18)
            kept = stream.policy._digests(cache, layer, cache.groups[group], rows)
            torch.testing.assert_close(kept, digests(cache.stored_keys(layer, group, rows), bound))

    def test_a_page_is_judged_once_when_it_is_a_chunk_old(self, small):
        stream, chunks = stream_of(small, "mpcache:segments_per_frame=4,threshold=1.2,sink_frames=1", 6)
        for chunk in chunks[1:]:
            for name, pages in chunk.pages.items():
                judged = (pages.frame >= chunk.frames[0] - 3) & (pages.frame < chunk.frames[0]) & (pages.frame > 0)
                assert chunk.kept[name][~judged].all()
        assert sum((~chunk.kept[name]).sum() for chunk in chunks for name in chunk.kept) > 0

    def test_what_is_judged_away_had_little_attention(self, small):
        text = "mpcache:segments_per_frame=1,threshold={},sink_frames=0,share_layers=1,ratio1=1,ratio2=1"
        probe = FrameMassProbe(passes={"context"}, queries=8)
        stream, _ = stream_of(small, text.format(0), 3)
        stream.step(probe)
        (mass,) = probe.take()
        state = ChunkState(3, (9, 10, 11), stream.caches[0])
        judged = page_scores.found(state, "layer 1", stream.caches[0].groups["layer 1"].pages)[6:9]
        # A page is a frame here. The probe has the mean over queries of each frame, the judgement the largest.
        assert (judged >= 12 * mass.mass[1].mean(0).max(0)[6:9] - 1e-5).all() and (judged <= 12).all()
        stream, chunks = stream_of(small, text.format(1.5), 4)
        state = ChunkState(3, (9, 10, 11), stream.caches[0])
        stayed = []
        for name, pages in chunks[-1].pages.items():
            rows = pages.rows_of(range(6, 9))
            found = page_scores.found(state, name, pages)[rows]
            assert np.array_equal(chunks[-1].kept[name][rows], found >= 1.5)
            stayed += [*(found >= 1.5)]
        assert {*stayed} == {True, False}

    def test_pages_go_at_an_age(self, small):
        _, chunks = stream_of(small, "mpcache:segments_per_frame=4,threshold=0,most_frames=6,sink_frames=1", 5)
        assert sorted(set(chunks[-1].pages["layer 0"].frame.tolist())) == [0, *range(6, 15)]

    def test_some_heads_may_be_silenced(self, small):
        stream, chunks = stream_of(small, "mpcache:segments_per_frame=4,first_layers=0 without 0.0+1.1+2.0+2.3", 5)
        assert all(torch.isfinite(chunk.latents).all() for chunk in chunks)
        assert chunks[-1].kv_tokens_read["silent"] == 36

    def test_a_probe_sees_the_pages_of_each_head(self, small):
        probe = FrameMassProbe()
        stream, _ = stream_of(small, "mpcache:segments_per_frame=4,threshold=0", 6)
        stream.step(probe)
        (mass,) = probe.take()
        np.testing.assert_allclose(mass.mass.sum(-1), 1, rtol=1e-5)
        assert ((mass.mass.sum(2) == 0).sum(-1) > 0).all()

    @pytest.mark.parametrize("other", ["full", "forcing-kv:segments_per_frame=4", "sliding-window", "tether-cache"])
    def test_switching_there_and_back(self, small, other):
        stream, _ = stream_of(small, "mpcache:segments_per_frame=4,threshold=1.2", 5)
        for text in (other, "mpcache:segments_per_frame=4,bound=exact"):
            stream.set_policy(policies.parse(text))
            assert all(torch.isfinite(stream.step().latents).all() for _ in range(3))

    @pytest.mark.parametrize("other", ["per-step", "recompute"])
    def test_switching_to_what_stores_something_else_is_refused(self, small, other):
        stream, _ = stream_of(small, "mpcache:segments_per_frame=4", 2)
        with pytest.raises(ValueError, match="a running stream cannot change between 'mpcache' and"):
            stream.set_policy(policies.make(other))
        stream.step()

    def test_a_repeated_chunk_is_the_same(self, small):
        stream, _ = stream_of(small, "mpcache:segments_per_frame=4,threshold=1.2", 4)
        snapshot = stream.snapshot()
        first = stream.step()
        stream.restore(snapshot)
        assert torch.equal(first.latents, stream.step().latents)

    def test_layers_are_shared_in_neighbouring_sets(self):
        geometry = Geometry(layers=8, heads=1, head_dim=8, rows=6, cols=10)
        names = list(MPCache().groups(geometry, None))
        assert names == ["layer 0", "layer 1", "layers 2-3", "layers 4-5", "layers 6-7"]
        assert list(geometry.layer_sets(4)) == ["layers 0-3", "layers 4-7"]

    @pytest.mark.parametrize(
        "text, message",
        [
            ("ratio1=1.5", "ratio1 must be a number from 0 to 1, not 1.5"),
            ("bound=cosine", "bound must be linear, exact or mean, not 'cosine'"),
            ("bound=2", "bound must be linear, exact or mean, not '2'"),
            ("share_layers=0", "share_layers must be a whole number of at least 1, not 0"),
            ("threshold=lots", "threshold must be a number, true or false, not 'lots'"),
        ],
    )
    def test_bad_values_are_refused_in_words(self, text, message):
        with pytest.raises(ValueError, match=message):
            policies.parse(f"mpcache:{text}")

    def test_a_word_is_written_and_read_back(self):
        assert policies.write(policies.parse("mpcache:bound=exact")) == "mpcache:bound=exact"
        assert policies.json_schema()["mpcache"]["properties"]["bound"]["enum"] == ["linear", "exact", "mean"]


def pages_of(frames, segments):
    """A page table of whole frames."""
    frame, segment = np.repeat(frames, segments), np.tile(np.arange(segments), len(frames))
    return Pages(np.arange(len(frame)), frame, segment, frame, np.zeros(len(frame), bool))


class TestWindowKV:
    def test_budgets_fall_from_the_first_group_to_the_last(self):
        # 24 pages on average: 24 * (2 - 0.5), then evenly down to 24 * 0.5.
        assert WindowKV(budget_frames=4, segments_per_frame=6, taper=0.5).budgets(4) == [36, 28, 20, 12]
        assert WindowKV(budget_frames=4, segments_per_frame=6, taper=1).budgets(3) == [24, 24, 24]
        assert WindowKV(budget_frames=4, segments_per_frame=6).budgets(1) == [24]

    def test_the_budgets_of_the_authors(self):
        # 2,048 tokens, groups of 8 of 32 layers, beta 14: 2926, 2341, 1756, 1170.
        found = WindowKV(budget_frames=2048, segments_per_frame=1, taper=8 / 14).budgets(4)
        np.testing.assert_allclose(found, [2926, 2341, 1756, 1170], atol=2)

    @pytest.mark.parametrize(
        "strategy, mass, score",
        [("max", [1, 5, 2], 3.5), ("average", [1, 5, 3], 3.0), ("max", [4, 1], 4.0), ("max", [7], 7.0)],
    )
    def test_window_scores_by_hand(self, strategy, mass, score):
        assert WindowKV(strategy=strategy).score(np.array(mass, float)) == score

    def test_the_best_windows_of_a_frame_stay(self):
        policy = WindowKV(window=2, segments_per_frame=4)
        pages = pages_of([3, 4], 4)
        mass = np.array([1, 0, 2, 2, 0, 9, 0, 0.5])
        kept = policy.best_windows(pages, mass, pages.frame < 9, 4)
        assert [rows.tolist() for rows in kept] == [[4, 5], [2, 3]]
        average = WindowKV(window=2, segments_per_frame=4, strategy="average")
        assert [rows.tolist() for rows in average.best_windows(pages, mass, pages.frame < 9, 3)] == [[4, 5]]
        assert policy.best_windows(pages, mass, pages.frame < 9, 0) == []
        shuffled = pages[order := np.array([7, 2, 0, 1, 5, 3, 6, 4])]
        found = policy.best_windows(shuffled, mass[order], shuffled.frame < 9, 4)
        assert [order[rows].tolist() for rows in found] == [[4, 5], [2, 3]]

    def test_each_group_of_layers_holds_its_budget(self, small):
        text = "window-kv:shared_layers=1,segments_per_frame=4,window=2,budget_frames=2,taper=0.5,sink_frames=1"
        _, chunks = stream_of(small, text, 6)
        held = {name: len(pages) - 12 for name, pages in chunks[-1].pages.items()}
        assert held == {"layer 0": 12 + 4, "layer 1": 8 + 4, "layer 2": 4 + 4}  # budgets, and the newest frame
        for pages in chunks[-1].pages.values():
            cached = set(zip(pages.frame, pages.segment, strict=True))
            assert {(f, s) for f in (0, 14) for s in range(4)} <= cached
            assert all(((f, s ^ 1) in cached) for f, s in cached)  # whole windows

    def test_layers_of_a_group_share_a_page_table_chosen_in_the_first(self, small):
        text = "window-kv:shared_layers=3,segments_per_frame=4,window=1,budget_frames=1"
        probe = FrameMassProbe(queries=None)
        stream, _ = stream_of(small, text, 4)
        chunk = stream.step(probe)
        (name,) = chunk.pages
        assert name == "layers 0-2"
        (mass,), pages = probe.take(), chunk.pages[name]
        noted = page_scores.found(ChunkState(4, chunk.frames, stream.caches[0]), name, pages)
        for frame, expected in zip(mass.key_frames, mass.mass[0].mean((0, 1)), strict=True):
            np.testing.assert_allclose(noted[pages.frame == frame].sum(), expected, rtol=1e-4)
        left = np.flatnonzero(pages.frame < chunk.frames[-1])
        best = left[np.argsort(-noted[left])[:4]]
        assert sorted(np.flatnonzero(chunk.kept[name] & (pages.frame < chunk.frames[-1]))) == sorted(best)

    @pytest.mark.parametrize("layers, size", [(8, 2), (30, 6), (40, 10), (3, 1)])
    def test_groups_are_about_a_quarter_of_the_layers(self, layers, size):
        assert WindowKV().layers_of_a_group(layers) == size

    @pytest.mark.parametrize("other", ["full", "mpcache:segments_per_frame=4", "sliding-window"])
    def test_switching_there_and_back(self, small, other):
        text = "window-kv:segments_per_frame=4,budget_frames=2"
        stream, _ = stream_of(small, other, 5)
        for each in (text, other):
            stream.set_policy(policies.parse(each))
            assert all(torch.isfinite(stream.step().latents).all() for _ in range(3))

    @pytest.mark.parametrize(
        "text, message",
        [
            ("shared_layers=2", "shared_layers must divide the model's 3 layers: 1 or 3, not 2"),
            (
                "budget_frames=1,sink_frames=1",
                "the last layers keep budget_frames x taper = 0.571 frames, which must hold the 1 of sink_frames; "
                "raise budget_frames to 1.76",
            ),
            ("taper=1.5", "taper must be a number above 0, at most 1, not 1.5"),
            ("budget_frames=0", "budget_frames must be a number above 0, at most 100000, not 0"),
            ("strategy=auto", "strategy must be max or average, not 'auto'"),
        ],
    )
    def test_what_cannot_be_is_refused_in_words(self, small, text, message):
        with pytest.raises(ValueError, match=re.escape(message)):
            Stream(small, policies.parse(f"window-kv:segments_per_frame=4,{text}"), "a ball")

    def test_the_budget_that_a_refusal_names_is_enough(self):
        assert policies.parse("window-kv:budget_frames=1.76,sink_frames=1")
