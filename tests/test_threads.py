"""One thread for small operations, all for large ones: in the calling thread alone, and with the same numbers."""

import threading

import pytest
import torch

from fkv import policies
from fkv.kernels import dispatch, one_thread_between
from fkv.kernels.threads import _setter, by_all_threads
from fkv.stream import Stream
from fkv.transformer import attention, causal

pytestmark = pytest.mark.skipif(_setter() is None, reason="this build of PyTorch does not show its number of threads")
large = by_all_threads(torch.get_num_threads)


@pytest.fixture(autouse=True)
def two_threads():
    own = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(own)


def elsewhere() -> int:
    """How many threads another thread has that begins now."""
    seen = []
    other = threading.Thread(target=lambda: seen.append(torch.get_num_threads()))
    other.start()
    other.join()
    return seen[0]


def test_what_is_small_gets_one_thread_and_what_is_large_all_of_them():
    with one_thread_between():
        assert (torch.get_num_threads(), large(), elsewhere()) == (1, 2, 2)
        with one_thread_between():
            assert (torch.get_num_threads(), large()) == (1, 2)
        assert (torch.get_num_threads(), large()) == (1, 2)
    assert (torch.get_num_threads(), large()) == (2, 2)


def test_within_what_is_large_something_may_be_small():
    @by_all_threads
    def both() -> tuple[int, int]:
        with one_thread_between():
            alone = torch.get_num_threads()
        return alone, torch.get_num_threads()

    with one_thread_between():
        assert (both(), torch.get_num_threads(), large()) == ((1, 2), 1, 2)


def test_ways_are_tried_by_one_thread(monkeypatch):
    monkeypatch.setattr(dispatch, "_choices", {})
    tried = []
    ways = {name: lambda name=name: tried.append((name, torch.get_num_threads())) for name in "ab"}
    assert dispatch.fastest("test", torch.zeros(2), ways, 1e9) == "b"
    assert set(tried) == {("a", 1), ("b", 1)} and (torch.get_num_threads(), elsewhere()) == (2, 2)


def test_a_failure_leaves_all_threads():
    fail = by_all_threads(lambda: 1 / 0)
    with pytest.raises(ZeroDivisionError), one_thread_between():
        with pytest.raises(ZeroDivisionError):
            fail()
        assert torch.get_num_threads() == 1
        fail()
    assert torch.get_num_threads() == 2


def test_who_has_one_thread_keeps_it():
    torch.set_num_threads(1)
    with one_thread_between():
        assert large() == 1
    assert torch.get_num_threads() == 1


@pytest.mark.parametrize("policy", ["full", "forcing-kv"])
def test_a_stream_is_the_same_to_the_last_bit(small, policy, monkeypatch):
    used = []
    hybrid = attention.hybrid_attention
    monkeypatch.setattr(
        attention, "hybrid_attention", lambda *given: used.append(torch.get_num_threads()) or hybrid(*given)
    )

    def made(limit: int) -> torch.Tensor:
        monkeypatch.setattr(causal, "ONE_THREAD_ELEMENTS", limit)
        stream = Stream(small, policies.make(policy), "a red ball", seed=2, decode=False)
        return torch.cat([stream.step().latents for _ in range(4)], 1)

    assert torch.equal(made(causal.ONE_THREAD_ELEMENTS), made(0))
    assert set(used[: len(used) // 2]) == {1} and set(used[len(used) // 2 :]) == {2}
