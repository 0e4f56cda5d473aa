"""The board: what a spec resolves to, what is measured and kept, intervals, limits, VBench-Long, what is refused."""

import csv
import io
import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from docs.board import repeated
from fkv.analysis.features import layout
from fkv.analysis.held_out import held_out_scene, rendered
from fkv.board import run as board
from fkv.board import stream, table, vbench
from fkv.board.budget import SETTINGS, fitted
from fkv.board.result import Costs, Recall, Result, check, load, load_folder, save
from fkv.board.spec import TRUTH, Protocol, Track, plan, read_spec, slug, title
from fkv.commands.main import main
from fkv.models import registry
from fkv.models.page_tables import footprint
from fkv.models.registry import ModelEntry
from fkv.policies import parse
from fkv.resources import asset
from fkv.stream import Stream

SPEC = """
name = "try"
model = "tiny"
training_horizon = "12 latent frames"
prompts = 2
seeds = [0, 1]
seconds = 4
as_released = ["full", "sliding-window:window_frames=9,sink_frames=1"]
[same_budget]
frames = [7, 9]
rules = ["sliding-window"]
"""
SCORE = "vbench.imaging_quality"
LONG = (
    "forcing-kv:sink_frames=2,anchor_frames=5,dynamic_anchor_frames=2,dynamic_frames=4,"
    "segments_per_frame=4,start_chunk=2"
)


@pytest.fixture
def toy(small, monkeypatch):
    """A random model whose pictures have the toy world's size, under the name tiny."""
    model = replace(small, name="tiny", latent=(4, 12, 20))
    monkeypatch.setitem(registry.MODELS, "tiny", ModelEntry("tiny", "a stand-in", lambda device: model))
    return model


@pytest.fixture
def spec_file(tmp_path):
    file = tmp_path / "try.toml"
    file.write_text(SPEC)
    return file


@pytest.fixture
def quick(monkeypatch):
    """Streams that cost nothing: brightness and bytes follow from the policy, noise from prompt and seed."""
    ran = []

    def made(model, policy, prompt, seed, seconds, features):
        ran.append((policy, prompt, seed))
        rng = np.random.default_rng([len(prompt), seed])
        video = np.clip(rng.normal(100 if policy == "full" else 120, 5, (72, 32, 32, 3)), 0, 255).astype(np.uint8)
        record = stream.measured(video, 16, 6, features)
        reads = 7 if policy.endswith("=7") else 9
        costs = None if policy == TRUTH else COSTS.model_dump(exclude={"at_once"}) | {"frames_denoise": reads}
        return record | {"frames_sha256": f"{seed:016x}", "costs": costs, "xray": None}, video

    monkeypatch.setattr(board, "stream_record", made)
    return ran


COSTS = Costs(
    frames_denoise=9,
    frames_context=9,
    positions="true",
    span=9,
    granularity="1 head group, 1 page per frame",
    calibration="none",
    passes=5,
    kv_bytes=4_000_000,
    peak_bytes=6_000_000_000,
    ms_generate=400,
    ms_total=500,
    chunk_frames=12,
    device="a device",
    threads=1,
    at_once=1,
    load=1.0,
    torch="2",
)
PROTOCOL = Protocol(
    name="try",
    model="tiny",
    checkpoint="0" * 16,
    precision="float32",
    training_horizon="12 latent frames",
    prompts=[f"prompt {i}" for i in range(6)],
    seeds=[0],
    seconds=4,
    fps=16,
)


def result(policy, values, measure="adherence", **costs):
    """A result with a measure of known values, one per prompt."""
    videos = [
        {"prompt": i, "seed": 0, "frames_sha256": "0" * 16, "measures": {measure: value}}
        for i, value in enumerate(values)
    ]
    return Result(
        protocol=PROTOCOL,
        policy=policy,
        tracks=[Track(name="as released")],
        origin="ours",
        source="a test",
        date="2026-11-30",
        costs=COSTS.model_copy(update=costs),
        videos=videos,
    )


# What a spec resolves to.


def test_a_spec_resolves_to_rules_on_tracks(toy, spec_file):
    planned = plan(read_spec(spec_file), toy)
    assert {policy: [(track.name, track.frames) for track in tracks] for policy, tracks in planned.rules.items()} == {
        "full": [("as released", None)],
        "sliding-window": [("as released", None), ("same budget", 9)],
        "sliding-window:window_frames=7": [("same budget", 7)],
        TRUTH: [("truth", None)],
    }
    assert len(planned.protocol.prompts) == 2 and "there is" in planned.protocol.prompts[0]


