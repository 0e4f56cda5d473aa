"""The page table and the buffers under it."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fkv.cache import GROWTH, MOST_RUNS, KVCache, pinned_bytes, regrouped, unique_bytes
from fkv.pages import Geometry

GEOMETRY = Geometry(layers=2, heads=3, head_dim=4, rows=2, cols=3, frames_per_chunk=3)
SPLIT = {"static": ((0, 2), ()), "dynamic": ((1,), (0, 1, 2))}


def token_values(frames, heads):
    """Keys that say where they come from: [1, tokens, heads, 4] holding frame, token of the frame, head, 1."""
    rows = [[[f, t, h, 1] for h in heads] for f in frames for t in range(GEOMETRY.tokens_per_frame)]
    return torch.tensor(rows, dtype=torch.float32)[None]


def write_chunk(cache, chunk):
    cache.begin(range(3 * chunk, 3 * chunk + 3))
    for layer in range(GEOMETRY.layers):
        write_layer(cache, chunk, layer)


def write_layer(cache, chunk, layer):
    values = token_values(range(3 * chunk, 3 * chunk + 3), cache.order[layer])
    cache.write(layer, values.to(cache.dtype), (-values).to(cache.dtype))


def content(cache, layer):
    """What every head finds: head -> set of (frame, token), read through the views that attention gets."""
    found = {}
    for group, _, keys, values in cache.read(layer):
        keys, values = keys.float(), values.float()
        assert torch.equal(keys, -values)
        for row, head in enumerate(group.heads[layer]):
            assert (keys[0, row, :, 2] == head).all()
            found[head] = {(int(k[0]), int(k[1])) for k in keys[0, row]}
            assert len(found[head]) == keys.shape[2]
    return found


def expected(group, page_tokens):
    pages = group.pages
    return {
        (f, s * page_tokens + i)
        for f, s in zip(pages.frame.tolist(), pages.segment.tolist(), strict=True)
        for i in range(page_tokens)
    }


def test_pages_change_to_8_bits_and_back():
    cache = KVCache(GEOMETRY, SPLIT, 2, torch.bfloat16)
    write_chunk(cache, 0)
    before = [content(cache, layer) for layer in range(GEOMETRY.layers)]
    narrow = regrouped(cache, GEOMETRY.every_head, 2, torch.float8_e4m3fn)
    assert narrow.dtype == torch.float8_e4m3fn and 2 * narrow.bytes() == cache.bytes()
    wide = regrouped(narrow, SPLIT, 2, torch.bfloat16)
    assert [content(wide, layer) for layer in range(GEOMETRY.layers)] == before, (
        "small whole numbers are exact in 8 bits"
    )


def test_only_a_chunk_with_nothing_before_it_opens_the_stream():
    cache, seen = KVCache(GEOMETRY, SPLIT), []
    for chunk, kept in enumerate((True, False, True)):
        write_chunk(cache, chunk)
        seen.append(cache.opening)
        cache.evict({name: np.full(len(group.pages), kept) for name, group in cache.groups.items()})
    assert seen == [True, False, True]


@settings(max_examples=60, deadline=None)
@given(
    data=st.data(), segments=st.sampled_from([1, 2, 3, 6]), dtype=st.sampled_from([torch.float32, torch.float8_e4m3fn])
)
def test_any_sequence_of_commits_keeps_exactly_the_surviving_pages(data, segments, dtype):
    cache = KVCache(GEOMETRY, SPLIT, segments, dtype)
    keep_mask = {name: set() for name in cache.groups}
    most = 6 if dtype == torch.float32 else 5  # 8 bits hold whole numbers to 16 exactly
    for chunk in range(data.draw(st.integers(1, most))):
        apart = data.draw(st.booleans())
        cache.begin(range(3 * chunk, 3 * chunk + 3), apart=apart)
        masks = {}
        for name, group in cache.groups.items():
            pages = group.pages
            assert (pages.slot == np.arange(len(pages))).all(), "live pages are a prefix while a chunk runs"
            held = set(zip(pages.frame.tolist(), pages.segment.tolist(), strict=True))
            assert held == keep_mask[name] | {(f, s) for f in range(3 * chunk, 3 * chunk + 3) for s in range(segments)}
            masks[name] = np.array(data.draw(st.lists(st.booleans(), min_size=len(pages), max_size=len(pages))), bool)
            keep_mask[name] = {
                p
                for p, keep in zip(
                    zip(pages.frame.tolist(), pages.segment.tolist(), strict=True), masks[name], strict=False
                )
                if keep
            }
        for layer in range(GEOMETRY.layers):
            write_layer(cache, chunk, layer)
            found = content(cache, layer)
            for group in cache.groups.values():
                for head in group.heads[layer]:
                    assert found[head] == expected(group, cache.page_tokens)
            if apart:
                cache.settle(layer, masks.__getitem__)
        cache.evict(masks)
    assert cache.bytes() <= cache.allocated_bytes()


def keep_sink_and_anchor(cache):
    return {n: (g.pages.frame == 0) | (g.pages.frame == g.pages.frame.max()) for n, g in cache.groups.items()}


def test_a_steady_stream_fills_its_buffers_and_never_moves_them():
    cache = KVCache(GEOMETRY, SPLIT, 2)
    pointers = None
    for chunk in range(50):
        write_chunk(cache, chunk)
        assert cache.bytes() == cache.allocated_bytes() or chunk < 1
        now = [buffer.data_ptr() for group in cache.groups.values() for buffer in (*group.keys, *group.values)]
        if chunk >= 2:
            assert now == pointers
        pointers = now
        cache.evict(keep_sink_and_anchor(cache))


def test_buffers_of_chunks_that_lie_apart_hold_what_stays_between_them():
    cache = KVCache(GEOMETRY, SPLIT, 2)
    one_layer = 2 * 5 * 6 * 3 * 4 * 4  # bytes: K and V, 5 frames of 6 tokens, heads, elements, float32
    for chunk in range(50):
        cache.begin(range(3 * chunk, 3 * chunk + 3), apart=True)
        assert cache.bytes() == (2 if chunk else 1.2) * one_layer
        for layer in range(GEOMETRY.layers):
            write_layer(cache, chunk, layer)
            cache.settle(layer, keep_sink_and_anchor(cache).__getitem__)
        cache.evict(keep_sink_and_anchor(cache))
        assert cache.bytes() == 0.8 * one_layer
    assert cache.allocated_bytes() == 1.8 * one_layer
    with pytest.raises(ValueError, match="group 'static' has 4 pages, its mask has shape"):
        cache.evict({name: np.ones(3, bool) for name in cache.groups})


def test_a_buffer_that_always_grows_is_seldom_copied_and_never_more_than_an_eighth_too_large():
    cache, grown, before = KVCache(GEOMETRY, SPLIT, 2), 0, 0
    for chunk in range(100):
        write_chunk(cache, chunk)
        now = [buffer.data_ptr() for buffer in cache.groups["dynamic"].keys], cache.allocated_bytes()
        grown, before = grown + (now != before), now
        assert cache.bytes() <= cache.allocated_bytes() <= GROWTH * cache.bytes()
        cache.evict({name: np.ones(len(group.pages), bool) for name, group in cache.groups.items()})
    assert grown < 40


def test_bytes_counted_from_the_table_are_the_bytes_of_the_buffers():
    cache = KVCache(GEOMETRY, SPLIT, 3, dtype=torch.bfloat16)
    for chunk in range(4):
        write_chunk(cache, chunk)
        cache.evict(keep_sink_and_anchor(cache)) if chunk < 3 else None
    buffers = [buffer for group in cache.groups.values() for buffer in (*group.keys, *group.values)]
    assert cache.allocated_bytes() == sum(buffer.untyped_storage().nbytes() for buffer in buffers)
    assert cache.bytes() == 2 * 6 * (5 * 6) * 4 * 2, (
        "K and V, 6 heads over the layers, 5 frames of 6 tokens, 4 numbers of 2 bytes"
    )


def test_splitting_a_group_loses_nothing_and_joining_keeps_what_all_heads_have():
    cache = KVCache(GEOMETRY, GEOMETRY.every_head, 1)
    write_chunk(cache, 0)
    split = regrouped(cache, SPLIT, 2)
    assert content(split, 0) == content(cache, 0) and content(split, 1) == content(cache, 1)
    split.evict({"static": split.groups["static"].pages.frame == 0, "dynamic": split.groups["dynamic"].pages.frame < 2})
    joined = regrouped(split, GEOMETRY.every_head, 1)
    assert joined.frames() == [0]
    assert joined.bytes() == joined.allocated_bytes() == cache.bytes() // 3


def test_a_page_that_is_only_partly_held_does_not_survive_coarser_pages():
    cache = KVCache(GEOMETRY, GEOMETRY.every_head, 2)
    write_chunk(cache, 0)
    cache.evict({"all": (cache.groups["all"].pages.frame == 1) | (cache.groups["all"].pages.segment == 0)})
    assert regrouped(cache, GEOMETRY.every_head, 1).frames() == [1]


def test_wrong_groups_segments_and_masks_are_refused_in_words():
    with pytest.raises(ValueError, match="layer 1.*each of 3 heads once"):
        KVCache(GEOMETRY, {"all": ((0, 1, 2), (0, 1, 1))})
    with pytest.raises(ValueError, match="4 segments do not divide the 6 tokens"):
        KVCache(GEOMETRY, GEOMETRY.every_head, 4)
    cache = KVCache(GEOMETRY, GEOMETRY.every_head)
    write_chunk(cache, 0)
    with pytest.raises(ValueError, match="3 pages"):
        cache.evict({"all": np.ones(2, bool)})


class Branch:
    """A cache, and what its pages must hold: per group (frame, segment) -> the number of the chunk that wrote them."""

    def __init__(self, cache, held):
        self.cache = cache
        self.held = held
        self.chunk = 0

    def fork(self, share):
        branch = Branch(self.cache.fork(share), {name: dict(held) for name, held in self.held.items()})
        branch.chunk = self.chunk
        return branch

    def write(self, stamp):
        """Write a chunk whose keys hold frame, token and stamp."""
        frames = range(3 * self.chunk, 3 * self.chunk + 3)
        self.cache.begin(frames)
        self.chunk += 1
        for layer in range(GEOMETRY.layers):
            keys = token_values(frames, self.cache.order[layer])
            keys[..., 3] = stamp
            self.cache.write(layer, keys.to(self.cache.dtype), (-keys).to(self.cache.dtype))
        pages = [(frame, segment) for frame in frames for segment in range(self.cache.segments)]
        for held in self.held.values():
            held.update(dict.fromkeys(pages, stamp))

    def check(self):
        """What attention reads, run by run and joined, is what was written."""
        size = self.cache.page_tokens
        for layer in range(GEOMETRY.layers):
            joined = self.cache.read(layer)
            for (group, _, keys, values), runs in zip(joined, self.cache.read_runs(layer), strict=True):
                assert len(runs) <= MOST_RUNS + 1
                assert torch.equal(torch.cat([k.float() for k, _ in runs], 2), keys.float())
                assert torch.equal(torch.cat([v.float() for _, v in runs], 2), values.float())
                assert torch.equal(keys.float(), -values.float())
                for row, head in enumerate(group.heads[layer]):
                    found = {(int(f), int(t) // size): int(stamp) for f, t, _, stamp in keys[0, row].tolist()}
                    assert found == self.held[group.name] and (keys[0, row, :, 2].float() == head).all()

    def evict(self, keep):
        masks = {}
        for name, group in self.cache.groups.items():
            pages = list(zip(group.pages.frame.tolist(), group.pages.segment.tolist(), strict=True))
            masks[name] = np.array([keep(page) for page in pages], bool)
            self.held[name] = {page: stamp for page, stamp in self.held[name].items() if keep(page)}
        self.cache.evict(masks)


@settings(max_examples=50, deadline=None)
@given(data=st.data(), segments=st.sampled_from([1, 2, 3]), dtype=st.sampled_from([torch.float32, torch.float8_e4m3fn]))
def test_branches_never_see_what_others_write(data, segments, dtype):
    cache = KVCache(GEOMETRY, SPLIT, segments, dtype)
    branches = [Branch(cache, {name: {} for name in cache.groups})]
    for stamp in range(data.draw(st.integers(2, 12))):
        live = data.draw(st.sampled_from(branches))
        if live.chunk < 4:  # 8 bits hold whole numbers to 16 exactly
            live.write(stamp)
            live.check()
            dropped = data.draw(st.sets(st.tuples(st.integers(0, 14), st.integers(0, 2))))
            live.evict(lambda page, dropped=dropped: page not in dropped)
        action = data.draw(st.sampled_from(["share", "copy", "drop", "regroup", "nothing"]))
        if action in ("share", "copy"):
            branches.append(live.fork(action == "share"))
        elif action == "drop" and len(branches) > 1:
            branches.remove(live)
        elif action == "regroup":
            live.cache = regrouped(live.cache, SPLIT, segments)
    caches = [branch.cache for branch in branches]
    assert unique_bytes(caches) <= sum(cache.bytes() for cache in caches)
    assert unique_bytes(caches) <= pinned_bytes(caches) <= sum(cache.allocated_bytes() for cache in caches)
    for branch in branches:
        branch.write(15)
        branch.check()


def test_branches_pay_once_for_what_they_share():
    cache = KVCache(GEOMETRY, SPLIT, 2)
    for chunk in range(3):
        write_chunk(cache, chunk)
        cache.evict({name: np.ones(len(group.pages), bool) for name, group in cache.groups.items()})
    past = cache.bytes()
    caches = [cache, *(cache.fork(share=True) for _ in range(7))]
    assert unique_bytes(caches) == past and sum(each.bytes() for each in caches) == 8 * past
    for each in caches:
        write_chunk(each, 3)
        assert each.bytes() == past * 4 // 3
    assert unique_bytes(caches) == past + 8 * past // 3
    for each in caches[1:]:
        each.evict({name: group.pages.frame >= 6 for name, group in each.groups.items()})
    assert unique_bytes(caches) == past + 8 * past // 3, "one branch still has the first chunks"
    cache.evict({name: group.pages.frame >= 6 for name, group in cache.groups.items()})
    assert unique_bytes(caches) == past // 3 + 8 * past // 3
    assert pinned_bytes(caches) == past + 8 * past // 3, "the frozen buffers stay as a whole"


def test_moving_pages_in_time_and_going_back_leave_shared_pages_alone():
    cache = KVCache(GEOMETRY, SPLIT, 2)
    write_chunk(cache, 0)
    cache.evict({name: np.ones(len(group.pages), bool) for name, group in cache.groups.items()})
    branch = cache.fork(share=True)
    tables = branch.page_tables()
    write_chunk(branch, 1)
    branch.evict({name: group.pages.frame >= 3 for name, group in branch.groups.items()})
    branch.restore(tables)
    before = [content(branch, layer) for layer in range(GEOMETRY.layers)]
    branch.reposition([0, 1, 2], 5)
    assert [content(cache, layer) for layer in range(GEOMETRY.layers)] == before
    assert branch.positions_of([0]) == [5] and cache.positions_of([0]) == [0]
    with pytest.raises(ValueError, match="shared with another stream cannot be edited"):
        cache.edit(0, "static", np.array([0]), *cache.unrotated(0, "static", np.array([0])))
