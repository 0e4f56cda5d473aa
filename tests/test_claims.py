"""The claims of the sources, measured: choices and their overlap, operations, figures, reports."""

from __future__ import annotations

import argparse
import json
from statistics import median

import numpy as np
import pytest
from PIL import Image

from fkv import policies
from fkv.analysis import equal_bytes
from fkv.bench import branches, ca2, pasts, rows, selection
from fkv.choices import ChoiceProbe
from fkv.commands import bench
from fkv.policies.mpcache import MPCache
from fkv.stream import Stream
from fkv.training import demands


def run(*options):
    parser = argparse.ArgumentParser()
    bench.add_arguments(parser)
    repeats = [] if "--read" in options else ["--repeats", "2"]
    return bench.run(parser.parse_args(["--device", "cpu", *repeats, *options]))


@pytest.fixture(scope="module", autouse=True)
def small_scale(small_by_default):
    with pytest.MonkeyPatch.context() as patch:
        variants = ("full", "mpcache", "mpcache:ratio1=1.0,threshold=0.0", "sliding-window:window_frames=15")
        patch.setattr(selection, "POLICIES", variants)
        for name, value in {"BRANCHES": 3, "OWN_CHUNKS": 2}.items():
            patch.setattr(branches, name, value)
        for name, value in {"ROWS": (1, 2), "POLICIES": ("full", "sliding-window")}.items():
            patch.setattr(rows, name, value)
        for name, value in {"EVALUATION": 4, "EVALUATED": ("full",), "COMPARED": ("full",), "ENDINGS": 3}.items():
            patch.setattr(pasts, name, value)
        patch.setattr(branches, "POLICIES", ("full", "forcing-kv:segments_per_frame=6,start_chunk=1"))
        yield


def seen(chosen, passes=("step 0", "context")):
    """A probe that has seen choices, (pass, layer, head) -> pages."""
    probe = ChoiceProbe(list(passes))
    probe._read = {place: set(pages) for place, pages in chosen.items()}
    return probe


def test_overlap_by_hand():
    a, b, c, always = (0, 1), (0, 2), (1, 0), (0, 0)
    probe = seen(
        {
            ("step 0", 0, 0): [always, a, b],
            ("step 0", 1, 0): [always, b, c],
            ("context", 0, 0): [always, a, b],
            ("context", 1, 0): [always, a],
        }
    )
    found = probe.overlap()
    # Layers: {a, b} and {b, c} share 1 of 3; {a, b} and {a} 1 of 2. Passes: all of 2, none of 3.
    np.testing.assert_allclose(found.layers, [[1, (1 / 3 + 1 / 2) / 2], [(1 / 3 + 1 / 2) / 2, 1]])
    np.testing.assert_allclose(found.steps, [[1, 0.5], [0.5, 1]])


def test_shared_choices_overlap_wholly_and_no_choice_is_unknown(small):
    for text, layers in (("mpcache:first_layers=1", 1), ("full", np.nan)):
        stream = Stream(small, policies.parse(f"{text},threshold=0" if layers == 1 else text), "a ball", decode=False)
        for _ in range(6):
            stream.step(probe := ChoiceProbe())
        found = probe.overlap()
        assert found.passes == ("step 0", "step 1", "context")
        np.testing.assert_allclose(found.layers[1, 2], layers)
        np.testing.assert_allclose(found.steps, np.full((3, 3), layers))
        assert not found.layers[0, 1] == 1


def test_operations_by_hand():
    # 10 frames of 4 pages, 2 strips, keys of 8. Level 1 keeps 5 of 10, level 2 8 of the 20 pages of these frames.
    linear = selection.operations(MPCache(), frames=10, pages=40, strips=2, head_dim=8)
    top = (9 + 8 + 7 + 6 + 5) + sum(range(12, 20))
    assert linear == {
        "comparisons": top + 30,
        "multiplications_before": 2 * 8 * 2 * 30,
        "multiplications": 8 * 2 * 30,
        "one_hot_bits": 5 * 10 + 8 * 20,
    }
    exact = selection.operations(MPCache(bound="exact"), frames=10, pages=40, strips=2, head_dim=8)
    assert exact["comparisons"] == top + 30 + 8 * 2 * 30 and exact["multiplications"] == 2 * 8 * 2 * 30
    flat = selection.operations(MPCache(ratio1=1.0), frames=10, pages=40, strips=1, head_dim=8)
    assert flat["comparisons"] == sum(range(32, 40)) and flat["one_hot_bits"] == 8 * 40