def test_a_rule_that_is_listed_twice_has_one_place(toy, spec_file):
    spec_file.write_text(SPEC.replace('"full",', '"full", "sliding-window",').replace("[7, 9]", "[9, 9]"))
    tracks = plan(read_spec(spec_file), toy).rules["sliding-window"]
    assert [(track.name, track.frames) for track in tracks] == [("as released", None), ("same budget", 9)]


def test_a_long_prompt_names_its_videos(toy, spec_file):
    assert title("红" * 150) == "红" * 66 and len(title("é" * 150).encode()) == 200 and title("a/b " * 99)[:3] == "a b"
    spec_file.write_text(SPEC.replace("prompts = 2", f'prompts = ["{"红" * 70}", "{"红" * 71}"]'))
    with pytest.raises(ValueError, match="or 200 bytes, by which videos are named"):
        plan(read_spec(spec_file), toy)


@pytest.mark.parametrize("name", SETTINGS)
def test_a_setting_reads_no_more_than_the_budget(small, name):
    for frames in (9, 12):
        text = fitted(small, name, frames)
        reads = footprint(small.geometry, parse(text), small.roles, 40, small.transformer.dtype).denoise
        assert 0.6 * frames <= reads <= frames


def test_the_largest_setting_is_found_frame_by_frame_too(small):
    assert fitted(replace(small, frames_per_chunk=1), "fade-mem", 7) == "fade-mem:slots=6"


def test_a_rule_that_cannot_read_so_little_has_no_setting(small):
    assert fitted(small, "tether-cache", 7) is None and fitted(small, "infinity-rope", 7) is not None


@pytest.mark.parametrize(
    ("old", "new", "sentence"),
    [
        ("seconds = 4", "seconds = 1", "try.toml: seconds: input should be greater than or equal to 4"),
        ("seconds = 4", "second = 4", "try.toml: seconds: field required"),
        ("seeds = [0, 1]", 'seeds = ["0"]', "try.toml: seeds.0: input should be a valid integer"),
        ('name = "try"', "name = try", "try.toml is not TOML"),
        ('["sliding-window"]', '["full"]', "'full' has no setting for a number of frames; these have: sliding-window"),
        ('["full", "s', '["none", "s', "there is no policy 'none'"),
        ('name = "try"', f"name = {'[' * 9999}", "try.toml is nested too deeply"),
        ("prompts = 2", 'prompts = ["a ball", "a ball"]', "equal in their first 150 characters"),
        ("[same_budget]", "setup = {precision = 'fp32'}\n[same_budget]", "setup.precision"),
        ('["full", "s', '["forcing-kv:segments_per_frame=7", "s', "7"),
        ('["full",', f'["{LONG},similarity_layer=2", "{LONG},similarity_layer=3",', "would be written to one file"),
        ('model = "tiny"', 'model = "tiny"\ncheckpoint = "ab"', "for the weights ab of 'tiny', these are"),
    ],
)
def test_a_spec_that_cannot_be_run_is_refused(toy, spec_file, old, new, sentence):
    spec_file.write_text(SPEC.replace(old, new))
    with pytest.raises(ValueError, match=sentence.replace("(", r"\(")):
        plan(read_spec(spec_file), toy)


def test_a_rule_that_is_named_for_a_budget_fits_the_model(toy, spec_file):
    spec_file.write_text(SPEC.replace('rules = ["sliding-window"]', 'rules = ["forcing-kv"]'))
    with pytest.raises(ValueError, match="head roles"):
        plan(read_spec(spec_file), replace(toy, roles=None))


def test_a_number_of_prompts_is_for_the_toy_world(small, spec_file):
    with pytest.raises(ValueError, match="which 'small' does not generate; list prompts instead"):
        plan(read_spec(spec_file), small)


# What is measured.


def test_a_drawn_video_is_all_that_its_prompt_says():
    scene = held_out_scene(0)
    record = stream.measured(rendered(scene, 8, 0), 16, 8, layout, scene)
    measures = record["measures"]
    assert measures["adherence"] == 1 and list(record["adherence"]) == ["5", "6"]
    assert measures["hue_kept"] > 90 and measures["clip_consistency"] > 0.5 and 0 < measures["motion"] < 1
    assert len(record["series"]["saturation"]) == 6 and np.linalg.norm(record["opening"]) == pytest.approx(1, abs=1e-3)


def test_what_a_rule_reads_is_counted(small):
    def read(policy):
        chunks = Stream(small, parse(policy), "a red ball")
        return stream.what_it_reads(small, policy, [chunks.step() for _ in range(6)][-1])

    window = read("sliding-window:window_frames=6")
    assert (window["frames_denoise"], window["frames_context"], window["positions"]) == (6, 6, "true")
    assert window["span"] == 18 and window["granularity"] == "1 head group, 1 page per frame"
    moved = read("infinity-rope")
    assert (moved["frames_denoise"], moved["positions"], moved["span"]) == (6, "moved", 6)
    assert read("commit:3 sliding-window")["frames_context"] == 3
    assert window["calibration"] == "none"


