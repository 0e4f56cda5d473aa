"""The auto policy: the leanest cache within a tolerance, by pictures that are measured as the stream goes on."""

from __future__ import annotations

import json

import pytest

from fkv import policies
from fkv.commands import main
from fkv.models import registry
from fkv.models.registry import ModelEntry
from fkv.report import frame_hash
from fkv.search.auto import Auto, Tolerance
from fkv.search.report import replay
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


def test_auto_from_the_command_line(small, monkeypatch, capsys):
    monkeypatch.setitem(registry.MODELS, "tiny", ModelEntry("tiny", "a stand-in", lambda device: small))
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
def test_bad_input_is_one_sentence(small, monkeypatch, capsys, tmp_path, text, options, sentence):
    monkeypatch.setitem(registry.MODELS, "tiny", ModelEntry("tiny", "a stand-in", lambda device: small))
    story = tmp_path / "story.txt"
    story.write_text("2: A = full")
    options = [str(story) if each == "STORY" else each for each in options]
    assert main.main(["stream", "--chunks", "3", "--policy", text, *options]) == 2
    assert sentence in capsys.readouterr().err
