"""The evaluation: what it measures of known videos, what it skips when it goes on, what it writes and refuses."""

import argparse
import json
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
import torch

from fkv import policies
from fkv.analysis import (
    contact_sheet,
    evaluate,
    evaluation_plots,
    evaluation_streams,
    evaluation_table,
    jobs,
    prompt_switch,
)
from fkv.analysis.adherence import adherence, marks, oracle_accuracy
from fkv.analysis.evaluation_report import report
from fkv.analysis.held_out import held_out_scene, switched_scene
from fkv.analysis.measures import EQUAL_DB
from fkv.analysis.prompt_switch import chunks_until, measure_switch
from fkv.analysis.stream_measures import measure, measure_renders
from fkv.commands import eval as command
from fkv.commands.common import read_policies
from fkv.models import tiny
from fkv.stream import Chunk, Timings
from fkv.world import panorama
from fkv.world.captions import Scene, Thing, caption, parse
from fkv.world.render import GENES, render
from fkv.world.story import STORY_GENES

GENES_0 = [0.4] * GENES


@pytest.fixture
def toy(toy, stand_in):
    """A random model whose pictures have the toy world's size, under the name tiny."""
    model = replace(toy, name="tiny")
    stand_in(model)
    return model


def chunk_of(index, scene):
    video = render(scene, range(12 * index, 12 * index + 12), GENES_0)
    timings = Timings(text=1, denoise=1, context=1, decode=1)
    return Chunk(index, (), caption(scene), "full", torch.empty(0), video, timings, 1000 + index, {}, 0, 1, {}, {})


def test_a_perfect_stream_gets_full_marks():
    scene = held_out_scene(0)
    chunks = [chunk_of(i, scene) for i in range(8)]
    video = np.concatenate([chunk.video for chunk in chunks])
    record = measure(chunks, scene, 6, video)
    assert record["adherence"] == {
        mark: dict.fromkeys(("colour", "shape", "motion", "place", "time"), 1.0) for mark in ("5", "6")
    }
    assert record["psnr_to_full"] == EQUAL_DB and record["ssim_to_full"] == pytest.approx(1)
    assert (record["fps_denoise"], record["fps_end_to_end"], record["kv_bytes_peak"]) == (6, 3, 1007)
    assert 1 <= record["discontinuity"] < 3 and record["drift"]["colours"] < 0.1


def test_a_mark_is_read_from_the_seconds_right_before_it():
    before, (scene, word) = held_out_scene(0), switched_scene(0)
    video = np.concatenate([chunk_of(i, before if i < 9 else scene).video for i in range(16)])  # 6.75 and 5.25 seconds
    early, late = adherence(video, scene, 12).values()
    assert early[word] < 1 and set(late.values()) == {1.0}


def test_motion_is_read_where_things_reverse():
    scene = Scene("hills", "day", (Thing("red", "ball", "circling"),))
    genes = [[0.9] * 6 + [0.5] * (STORY_GENES - 6) for _ in range(12)]
    for chunk in range(1, 12, 2):
        genes[chunk][0] = 0.1  # it turns round whenever it can
    video = panorama.draw([moment for chunk in panorama.tell([scene] * 12, genes).chunks for moment in chunk.moments])
    blind, aware = (adherence(video, scene, 9, events)["9"] for events in (False, True))
    assert blind["motion"] == 0 and aware == dict.fromkeys(blind, 1.0)


def test_held_out_prompts_say_their_scene_in_a_wording_of_their_own():
    for index in range(20):
        scene, (switched, word) = held_out_scene(index), switched_scene(index)
        text = caption(scene, held_out=True)
        assert "there is" in text and parse(text) == scene and parse(caption(switched, held_out=True)) == switched
        if word == "place":
            assert switched == replace(scene, place=switched.place) != scene
        else:
            assert switched.things[0].colour not in [thing.colour for thing in scene.things]


def test_a_switch_counts_the_chunks_until_the_change_is_seen():
    for index in (0, 1):
        before, (after, word) = held_out_scene(index), switched_scene(index)
        old, new = (chunk_of(index, scene).video for scene in (before, after))
        assert chunks_until(word, after, [old, new, new]) == 2
        assert chunks_until(word, after, [old, old, old]) is None