@pytest.fixture(scope="module")
def recorded(tmp_path_factory):
    """A report of each claim, by name."""
    folder = tmp_path_factory.mktemp("claims")
    for name, context in (("selection", "21"), ("ca2", "15"), ("branches", "9"), ("pasts", "6"), ("rows", "9")):
        assert run(f"--{name}", "--context", context, "--json", str(folder / f"{name}.json")) == 0
    return {
        name: (json.loads((folder / f"{name}.json").read_text()), folder / f"{name}.json") for name in bench.SOURCES
    }


def test_the_report_of_selection(recorded):
    report, _ = recorded["selection"]
    found = report["selection"]
    full, chosen, flat, late, window = found["rows"]
    assert full["kv_tokens_read"] == full["kv_tokens"] == 21 * 12 and full["psnr_vs_full"] is None
    assert chosen["kv_tokens_read"] < chosen["kv_tokens"] <= 21 * 12 and chosen["psnr_vs_full"] > 5
    assert 0 < chosen["choosing_s"] < chosen["generate_s"] and full["choosing_s"] == 0
    assert flat["operations"]["comparisons"] > 0 and window["policy"].startswith("sliding-window:window_frames=")
    assert abs(window["kv_tokens_read"] - chosen["kv_tokens_read"]) <= 12
    assert late["psnr_vs_full"] > 5  # compared, although its first five chunks equal those of full
    assert len(found["overlap"]["layers"]) == 3 and len(found["overlap"]["steps"]) == 3
    assert set(report["meaning"]) >= {"overlap", "operations", "psnr_vs_full"}


