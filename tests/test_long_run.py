"""The short form of `python -m tests.long_run`: under no policy that forgets does memory grow from chunk to chunk."""

from __future__ import annotations

import pytest

from fkv import policies
from fkv.stream import Stream
from tests.long_run import grows, run, variants

CHUNKS = 33
RESERVOIR = {"relax-forcing": "relax-forcing:reservoir_frames=30"}  # by default it fills for 40 chunks


@pytest.mark.parametrize("text", variants())
def test_memory_is_flat(small, text):
    stream = Stream(small, policies.parse(RESERVOIR.get(text, text)), "a ball", decode=False)
    assert not grows(run(stream, CHUNKS, latents=False))


def test_growth_is_seen(small):
    assert grows(run(Stream(small, policies.make("full"), "a ball", decode=False), 12, latents=False))