def test_marks_are_those_within_the_stream_and_its_end():
    assert marks(60) == [5, 30, 60] and marks(20) == [5, 20] and marks(3) == [3]


def test_it_goes_on_where_it_stopped(toy, tmp_path, monkeypatch):
    ran, stream = [], evaluate.run_stream
    monkeypatch.setattr(evaluate, "run_stream", lambda *arguments: ran.append(arguments[1:3]) or stream(*arguments))
    monkeypatch.setattr(prompt_switch, "SWITCH_AFTER", 1)
    first = evaluate.evaluate(["full"], prompts=1, seconds=2, model=toy, out=tmp_path)
    assert ran == [("full", 0)] and first[0]["psnr_to_full"] is None
    with (tmp_path / "records.jsonl").open("a") as lines:
        lines.write('{"model": "ti')
    asked = {"policies": ["sliding-window:window_frames=4", "full"], "prompts": 1, "seconds": 2, "out": tmp_path}
    both = evaluate.evaluate(**asked, model=toy)
    assert ran[1:] == [("full", 0), ("sliding-window:window_frames=4", 0)]
    assert both[1] == first[0] and 0 < both[0]["psnr_to_full"] < EQUAL_DB
    assert evaluate.evaluate(**asked, model=toy) == both and len(ran) == 3
    assert len((tmp_path / "records.jsonl").read_text().splitlines()) == 2


