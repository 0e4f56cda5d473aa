"""Operations on heads change what they should, and nothing when they should not."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import torch

from fkv import policies
from fkv.analysis.figures import SurgeryEffects
from fkv.analysis.record import settings_of
from fkv.analysis.surgery import Effect, operate
from fkv.commands import main
from fkv.policies import POLICIES, DeepForcing, DummyForcing, ForcingKV, Full, Recompute
from fkv.policies.silenced import Silenced
from fkv.policies.silenced import silenced as silence
from fkv.probe import FrameMassProbe
from fkv.storyboard import SilenceHead
from fkv.stream import Stream

PROMPT = "a red ball bouncing over the hills at sunset"
POLICY = ForcingKV(segments_per_frame=2)


def test_silenced_heads_are_written_and_read_like_any_policy():
    silenced = Silenced(policies.parse("forcing-kv:retention=0.5"), ((0, 5), (3, 2)))
    assert (
        policies.write(silenced) == "forcing-kv:retention=0.5 without 0.5+3.2"
        and policies.parse(policies.write(silenced)) == silenced
    )
    assert silence(silence(silenced.base, (3, 2)), (0, 5)) == silenced and silence(silenced, (0, 5)) == silenced
    assert (
        silence(silence(silenced, (0, 5), False), (3, 2), False)
        == silenced.base
        == silence(silenced.base, (0, 5), False)
    )
    for text in ("full without", "full without 3", "full without 3.2,4.1", "nothing without 3.2"):
        with pytest.raises(ValueError):
            policies.parse(text)


def test_a_head_silenced_on_the_way_loses_its_past_and_the_others_nothing(small):
    stream = Stream(small, POLICY, PROMPT, decode=False)
    for _ in range(6):
        before = stream.step()
    SilenceHead("A", (1, 2)).apply({"A": stream})
    SilenceHead("A", (2, 0)).apply({"A": stream})
    after = stream.step()
    assert stream.policy.heads == ((1, 2), (2, 0)) and after.kv_tokens["silent"] == 3 * stream.geometry.tokens_per_frame
    assert {name: after.kv_tokens[name] for name in before.kv_tokens} == before.kv_tokens
    with pytest.raises(ValueError, match="no head 9 in layer 0"):
        SilenceHead("A", (0, 9)).apply({"A": stream})


@pytest.mark.parametrize("text", ["tether-cache:budget_frames=9 without 1.0", "commit:6 tether-cache:budget_frames=9"])
def test_a_fork_copies_pages_that_the_policy_edits_also_below_a_wrapper(small, text):
    trunk = Stream(small, policies.parse(text), PROMPT, decode=False)
    for _ in range(4):
        trunk.step()
    branch = trunk.fork(share=True)
    assert not branch.caches[0].shares_pages
    assert torch.equal(branch.step().latents, trunk.step().latents)


def test_a_head_silenced_on_the_way_leaves_the_queries_to_the_other_heads(small, monkeypatch):
    asked = []
    scores = DeepForcing.scores
    monkeypatch.setattr(DeepForcing, "scores", lambda self, *a: asked.append(a) or scores(self, *a))
    rule = policies.parse("deep-forcing:window_frames=9,sink_frames=2,capacity_frames=7")
    stream = Stream(small, rule, PROMPT, decode=False)
    for _ in range(4):
        stream.step()
    branch = stream.fork()
    SilenceHead("A", (1, 0)).apply({"A": branch})
    queries = []
    for each in (stream, branch):
        asked.clear()
        each.step()
        queries += [query for _, layer, _, query in asked if layer == 1]
    earlier = stream.geometry.tokens_per_frame  # the frame of the chunk before, whose queries count
    assert torch.equal(queries[0][:, 1:, :earlier], queries[1][:, :, :earlier])


def test_a_head_silenced_under_context_forcing_does_not_count_as_other_keys(small):
    stream = Stream(small, policies.parse("context-forcing:threshold=-1"), PROMPT, decode=False)
    for _ in range(3):
        stream.step()
    SilenceHead("A", (1, 0)).apply({"A": stream})
    assert stream.step().latents.isfinite().all() and not stream.caches[0].notes.get("slow memory")


def test_a_silenced_head_sees_only_the_current_chunk(small):
    stream = Stream(small, Silenced(Full(), ((1, 2), (2, 0))), PROMPT, decode=False)
    stream.step()
    probe = FrameMassProbe()
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
    assert effect.psnr == (None,) * 3 and effect.kv_bytes == effect.kv_bytes_untouched


def test_operations_change_the_picture_and_the_memory(small):
    flip, silence = operate(small, POLICY, [("flip", [(1, 1)]), ("silence", [(1, 1)])], PROMPT, chunks=4)
    assert flip.psnr[0] is None and flip.psnr[-1] > 0
    assert flip.kv_bytes > flip.kv_bytes_untouched
    assert silence.kv_bytes < silence.kv_bytes_untouched
    (back,) = operate(small, POLICY, [("flip", [(1, 1), (1, 1)])], PROMPT, chunks=4)
    assert back.psnr == (None,) * 4


@pytest.mark.parametrize(
    "policy, operation, words",
    [
        (POLICY, ("flip", [(3, 0)]), "no head 0 in layer 3"),
        (POLICY, ("swap", [(1, 0)]), "no operation 'swap'"),
        (Recompute(), ("silence", [(1, 0)]), "recomputes earlier chunks"),
        (DummyForcing(), ("silence", [(0, 9)]), "no head 9"),
    ],
)
def test_impossible_operations_are_named(small, policy, operation, words):
    with pytest.raises(ValueError, match=words):
        list(operate(small, policy, [operation], PROMPT, chunks=1))


def test_flipping_without_roles_is_named(small):
    with pytest.raises(ValueError, match="no head roles to flip"):
        list(operate(replace(small, roles=None), Full(), [("flip", [(1, 0)])], PROMPT, chunks=1))


def test_pictures_are_needed_to_compare(small):
    with pytest.raises(ValueError, match="no decoder"):
        list(operate(replace(small, decoder=None), Full(), [], PROMPT))


EFFECTS = [
    Effect("flip", ((1, 1),), (None, 31.0, 28.5), 1_200_000, 1_000_000),
    Effect("silence", ((0, 2), (2, 3)), (None,) * 3, 900_000, 1_000_000),
]


def test_the_table_and_the_figure_say_the_same():
    view = SurgeryEffects(EFFECTS)
    table = view.table
    assert table.chunk.tolist() == [1, 2, 3] * 2
    assert table.operation.unique().tolist() == ["flip 1.1", "silence 0.2, 2.3"]
    assert table.kv_change.tolist() == [200_000] * 3 + [-100_000] * 3
    assert np.isinf(table.psnr[[0, 3, 4, 5]]).all() and table.psnr[2] == 28.5
    left, right = view.matplotlib("dark").axes
    drawn = {line.get_label(): list(line.get_ydata()) for line in left.lines}
    assert drawn["flip 1.1"] == [50, 31.0, 28.5] and drawn["silence 0.2, 2.3"] == [50] * 3
    assert [bar.get_width() for bar in right.patches] == pytest.approx([0.2, -0.1])
    with pytest.raises(ValueError, match="no operation to draw"):
        SurgeryEffects([])


def surgery(capsys, *options: str) -> tuple[int, str, str]:
    code = main.main(["surgery", "--prompt", PROMPT, "--policy", "forcing-kv:segments_per_frame=2", *options])
    printed = capsys.readouterr()
    assert "Traceback" not in printed.err
    return code, printed.out, printed.err


def test_the_command_prints_writes_and_draws(capsys, small, small_by_default, tmp_path):
    report, figure = tmp_path / "r.json", tmp_path / "f.svg"
    options = ["--flip", "1.1,2.3", "--silence", "0.2", "--chunks", "3", "--json", str(report), "--out", str(figure)]
    code, out, _ = surgery(capsys, *options)
    assert code == 0 and "silence 0.2" in figure.read_text()
    expected = operate(small, POLICY, [("flip", [(1, 1), (2, 3)]), ("silence", [(0, 2)])], PROMPT, chunks=3)
    for line, effect, written in zip(
        out.splitlines()[1:], expected, json.loads(report.read_text())["effects"], strict=True
    ):
        assert line.startswith(effect.label) and f"{effect.kv_bytes:,}" in line
        assert written["psnr"] == list(effect.psnr) and written["kv_bytes_untouched"] == effect.kv_bytes_untouched
    code, out, err = surgery(capsys, "--silence", "0.2", "--chunks", "1", "--json", "-")
    assert code == 0 and json.loads(out)["effects"] and "silence 0.2" in err


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ("", "nothing to operate on"),
        ("--flip 3", "LAYER.HEAD"),
        ("--flip 9.0", "no head 0 in layer 9"),
        ("--silence 1.1,", "LAYER.HEAD"),
        ("--flip 1.1 --chunks 0", "chunks"),
        ("--flip 1.1 --out f.txt", "not .txt"),
        ("--flip 1.1 --policy x", "no policy"),
        ("--flip 1.1 --policy full", "does not use head roles"),
        ("--flip 1.1 --json /nowhere/r.json", "does not exist"),
        ("--flip 1.1 --roles /nowhere.json", "cannot read"),
    ],
)
def test_the_command_refuses_in_one_sentence(capsys, small_by_default, options, words):
    code, _, err = surgery(capsys, *options.split())
    assert code == 2 and words in err and err.count("\n") == 1


def test_a_silenced_policy_takes_over_what_the_policy_is(small):
    base = policies.parse("per-step:fp8=true")
    both = policies.parse("per-step:fp8=true without 1.2")
    assert (both.fp8, both.caches, both.unwrapped, both.silenced_heads) == (True, "per-step", base, ((1, 2),))
    assert not both.watches_attention and policies.parse("dummy-forcing without 1.2").watches_attention
    assert (base.unwrapped, base.silenced_heads) == (base, ())
    stream = Stream(small, policies.parse("forcing-kv:segments_per_frame=2,sink_frames=2 without 1.2"), PROMPT)
    assert settings_of(stream)["policy"]["sink_frames"] == 2


def test_more_heads_are_silenced_on_top_of_those_that_are(small):
    (effect,) = operate(small, policies.parse("full without 1.2"), [("silence", [(1, 2), (2, 0)])], PROMPT, chunks=2)
    assert effect.kv_bytes < effect.kv_bytes_untouched
