"""Streams side by side: really at once where each has a thread, in turn elsewhere, and always the same chunks."""

import dataclasses
import threading
from contextlib import closing
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from fkv import policies
from fkv.parallel import lockstep
from fkv.stream import Stream


@pytest.fixture
def two_threads(monkeypatch):
    """A processor that computes in float32, and two threads of it."""
    own = torch.get_num_threads()
    monkeypatch.setattr(lockstep, "multiplies_float32", lambda: False)
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(own)


def pair(model) -> dict[str, Stream]:
    return {name: Stream(model, policies.make(name), "a red ball", seed=2) for name in ("full", "forcing-kv")}


def step_all(streams, turn):
    """The next chunk of every stream."""
    with closing(lockstep.SideBySide()) as side:
        made = side.step(streams, turn, {})
        while side.busy:
            made |= side.step(streams, [], {})
    return made


def on(device: str, dtype: torch.dtype = torch.float32) -> SimpleNamespace:
    return SimpleNamespace(device=torch.device(device), dtype=dtype)


def test_streams_compute_at_once_in_float32_with_a_thread_each(small, two_threads, monkeypatch):
    assert [lockstep.runs_concurrently(on("cpu"), streams) for streams in (1, 2, 3)] == [False, True, False]
    assert not lockstep.runs_concurrently(on("cpu", torch.bfloat16), 2) and not lockstep.runs_concurrently(
        on("cuda"), 2
    )
    assert lockstep.device_of(small, 2).endswith("CPU, 2 threads, one for each stream, fp32")
    assert lockstep.device_of(small, 1).endswith("CPU, 2 threads, fp32")
    torch.set_num_threads(4)
    assert not lockstep.runs_concurrently(on("cpu"), 2), "in turn each has four"
    torch.set_num_threads(2)
    monkeypatch.setattr(lockstep, "multiplies_float32", lambda: True)
    assert not lockstep.runs_concurrently(on("cpu"), 2), "one thread at a time may compute attention"


def test_chunks_are_the_same_at_once_and_in_turn(small, two_threads):
    at_once, alone = pair(small), pair(small)
    for turn in (["full", "forcing-kv"], ["forcing-kv", "full"]) * 2:
        made = step_all(at_once, turn)
        for name, stream in alone.items():
            wanted = stream.step()
            torch.testing.assert_close(made[name].latents, wanted.latents, rtol=1e-4, atol=1e-4)
            assert np.abs(made[name].video.astype(int) - wanted.video).max() <= 1
            assert (made[name].kv_bytes, made[name].kv_tokens) == (wanted.kv_bytes, wanted.kv_tokens)
    assert torch.get_num_threads() == 2


@pytest.mark.parametrize("apart", [True, False])
def test_streams_meet_only_where_each_has_a_thread(small, two_threads, monkeypatch, apart):
    """Each waits in its decoder for the other; in turn, the first one would wait for ever."""
    monkeypatch.setattr(lockstep, "multiplies_float32", lambda: not apart)
    meeting = threading.Barrier(2)

    def decoder(latents, state):
        meeting.wait(60 if apart else 0.2)
        return np.full((1, 8, 8, 3), torch.get_num_threads(), np.uint8), state

    streams = pair(dataclasses.replace(small, decoder=decoder))
    if apart:
        assert all((chunk.video == 1).all() for chunk in step_all(streams, streams).values())
    else:
        with pytest.raises(threading.BrokenBarrierError):
            step_all(streams, streams)


def test_who_is_faster_goes_on_while_the_other_computes(small, two_threads):
    may_end = threading.Event()
    streams, ways = pair(small), {}
    ways["full"] = streams["full"].step
    streams["full"].step = lambda probe: may_end.wait(60) and ways["full"](probe)
    with closing(lockstep.SideBySide()) as side:
        for index, turn in enumerate((["full", "forcing-kv"], ["forcing-kv"], ["forcing-kv"])):
            made = side.step(streams, turn, {})
            assert made["forcing-kv"].index == index and [*side.busy] == ["full"]
        assert side.step(streams, [], {}, 0.01) == {}, "it waits no longer than it is told"
        may_end.set()
        assert side.step(streams, [], {})["full"].index == 0 and not side.busy


def test_one_that_fails_is_told_of_once_the_other_has_ended(small, two_threads):
    streams = pair(small)

    def fails(probe):
        raise ValueError("no more")

    streams["full"].step = fails
    with pytest.raises(ValueError, match="no more"):
        step_all(streams, ["full", "forcing-kv"])
    assert streams["forcing-kv"].index == 1 and torch.get_num_threads() == 2
