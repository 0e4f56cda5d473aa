"""The thread in which the model computes."""

import threading
from contextlib import closing

import pytest

from fkv.studio.live import model_thread


def thread() -> str:
    return threading.current_thread().name


@pytest.mark.parametrize("iterating", [model_thread.iterating, model_thread.iterating_ahead])
def test_every_step_and_the_end_are_done_in_one_thread(iterating):
    seen = []

    def work(count):
        try:
            for _ in range(count):
                seen.append(thread())
                yield thread()
        finally:
            seen.append(f"end in {thread()}")

    (name,) = set(iterating(work)(3))
    assert (
        name.startswith("fkv-model") and seen == [name] * 3 + [f"end in {name}"] and model_thread.call(thread) == name
    )
    del seen[:]
    with closing(iterating(work)(3)) as items:
        next(items)
    assert seen[0] == name and seen[-1] == f"end in {name}"


def test_the_next_step_is_done_while_the_caller_works_with_an_item():
    done = threading.Event()

    def work():
        yield 1
        done.set()
        yield 2

    items = model_thread.iterating_ahead(work)()
    assert next(items) == 1 and done.wait(60)
    assert list(items) == [2]


@pytest.mark.parametrize("iterating", [model_thread.iterating, model_thread.iterating_ahead])
def test_failures_cross(iterating):
    def work():
        yield 1
        raise ValueError("the decoder broke")

    items = iterating(work)()
    assert next(items) == 1
    with pytest.raises(ValueError, match="the decoder broke"):
        next(items)


def test_work_may_ask_for_the_thread_that_it_is_in():
    assert model_thread.call(model_thread.call, thread) == model_thread.call(thread)


def test_streams_of_several_visitors_share_it():
    def work():
        for _ in range(5):
            yield thread()

    found, visitors = [], []
    for _ in range(4):
        visitors.append(threading.Thread(target=lambda: found.extend(model_thread.iterating(work)())))
        visitors[-1].start()
    for visitor in visitors:
        visitor.join()
    assert len(found) == 20 and len(set(found)) == 1
