"""Rules without recorded numbers: each against the authors' procedure, followed step by step."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from fkv import policies, roles
from fkv.cache import KVCache
from fkv.policies import pyramid_forcing
from fkv.policies.context_forcing import ContextForcing
from fkv.policies.mem_flow import MemFlow
from fkv.policies.pyramid_forcing import PyramidForcing, head_classes
from fkv.resources import asset
from fkv.roles import HeadRoles
from fkv.sampler import SeededNoise, renoise, x0_of
from fkv.stream import Stream
from fkv.transformer.causal import CausalTransformer

PROMPT = "a red ball over the sea"
SEED = 1


def chunks_of(model, text, count, **options):
    stream = Stream(model, policies.parse(text), PROMPT, SEED, decode=False, **options)
    return stream, [stream.step() for _ in range(count)]


class Authors:
    """ID-Forcing as its scripts run it: entries in a cache of their own, moved in time from slot to slot."""

    def __init__(self, model) -> None:
        self.model = model
        self.geometry = model.transformer.geometry(*model.latent[1:], model.frames_per_chunk)
        self.text = model.transformer.prepare_text(model.encode(PROMPT))

    def cache(self, entries, frames, position):
        """A cache of entries ((cache, frames), position) with room for a chunk at a position."""
        cache = KVCache(self.geometry, self.geometry.every_head)
        for (source, held), at in entries:
            cache.begin(held, range(at, at + 3))
            rows, old = (each.groups["all"].pages.rows_of(held) for each in (cache, source))
            for layer in range(self.geometry.layers):
                cache.edit(layer, "all", rows, *source.unrotated(layer, "all", old))
        cache.begin(frames, range(position, position + 3))
        cache.opening = frames[0] == 0
        self.model.transformer.weights_for(cache.order)
        return cache

    def run(self, latents, timestep, cache, position):
        freqs = self.model.transformer.rope(range(position, position + 3), self.geometry.rows, self.geometry.cols)
        return self.model.transformer(latents, timestep, self.text, cache, freqs)

    def denoised(self, chunk, cache, position):
        noise, sigmas = SeededNoise(SEED), self.model.schedule.sigmas
        shape = (1, 3, *self.model.latent)
        x = noise.initial(chunk, shape)
        for step, sigma in enumerate(sigmas):
            x0 = x0_of(x, self.run(x, 1000 * sigma, cache, position), sigma)
            if step + 1 < len(sigmas):
                x = renoise(x0, noise.between(chunk, step, shape), sigmas[step + 1])
        return x0

    def encoded(self, latents, frames, position, prefix=()):
        """An entry of a clean chunk that sees a prefix, if any, and itself."""
        cache = self.cache(prefix, frames, position)
        self.run(latents, 0.0, cache, position)
        return cache, frames

    def self_forcing(self, count, native):
        made = []
        for chunk in range(count):
            frames = tuple(range(3 * chunk, 3 * chunk + 3))
            before = [tuple(f - back for f in frames) for back in (6, 3)]
            if chunk < native:
                entries = [((cache, held), held[0]) for cache, held in self.native] if chunk else []
                position = 3 * chunk
            else:
                older = self.encoded(made[-2], before[0], 3)
                newer = self.encoded(made[-1], before[1], 6, [(older, 3)])
                entries, position = [(self.native[0], 0), (older, 3), (newer, 6)], 9
            made.append(self.denoised(chunk, self.cache(entries, frames, position), position))
            self.native = [*(self.native if chunk else []), self.encoded(made[-1], frames, position, entries)]
        return made

    def longlive(self, count):
        made, live = [], []
        for chunk in range(count):
            frames = tuple(range(3 * chunk, 3 * chunk + 3))
            recent = live[1:][-2:]
            entries = [(entry, 3 * i) for i, entry in enumerate([*live[:1], *recent])]
            position = 3 * len(entries)
            made.append(self.denoised(chunk, self.cache(entries, frames, position), position))
            live.append(self.encoded(made[-1], frames, position))
        return made


@torch.inference_mode()
def test_id_forcing_equals_the_rollout_of_its_script_on_self_forcing(small):
    _, made = chunks_of(small, "id-forcing:native_chunks=3", 7)
    for chunk, theirs in zip(made, Authors(small).self_forcing(7, native=3), strict=True):
        torch.testing.assert_close(chunk.latents, theirs, atol=2e-4, rtol=1e-4)
    assert not torch.allclose(made[-1].latents, chunks_of(small, "longlive:relative=true", 7)[1][-1].latents, atol=1e-3)


@torch.inference_mode()
def test_id_forcing_equals_the_rollout_of_its_script_on_longlive(small):
    _, made = chunks_of(small, "id-forcing:native_chunks=1,chained=false", 6)
    for chunk, theirs in zip(made, Authors(small).longlive(6), strict=True):
        torch.testing.assert_close(chunk.latents, theirs, atol=2e-4, rtol=1e-4)


def test_self_gradient_forcing_reads_both_ends_of_its_training_clip(small):
    _, made = chunks_of(small, "self-gradient", 9)
    window = [*range(-8, 1)]
    for chunk, sink in ((3, [-11, -10, -9]), (6, [-20, -19, -18]), (8, [-20, -19, -18])):
        read, newest = made[chunk].read["all"], 3 * chunk + 2
        assert sorted(read.frame) == [0, 1, 2, *(newest + back for back in window)]
        assert sorted(read.position - newest) == sink + window
    _, made = chunks_of(small, "self-gradient:sink_frames=4,window_frames=21", 9)
    assert sorted(made[-1].read["all"].position - 26) == [*range(-20, 1)]
    with pytest.raises(ValueError, match=r"clip_frames \(9\) must not be below window_frames \(12\)"):
        policies.make("self-gradient", clip_frames=9)


def test_self_gradient_forcing_reads_both_ends_frame_by_frame_too(small):
    _, made = chunks_of(replace(small, frames_per_chunk=1), "self-gradient:sink_frames=4,window_frames=21", 25)
    read = made[-1].read["all"]
    assert sorted(read.frame) == [0, 1, 2, 3, *range(8, 25)] and sorted(read.position) == [*range(4, 25)]


@pytest.mark.parametrize("text", ["forcing-kv:segments_per_frame=4", "window-kv:segments_per_frame=4,budget_frames=2"])
def test_commit_reads_what_the_base_kept_after_the_chunk_before(small, text, monkeypatch):
    kept = {}
    rule = type(policies.parse(text))
    keep_mask = rule.keep_mask

    def noted(self, group, pages, state):
        mask = keep_mask(self, group, pages, state)
        kept.setdefault((state.chunk, group), pages[mask].names)
        return mask

    monkeypatch.setattr(rule, "keep_mask", noted)
    _, made = chunks_of(small, f"commit:9 {text}", 7)
    for chunk in made[1:]:
        for group, pages in chunk.read.items():
            earlier = pages[pages.frame < chunk.frames[0]]
            assert earlier.names == kept[chunk.index - 1, group]


@pytest.mark.parametrize(
    "text",
    [
        "infinity-rope",
        "longlive:relative=true",
        "ema-sink",
        "id-forcing:native_chunks=3",
        "relax-forcing:reservoir_frames=9,candidates=0",
        "deep-forcing:window_frames=9,sink_frames=2,capacity_frames=6",
        "mpcache:most_frames=6,threshold=0,reuse_steps=false",
    ],
)
def test_what_commit_holds_for_the_context_pass_alone_is_hidden_from_the_base(small, text):
    _, plain = chunks_of(small, text, 8)
    _, committed = chunks_of(small, f"commit:12 {text}", 8)
    for chunk, other in zip(plain, committed, strict=True):
        assert other.kv_tokens_read == chunk.kv_tokens_read
        for group, pages in chunk.read.items():
            if not text.startswith(("deep", "mpcache")):  # which choose by the keys
                assert other.read[group].names == pages.names
                assert sorted(other.read[group].position) == sorted(pages.position)
    for pages in committed[-1].other_reads["context"].pages.values():
        assert set(pages.frame) == set(range(12, 24))
        assert pages.position.max() - pages.position.min() == 11, "older frames lie behind the chunk"


def test_only_chained_chunks_cost_a_pass_more(small, monkeypatch):
    passes = []
    run = CausalTransformer.__call__
    monkeypatch.setattr(CausalTransformer, "__call__", lambda *args: passes.append(args[2]) or run(*args))
    per_chunk = len(small.schedule.sigmas) + 1
    chunks_of(small, "id-forcing:native_chunks=3", 5)
    assert len(passes) == 5 * per_chunk + 3 and passes[2 * per_chunk + per_chunk - 1] == 0.0
    passes.clear()
    chunks_of(small, "longlive", 5)
    assert len(passes) == 5 * per_chunk


def test_what_a_policy_sees_of_the_prompt_costs_no_operation(small):
    stream, _ = chunks_of(small, "longlive", 1)
    operations = []

    class Count(TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            operations.append(func)
            return func(*args, **(kwargs or {}))

    with Count():
        state = stream._state.seen(stream.caches[0])
    assert [tuple(keys.shape[1::2]) for keys in state.text_keys] == [(4, 12)] * 3 and not operations


def test_id_forcing_refuses_chunks_that_are_sink_and_window_at_once():
    with pytest.raises(ValueError, match=r"native_chunks \(2\) must be at least 3 where chunks are chained"):
        policies.parse("id-forcing:native_chunks=2")


def test_memflow_keeps_what_scores_best_and_the_newest_recorded_frame(small, monkeypatch):
    monkeypatch.setattr(MemFlow, "scores", lambda self, group, state, frames: np.array([f == 9 for f in frames], float))
    stream = Stream(small, policies.parse("memflow"), PROMPT, SEED, decode=False)
    banks = []
    for _ in range(15):
        stream.step()
        banks.append(stream.caches[0].notes.get("bank", {}).get("layer 0"))
    assert banks[:11] == [[]] + [[0]] * 3 + [[0, 9]] * 3 + [[0, 9, 18]] * 3 + [[9, 0, 27]]
    assert banks[11] == [9, 0, 27] and banks[13] == [9, 0, 36]


@pytest.mark.parametrize("favourite, bank", [(27, [27, 27, 27]), (0, [0, 27, 27])])
def test_memflow_renews_a_full_bank_at_every_chunk(small, monkeypatch, favourite, bank):
    """As released, the newest recorded frame enters again with every chunk."""
    monkeypatch.setattr(
        MemFlow, "scores", lambda self, group, state, frames: np.array([(f == favourite) + f / 100 for f in frames])
    )
    stream, made = chunks_of(small, "memflow", 13)
    assert stream.caches[0].notes["bank"]["layer 1"] == bank
    read = made[-1].read["layer 1"].frame
    assert [int(np.count_nonzero(read == frame)) for frame in dict.fromkeys(bank)] == [
        bank.count(frame) + (frame in (0, 1, 2)) for frame in dict.fromkeys(bank)
    ]


def test_memflow_scores_are_mean_attention_scores_of_the_prompt(small):
    stream, _ = chunks_of(small, "memflow", 8)
    cache = stream.caches[0]
    state = stream._state.seen(cache, "step 0")
    group, layer, frames = "layer 2", 2, [0, 9, 18]
    keys, pages = cache.groups[group].keys[layer], cache.groups[group].pages
    text = state.text_keys[layer]
    scores = (text @ keys.transpose(2, 3) * keys.shape[-1] ** -0.5).mean((0, 1, 2)).unflatten(0, (-1, 12)).mean(1)
    slots = [int(pages.slot[pages.rows_of([frame])[0]]) for frame in frames]
    np.testing.assert_allclose(MemFlow().scores(group, state, frames), scores[slots], rtol=1e-4, atol=1e-5)


class Places:
    """Context Forcing's cache of a layer as its code fills it: the frame in each place, sink, slow and fast memory."""

    def __init__(self) -> None:
        self.places, self.remembered, self.before, self.newest = [], 0, None, -1

    def run(self, first: int, keys: torch.Tensor) -> list[int]:
        """A pass of the chunk that begins with a frame, with the mean of its keys."""
        before, self.before = self.before, keys
        unlike = first >= 6 and torch.cosine_similarity(keys, before).mean() < THRESHOLD
        if unlike and self.places[2 + self.remembered] != first:
            if self.remembered < 12:
                self.places[3 + self.remembered] = first
                self.remembered += 1
            else:
                self.places[3:15] = [*self.places[4:15], first]
        if first > self.newest:
            self.newest = first
            self.places = self.places if len(self.places) < 21 else [*self.places[:15], *self.places[18:]]
            self.places += range(first, first + 3)
        return list(self.places)