def test_shared_streams_give_the_same_figures_without_speeds(toy, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(prompt_switch, "SWITCH_AFTER", 1)
    policies_ = ["full", "sliding-window", "recompute"]
    settings = {"prompts": 1, "seconds": 2, "model": toy, "out": tmp_path}
    alone = evaluate.evaluate(policies_, **settings)
    shared = evaluate.evaluate(policies_, **settings, shared=True)
    # Per policy three chunks, and four with a switch after one; two policies are alike for three chunks.
    assert "13 of 21 chunks to compute: 38.1% saved" in capsys.readouterr().err
    for one, other in zip(alone, shared, strict=True):
        assert other.pop("timing") == "shared" and "fps_denoise" in one and not any("fps" in name for name in other)
        assert other == {name: value for name, value in one.items() if "fps" not in name}
    assert report([{**shared[0], "timing": "shared"}])["timing"] == "shared"
    monkeypatch.setattr(evaluation_streams, "generate", lambda *_: pytest.fail("it is recorded already"))
    evaluate.evaluate(policies_, **settings, shared=True)


def test_an_accidental_colour_is_no_switch(toy, monkeypatch):
    """A decoder that always shows the scene after the change was not switched by the prompt."""

    def switched(model):
        return measure_switch(evaluation_streams.run_switch(model, "full", 0, 0), 0)

    after, word = switched_scene(0)
    fixed = replace(toy, decoder=lambda latents, state: (chunk_of(0, after).video, None))
    monkeypatch.setattr(prompt_switch, "SWITCH_AFTER", 1)
    assert switched(fixed) == {"word": word, "success": 0.0, "chunks": None}
    turns = iter([held_out_scene(0), held_out_scene(0), after, after])
    turned = replace(toy, decoder=lambda latents, state: (chunk_of(0, next(turns)).video, None))
    assert switched(turned) == {"word": word, "success": 1.0, "chunks": 2}


def test_renders_set_the_scale_of_the_measures():
    measures = measure_renders(prompts=1, seconds=2)
    assert 1 <= measures["discontinuity"] < 3 and 0 <= measures["drift.colours"] < 0.2 and measures["flicker"] < 1


def test_the_oracle_is_measured_through_the_codec(toy):
    shares = oracle_accuracy(toy, samples=1)
    assert shares["renders"] == pytest.approx(dict.fromkeys(shares["renders"], 1.0)) and shares["codec"]["shape"] == 0


def test_the_command_writes_table_report_figure_and_sheet(toy, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(prompt_switch, "SWITCH_AFTER", 1)
    parser = argparse.ArgumentParser()
    command.add_arguments(parser)
    out, sheet = tmp_path / "out", tmp_path / "sheet.png"
    texts = "full,forcing-kv:segments_per_frame=4,retention=3"
    page = tmp_path / "table.md"
    options = ["--prompts", "1", "--seconds", "2", "--out", str(out), "--sheet", str(sheet), "--table", str(page)]
    assert command.run(parser.parse_args(["--policy", texts, *options])) == 0
    assert [line[:9] for line in page.read_text().splitlines()[2:4]] == ["| `full` ", "| `forcin"]
    printed = capsys.readouterr()
    data = json.loads(printed.out)
    assert list(data["policies"]) == ["full", "forcing-kv:segments_per_frame=4,retention=3"]
    full, hybrid = data["policies"].values()
    assert full["streams"] == 1 and full["psnr_to_full"] is None and hybrid["psnr_to_full"] > 0
    assert hybrid["kv_bytes_peak"] < full["kv_bytes_peak"]
    assert len(data["records"]) == 2 and json.loads((out / "report.json").read_text()) == data
    assert "adherence at 2 s" in printed.err and "Traceback" not in printed.err
    for picture in (out / "evaluation.png", sheet):
        assert cv2.imread(str(picture)).std() > 1
    monkeypatch.setattr(evaluate, "run_stream", lambda *_: pytest.fail("streamed all the same"))
    with monkeypatch.context() as patch, pytest.raises(OSError, match="full"):
        patch.setattr(evaluation_table, "markdown", lambda *_: (_ for _ in ()).throw(OSError("the disk is full")))
        command.run(parser.parse_args(["--policy", texts, *options]))
    assert json.loads(capsys.readouterr().out) == data, "the report is there all the same"
    for words, message in (
        (["--sheet", str(tmp_path / "s.jpg")], "ends with .png"),
        (["--sheet", str(sheet), "--prompts", "200"], "a contact sheet shows 1-100 prompts"),
        (["--bytes", "50", "--policy", "sliding-window", "--seconds", "inf"], "2 to 3600 seconds, not inf"),
        (["--model", "krea-realtime"], "toy world"),
    ):
        with pytest.raises(ValueError, match=message):
            command.run(parser.parse_args(words))


def test_a_report_grows_by_the_policies_that_it_lacks(toy, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(prompt_switch, "SWITCH_AFTER", 1)
    parser, file = argparse.ArgumentParser(), tmp_path / "report.json"
    command.add_arguments(parser)

    def evaluated(policy: str, *more: str) -> dict:
        options = ["--policy", policy, "--prompts", "1", "--seconds", "2", "--json", str(file), *more]
        assert command.run(parser.parse_args(options)) == 0
        return json.loads(file.read_text())

    first = evaluated("full,longlive")
    monkeypatch.setattr(evaluate, "device_name", lambda device: "another machine")
    ran, stream = [], evaluate.run_stream
    monkeypatch.setattr(evaluate, "run_stream", lambda *given: ran.append(given[1]) or stream(*given))
    grown = evaluated("longlive,sliding-window")
    assert ran == ["full", "sliding-window"] and "full is streamed 1 times more" in capsys.readouterr().err
    assert grown["records"][:2] == first["records"]
    assert list(grown["policies"]) == ["full", "longlive", "sliding-window"]
    alone = evaluate.evaluate(["full", "sliding-window"], 1, 1, 2, toy)[1]
    assert grown["records"][2]["psnr_to_full"] == alone["psnr_to_full"] > 0
    devices = [row["device"] for row in grown["policies"].values()]
    assert devices[0] == devices[1] != devices[2] == "another machine"
    assert grown["policies"]["longlive"]["precision"] == "fp32"
    monkeypatch.setattr(evaluate, "run_stream", lambda *_: pytest.fail("it is recorded already"))
    drawn = []
    monkeypatch.setattr(contact_sheet, "contact_sheet", lambda model, policy, *rest, **more: drawn.append(policy))
    assert evaluated("sliding-window", "--sheet", str(tmp_path / "sheet.png"))["records"] == grown["records"]
    assert drawn == ["sliding-window"], "not full, which joins for the sake of the report"
    for more, sentence in (
        (["--prompts", "2"], "holds records of 1 prompt, not of 2 prompts"),
        (["--seconds", "3"], "of seconds 2.0, not of seconds 3.0"),
        (["--steps", "1,2"], "of the model's number of steps, not of steps 1 and steps 2"),
        (["--shared"], "of one stream at a time, not of timing shared"),
    ):
        with pytest.raises(ValueError, match=sentence):
            evaluated("full", *more)
    file.write_text("[]")
    with pytest.raises(ValueError, match="is not a report of fkv eval"):
        evaluated("full")


def test_figures_by_steps(toy, tmp_path, monkeypatch):
    monkeypatch.setattr(prompt_switch, "SWITCH_AFTER", 1)
    parser = argparse.ArgumentParser()
    command.add_arguments(parser)
    file = tmp_path / "report.json"
    options = ["--policy", "full", "--prompts", "1", "--seconds", "2", "--steps", "1,2,1", "--json", str(file)]
    assert command.run(parser.parse_args(options)) == 0
    data = json.loads(file.read_text())
    assert list(data["policies"]) == ["full, 1 step", "full, 2 steps"]
    assert [record["steps"] for record in data["records"]] == [1, 2]
    assert data["records"][0]["adherence"] != data["records"][1]["adherence"] or (
        data["records"][0]["discontinuity"] != data["records"][1]["discontinuity"]
    )
    monkeypatch.setattr(evaluate, "run_stream", lambda *_: pytest.fail("it is recorded already"))
    drawn = []
    monkeypatch.setattr(
        contact_sheet, "contact_sheet", lambda model, *rest, **more: drawn.append(len(model.schedule.sigmas))
    )
    options += ["--sheet", str(tmp_path / "sheet.png")]
    assert command.run(parser.parse_args(options)) == 0 and json.loads(file.read_text()) == data and drawn == [1]
    for steps, message in (("1,many", "numbers of steps such as 1,2,4"), ("3", "from 1 to 2, not 3")):
        with pytest.raises(ValueError, match=message):
            command.run(parser.parse_args(["--policy", "full", "--steps", steps]))


def test_a_sheet_in_pages_has_its_prompts_on_the_last_one(toy, tmp_path, monkeypatch):
    asked = []

    def streamed(model, policy, prompt, seed, seconds, story, text):
        asked.append(text)
        return [chunk_of(i, held_out_scene(prompt)) for i in range(3)]

    monkeypatch.setattr(contact_sheet, "run_stream", streamed)
    memory = replace(toy, transformer=SimpleNamespace(events=True))
    contact_sheet.contact_sheet(memory, "full", tmp_path / "sheet.pdf", prompts=7, seconds=2)
    pages = (tmp_path / "sheet.pdf").read_bytes().count(b"/Type /Page ")
    assert pages == 3 and asked[::2] == [None] * 4 and all(", looking " in text for text in asked[1::2])


SCENES = "a red ball bouncing over the hills by day [1.5s] | a blue star drifting over the sea at night [1.5s#]"


def test_a_storyboard_is_measured_scene_by_scene(toy, stand_in, tmp_path, capsys, monkeypatch):
    first, second = (
        parse("a red ball bouncing over the hills by day"),
        parse("a blue star drifting over the sea at night"),
    )
    shown = iter([first, first, second, second])
    fixed = replace(toy, decoder=lambda latents, state: (chunk_of(0, next(shown)).video, None))
    stand_in(fixed)
    parser = argparse.ArgumentParser()
    command.add_arguments(parser)
    story = tmp_path / "story.txt"
    story.write_text(SCENES)
    options = ["--policy", "full", "--story", str(story), "--out", str(tmp_path / "out")]
    assert command.run(parser.parse_args(options)) == 0
    [record] = json.loads(capsys.readouterr().out)["records"]
    assert record["seconds"] == 3 and list(record["adherence"]) == ["1.5", "3"] and "switch" not in record
    assert all(set(words.values()) == {1.0} for words in record["adherence"].values())
    assert record["story"].splitlines()[1] == "3: cut = a blue star drifting over the sea at night"
    monkeypatch.setattr(evaluate, "run_stream", lambda *_: pytest.fail("it is recorded already"))
    assert command.run(parser.parse_args(options)) == 0


def test_words_of_a_storyboard_that_the_model_does_not_know_are_said(toy, stand_in, tmp_path, capsys):
    scene = parse("a red ball bouncing over the hills by day")
    fixed = replace(toy, decoder=lambda latents, state: (chunk_of(0, scene).video, None), hints=tiny.hints)
    stand_in(fixed)
    parser = argparse.ArgumentParser()
    command.add_arguments(parser)
    story = tmp_path / "story.txt"
    story.write_text(SCENES.replace("blue star", "furry blue star"))
    assert command.run(parser.parse_args(["--policy", "full", "--story", str(story)])) == 0
    told = capsys.readouterr()
    assert "hint: The tiny model does not know “furry” and leaves such words out." in told.err
    [hint] = json.loads(told.out)["hints"]
    assert "“furry”" in hint


@pytest.mark.parametrize(
    ("story", "more", "sentence"),
    [
        ("2: a dragon", [], "the oracle cannot read a prompt of the storyboard: the prompt names no place"),
        ("2: A = full", [], "an evaluation changes prompts only; leave out '2: A = full'"),
        (SCENES, ["--prompts", "2"], "begins with a prompt, so prompts must be 1, not 2"),
    ],
)
def test_a_storyboard_that_cannot_be_measured_is_refused(toy, tmp_path, story, more, sentence):
    parser = argparse.ArgumentParser()
    command.add_arguments(parser)
    (tmp_path / "story.txt").write_text(story)
    with pytest.raises(ValueError, match=sentence):
        command.run(parser.parse_args(["--story", str(tmp_path / "story.txt"), *more]))


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"policies": []}, "at least one policy"),
        ({"policies": ["nonsense"]}, "no policy 'nonsense'"),
        ({"prompts": 0}, "prompts must be a whole number from 1"),
        ({"seeds": 1.5}, "seeds must be a whole number"),
        ({"seconds": float("nan")}, "seconds must be a number"),
        ({"workers": 2}, "by name"),
    ],
)
def test_bad_parameters_are_refused_in_a_sentence(toy, change, sentence):
    with pytest.raises(ValueError, match=sentence):
        evaluate.evaluate(**{"policies": ["full"], "model": toy} | change)


