"""Operations on heads change what they should, and nothing when they should not."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from analysis.surgery import Silenced, operate
from fkv.policies import POLICIES, DummyForcing, ForcingKV, Full, Recompute
from fkv.probe import FrameMassProbe
from fkv.stream import Stream

PROMPT = "a red ball bouncing over the hills at sunset"
POLICY = ForcingKV(segments_per_frame=2)


def test_a_silenced_head_sees_only_the_current_chunk(small):
    stream = Stream(small, Silenced(Full(), ((1, 2), (2, 0))), PROMPT, decode=False)
    stream.step()
    probe = FrameMassProbe(passes={"context"})
    stream.step(probe)
    past = probe.take()[0].mass[..., :3].sum((-2, -1))
    silent = np.zeros_like(past, bool)
    silent[1, 2] = silent[2, 0] = True
    assert (past[silent] == 0).all() and (past[~silent] > 0).all()


@pytest.mark.parametrize("name", [name for name, policy in POLICIES.items() if policy.caches != "none"])
def test_every_policy_with_a_cache_can_be_operated_on(small, name):
    base = POLICIES[name]()
    base = replace(base, segments_per_frame=2) if isinstance(base, ForcingKV) else base
    stream = Stream(small, Silenced(base, ((1, 1),)), PROMPT, decode=False)
    for _ in range(3):
        chunk = stream.step()
    assert chunk.kv_tokens["silent"] == 36


def test_silencing_no_head_changes_nothing(small):
    (effect,) = operate(small, POLICY, [("silence", ())], PROMPT, chunks=3)
    assert effect.psnr == (None,) * 3 and effect.worst is None and effect.kv_bytes == effect.kv_bytes_untouched


def test_operations_change_the_picture_and_the_memory(small):
    flip, silence = operate(small, POLICY, [("flip", [(1, 1)]), ("silence", [(1, 1)])], PROMPT, chunks=4)
    assert flip.psnr[0] is None and flip.worst is not None and flip.worst > 0
    assert flip.kv_bytes > flip.kv_bytes_untouched
    assert silence.kv_bytes < silence.kv_bytes_untouched
    (back,) = operate(small, POLICY, [("flip", [(1, 1), (1, 1)])], PROMPT, chunks=4)
    assert back.worst is None


@pytest.mark.parametrize(
    "policy, operation, words",
    [
        (POLICY, ("flip", [(3, 0)]), "no head 0 in layer 3"), (POLICY, ("swap", [(1, 0)]), "no operation 'swap'"),
        (Recompute(), ("silence", [(1, 0)]), "computes history anew"), (DummyForcing(), ("silence", [(0, 9)]), "no head 9"),
    ],
)  # fmt: skip
def test_impossible_operations_are_named(small, policy, operation, words):
    with pytest.raises(ValueError, match=words):
        list(operate(small, policy, [operation], PROMPT, chunks=1))


def test_flipping_without_roles_is_named(small):
    with pytest.raises(ValueError, match="no head roles to flip"):
        list(operate(replace(small, roles=None), Full(), [("flip", [(1, 0)])], PROMPT, chunks=1))


def test_pictures_are_needed_to_compare(small):
    with pytest.raises(ValueError, match="no decoder"):
        list(operate(replace(small, decoder=None), Full(), [], PROMPT))
