"""The auto policy: the leanest cache within a tolerance, by pictures that are measured as the stream goes on."""

from __future__ import annotations

import json

import pytest
import torch

from fkv import policies
from fkv.commands import main
from fkv.report import frame_hash
from fkv.search.auto import Auto, Tolerance
from fkv.search.head import Foresight, Head
from fkv.search.looks import weights_of
from fkv.search.moves import Moves
from fkv.search.report import replay
from fkv.search.rewards import CLEAN_DB
from fkv.search.tree import Node
from fkv.storyboard import SetPolicy, Storyboard, parse
from fkv.stream import Stream

PROMPT = "a red ball bouncing over the hills at sunset"
NOTHING = Storyboard()
LEAN = "sliding-window:window_frames=4"


def streamed(small, text, chunks=6, story=NOTHING):
    stream = Stream(small, policies.make("full"), PROMPT)
    auto = Auto(stream, story, chunks, Tolerance.parse(text))
    return auto, list(auto.run())


def test_the_leanest_candidate_within_the_tolerance_goes_on(small):
    auto, made = streamed(small, f"auto:tolerance=0+every=2+among=forcing-kv|{LEAN}")
    measured = [choice.measured_db for choice in auto.choices]
    assert [bool(each) for each in measured] == [False, True, False, True, False, True]
    assert auto.choices[-1].policy == LEAN and made[-1].policy == "sliding-window"
    assert made[-1].kv_bytes_between < made[0].kv_bytes_between * 2, "a window of four frames, not of all six chunks"
    assert auto.choices[4].predicted_db == measured[3][LEAN], "until it is measured again, it is predicted to stay"


def test_the_full_cache_stays_where_no_other_is_near_enough_and_story_repeats_the_stream(small):
    auto, made = streamed(small, f"auto:tolerance=1e9+every=1+among={LEAN}", chunks=4)
    assert {choice.policy for choice in auto.choices[2:]} == {"full"}
    assert auto.spare_passes == sum(chunk.passes for chunk in made[1:])
    mixed, frames = streamed(small, f"auto:tolerance=0+every=2+among={LEAN}", 4, parse("3: a blue star"))
    story = parse(mixed.report()["story"])
    again = replay(lambda noise: Stream(small, policies.make("full"), PROMPT, noise=noise), 0, (), story, 4)
    assert frame_hash(again) == frame_hash(frames) and any(isinstance(cue.change, SetPolicy) for cue in story.cues)


def head_of(small, facts=None, **predicted):
    """A head that predicts these PSNRs by policy, whatever it sees."""
    features = len(Foresight(small, Moves()).state(Node()))
    head = Head([f"noise 0, {name}" for name in predicted], features, facts or {})
    with torch.no_grad():
        head.out.weight.zero_()
        head.out.bias.copy_(torch.tensor(list(predicted.values())) / CLEAN_DB)
    return head


@pytest.mark.parametrize(("decibels", "policy"), [(31.0, LEAN), (29.0, "full")])
def test_a_head_chooses_the_leanest_of_which_it_predicts_enough(small, decibels, policy):
    head = head_of(small, **{LEAN: decibels, "full": 20.0})
    stream = Stream(small, policies.make("full"), PROMPT)
    wanted = Tolerance.parse(f"auto:tolerance=30+among=forcing-kv|{LEAN}")
    auto = Auto(stream, parse("3: a blue star"), 5, wanted, head)
    made = list(auto.run())
    assert [choice.policy for choice in auto.choices] == ["full", *[policy] * 4] and auto.spare_passes == 0
    assert auto.choices[1].predicted_db == pytest.approx(decibels if policy == LEAN else 20.0, abs=1e-3)
    assert auto.report()["among"] == [LEAN, "full"], "it was not trained with forcing-kv"
    story = parse(auto.report()["story"])
    again = replay(lambda noise: Stream(small, policies.make("full"), PROMPT, noise=noise), 0, (), story, 5)
    assert frame_hash(again) == frame_hash(made)


def test_a_head_that_was_trained_for_something_else_chooses_nothing(small, stand_in, capsys, tmp_path):
    with pytest.raises(ValueError, match="trained with none of forcing-kv; it knows noise 0, full"):
        Auto(
            Stream(small, policies.make("full"), PROMPT),
            NOTHING,
            3,
            Tolerance(among="forcing-kv"),
            head_of(small, full=40.0),
        )
    stand_in(small)
    facts = weights_of(small)
    for rewards, status in (("continuity", 2), ("faithful", 0)):
        head_of(small, facts | {"rewards": rewards}, **{LEAN: 40.0}).save(tmp_path / "head.safetensors")
        options = ["--policy", f"auto:among={LEAN}", "--head", str(tmp_path / "head.safetensors")]
        assert main.main(["stream", "--chunks", "3", *options]) == status
    captured = capsys.readouterr()
    assert "the head was trained for rewards 'continuity', not 'faithful'" in captured.err
    told = json.loads(captured.out)["auto"]
    assert told["head"]["rewards"] == "faithful" and [each["policy"] for each in told["chunks"]] == ["full", LEAN, LEAN]


def test_auto_from_the_command_line(small, stand_in, capsys):
    stand_in(small)
    assert main.main(["stream", "--chunks", "3", "--policy", f"auto:tolerance=0+among={LEAN}"]) == 0
    told = json.loads(capsys.readouterr().out)["auto"]
    assert [each["policy"] for each in told["chunks"]] == ["full", LEAN, LEAN] and told["among"] == [LEAN, "full"]


@pytest.mark.parametrize(
    ("text", "options", "sentence"),
    [
        ("auto:speed=1", [], "policy 'auto' has no parameter 'speed'; it has tolerance, every, among"),
        ("auto:every=0", [], "every must be"),
        ("auto:among=ful", [], "'ful'"),
        ("auto:among=recompute", [], "switches between shared caches"),
        ("auto", ["--forbid", "red"], "does not go with --forbid"),
        ("auto", ["--story", "STORY"], "leave out the storyboard's lines that set one"),
    ],
)
def test_bad_input_is_one_sentence(small, stand_in, capsys, tmp_path, text, options, sentence):
    stand_in(small)
    story = tmp_path / "story.txt"
    story.write_text("2: A = full")
    options = [str(story) if each == "STORY" else each for each in options]
    assert main.main(["stream", "--chunks", "3", "--policy", text, *options]) == 2
    assert sentence in capsys.readouterr().err
