"""Several streams in one pass: equal to one by one up to rounding, and none fails for another."""

import pytest
import torch

from fkv import policies
from fkv.parallel.rows import step_rows
from fkv.stream import Stream
from fkv.transformer import attention
from fkv.transformer.causal import CausalTransformer

PROMPTS = ("a red ball over the sea", "a blue star in the city")


def streams(model, *names):
    return [
        Stream(model, policies.parse(name), PROMPTS[i % 2], seed=i, decode=i % 2 == 0) for i, name in enumerate(names)
    ]


NAMES = ("full", "forcing-kv:segments_per_frame=6", "sliding-window", "per-step", "recompute", "full:fp8=true")


def test_rows_generate_what_each_stream_generates_alone(small):
    rows, alone = streams(small, *NAMES), streams(small, *NAMES)
    rows[0].step(), alone[0].step()  # streams may be at different chunks
    for chunk in range(3):
        if chunk == 2:
            for live in (rows[1], alone[1]):
                live.set_prompt("a green heart", recache=True)
        for made, stream in zip(step_rows(rows), alone, strict=True):
            wanted = stream.step()
            torch.testing.assert_close(made.latents, wanted.latents, atol=1e-5, rtol=1e-4)
            assert (made.index, made.prompt, made.kv_bytes) == (wanted.index, wanted.prompt, wanted.kv_bytes)
            assert (made.video is None) == (wanted.video is None)


def test_branches_are_rows_of_one_pass(small):
    trunk, alone = streams(small, "full", "full")
    alone = Stream(small, policies.make("full"), PROMPTS[0], seed=0)
    [(trunk.step(), alone.step()) for _ in range(2)]
    for made in step_rows([trunk, *(trunk.fork(share=True) for _ in range(3))]):
        torch.testing.assert_close(made.latents, alone.fork().step().latents, atol=1e-5, rtol=1e-4)


def test_one_product_serves_all_rows_of_one_head_order(small, monkeypatch):
    sizes = []
    together = CausalTransformer.together
    monkeypatch.setattr(
        CausalTransformer, "together", lambda self, passes: sizes.append(len(passes)) or together(self, passes)
    )
    step_rows(streams(small, "full", "sliding-window", "forcing-kv:segments_per_frame=6"))
    assert sizes == [2, 1] * 3, "two steps and the context pass"


def test_a_single_row_is_the_plain_stream_to_the_last_bit(small):
    ((row,), (alone,)) = (streams(small, "full") for _ in range(2))
    for _ in range(2):
        (made,) = step_rows([row])
        assert torch.equal(made.latents, alone.step().latents)


@pytest.mark.parametrize("where", ["latents", "pass"])
def test_one_row_that_fails_ends_no_other(small, where, monkeypatch):
    class Broken:
        def initial(self, chunk, shape):
            return torch.full(shape, torch.nan)

        def between(self, chunk, step, shape):
            return torch.zeros(shape)

    rows = streams(small, "full", "full", "full")
    if where == "latents":
        rows[1].noise = Broken()
    else:
        attend = attention.attend

        def fails(layer, query, cache, *rest):
            if cache is rows[1].caches[0]:
                raise RuntimeError("out of memory")
            return attend(layer, query, cache, *rest)

        monkeypatch.setattr(attention, "attend", fails)
    made = step_rows(rows)
    assert "finite" in str(made[1]) if where == "latents" else "out of memory" in str(made[1])
    assert [type(each).__name__ for each in (made[0], made[2])] == ["Chunk", "Chunk"]