THRESHOLD = 0.85  # some chunks of the random model are new to some of its layers


def test_context_forcing_fills_places_as_its_code_does(small, monkeypatch):
    layers = [Places() for _ in range(small.geometry.layers)]
    reads = []
    select = ContextForcing.select

    def watched(self, state, layer, query):
        group = f"layer {layer}"
        rows = state.cache.groups[group].pages.rows_of(state.frames)
        keys = state.cache.unrotated(layer, group, rows)[0].flatten(2, 3).mean(2).flatten(1)
        expected = layers[layer].run(state.frames[0], keys)
        select(self, state, layer, query)
        found = self.reads(group, state)
        pages = state.cache.groups[group].pages
        reads.append(
            pages.frame[found.index].tolist() == expected and found.position.tolist() == [*range(len(expected))]
        )

    monkeypatch.setattr(ContextForcing, "select", watched)
    stream, made = chunks_of(small, f"context-forcing:threshold={THRESHOLD}", 24)
    passes = len(small.schedule.sigmas) + 1
    assert len(reads) == 24 * small.geometry.layers * passes and all(reads)
    assert 0 < min(layer.remembered for layer in layers) < max(layer.remembered for layer in layers) == 12
    assert made[-1].kv_tokens_read["layer 0"] == 21 * 12
    held = stream.caches[0].groups["layer 1"].pages.frame
    assert {*held.tolist()} == {*layers[1].places[:15], *layers[1].places[18:]}
    assert layers[0].places[0] == 0 and made[-1].read["layer 0"].position.max() == 20