def test_what_a_rule_was_calibrated_on_is_said(small):
    def said(policy, **provenance):
        return stream.calibration(replace(small, roles=replace(small.roles, provenance=provenance)), parse(policy))

    profiled = {"source": "fkv profile", "prompts": ["a", "b"]}
    assert said("sliding-window", **profiled) == "none"
    assert said("forcing-kv", source="analysis.profile") == "head roles: fkv profile"
    assert said("forcing-kv", **profiled) == "head roles: fkv profile, from 2 prompts"
    assert said("pyramid-forcing", **profiled) == "head roles: fkv profile, from 2 prompts"
    classes = {"provenance": {"source": "fkv profile --classes", "prompts": ["a"]}}
    assert said("pyramid-forcing", classes=classes, **profiled) == "head classes: fkv profile --classes, from 1 prompts"
    assert said("random-roles:roles_seed=3", **profiled).startswith("random head roles (seed 3)")


def test_a_video_and_its_costs_come_from_one_stream(toy):
    record, video = stream.stream_record(toy, "sliding-window", "a red ball", 3, 4, layout)
    chunks = Stream(toy, parse("sliding-window"), "a red ball", 3)
    expected = [chunks.step() for _ in range(6)]
    assert np.array_equal(video, np.concatenate([chunk.video for chunk in expected]))
    costs = Costs(**record["costs"], at_once=1)
    assert costs.kv_bytes == max(chunk.kv_bytes for chunk in expected) and costs.passes == 3
    assert costs.ms_total > costs.ms_generate > 0 and record["xray"]["frames"] == 18
    with pytest.raises(ValueError, match="cannot draw 'a red ball'"):
        stream.stream_record(toy, TRUTH, "a red ball", 0, 4, layout)


# What is kept.


def test_a_board_goes_on_where_it_stopped(toy, spec_file, quick, tmp_path):
    spec, out = read_spec(spec_file), tmp_path / "out"
    found = board.run(spec, out)
    assert len(quick) == 4 * 2 * 2 and quick[0][0] == "full"
    assert {each.policy for each in found} == {"full", "sliding-window", "sliding-window:window_frames=7", TRUTH}
    assert load_folder(out / "results") == sorted(found, key=lambda each: each.name)
    assert found[0].videos[0].measures["identity"] is not None
    assert len((out / "videos.csv").read_text().splitlines()) == 1 + 4 * 2 * 2
    lines = (out / "records.jsonl").read_text().splitlines()
    (out / "records.jsonl").write_text("\n".join(lines[:-1]) + "\n" + lines[-1][:9])
    clip = next((out / "videos" / "full").iterdir())
    assert clip.name == f"{found[0].protocol.prompts[0]}-0.mp4"
    clip.unlink()
    del quick[:]
    again = board.run(spec, out)
    assert [policy for policy, *_ in quick] == ["full", TRUTH] and again == found and clip.exists()
    spec_file.write_text(SPEC.replace("seconds = 4", "seconds = 5"))
    with pytest.raises(ValueError, match="holds a board with other seconds; name another folder"):
        board.run(read_spec(spec_file), out)


def test_an_unfinished_board_shows_what_all_rules_have(toy, spec_file, quick, tmp_path, monkeypatch, capsys):
    spec, out, make = read_spec(spec_file), tmp_path / "out", board.stream_record

    def until(count):
        def stops(*job):
            if len(quick) == count:
                raise KeyboardInterrupt
            return make(*job)

        monkeypatch.setattr(board, "stream_record", stops)
        with pytest.raises(KeyboardInterrupt):
            board.run(spec, out)
        return load_folder(out / "results") if (out / "results").exists() else []

    assert until(0) == [] and (out / "plan.json").exists()
    spec_file.write_text(SPEC.replace("12 latent", "13 latent"))
    spec = read_spec(spec_file)  # nothing was generated yet, so what was wrong can still be put right
    assert until(3) == []  # no prompt of the first seed has all four rules
    assert main(["board", "show", str(out)]) == 2
    assert "is finished by all rules yet; fkv board run goes on" in capsys.readouterr().err
    one_prompt = until(7)
    assert len(one_prompt) == 4 and [len(each.videos) for each in one_prompt] == [1] * 4
    assert one_prompt[0].videos[0].measures["identity"] is None
    one_seed = until(15)
    assert [(video.prompt, video.seed) for video in one_seed[0].videos] == [(0, 0), (1, 0)]
    assert main(["board", "show", str(out)]) == 0
    assert "unfinished: 1 of 2 seeds, 2 of 2 prompts" in capsys.readouterr().err
    boards = tmp_path / "boards"
    boards.mkdir()
    assert main(["board", "add", str(out / "results" / "full.json"), "--to", str(boards)]) == 0
    assert "try is unfinished: 1 of 2 seeds" in capsys.readouterr().err
    monkeypatch.setattr(board, "stream_record", make)
    assert [len(each.videos) for each in board.run(spec, out)] == [4] * 4
    assert main(["board", "show", str(out), "--seeds", "1"]) == 0
    captured = capsys.readouterr()
    assert "unfinished" not in captured.err and json.loads(captured.out)["rows"][0]["videos"] == 2
    for seeds in (["9"], ["0", "9"]):
        assert main(["board", "show", str(out), "--seeds", *seeds]) == 2
        assert "board 'try' has the seeds 0, 1; name those alone" in capsys.readouterr().err


