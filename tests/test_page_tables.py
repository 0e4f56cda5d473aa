"""What a policy holds and reads, counted from page tables alone, is what a stream holds and reads."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from fkv import policies
from fkv.models.page_tables import footprint, read_tables
from fkv.policies import POLICIES
from fkv.stream import Stream

COUNTED = [name for name in POLICIES if not policies.make(name).watches_attention and name != "memflow"]
CHUNKS = 10


@pytest.mark.parametrize("text", [*COUNTED, "commit:3 longlive", "commit:6 rolling-sink", "longlive:fp8=true"])
def test_counted_figures_are_those_of_a_stream(small, text):
    text = f"{text}:segments_per_frame=4" if hasattr(POLICIES.get(text), "segments_per_frame") else text
    policy = policies.parse(text)
    stream = Stream(small, policy, "a ball", decode=False)
    chunk = [stream.step() for _ in range(CHUNKS)][-1]
    counted = footprint(stream.geometry, policy, small.roles, CHUNKS, torch.float32, len(small.schedule.sigmas))
    heads = {name: sum(map(len, each)) for name, each in chunk.heads.items()}
    read = sum(heads[name] * tokens for name, tokens in chunk.kv_tokens_read.items()) / sum(heads.values())
    assert counted.bytes == chunk.kv_bytes
    assert counted.denoise * stream.geometry.tokens_per_frame == pytest.approx(read)
    assert (counted.context is None) == (policy.caches == "per-step")
    steps = len(small.schedule.sigmas)
    drawn = read_tables(stream.geometry, policy, small.roles, CHUNKS, torch.float32, steps).reads
    assert {name: len(kinds) for name, kinds in drawn.kinds.items()} == {
        name: len(kinds) for name, kinds in chunk.kinds.items()
    }
    if not policy.unwrapped.compares_keys:
        assert drawn.kinds == chunk.kinds
        for name, pages in chunk.read.items():
            for own, counted_ones in zip(pages.columns, drawn.pages[name].columns, strict=True):
                np.testing.assert_array_equal(own, counted_ones)


def test_what_depends_on_passes_is_not_drawn_from_page_tables(small):
    with pytest.raises(ValueError, match="what 'mpcache' keeps depends on what the video shows"):
        read_tables(small.geometry, policies.make("mpcache"), None, 2, torch.float32, 2)


def test_the_context_pass_of_a_wrapped_policy_is_counted_apart(small):
    geometry = small.transformer.geometry(4, 12, 3)
    counted = footprint(geometry, policies.parse("commit:6 longlive"), None, 20, torch.float32)
    assert (counted.frames, counted.denoise, counted.context) == (12, 12, 6)