class Buffer:
    """LongLive 2.0's cache as its code rolls it, in frames: a sink of the stream, a pinned chunk, and the rest."""

    def __init__(self, sink, size) -> None:
        self.sink, self.size, self.frames, self.pinned = sink, size, [], -1

    def add(self, frames, cut):
        pinned = self.frames.index(self.pinned) if self.pinned >= 0 else -1
        fixed = self.sink + (min(self.sink, len(frames)) if pinned == self.sink else 0)
        evicted = max(0, len(self.frames) + len(frames) - self.size)
        self.frames = [*self.frames[:fixed], *self.frames[fixed + evicted :], *frames]
        self.pinned = frames[0] if cut else self.pinned
        return list(self.frames)


@pytest.mark.parametrize("cuts", [(), (2,), (4, 5), (3, 9, 10), (1, 12)])
def test_a_shot_has_a_sink_of_its_own_as_the_buffer_of_longlive_2(small, cuts):
    stream = Stream(small, policies.parse("shot-sink:sink_frames=3,window_frames=12"), PROMPT, SEED, decode=False)
    buffer = Buffer(3, 12)
    for chunk in range(14):
        if chunk in cuts:
            stream.cut()
        made = stream.step()
        held = made.pages["all"]
        expected = buffer.add(list(made.frames), chunk in cuts)
        positions = {frame: frame + 8 * sum(frame >= 3 * cut for cut in cuts) for frame in expected}
        assert len(held) == len(expected)
        assert dict(zip(held.frame.tolist(), held.position.tolist(), strict=True)) == positions