def test_records_of_several_machines_are_one_board(toy, spec_file, quick, tmp_path):
    """Records alone are enough, of any machine, in any order, some of them twice."""
    spec = read_spec(spec_file)
    whole = board.run(spec, tmp_path / "here")
    lines = (tmp_path / "here" / "records.jsonl").read_text().splitlines()
    there = [json.loads(line) for line in lines[:9]]
    for record in there:
        record["costs"] = record["costs"] and record["costs"] | {"device": "another device"}
    joined = tmp_path / "joined"
    joined.mkdir()
    (joined / "records.jsonl").write_text("\n".join([*lines[7:], *map(json.dumps, there)]) + "\n")
    del quick[:]
    found = board.run(spec, joined, board.Setting(videos="none"))
    assert not quick and not (joined / "videos").exists()
    assert [each.videos for each in found] == [each.videos for each in whole]
    assert found[0].costs.device == "a device, another device"
    own = json.loads(lines[0])
    for change, sentence in (
        ({"precision": "fp8"}, "has the precision 'fp8'"),
        ({"checkpoint": "0a"}, "checkpoint '0a'"),
        ({"seconds": 60.0}, "has the seconds 60.0, and the board 'try' 4.0"),
        ({"features": "facebook/dinov2-small"}, "has the features 'facebook/dinov2-small'"),
        ({"text": "another prompt"}, "has the text 'another prompt'"),
    ):
        (joined / "records.jsonl").write_text("\n".join([json.dumps(own | change), *lines[1:]]) + "\n")
        with pytest.raises(ValueError, match=sentence):
            board.run(spec, joined, board.Setting(videos="none"))
    unsaid = ("precision", "checkpoint", "seconds", "features", "text", "date")
    old = {name: value for name, value in own.items() if name not in unsaid}
    dated = [json.dumps(json.loads(line) | {"date": "2026-01-31"}) for line in lines[1:]]
    (joined / "records.jsonl").write_text("\n".join([json.dumps(old), *dated]) + "\n")
    dates = [each.date for each in board.run(spec, joined, board.Setting(videos="none"))]
    assert dates == [whole[0].date, *["2026-01-31"] * 3], "when a video was made stays true when it is read again"


def test_another_rule_joins_a_board_without_running_the_others_again(toy, spec_file, quick, tmp_path):
    first = next(each for each in board.run(read_spec(spec_file), tmp_path / "out") if each.policy == "full")
    scored = [video.model_copy(update={"measures": video.measures | {SCORE: 0.9}}) for video in first.videos]
    recall = Recall(recall=0.5, low=0.25, high=0.75, chance=0.125, items=8)
    save(first.model_copy(update={"videos": scored, "recall": recall}), tmp_path / "out" / "results")
    del quick[:]
    spec_file.write_text(SPEC.replace('["full", "s', '["full", "longlive", "s'))
    found = board.run(read_spec(spec_file), tmp_path / "out")
    assert {policy for policy, *_ in quick} == {"longlive"} and len(quick) == 4 and len(found) == 5
    full = next(each for each in found if each.policy == "full")
    assert [video.measures[SCORE] for video in full.videos] == [0.9] * 4 and full.recall == recall
    spec_file.write_text(SPEC)
    del quick[:]
    board.run(read_spec(spec_file), tmp_path / "out")
    assert not quick and len(load_folder(tmp_path / "out" / "results")) == 4
    (tmp_path / "out" / "records.jsonl").unlink()
    spec_file.write_text(SPEC.replace("seconds = 4", "seconds = 5"))
    full = next(each for each in board.run(read_spec(spec_file), tmp_path / "out") if each.policy == "full")
    assert full.recall is None and SCORE not in full.videos[0].measures, "of another length"


