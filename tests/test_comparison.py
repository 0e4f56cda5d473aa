"""Comparisons: what is measured of known chunks, what a plan refuses, how a run reports, is cancelled and leaves the
line."""

from __future__ import annotations

import json
from dataclasses import replace

import cv2
import numpy as np
import pandas as pd
import pytest
import torch

from fkv.analysis import figures
from fkv.analysis.held_out import held_out_scene
from fkv.analysis.measures import EQUAL_DB
from fkv.policies import POLICIES
from fkv.report import frame_hash
from fkv.stream import Chunk, Stream, Timings
from fkv.studio.live import comparison, comparison_figures, sample_comparison
from fkv.studio.live.comparison_plan import ComparisonPlan
from fkv.studio.live.limits import Limits
from fkv.studio.live.queue import Queue
from fkv.studio.live.run import Run
from fkv.studio.media import filmstrip
from fkv.studio.tabs import compare
from fkv.world.captions import caption
from fkv.world.captions import parse as parse_scene
from fkv.world.render import GENES, render

PROMPT = "a red ball bouncing over the sea by day"
PROMPTS = "a red ball bouncing over the sea by day\na blue star"


def plan(
    policies=("full", "sliding-window:window_frames=4"), prompts=PROMPTS, seeds="3", chunks=2, **more
) -> ComparisonPlan:
    return ComparisonPlan.from_form(policies, prompts, seeds, chunks, **more)


def run_of(model, asked: ComparisonPlan, limits: Limits = Limits(), run: Run | None = None, queue: Queue | None = None):  # noqa: B008
    play = comparison.player(model, limits)
    return comparison.compare(model, play, asked, run or Run(0), queue or Queue(), limits)


def chunks_of(seconds: float, kv_bytes: int, scene=None, count: int = 3) -> list[Chunk]:
    """Chunks of 12 frames that took 2 x `seconds` to generate and as long again for text and decoding."""
    scene = scene or held_out_scene(0)
    return [
        Chunk(
            i,
            (),
            caption(scene),
            "full",
            torch.empty(0),
            render(scene, range(12 * i, 12 * i + 12), [0.4] * GENES),
            Timings(text=seconds, denoise=seconds, context=seconds, decode=seconds),
            kv_bytes + i,
            {},
            0,
            1,
            {},
            {},
        )
        for i in range(count)
    ]


def test_figures_of_known_streams():
    slow, fast = chunks_of(1, 1000), chunks_of(0.5, 400)
    records = [
        comparison_figures.stream_record(name, PROMPT, 0, own, slow) | comparison_figures.quality(own, slow, True)
        for name, own in (("full", slow), ("another", fast))
    ]
    rows = comparison_figures.table(records)
    assert rows["fps_denoise"].tolist() == [6, 12] and rows["fps_end_to_end"].tolist() == [3, 6]
    assert rows["ratio_denoise"].tolist() == [1, 2] and rows["kv_bytes_peak"].tolist() == [1002, 402]
    assert np.isnan(rows["psnr_to_reference"]["full"]) and rows["psnr_to_reference"]["another"] == EQUAL_DB
    assert (
        rows["adherence"].tolist() == [1, 1]
        and rows["motion"].tolist() == [1, 1]
        and rows["streams"].tolist() == [1, 1]
    )


def test_medians_are_over_chunks_and_quality_is_a_mean_over_complete_streams():
    slow, fast = chunks_of(1, 1000), chunks_of(0.5, 400)
    complete = comparison_figures.stream_record("full", PROMPT, 0, slow, slow) | comparison_figures.quality(
        slow, slow, False
    )
    rows = comparison_figures.table([complete, comparison_figures.stream_record("full", PROMPT, 1, fast[:1], fast[:1])])
    assert (
        rows["fps_denoise"].tolist() == [6]
        and rows["streams"].tolist() == [2]
        and rows["kv_bytes_peak"].tolist() == [1002]
    )
    assert np.isnan(rows["adherence"]["full"]) and rows["discontinuity"]["full"] == complete["discontinuity"]