def test_longlive_2_keeps_both_sinks_when_chunks_of_8_pass_its_window(small):
    stream = Stream(replace(small, frames_per_chunk=8), policies.parse("shot-sink"), PROMPT, SEED, decode=False)
    for chunk in range(7):
        if chunk == 2:
            stream.cut()
        held = stream.step().pages["all"]
    frames = [*range(8), *range(16, 24), *range(40, 56)]
    assert sorted(held.frame) == frames and sorted(held.position) == [frame + 8 * (frame >= 16) for frame in frames]


@pytest.fixture
def three_classes(monkeypatch):
    classes = {"wave": ((0,), (0, 1), ()), "anchor": ((1,), (), (0, 1, 2)), "veil": ((2, 3), (2, 3), (3,))}
    monkeypatch.setattr(pyramid_forcing, "head_classes", lambda roles: classes)
    return classes


def test_pyramid_forcing_reads_by_class(small, three_classes):
    _, made = chunks_of(small, "pyramid-forcing", 16)
    read = {
        name: sorted(set(zip(p.frame.tolist(), p.position.tolist(), strict=True))) for name, p in made[-1].read.items()
    }
    own = [(frame, frame) for frame in (44, 45, 46, 47)]
    assert read["wave"] == [(0, 24), *((frame, 24) for frame in (21, 27, 33, 39)), *own]
    assert read["anchor"] == [*((frame, 24) for frame in (0, 1, 2, 24, 30, 36, 42)), *own]
    assert read["veil"] == [
        *((frame, 24) for frame in (0, 1, 2)),
        *((frame, frame) for frame in (29, 33, 37, 41)),
        *own,
    ]
    assert made[-1].kv_tokens_read == {"wave": 9 * 12, "anchor": 11 * 12, "veil": 8 * 12}
    assert made[-1].pages["wave"].frame.min() == 0 and len(set(made[-1].pages["wave"].frame.tolist())) < 15