def test_after_a_job_that_fails_none_begins(monkeypatch):
    began = []

    def job(number):
        began.append(number)
        time.sleep(0.05)
        if number == 1:
            raise ValueError("no such job")

    monkeypatch.setattr(jobs, "ProcessPoolExecutor", lambda workers, *rest: ThreadPoolExecutor(workers))
    with pytest.raises(ValueError, match="no such job"):
        list(jobs.over_processes(job, [(number,) for number in range(40)], 1))
    assert len(began) < 40


def test_models_of_another_world_are_refused(small, tmp_path):
    for model in (small, replace(small, latent=(4, 12, 20), decoder=None)):
        with pytest.raises(ValueError, match="does not generate the toy world"):
            evaluate.evaluate(["full"], model=model)
    with pytest.raises(ValueError, match="contact sheet"):
        contact_sheet.contact_sheet(replace(small, latent=(4, 12, 20)), "full", tmp_path / "a.png", columns=1)


def test_a_damaged_record_is_named(toy, tmp_path):
    (tmp_path / "records.jsonl").write_text("no record\n")
    with pytest.raises(ValueError, match="records.jsonl"):
        evaluate.evaluate(["full"], model=toy, out=tmp_path)


def test_another_precision_is_another_record(toy, tmp_path, monkeypatch):
    asked = {"policies": ["full"], "prompts": 1, "seconds": 2, "model": toy, "out": tmp_path}
    assert [record["precision"] for record in evaluate.evaluate(**asked)] == ["fp32"]
    monkeypatch.setattr(type(toy), "precision", "fp8")
    assert [record["precision"] for record in evaluate.evaluate(**asked)] == ["fp8"]