def test_a_run_reports_after_every_chunk_and_its_streams_are_those_of_the_library(toy):
    asked = plan()
    steps = list(run_of(toy, asked))
    assert [s.state for s in steps] == ["running"] * (len(steps) - 1) + ["done"]
    assert sorted({s.done for s in steps}) == list(range(asked.total + 1)) and asked.total == 8
    partial = next(s for s in steps if s.done == 2)
    assert [r["policy"] for r in partial.records] == list(asked.policies) and "adherence" not in partial.records[0]
    last = steps[-1].records
    assert [(r["policy"], r["prompt"]) for r in last] == [
        (policy, prompt) for prompt in asked.prompts for policy in asked.policies
    ]
    again = Stream(toy, comparison.policies.parse(asked.policies[1]), asked.prompts[1], 3)
    assert last[3]["frames_sha256"] == frame_hash([again.step() for _ in range(2)])
    assert last[0]["adherence"] is not None and last[2]["adherence"] is None  # the second prompt names no whole scene
    told = comparison_figures.report(toy, asked, last, torch.device("cpu"), "finished")
    assert json.loads(json.dumps(told, allow_nan=False))["policies"]["full"]["psnr_to_reference"] is None


def test_only_the_first_run_is_warmed_up(small):
    warmups, own = [], comparison.player(small, Limits())

    def play(names, prompt, seed, chunks, warmup, shared):
        warmups.append(warmup)
        return own(names, prompt, seed, chunks, warmup, shared)

    *_, last = comparison.compare(small, play, plan(), Run(0), Queue(), Limits())
    assert last.state == "done" and warmups == [1, 0]


def test_sharing_shows_the_same_pictures_and_measures_no_speed(toy):
    asked = plan(("full", "sliding-window", "forcing-kv:segments_per_frame=6"), PROMPTS.splitlines()[0], chunks=3)
    *_, alone = run_of(toy, asked)
    *_, shared = run_of(toy, replace(asked, shared=True))
    assert shared.text.endswith("3 streams of 3 chunks, of which 6 of 9 were computed and the others shared.")
    for one, other in zip(alone.records, shared.records, strict=True):
        for name in ("policy", "frames_sha256", "psnr_to_reference", "adherence", "kv_bytes_peak"):
            assert one[name] == other[name]
    told = comparison_figures.report(toy, replace(asked, shared=True), shared.records, torch.device("cpu"), "finished")
    assert (told["timing"], told["chunks_computed"]) == ("shared", 6)
    assert not any("fps" in name or "ratio" in name for name in json.dumps(told, allow_nan=False).split('"'))
    html = compare._table(comparison_figures.table(shared.records), draws_world=True)
    assert "FPS" not in html and "PSNR" in html
    assert "timing" in comparison_figures.spreadsheet(told)


SCENES = "a red ball bouncing over the sea by day [1c] | a blue star drifting over the hills at night [2c]"


@pytest.mark.parametrize("shared", [False, True])
def test_scenes_change_the_prompt_of_every_stream_on_its_way(shared, toy):
    asked = plan(prompts=SCENES, chunks=3, shared=shared)
    *_, last = run_of(toy, asked)
    assert last.state == "done" and {record["prompt"] for record in last.records} == {SCENES}
    seen = [[chunk["prompt"].split()[1] for chunk in record["chunks"]] for record in last.records]
    assert seen == [["red", "blue", "blue"]] * 2
    stream = Stream(toy, comparison.policies.parse(asked.policies[0]), SCENES.partition(" [")[0], 3)
    first = stream.step()
    stream.set_prompt("a blue star drifting over the hills at night")
    assert last.records[0]["frames_sha256"] == frame_hash([first, stream.step(), stream.step()])
    assert last.records[0]["adherence"] is not None
    told = comparison_figures.report(toy, asked, last.records, torch.device("cpu"), "finished")
    assert told["prompts"] == [SCENES]


