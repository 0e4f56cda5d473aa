"""Streams side by side: really at once where threads are shared, in turn elsewhere, and always the same chunks."""

import dataclasses
import threading
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from fkv import policies, together
from fkv.stream import Stream


@pytest.fixture
def two_threads(monkeypatch):
    """A processor that computes in float32, and two threads of it."""
    own = torch.get_num_threads()
    monkeypatch.setattr(together, "multiplies_float32", lambda: False)
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(own)


def pair(model) -> dict[str, Stream]:
    return {name: Stream(model, policies.make(name), "a red ball", seed=2) for name in ("full", "forcing-kv")}


def test_threads_are_shared_where_streams_compute_in_float32(two_threads):
    def on(device: str, dtype: torch.dtype) -> SimpleNamespace:
        return SimpleNamespace(device=torch.device(device), dtype=dtype)

    assert [together.threads_each(on("cpu", torch.float32), streams) for streams in (1, 2, 3)] == [0, 1, 0]
    assert together.threads_each(on("cpu", torch.bfloat16), 2) == together.threads_each(on("cuda", torch.float32), 2) == 0
    assert together.device_of(on("cpu", torch.float32), 2).endswith("CPU, 2 threads, 1 for each stream")
    assert together.device_of(on("cpu", torch.float32), 1).endswith("CPU, 2 threads")


def test_attention_that_one_thread_at_a_time_may_compute_is_computed_in_turn(two_threads, monkeypatch):
    monkeypatch.setattr(together, "multiplies_float32", lambda: True)
    assert together.threads_each(SimpleNamespace(device=torch.device("cpu"), dtype=torch.float32), 2) == 0


def test_chunks_are_the_same_at_once_and_in_turn(small, two_threads):
    at_once, alone = pair(small), pair(small)
    for turn in (["full", "forcing-kv"], ["forcing-kv", "full"]) * 2:
        made = together.step_all(at_once, turn, {})
        for name, stream in alone.items():
            wanted = stream.step()
            torch.testing.assert_close(made[name].latents, wanted.latents, rtol=1e-4, atol=1e-4)
            assert np.abs(made[name].video.astype(int) - wanted.video).max() <= 1
            assert (made[name].kv_bytes, made[name].kv_tokens) == (wanted.kv_bytes, wanted.kv_tokens)
    assert torch.get_num_threads() == 2


@pytest.mark.parametrize("shared", [True, False])
def test_streams_meet_only_where_threads_are_shared(small, two_threads, monkeypatch, shared):
    """Each waits in its decoder for the other; in turn, the first one would wait for ever."""
    monkeypatch.setattr(together, "multiplies_float32", lambda: not shared)
    meeting = threading.Barrier(2)

    def decoder(latents, state):
        meeting.wait(60 if shared else 0.2)
        return np.full((1, 8, 8, 3), torch.get_num_threads(), np.uint8), state

    streams = pair(dataclasses.replace(small, decoder=decoder))
    if shared:
        assert all((chunk.video == 1).all() for chunk in together.step_all(streams, streams, {}).values())
    else:
        with pytest.raises(threading.BrokenBarrierError):
            together.step_all(streams, streams, {})


def test_one_that_fails_is_told_of_once_the_other_has_ended(small, two_threads):
    streams = pair(small)

    def fails(probe):
        raise ValueError("no more")

    streams["full"].step = fails
    with pytest.raises(ValueError, match="no more"):
        together.step_all(streams, ["full", "forcing-kv"], {})
    assert streams["forcing-kv"].index == 1 and torch.get_num_threads() == 2