def test_the_report_of_ca2(recorded):
    found = recorded["ca2"][0]["ca2"]
    assert all(len(seconds) == 5 and sorted(seconds) == seconds for seconds in found["cumulative_s"].values())
    assert [row["per_step"] // row["shared"] for row in found["bytes"]] == [4, 8, 16, 50]
    assert found["bytes"][0]["shared"] == found["kv_bytes"]["full"] == 15 * 12 * 2 * 12 * 12 * 4


def test_the_report_of_branches(recorded):
    found = recorded["branches"][0]["branches"]
    frame = 12 * 12 * 12 * 2 * 4  # bytes: tokens, heads of all layers, elements, K and V, float32
    neither, sharing, compression, both = found["bytes"]
    assert neither["bytes"] == [3 * 12 * frame, 3 * 15 * frame]
    assert sharing["bytes"] == [(9 + 3 * 3) * frame, (9 + 3 * 6) * frame]
    assert [row["past"] for row in found["bytes"]] == ["copied", "shared"] * 2
    assert both["bytes"][0] < compression["bytes"][0] < neither["bytes"][0]
    assert all(row["buffers"][i] >= row["bytes"][i] for row in found["bytes"] for i in range(2))
    for together in (found["together"], recorded["rows"][0]["rows"]["together"]):
        assert [(row["policy"], row["rows"]) for row in together] == [
            (name, count) for name in ("full", "sliding-window") for count in (1, 2)
        ]
        assert all(row["together"] > 0 and row["alone"] > 0 and row["ratio"] > 0 for row in together)


def test_the_report_of_pasts(recorded):
    rows = recorded["pasts"][0]["pasts"]["rows"]
    alone, once, together = rows[3:6]  # an opening of 2 chunks with 3 endings of 2
    assert [(row["asked"], row["chunks"]) for row in (alone, once, together)] == [(12, 12), (12, 8), (12, 8)]
    assert all(row["per_second"] == row["asked"] / median(row["seconds"]) for row in rows)
    frame = 12 * 12 * 12 * 2 * 4  # bytes: tokens, heads of all layers, elements, K and V, float32
    # One stream of 12 frames; beside it the past of 6 waits; three streams at once.
    assert [row["kv_bytes_peak"] for row in (alone, once, together)] == [12 * frame, 18 * frame, 3 * 12 * frame]


@pytest.mark.parametrize("name", bench.SOURCES)
def test_a_recorded_claim_is_read_and_drawn(recorded, name, tmp_path, capsys):
    report, file = recorded[name]
    picture = tmp_path / "figure.png"
    assert run("--read", str(file), "--figure", str(picture)) == 0
    printed = capsys.readouterr()
    assert json.loads(printed.out) == report
    shown = {
        "ca2": "ca2-vdm",
        "selection": "mpcache",
        "branches": "forcing-kv",
        "pasts": "the past once",
        "rows": "one pass for all",
    }
    assert shown[name] in printed.err
    with pytest.raises(ValueError, match=f"is a report of --{name}"):
        run("--read", str(recorded[name][1]), "--official")
    assert Image.open(picture).size[0] > 800


@pytest.mark.parametrize(
    "options, message",
    [
        (["--selection", "--context", "21,42"], "--selection takes one --context, not 21,42"),
        (["--ca2", "--context", "20"], "--context takes multiples of the chunk's 3"),
        (["--selection", "--context", "3"], "--context of at least 6 latent frames"),
        (["--ca2", "--selection"], "--ca2 measures recompute, full and ca2-vdm, where --selection would do nothing"),
        (["--selection", "--policies", "full"], "--selection measures mpcache, where --policies would do nothing"),
    ],
)
def test_options_that_do_not_fit_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        run(*options)


def test_a_policy_that_does_not_fit_is_refused_before_anything_is_measured(monkeypatch):
    monkeypatch.setattr(rows, "POLICIES", ("full", "forcing-kv:segments_per_frame=7"))
    monkeypatch.setattr(rows, "measure", lambda *args, **options: pytest.fail("it was measured"))
    with pytest.raises(ValueError, match="7 segments do not divide the 12 tokens of a frame"):
        run("--rows")


@pytest.mark.parametrize("module", [ca2, selection, pasts, rows])
def test_the_progress_bar_counts_every_chunk(module, small):
    counted = []
    module.measure(small, 12, 1, progress=lambda: counted.append(1))
    assert len(counted) == module.chunks_of(small, 12, 1)


class TestEqualBytes:
    NAMES = ("window-kv", "sliding-window", "forcing-kv", "dummy-forcing", "ca2-vdm")

    @pytest.mark.parametrize("share", [0.4, 0.6])
    def test_policies_hold_about_as_much(self, small, share):
        chunks, wanted = 10, share * 30
        texts = equal_bytes.fitted(small, self.NAMES, [share], chunks * small.chunk_seconds)
        assert texts[0] == "full" and [text.partition(":")[0] for text in texts[1:]] == list(self.NAMES)
        frame = 12 * 2 * 4 * 3 * 12 * 4  # bytes of a latent frame in all heads
        for text in texts[1:]:
            stream = Stream(small, policies.parse(text), equal_bytes.PROMPT, decode=False)
            held = [stream.step().kv_bytes / frame for _ in range(chunks)]
            assert held[-1] == pytest.approx(equal_bytes.peak_bytes(small, policies.parse(text), chunks) / frame)
            assert held[-1] <= wanted
            name, setting = text.partition(":")[0], int(float(text.rpartition("=")[2]))
            setting //= 3 if name == "ca2-vdm" else 1
            more = policies.parse(equal_bytes.SETTINGS[name](setting + 1))
            # Dummies never keep more than a frame, so dummy-forcing may hold less than it is given.
            assert equal_bytes.peak_bytes(small, more, chunks) / frame > wanted or name == "dummy-forcing"

    def test_a_policy_that_cannot_hold_so_little_is_refused(self, small):
        with pytest.raises(ValueError, match="window-kv cannot hold as little as .* MB; allow it more with --bytes"):
            equal_bytes.fitted(small, ["window-kv"], [0.05], 21)

    def test_all_bytes_are_all_frames(self, small):
        texts = equal_bytes.fitted(small, ["sliding-window"], [1], 4 * small.chunk_seconds)
        assert texts == ["full", "sliding-window:window_frames=12"]

    def test_a_policy_without_a_setting_is_refused(self, small):
        with pytest.raises(ValueError, match="--bytes is for other policies than full"):
            equal_bytes.fitted(small, ["full"], [0.5], 21)
        with pytest.raises(ValueError, match="longlive cannot be fitted to bytes; these can: sliding-window"):
            equal_bytes.fitted(small, ["longlive"], [0.5], 21)

    @pytest.mark.parametrize("text", ["half", "0", "120", "12,,50", "-3"])
    def test_shares_are_percentages(self, text):
        with pytest.raises(ValueError, match="--bytes takes percentages above 0, at most 100, such as 12,25,50"):
            equal_bytes.shares(text)
        assert equal_bytes.shares("12,25,50") == [0.12, 0.25, 0.5]


class TestDemands:
    def test_a_label_needs_a_difference_beyond_the_noise(self):
        assert demands.label([1.0, 1.2, 0.8, 1.0]) == "max" and demands.label([-1.0, -1.2, -0.8]) == "average"
        assert demands.label([1.0, -0.9, 0.8, -1.1]) is None

    def test_a_classifier_is_judged_on_what_it_was_not_fitted_to(self):
        generator = np.random.default_rng(0)
        labels = generator.integers(0, 2, 60)
        told = generator.normal(size=(60, 5)) + 3 * labels[:, None]
        found = demands.judge(told, labels)
        assert found["classifier"] > 0.9 > found["majority"] and found["ships"]
        assert not demands.judge(generator.normal(size=(60, 5)), labels)["ships"]
        assert demands.judge(told, np.ones(60, int))["majority"] == 1

    def test_few_seeds_and_prompts_are_refused(self, small):
        with pytest.raises(ValueError, match="labels need at least 8 seeds, not 2"):
            demands.study(small, 8, 2, 5, 4)
        with pytest.raises(ValueError, match="4 folds need at least 4 prompts, not 3"):
            demands.study(small, 3, 8, 5, 4)

    def test_the_figure_is_printed_and_recorded_and_a_study_continues(self, tmp_path, capsys, monkeypatch):
        target = tmp_path / "demands.json"
        options = ["--seconds", "2.25", "--budget-frames", "1", "--json", str(target)]
        measured, measure = [], demands.measure
        monkeypatch.setattr(demands, "measure", lambda *args: measured.append(args[1]) or measure(*args))
        demands.main(["--prompts", "4", *options])
        found = json.loads(target.read_text())
        assert capsys.readouterr().out.startswith("of 4 prompts ")
        assert len(found["prompts"]) == 4 and all(row["gain_db"] != 0 for row in found["prompts"])
        target.write_text(json.dumps(found | {"prompts": found["prompts"][:3], "judged": None}))
        measured.clear()
        demands.main(["--prompts", "4", *options])
        assert json.loads(target.read_text()) == found and measured == [found["prompts"][3]["prompt"]]
        with pytest.raises(SystemExit):
            demands.main(["--prompts", "4", *options, "--seconds", "3"])
        assert "was recorded with seconds 2.25 instead of 3.0; remove it" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("ours", "theirs", "said"),
    [
        ([26.0, 27.0], [None, 28.0], "Fewer than two seeds"),
        ([26.0, 30.0], [25.0, 31.0], "2 seeds cannot tell"),
        ([26.0, 30.0, 28.0], [27.0, 31.5, 29.0], "comes less near to the frames of `full` on the same noise"),
        ([26.0, 30.0, 28.0], [25.0, 28.5, 27.0], "comes nearer to the frames"),
    ],
)
def test_pictures_are_compared_seed_by_seed(ours, theirs, said):
    from docs import sources

    rows = [
        {"policy": "full", "kv_tokens": 5040.0},
        {"policy": "mpcache", "kv_tokens": 2520.0, "speed_vs_full": 2.0, "psnr_by_seed": ours},
        {"policy": "sliding-window:window_frames=13", "speed_vs_full": 2.5, "psnr_by_seed": theirs},
    ]
    verdict = sources._verdict({"context": 84, "rows": rows})
    assert said in verdict and ("dropped 50 % of the pages" in verdict or None in theirs)