def test_adherence_is_read_at_the_end_of_each_prompt():
    first, second = (parse_scene(text.partition(" [")[0].strip()) for text in SCENES.split("|"))
    kept = [*chunks_of(1, 1000, first, count=2), *chunks_of(1, 1000, second, count=4)]
    stuck = [replace(chunk, video=kept[0].video) for chunk in kept]
    assert comparison_figures.quality(kept, kept, True)["adherence"] > 0.9
    assert comparison_figures.quality(stuck, kept, True)["adherence"] < 0.8


def test_a_comparison_is_recorded_group_by_group_and_shown_for_its_own_weights_alone(toy, tmp_path, monkeypatch):
    monkeypatch.setattr(sample_comparison, "GROUP", 1)
    names = ["full", "sliding-window:window_frames=4", "sliding-window:window_frames=6"]
    told = sample_comparison.record(toy, names, [SCENES], 3)
    assert list(told["policies"]) == names and told["prompts"] == [SCENES] and "streams" not in told
    assert "fps_denoise" not in told["policies"]["full"] and told["policies"][names[1]]["kv_bytes_peak"] > 0
    file = tmp_path / "compared.json"
    file.write_text(json.dumps(told, allow_nan=False))
    assert sample_comparison.recorded(toy, file) == told
    file.write_text(json.dumps(told | {"checkpoint": "another"}))
    assert sample_comparison.recorded(toy, file) is None
    assert sample_comparison.recorded(toy, tmp_path / "none.json") is None


def test_the_tab_opens_with_a_record_of_all_policies_that_tells_them_apart(shipped, small):
    told = sample_comparison.recorded(shipped)
    assert told["prompts"] == comparison.default_prompts(shipped) and set(told["policies"]) <= set(POLICIES)
    rows = told["policies"].values()
    assert len(rows) > 15 and min(row["adherence"] for row in rows) < 1, "not 100 % everywhere"
    assert len({row["psnr_to_reference"] for row in rows}) > 10
    [html] = compare._recorded(shipped)
    assert all(f'<th scope="row">{name}</th>' in html for name in told["policies"])
    assert told["device"] in html and told["date"] in html and sample_comparison.COMMAND in html
    assert "FPS" not in html and compare._recorded(small) == []


def test_pictures_come_with_the_chunks_and_the_newest_runs_keep_theirs(toy):
    steps = list(run_of(toy, plan(seeds="0 1 2")))
    first = next(step.strips[-1] for step in steps if step.strips)
    assert first.at == (1, 2) and [len(row) for row in first.rows.values()] == [1, 1]
    *_, last = steps
    assert [(strip.prompt, strip.seed) for strip in last.strips] == list(plan(seeds="0 1 2").runs[-comparison.STRIPS :])
    assert all([len(row) for row in strip.rows.values()] == [2, 2] for strip in last.strips)


def test_a_strip_shows_the_last_frame_of_every_moment_and_frames_for_those_to_come():
    made = chunks_of(1, 1000, count=9)
    strip = filmstrip.filmstrip("<b>", 4, {"full": made, "a & b": made[:5]}, 20)
    assert strip.at == (1, 4, 6, 9, 12, 15, 17, 20) and [len(row) for row in strip.rows.values()] == [4, 2]
    shown = cv2.imdecode(np.frombuffer(strip.rows["full"][3], np.uint8), cv2.IMREAD_COLOR)[..., ::-1]
    assert (
        np.abs(shown.astype(int) - made[8].video[-1]).mean() < 3 < np.abs(shown.astype(int) - made[8].video[0]).mean()
    )
    html = filmstrip.html([strip])
    assert (
        html.count("<img") == 6
        and html.count("<td></td>") == 1 + 10
        and "&lt;b&gt;" in html
        and 'alt="a &amp; b, chunk 4"' in html
    )
    large = replace(made[0], video=np.zeros((1, 480, 832, 3), np.uint8))
    assert cv2.imdecode(
        np.frombuffer(filmstrip.filmstrip("", 0, {"full": [large]}, 2).rows["full"][0], np.uint8), 1
    ).shape == (120, 208, 3)
    bare = [replace(chunk, video=None) for chunk in made]
    assert filmstrip.html([filmstrip.filmstrip("", 0, {"full": bare}, 9)]) == ""