def test_workers_and_ray_get_jobs_that_load_the_model_by_name(toy, spec_file, quick, tmp_path, monkeypatch):
    called = []

    def spread(function, jobs, where, device=None):
        called.append((where, device, len(jobs)))
        return (function(*job) for job in jobs)

    monkeypatch.setattr("fkv.analysis.jobs.over_ray", spread)
    monkeypatch.setattr("fkv.analysis.jobs.over_processes", spread)
    monkeypatch.setattr(board, "load_once", lambda name, device, precision, **setup: toy)
    one = board.run(read_spec(spec_file), tmp_path / "one")
    two = board.run(read_spec(spec_file), tmp_path / "two", board.Setting(workers=2))
    three = board.run(read_spec(spec_file), tmp_path / "three", board.Setting(ray="local"))
    assert called == [(2, None, 16), ("local", "cpu", 16)]
    assert [each.videos for each in one] == [each.videos for each in two] == [each.videos for each in three]
    assert two[0].costs.at_once == 2 and two[0].costs.busy and not one[0].costs.busy
    again = board.run(read_spec(spec_file), tmp_path / "two")
    assert again[0].costs.at_once == 2, "how records were made stays true when they are read again"


def test_two_runs_of_a_protocol_agree(toy, spec_file, tmp_path):
    """Equal seeds give equal frames; other seeds give intervals that overlap, which docs/board.md shows."""
    text = SPEC.replace("prompts = 2", "prompts = 1").replace("seeds = [0, 1]", "seeds = [0]")
    text = text.replace('"full", "sliding-window:window_frames=9,sink_frames=1"', '"full"').partition("[same")[0]
    spec_file.write_text(text)
    one, two = (board.run(read_spec(spec_file), tmp_path / name) for name in ("one", "two"))
    assert [each.videos for each in one] == [each.videos for each in two]
    assert one[0].xray.groups[0].name == "all" and one[0].costs.kv_bytes == two[0].costs.kv_bytes


