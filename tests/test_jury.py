"""The jury: what jurors see, why they change their minds, and the command that seats them."""

from __future__ import annotations

import json
import random

import numpy as np
import pytest

from fkv.commands import main
from fkv.debate import jury, study
from fkv.debate.engine import Debate
from fkv.video import Mp4Writer
from fkv.world import FPS
from fkv.world.captions import Scene, Thing, caption
from fkv.world.oracle import Reading, Sighting, read
from fkv.world.render import GENES, render

SCENE = Scene("hills", "sunset", (Thing("red", "ball", "bouncing"),))


@pytest.fixture(scope="module")
def clip() -> np.ndarray:
    rng = random.Random(3)
    return render(SCENE, range(72), [rng.random() for _ in range(GENES)])


def test_the_oracle_reads_motion_from_scattered_frames(clip):
    numbers = sorted(random.Random(1).sample(range(72), 30))
    (thing,) = read(clip[numbers], numbers).things
    assert thing.motion == "bouncing"
    with pytest.raises(ValueError, match="30 frames need as many numbers"):
        read(clip[numbers], numbers[1:])


def test_jurors_see_other_parts_with_other_eyes_and_the_seed_decides(clip):
    seated, again = jury.jurors(clip, 4, 7), jury.jurors(clip, 2, 7)
    assert [(juror.own, juror.seed, juror.noise) for juror in seated[:2]] == [
        (juror.own, juror.seed, juror.noise) for juror in again
    ]
    assert all(len(juror.own) == 24 for juror in seated) and len({juror.own for juror in seated}) == 4
    assert len({juror.seed for juror in seated}) == 4


def test_a_juror_who_hears_another_looks_at_their_frames_too(clip):
    one, other = jury.jurors(clip, 2, 0)
    heard = other.answer(jury.QUESTION, None, [])
    first = one.answer(jury.QUESTION, None, [])
    assert first.evidence == one.own and first.read == 24 * jury.FRAME_TOKENS + 5
    second = one.answer(jury.QUESTION, first, [heard])
    assert set(second.evidence) == set(one.own) | set(other.own)
    assert second.read == len(second.evidence) * jury.FRAME_TOKENS + 5 + len(heard.text.split())
    assert (second.answer, second.text) == (SCENE, caption(SCENE))


def test_what_cannot_be_read_is_no_answer():
    thing = Sighting("red", "ball", None, 3.0)
    assert jury.scene_of(Reading("hills", None, (thing,))) == ("time", "motion")
    assert jury.scene_of(Reading("hills", "day", ())) == ("things",)
    blank = np.zeros((30, 96, 160, 3), np.uint8)
    message = jury.jurors(blank, 1, 0)[0].answer(jury.QUESTION, None, [])
    assert message.answer is None and message.text.startswith("unsure: cannot read ")


def test_a_common_bias_is_agreed_on_and_the_debate_takes_it_as_settled():
    scene = Scene("desert", "day", (Thing("orange", "box", "drifting"),))
    clip = render(scene, range(72), [0.5] * GENES)
    transcripts = [Debate(jury.jurors(clip, 4, 1, biased), groups=2).hold(jury.QUESTION) for biased in (0, 4)]
    assert transcripts[0].verdict.answer == scene
    assert transcripts[1].verdict.answer.things[0].colour != "orange"


@pytest.mark.parametrize(
    ("clip", "sentence"),
    [
        (np.zeros((30, 480, 832, 3), np.uint8), "not 832 x 480"),
        (np.zeros((12, 96, 160, 3), np.uint8), "from 24 frames on; this clip has 12"),
    ],
)
def test_it_refuses_clips_that_it_cannot_judge(clip, sentence):
    with pytest.raises(ValueError, match=sentence):
        jury.jurors(clip, 3, 0)


def test_the_study_counts_what_juries_get_right():
    found = list(study.records([4], 2, 2))
    told = study.summary(found, 2, 2)
    assert list(told["juries"])[2:6] == [
        "vote of 2",
        "plain debate of 2",
        "sparse debate of 2",
        "vote of 2, 1 biased",
    ]
    assert told["renders"] == 1 and told["juries"]["plain debate of 2"]["as_plain"] == 1
    assert told["juries"]["plain debate of 2"]["calls"] == 2 * 5
    assert told["juries"][study.ONE]["gained"] == told["juries"][study.ONE]["lost"] == 0
    assert told["juries"][study.ALL_FRAMES]["tokens"] > 72 * jury.FRAME_TOKENS
    assert study.summary(found * 2, 2, 2)["juries"][study.ONE]["right"] in (0, 2)


# The command.


def run(capsys, *args):
    code = main.main(["debate", *args])
    printed = capsys.readouterr()
    assert "Traceback" not in printed.err
    return code, printed


@pytest.fixture(scope="module")
def film(clip, tmp_path_factory):
    path = tmp_path_factory.mktemp("clip") / "clip.mp4"
    with Mp4Writer(path, FPS) as out:
        out.write(clip)
    return path


def test_the_command_prints_the_debate_and_the_verdict(capsys, film, tmp_path):
    report = tmp_path / "debate.json"
    code, printed = run(capsys, str(film), "--jurors", "4", "--json", str(report))
    told = json.loads(report.read_text())
    assert code == 0 and told["verdict"] == caption(SCENE)
    assert "opening: juror 1: answer: " in printed.err and f"verdict: {caption(SCENE)}" in printed.err
    assert told["tokens"] == sum(event["tokens"] for event in told["events"])
    assert len(told["events"][0]["evidence"]) == 24


def test_plain_debate_asks_everybody_every_time(capsys, film):
    code, printed = run(capsys, str(film), "--jurors", "2", "--plain")
    assert code == 0 and json.loads(printed.out)["calls"] == 2 * 5


def test_one_juror_needs_no_groups_to_be_named(capsys, film):
    code, printed = run(capsys, str(film), "--jurors", "1")
    assert code == 0 and json.loads(printed.out)["agents"] == ["juror 1"]


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (["README.md"], "cannot read the video README.md"),
        (["nowhere.mp4"], "cannot read the video nowhere.mp4: No such file"),
        (["FILM", "--jurors", "0"], "--jurors must be 1 to 16"),
        (["FILM", "--groups", "9"], "6 agents cannot form 9 groups"),
        (["FILM", "--seed", "-1"], "seed"),
        (["--renders", "0"], "--renders must be at least 1"),
        (["--renders", "1", "--plain"], "leave out --plain and --seed"),
        (["--renders", "1", "--seed", "3"], "leave out --plain and --seed"),
        (["FILM", "--plain", "--groups", "2"], "--plain is a debate in one group"),
    ],
)
def test_bad_input_is_answered_with_a_sentence(capsys, film, options, sentence):
    code, printed = run(capsys, *[str(film) if option == "FILM" else option for option in options])
    assert code == 2 and sentence in printed.err and not printed.out


def test_a_film_too_long_or_of_another_size_is_refused(capsys, film, tmp_path, monkeypatch):
    large = tmp_path / "large.mp4"
    with Mp4Writer(large, FPS) as out:
        out.write(np.zeros((30, 64, 64, 3), np.uint8))
    assert "not 64 x 64" in run(capsys, str(large))[1].err
    monkeypatch.setattr(jury, "MOST_FRAMES", 32)
    assert "at most 32 frames; cut" in run(capsys, str(film))[1].err