def test_a_model_of_another_world_is_compared_without_the_oracle(small):
    *_, last = run_of(small, plan(prompts="a red ball bouncing over the sea by day"))
    rows = comparison_figures.table(last.records)
    assert rows["adherence"].isna().all() and rows["psnr_to_reference"].notna().sum() == 1
    assert figures.Pareto(rows).table["policy"].tolist() == ["sliding-window:window_frames=4"]
    assert "adherence" not in compare._table(rows, draws_world=False)


def test_cancelling_ends_between_chunks_and_closing_leaves_the_line(toy):
    run, queue, stepped = Run(0), Queue(), []
    for step in run_of(toy, plan(chunks=30), run=run, queue=queue):
        stepped.append(step)
        if step.done == 3:
            run.stop()
    assert (
        stepped[-1].state == "done"
        and stepped[-1].done == 3
        and stepped[-1].text.startswith("Stopped after 3 of 120 chunks")
    )
    assert [len(r["chunks"]) for r in stepped[-1].records] == [1, 1] and run.ended == "stopped" and not run.live
    left = run_of(toy, plan(chunks=30), queue=queue)
    next(left), next(left)
    assert queue.running == 1
    left.close()
    assert queue.running == 0


def test_it_waits_for_its_turn_and_says_its_place(small):
    queue = Queue()
    run = Run(0)
    with queue.join("a visitor"):
        steps = run_of(small, plan(), run=run, queue=queue)
        waiting = next(steps)
        assert waiting.state == "queued" and "Place 1 in the queue" in waiting.text
        run.stop()
    assert [step.state for step in steps][-1] == "done" and run.ended == "stopped"


def test_time_memory_and_failures_end_it_with_a_sentence(small, monkeypatch):
    assert (
        "after 1 of 8 chunks: a run may last at most 0 seconds"
        in list(run_of(small, plan(), Limits(seconds=0)))[-1].text
    )
    assert (
        "after 1 of 8 chunks: its KV cache exceeded the limit of 0 MB"
        in list(run_of(small, plan(), Limits(kv=0)))[-1].text
    )
    monkeypatch.setattr(Stream, "step", lambda self: 1 / 0)
    *_, last = run_of(small, plan())
    assert (last.state, last.text) == ("error", "The comparison failed after 0 of 8 chunks: ZeroDivisionError.")


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"policies": ["full"]}, "policies must be a whole number from 2 to 8, not 1"),
        ({"policies": ["full", "full:"]}, "number of policies .* not 1"),
        ({"policies": ["full", "nonsense"]}, "no policy 'nonsense'"),
        ({"prompts": " \n"}, "prompts must be a whole number from 1 to 16, not 0"),
        ({"seeds": "0 x"}, "'x' is not an integer"),
        ({"seeds": ""}, "seeds must be a whole number from 1 to 8, not 0"),
        ({"seeds": "99999999999"}, "the seed must be"),
        ({"policies": None}, "must be a list"),
        ({"policies": ["full", 3]}, "must be a text"),
        ({"prompts": None}, "must be a text"),
        ({"chunks": None}, "whole number"),
        ({"chunks": 1}, "chunks must be a whole number from 2 to 60, not 1"),
        ({"max_chunks": 7}, "8 chunks in all; at most 7"),
        ({"prompts": "a ball [3c] | a star [1c]"}, "scene 2 .* begins at chunk 4, after the last of 2"),
    ],
)
def test_bad_forms_get_a_sentence(fields, words):
    with pytest.raises(ValueError, match=words):
        plan(**fields)