def test_recall_joins_the_rules_of_a_memory_world(toy, spec_file, quick, tmp_path, monkeypatch):
    asked = []

    def recalled(policies, prompts, seeds, model, out):
        asked.append((policies, prompts, seeds))
        return [{"policy": policy} for policy in policies]

    row = {"recall": 0.5, "low": 0.25, "high": 0.75, "chance": 0.125, "items": 8, "streams": 4}
    unseen = {"policy": "sliding-window:window_frames=7", "recall": float("nan")}
    summary = pd.DataFrame([*(row | {"policy": policy} for policy in ("full", "sliding-window")), row | unseen])
    with pytest.raises(ValueError, match="not trained on the memory world"):
        board.run(read_spec(spec_file), tmp_path / "out", board.Setting(recall=True))
    assert not quick, "no video is made in vain"
    monkeypatch.setattr(board.recall, "check_events", lambda model: None)
    monkeypatch.setattr(board.recall, "recall", lambda *args, **options: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        board.run(read_spec(spec_file), tmp_path / "out", board.Setting(recall=True))
    assert len(load_folder(tmp_path / "out" / "results")[0].videos) == 4, "recall that ends early loses no result"
    monkeypatch.setattr(board.recall, "recall", recalled)
    monkeypatch.setattr(board.recall, "summary", lambda records, by: summary)
    found = board.run(read_spec(spec_file), tmp_path / "out", board.Setting(recall=True))
    by_policy = {each.policy: each.recall for each in found}
    assert by_policy["full"].recall == 0.5 and by_policy["full"].items == 8 and by_policy[TRUTH] is None
    assert by_policy["sliding-window:window_frames=7"] is None, "it showed nothing right that it could recall"
    assert asked == [(["full", "sliding-window", "sliding-window:window_frames=7"], 2, 2)]
    assert next(row for row in table.rows(found) if row["policy"] == "full")["recall"]["chance"] == 0.125


def test_prompts_without_scenes_are_not_drawn(toy, spec_file):
    spec_file.write_text(SPEC.replace("prompts = 2", 'prompts = ["a dragon"]'))
    assert TRUTH not in plan(read_spec(spec_file), toy).rules


# Intervals and limits.


def test_means_and_differences_are_paired_by_prompt():
    rows = table.rows([result("full", [0.5] * 6), result("longlive", [0.5, 0.6, 0.7, 0.6, 0.6, 0.6])])
    full, other = (row["measures"]["adherence"] for row in rows)
    assert (full["mean"], full["low"], full["high"]) == (0.5, 0.5, 0.5) and "difference" not in full
    assert other["mean"] == pytest.approx(0.6) and other["difference"] == pytest.approx(0.1)
    assert 0.5 < other["low"] < 0.6 < other["high"] < 0.7 and table.differs(other)
    assert "**0.60** (0.5" in table.markdown(rows)


def test_few_prompts_have_no_interval():
    few = [
        each.model_copy(update={"videos": each.videos[:2]})
        for each in (result("full", [0.5] * 6), result("longlive", [0.9] * 6))
    ]
    measure = table.rows(few)[1]["measures"]["adherence"]
    assert measure["low"] is None and not table.differs(measure) and "**0.90**" not in table.markdown(table.rows(few))


def test_intervals_of_two_runs_overlap_or_do_not():
    one = table.rows([result("full", [0.4, 0.5, 0.6] * 2), result("longlive", [0.1, 0.2] * 3)])
    two = [result("full", [0.5, 0.6, 0.4] * 2), result("longlive", [0.8, 0.9] * 3), result("memflow", [0] * 6)]
    two = table.rows(two)
    assert table.overlap(one, two, "adherence") == [True, False] and table.overlap(one, two, "flicker") == []


def test_the_page_says_what_other_seeds_make_of_a_board(toy, spec_file, quick, tmp_path):
    spec_file.write_text(SPEC.replace("prompts = 2", "prompts = 6"))
    told = "\n".join(repeated(board.run(read_spec(spec_file), tmp_path / "out")))
    assert "with seeds 0 and 1: rules whose two intervals overlap" in told and "| motion | 4 of 4 |" in told
    assert repeated([result("full", [0.5] * 6)]) == []


def test_seeds_are_averaged_before_prompts():
    videos = [(0, 0, 0.0), (0, 1, 1.0), (1, 0, 1.0)]
    uneven = result("full", [0] * 6).model_copy(
        update={
            "videos": [
                result("full", [0] * 6)
                .videos[0]
                .model_copy(update={"prompt": p, "seed": s, "measures": {"flicker": v}})
                for p, s, v in videos
            ]
        }
    )
    assert table.rows([uneven])[0]["measures"]["flicker"]["mean"] == 0.75


def test_limits_leave_rules_out_and_measures_order_them():
    rows = table.rows(
        [
            result("full", [0.9] * 6, peak_bytes=13_000_000_000),
            result("longlive", [0.8] * 6, ms_total=1000.0),
            result("infinity-rope", [0.7] * 6, frames_denoise=6.0),
        ]
    )

    def names(**limits):
        return [row["policy"] for row in table.chosen(rows, **limits)]

    assert names(under_gb=12) == ["longlive", "infinity-rope"]
    assert names(least_fps=16) == ["full", "infinity-rope"] and names(most_frames=7) == ["infinity-rope"]
    assert names(by="adherence") == ["full", "longlive", "infinity-rope"] and names(track="truth") == []
    changes = table.rows(
        [result("full", [-3] * 6, "brightness_change"), result("longlive", [1] * 6, "brightness_change")]
    )
    assert [row["policy"] for row in table.chosen(changes, "brightness_change")] == ["longlive", "full"]
    with pytest.raises(ValueError, match="there is no measure 'beauty'; there are adherence"):
        table.chosen(rows, "beauty")
    with pytest.raises(ValueError, match="no rule has the measure 'identity' here"):
        table.chosen(rows, "identity")


def test_tables_say_what_is_behind_them():
    rows = table.rows([result("full", [0.5] * 6), result("forcing-kv", [0.4] * 6, load=7.0)])
    lines = list(csv.DictReader(io.StringIO(table.spreadsheet(rows))))
    assert float(lines[1]["adherence.difference"]) == pytest.approx(-0.1) and lines[1]["calibration"] == "none"
    assert {"training_horizon", "frames_context", "positions", "passes", "kv_bytes", "peak_bytes"} <= set(lines[0])
    assert lines[0]["parity"].startswith("equal to zju-jiyicheng/Forcing-KV")
    text = table.markdown(rows)
    assert text.startswith("### try\n\n#### As released\n\n| policy |") and text.count("####") == 1
    assert "| 9 / 9 | 5 |" in text and "| 400 / 500 |" in text and "| ~400 / 500 |" in text
    assert lines[1]["load"] == "7.0" and lines[0]["threads"] == "1" and "| recall |" not in text
    recall = Recall(recall=0.5, low=0.25, high=0.75, chance=0.125, items=8)
    recalled = table.rows(
        [result("full", [0.5] * 6).model_copy(update={"recall": recall}), result("longlive", [0.5] * 6)]
    )
    (line, _) = csv.DictReader(io.StringIO(table.spreadsheet(recalled)))
    assert [line[f"recall{end}"] for end in ("", ".low", ".high", ".chance")] == ["0.5", "0.25", "0.75", "0.125"]
    assert "| recall | parity |" in table.markdown(recalled) and "| 0.50 (0.25 to 0.75) |" in table.markdown(recalled)
    videos = list(csv.DictReader(io.StringIO(table.videos_csv([result("full", [0.5] * 6)]))))
    assert len(videos) == 6 and videos[3]["prompt"] == "prompt 3" and videos[3]["adherence"] == "0.5"


# Files.


def test_a_result_is_read_back_as_it_was_written(tmp_path):
    one = result("longlive:window_frames=9", [0.5] * 6)
    file = save(one, tmp_path)
    assert file.name == "longlive_window_frames=9.json" and load(file) == one and load_folder(tmp_path) == [one]


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"policy": "longlive:window_frames=12"}, "must be written 'longlive'"),
        ({"policy": "nothing"}, "there is no policy 'nothing'"),
        ({"costs": None}, "costs belong to every rule"),
        ({"tracks": [{"name": "same budget"}]}, "the track 'same budget' needs frames"),
        ({"tracks": [{"name": "as released", "frames": 9}]}, "the track 'as released' has no frames"),
        ({"tracks": [{"name": "same budget", "frames": 7}]}, "the budget is 7 frames, and the rule reads 9"),
        ({"tracks": [{"name": "truth"}]}, "the track 'truth' is for 'renders' alone"),
        ({"origin": "somebody"}, "origin: input should be 'ours' or 'authors'"),
        ({"score": 1}, "score: extra inputs are not permitted"),
        ({"videos": []}, "one video per prompt and seed, 6; there are 0"),
    ],
)
def test_a_result_that_cannot_be_trusted_is_refused(tmp_path, change, sentence):
    file = tmp_path / "longlive.json"
    file.write_text(json.dumps(result("longlive", [0.5] * 6).model_dump() | change))
    with pytest.raises(ValueError, match=sentence):
        load(file)