def record_of(policy: str, prompt: int, adherence: float) -> dict:
    """A record of a stream that a table can be made of."""
    flat = {"discontinuity": 1.0, "drift": {"colours": 0.1}, "flicker": 0.1, "kv_bytes_peak": 2_000_000}
    read = {"adherence": {"5": {"colour": 1.0}, "60": {"colour": adherence, "shape": adherence}}}
    switch = {"switch": {"success": 1.0}, "psnr_to_full": None if policy == "full" else 30.0}
    return {"policy": policy, "prompt": prompt, "seed": 0, "seconds": 60.0} | flat | read | switch


def test_the_table_marks_what_differs_from_full_on_the_same_prompts():
    hard = [0.5, 0.9, 0.6, 0.8, 0.7, 1.0]
    records = [record_of("full", prompt, share) for prompt, share in enumerate(hard)]
    records += [record_of("longlive", prompt, share - 0.1) for prompt, share in enumerate(hard)]
    records += [record_of("memflow", prompt, hard[-1 - prompt]) for prompt in range(6)]
    rows = evaluation_table.markdown(records).splitlines()
    cells = {row.split(" | ")[0].strip("| `"): row.split(" | ")[2] for row in rows if row.startswith("| `")}
    assert cells["full"].startswith("0.750 (0.") and cells["longlive"].startswith("**0.650** (0.")
    assert cells["memflow"].startswith("0.750 (")
    remarked = evaluation_table.markdown(records, {"expected": {"longlive": "worse"}}).splitlines()
    assert remarked[0].endswith("| KV, MB | expected |")
    assert [row.endswith(" | 2.0 | worse |") for row in remarked[2:5]] == [False, True, False]
    assert "6 held-out prompts" in "\n".join(rows) and "| S3 + R6 + C3 |" in "\n".join(rows)