def rows_of(**columns) -> pd.DataFrame:
    known = {"kv_bytes_peak": [4e6, 1e6, 2e6], "psnr_to_reference": [np.nan, 30, 20]}
    return pd.DataFrame(known | columns, index=pd.Index(["full", "a", "b"], name="policy"))


def test_the_front_is_what_no_other_policy_beats():
    table = figures.Pareto(rows_of(fps_denoise=[10, 30, 20], adherence=[0.9, 0.8, 0.8])).table
    assert table["front"].tolist() == [True, True, False] and table["quality"].tolist() == [0.9, 0.8, 0.8]
    without = figures.Pareto(rows_of(fps_denoise=[10, 30, 20], adherence=[np.nan] * 3)).table
    assert without["policy"].tolist() == ["a", "b"] and without["quality"].tolist() == [30, 20]


def test_labels_of_policies_about_as_fast_do_not_overlap():
    def below(fps, adherence):
        labels = figures.Pareto(rows_of(fps_denoise=fps, adherence=adherence)).plotly().data[1].textposition
        return [label == "bottom center" for label in labels]

    assert below([20.8, 23.2, 21.9], [1, 1, 1]) == [False, False, True]
    assert below([10, 10.1, 30], [0.5, 0.9, 0.9]) == [True, False, False] and below(
        [10, 10.1, 30], [0.9, 0.5, 0.9]
    ) == [False, True, False]


def test_the_plot_and_its_file_show_every_policy():
    rows = rows_of(fps_denoise=[10, 30, 20], adherence=[0.9, 0.8, 0.8])
    markers = figures.Pareto(rows).plotly().data[1]
    assert list(markers.text) == ["full", "a", "b"] and list(markers.marker.size) == [4e6, 1e6, 2e6]
    (axes,) = figures.Pareto(rows).matplotlib().axes
    assert [text.get_text() for text in axes.texts] == ["full", "a", "b"]


def test_the_table_says_what_is_unknown_and_what_is_equal():
    rows = comparison_figures.table(
        [comparison_figures.stream_record("<b>", PROMPT, 0, chunks_of(1, 1000), chunks_of(1, 1000))]
    )
    html = compare._table(rows.assign(psnr_to_reference=EQUAL_DB), draws_world=True)
    assert "&lt;b&gt;" in html and '"100.0">equal<' in html and html.count('"">–<') == 7 and ">6.0<" in html


def test_the_spreadsheet_says_what_the_page_says_and_what_was_compared(small):
    slow, fast = chunks_of(1, 1000), chunks_of(0.5, 400)
    records = [
        comparison_figures.stream_record(name, PROMPT, 0, own, slow) | comparison_figures.quality(own, slow, False)
        for name, own in (("full", slow), ("another", fast))
    ]
    plan = ComparisonPlan.from_form(["full", "sliding-window"], "a red ball\na blue star", "3, 4", 2)
    told = comparison_figures.report(small, plan, records, torch.device("cpu"), "finished")
    rows = comparison_figures.spreadsheet(told).loc["another"]
    assert rows["psnr_to_reference"] == "equal" and rows["reference"] == "full"
    assert (rows["prompts"], rows["seeds"], rows["chunks"]) == ("a red ball | a blue star", "3 4", 2)
    assert rows["device"] == told["device"] and rows["model"] == small.name


def test_a_ratio_within_noise_is_no_result():
    row = {"ratio_denoise": 1.18, "ratio_denoise_low": 0.9, "ratio_denoise_high": 1.3}
    assert compare._cell("ratio_denoise", row) == "within noise (0.90–1.30 ×)"
    assert compare._cell("ratio_denoise", row | {"ratio_denoise_low": 1.1}) == "1.18 × (1.10–1.30)"
    same = dict.fromkeys(row, 1.0)
    assert compare._cell("ratio_denoise", same) == "1.00 ×"