def test_measures_are_known_and_finite(tmp_path):
    with pytest.raises(ValueError, match="no measure 'beauty'"):
        check(result("longlive", [0.5] * 6, "beauty"))
    file = save(result("longlive", [0.5] * 6), tmp_path)
    file.write_text(file.read_text().replace("0.5", "NaN", 1))
    with pytest.raises(ValueError, match="finite number"):
        load(file)
    file.write_text("[")
    with pytest.raises(ValueError, match="longlive.json is not JSON"):
        load(file)


def test_results_of_a_board_were_measured_alike(tmp_path):
    save(result("full", [0.5] * 6), tmp_path)
    other = result("longlive", [0.5] * 6)
    save(other.model_copy(update={"protocol": PROTOCOL.model_copy(update={"seconds": 60.0})}), tmp_path)
    with pytest.raises(ValueError, match="of board 'try', but their seconds differ: 60.0 and 4"):
        load_folder(tmp_path)


def test_adding_a_result_checks_it_and_takes_its_clip(toy, spec_file, quick, tmp_path, capsys):
    boards = tmp_path / "boards"
    boards.mkdir()
    assert main(["board", "run", str(spec_file), "--out", str(tmp_path / "out")]) == 0
    files = sorted(map(str, (tmp_path / "out" / "results").glob("*.json")))
    assert main(["board", "add", *files, "--to", str(boards)]) == 0
    assert len(load_folder(boards)) == 4 and (boards / "try" / "full.mp4").exists()
    (tmp_path / "alone").mkdir()
    bare = Path(shutil.copy(files[0], tmp_path / "alone"))
    assert main(["board", "add", str(bare), "--to", str(boards)]) == 0
    assert (boards / "try" / "full.mp4").exists(), "its frames are those of the clip"
    bare.write_text(bare.read_text().replace(f"{0:016x}", f"{9:016x}"))
    assert main(["board", "add", str(bare), "--to", str(boards)]) == 0
    assert not (boards / "try" / "full.mp4").exists(), "a clip of other frames goes"
    spec_file.write_text(SPEC.replace("seeds = [0, 1]", "seeds = [0]"))  # as an unfinished board, then a whole one
    assert main(["board", "run", str(spec_file), "--out", str(tmp_path / "less")]) == 0
    less = sorted(map(str, (tmp_path / "less" / "results").glob("*.json")))
    assert main(["board", "add", *less, "--to", str(boards)]) == 0
    assert main(["board", "add", *files, "--to", str(boards)]) == 0
    assert len(load_folder(boards)[0].videos) == 4
    wrong = Path(files[0])
    wrong.write_text(wrong.read_text().replace('"seconds":4', '"seconds":5', 1))
    assert main(["board", "add", str(wrong), "--to", str(boards)]) == 2
    assert "but their seconds differ" in capsys.readouterr().err