def test_pyramid_forcing_merges_frames_and_patches(small, three_classes, monkeypatch):
    stream, _ = chunks_of(small, "pyramid-forcing", 2)
    noted = {}
    unrotated = KVCache.unrotated

    def watched(self, layer, name, index):
        noted[layer] = unrotated(self, layer, name, index)
        return noted[layer]

    monkeypatch.setattr(KVCache, "unrotated", watched)
    stream.step()  # frames 6 to 8: the block of frames 4 to 7 is complete
    monkeypatch.undo()
    cache = stream.caches[0]
    pages = cache.groups["veil"].pages
    at = np.flatnonzero((pages.frame == 5) & pages.edited)
    assert len(at) == 1 and pages.segment[at] == 0 and not np.isin(pages.frame, [4, 6]).any()
    values = noted[1][1].flatten(2, 3).unflatten(2, (4, 2, 6))  # of 4 frames of 2 x 6 tokens
    patches = [values[:, :, :, :, col : col + 2].mean((2, 3, 4)) for col in (0, 2, 4)]
    torch.testing.assert_close(unrotated(cache, 1, "veil", at)[1].flatten(2, 3), torch.stack(patches, 2))


@torch.inference_mode()
def test_merged_keys_sit_at_the_corners_of_their_patches(small, three_classes):
    """A block of four equal frames with equal keys before RoPE: merging changes the place, not the content."""
    stream, _ = chunks_of(small, "pyramid-forcing", 2)
    cache = stream.caches[0]
    cache.begin((6, 7, 8))
    group = cache.groups["veil"]
    rows = group.pages.rows_of([4, 5, 6, 7])
    same = torch.randn(1, 2, 1, 1, 12).expand(1, 2, len(rows), 3, 12)
    cache.edit(0, "veil", rows, same.clone(), same.clone())
    pages = group.pages
    first = np.flatnonzero(pages.frame == 5)
    first = first[np.argsort(pages.segment[first])]
    before = cache.keys_of(0, "veil", [5])[:, :, 0].unflatten(2, (2, 6))[:, :, ::2, ::2].flatten(2, 3)
    PyramidForcing._merge(cache, [4, 5, 6, 7])
    after = cache.keys_of(0, "veil", [5])[:, :, 0, :3]
    torch.testing.assert_close(after, before, atol=1e-5, rtol=1e-5)


def test_published_classes_are_taken_for_self_forcing_alone():
    released = roles.load(asset("head_roles") / "self_forcing.json")
    sizes = {name: sum(map(len, heads)) for name, heads in head_classes(released).items()}
    assert sizes == {"wave": 156, "anchor": 172, "veil": 32}
    other = head_classes(roles.load(asset("head_roles") / "longlive.json"))
    assert other["veil"] == ((),) * 30 and other["anchor"] == roles.load(asset("head_roles") / "longlive.json").heads(
        "dynamic"
    )
    assert head_classes(HeadRoles(4, ((0, 1), (2,))))["wave"] == ((0, 1), (2,))
    assert json.loads(pyramid_forcing.CLASSES.read_text())["model"] == "self-forcing"


def test_pyramid_forcing_says_what_it_needs(small):
    geometry = small.transformer.geometry(4, 12, 3)
    with pytest.raises(ValueError, match="needs head classes or roles"):
        PyramidForcing().groups(geometry, None)
    with pytest.raises(ValueError, match="frames of 3 by 6 tokens cannot be divided so"):
        PyramidForcing().segments_of(small.transformer.geometry(6, 12, 3))