def test_bars_of_the_figure_are_over_prompts(tmp_path, monkeypatch):
    """Words of a stream and seeds of a prompt are no samples of their own."""
    drawn = []
    for name in ("pointplot", "barplot"):
        monkeypatch.setattr(evaluation_plots.sns, name, lambda *rows, **look: drawn.append((rows, look)))
    monkeypatch.setattr(evaluation_plots.Axes, "legend", lambda *args, **options: None)
    for prompts, bars in ((6, ("ci", 95)), (2, None)):
        records = [
            record_of("full", prompt, prompt / 10) | {"seed": seed} for prompt in range(prompts) for seed in (0, 1)
        ]
        evaluation_plots.overview(records, tmp_path / "figure.png")
        ((seen,), look), *others = drawn
        assert len(seen) == 2 * prompts and seen["adherence"].iloc[3] == pytest.approx(0.1) and len(others) == 3
        assert all(len(each["x"]) == prompts and each["errorbar"] == bars for _, each in others)
        assert look["errorbar"] == bars
        drawn.clear()


def test_policies_of_as_many_steps_are_compared_in_the_table():
    shares = {"full, 4 steps": 1.0, "longlive, 4 steps": 0.5, "full, 1 step": 0.5, "longlive, 1 step": 0.5}
    records = [record_of(policy, prompt, shares[policy]) for policy in shares for prompt in range(6)]
    rows = evaluation_table.markdown(records)
    assert "| `longlive, 4 steps` | S3 + R6 + C3 | **0.500** (" in rows
    assert "| `longlive, 1 step` | S3 + R6 + C3 | 0.500 (" in rows


def test_few_prompts_give_no_interval():
    shares = {"full": 1.0, "longlive": 0.5}
    records = [record_of(policy, prompt, shares[policy]) for policy in shares for prompt in (0, 1)]
    assert "| `longlive` | S3 + R6 + C3 | 0.500 |" in evaluation_table.markdown(records)


def test_all_stands_for_every_policy_that_fits(small):
    fitting = policies.fitting(small.geometry, small.roles)
    assert "forcing-kv" in fitting and "recompute" in fitting
    assert read_policies("all,commit:6 longlive", lambda: small) == [*fitting, "commit:6 longlive"]
    assert "forcing-kv" not in policies.fitting(small.geometry, None)
    with pytest.raises(ValueError, match="there is no policy 'al'"):
        read_policies("al", lambda: small)
