"""Ca2-VDM, WindowKV and MPCache: what each rule keeps and reads, in cases computed by hand."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from fkv import policies
from fkv.sampler import renoise
from fkv.stream import Stream


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

    def test_positions_never_leave_the_queue(self, small):
        stream, chunks = stream_of(small, "ca2-vdm:prefix_frames=6", 5)
        stream._index = 10_000  # the frames in between are as if another policy had dropped them
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
    def test_the_context_pass_reads_noised_latents_and_nothing_else_does(self, small):
        seen = []
        stream = Stream(small, policies.parse("full:context_noise=0.05"), "a ball", seed=1, decode=False)
        run = stream._pass
        stream._pass = lambda latents, timestep, *rest: (
            seen.append((timestep, latents)) or run(latents, timestep, *rest)
        )
        chunk = stream.step()
        noise = stream.noise.between(0, len(small.schedule.sigmas) - 1, chunk.latents.shape)
        assert [timestep for timestep, _ in seen] == [1000, 500, 0]
        torch.testing.assert_close(seen[-1][1], renoise(chunk.latents, noise, 0.05))

    def test_a_replay_noises_a_chunk_as_before(self, small):
        stream, _ = stream_of(small, "full:context_noise=0.1", 3)
        replayed = stream._replay(range(3))
        for name, group in stream.caches[0].groups.items():
            for before, again in zip(group.keys, replayed.groups[name].keys, strict=True):
                torch.testing.assert_close(again[:, :, : before.shape[2]], before[:, :, : again.shape[2]])

    def test_is_written_and_read_with_any_policy(self):
        text = "commit:6 forcing-kv:context_noise=0.02"
        assert policies.write(policies.parse(text)) == text and policies.parse(text).context_noise == 0.02

    def test_needs_a_context_pass(self):
        with pytest.raises(ValueError, match="policy 'per-step': context_noise needs a context pass"):
            policies.parse("per-step:context_noise=0.05")