def test_the_command_shows_a_board(tmp_path, capsys):
    save(result("full", [0.5] * 6), tmp_path)
    save(result("longlive", [0.9] * 6, peak_bytes=20_000_000_000), tmp_path)
    files = [tmp_path / name for name in ("t.md", "t.csv", "v.csv")]
    options = ["--table", str(files[0]), "--csv", str(files[1]), "--videos-csv", str(files[2])]
    assert main(["board", "show", str(tmp_path), "--by", "adherence", *options]) == 0
    rows = json.loads(capsys.readouterr().out)["rows"]
    assert [row["policy"] for row in rows] == ["longlive", "full"] and all(file.stat().st_size for file in files)
    assert main(["board", "show", str(tmp_path), "--under-gb", "12"]) == 0
    assert [row["policy"] for row in json.loads(capsys.readouterr().out)["rows"]] == ["full"]
    assert main(["board", "show", str(tmp_path), "--under-gb", "12", "--videos-csv", str(files[2])]) == 0
    assert {row["policy"] for row in csv.DictReader(io.StringIO(files[2].read_text()))} == {"full"}
    assert main(["board", "show", str(tmp_path), "--fps", "500"]) == 2
    assert "no rule is within these limits" in capsys.readouterr().err
    assert main(["board", "show", str(tmp_path / "nowhere")]) == 2 and "there is no folder" in capsys.readouterr().err


def test_the_boards_that_ship_are_valid():
    for shipped in load_folder(asset("board")):
        assert shipped.protocol.training_horizon and table.rows([shipped])


# VBench-Long.


def scored(folder, names):
    """Results in the form that VBench-Long writes: whole videos for consistency, clips and their means for the rest."""
    videos = [{"video_path": f"{folder}/{name}.mp4", "video_results": 0.9, "clip2clip_score": 0.8} for name in names]
    clips = [
        {"video_path": f"{folder}/split_clip/{name}/{name}_{i:03d}.mp4", "video_results": value}
        for name in names
        for i, value in enumerate((60.0, 70.0))
    ]
    moves = [each | {"video_results": each["video_results"] > 65} for each in clips]
    means = [{"video_path": f"{folder}/{name}.mp4", "video_results": 65.0} for name in names]
    return {
        "subject_consistency": [0.9, videos],
        "imaging_quality": [0.65, clips, means],
        "dynamic_degree": [0.5, moves, [each | {"video_results": 0.5} for each in means]],
    }


def test_the_command_of_vbench_long_and_its_results(toy, spec_file, quick, tmp_path, capsys):
    out = tmp_path / "out"
    assert main(["board", "run", str(spec_file), "--out", str(out)]) == 0
    assert main(["board", "vbench", str(out)]) == 2 and "run the board with --videos all" in capsys.readouterr().err
    assert main(["board", "run", str(spec_file), "--out", str(out), "--videos", "all"]) == 0
    capsys.readouterr()
    assert main(["board", "vbench", str(out)]) == 0
    first = capsys.readouterr().out.splitlines()[0]
    assert first.startswith(f"python VBench/vbench2_beta_long/eval_long.py --videos_path {out / 'videos' / 'full'} ")
    assert first.endswith("imaging_quality --mode long_custom_input --dev_flag")
    prompts = json.loads((out / "prompts.json").read_text())
    names = [Path(name).stem for name in prompts if name.startswith("videos/full/")]
    assert len(names) == 4 and all(name.rpartition("-")[0] in prompts.values() for name in names)
    folder = out / "vbench" / "full"
    folder.mkdir(parents=True)
    (folder / "results_2026_eval_results.json").write_text(json.dumps(scored("videos/full", names)))
    assert main(["board", "vbench", str(out), "--read"]) == 0
    measures = load(out / "results" / "full.json").videos[0].measures
    found = {name: value for name, value in measures.items() if name.startswith("vbench.")}
    assert found == {
        "vbench.subject_consistency": 0.9,
        "vbench.subject_clip2clip": 0.8,
        "vbench.imaging_quality": 0.65,
        "vbench.dynamic_degree": 0.5,
    }
    assert main(["board", "run", str(spec_file), "--out", str(out), "--videos", "all"]) == 0
    assert load(out / "results" / "full.json").videos[0].measures == measures  # a later run keeps the scores
    for broken in ("[1]", json.dumps(scored("videos/full", names)).replace("60.0", "NaN", 1)):
        (folder / "results_2027_eval_results.json").write_text(broken)
        assert main(["board", "vbench", str(out), "--read"]) == 2 and "have the form" in capsys.readouterr().err
    assert load(out / "results" / "full.json").videos[0].measures == measures


def test_a_folder_without_a_board_or_scores_is_refused(tmp_path):
    with pytest.raises(ValueError, match="holds no board"):
        vbench.export(tmp_path)
    assert slug("commit:6 longlive:window_frames=9") == "commit_6_longlive_window_frames=9"
