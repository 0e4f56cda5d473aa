"""The command line: reports, refusals, and no traceback for users."""

import errno
import io
import json
import subprocess
import sys

import av
import numpy as np
import pytest
from PIL import Image

import fkv
from fkv import policies, roles
from fkv.analysis import evaluation_plots, record
from fkv.commands import main
from fkv.models.tiny import FOLDER
from fkv.stream import Stream

PROMPT = "a red ball bouncing over the hills at sunset"


pytestmark = pytest.mark.usefixtures("small_by_default")


def run(capsys, *args):
    code = main.main(list(args))
    printed = capsys.readouterr()
    assert "Traceback" not in printed.err
    return code, printed


def test_stream_writes_video_and_report(capsys, tmp_path):
    video, report = tmp_path / "v.mp4", tmp_path / "r.json"
    options = [
        "--policy",
        "forcing-kv:segments_per_frame=4",
        "--chunks",
        "5",
        "--seed",
        "3",
        "--out",
        str(video),
        "--json",
        str(report),
    ]
    assert run(capsys, "stream", "--prompt", PROMPT, *options)[0] == 0
    data = json.loads(report.read_text())
    assert {
        "fps_denoise",
        "fps_end_to_end",
        "kv_bytes_peak",
        "model",
        "policy",
        "seed",
        "device",
        "precision",
    } <= data.keys()
    assert data["seed"] == 3 and data["policy"] == "forcing-kv" and len(data["chunks"]) == 5
    for chunk in data["chunks"]:
        assert {"index", "denoise_s", "context_s", "decode_s", "kv_bytes", "context_frames"} <= chunk.keys()
        assert {"static", "dynamic"} <= chunk["kv_tokens"].keys()
    assert data["fps_denoise"] > data["fps_end_to_end"] > 0
    with av.open(str(video)) as file:
        assert sum(1 for _ in file.decode(video=0)) == 60


def test_a_stream_switches_policies_and_prompts(capsys):
    switches = [
        "--switch",
        "3:forcing-kv:segments_per_frame=4",
        "--switch",
        "5:full",
        "--say",
        "4:a blue star",
        "--recache",
    ]
    code, printed = run(capsys, "stream", "--policy", "full", "--chunks", "6", *switches)
    chunks = json.loads(printed.out)["chunks"]
    assert code == 0 and [c["policy"] for c in chunks] == ["full"] * 2 + ["forcing-kv"] * 2 + ["full"] * 2
    assert [c["prompt"] for c in chunks][2:4] == ["a red ball bouncing over the hills at sunset", "a blue star"]
    assert chunks[3]["rebuild_s"] > 0


def test_a_recorded_stream_can_be_analysed(capsys, tmp_path):
    options = ["--policy", "forcing-kv:segments_per_frame=4", "--chunks", "4", "--record", str(tmp_path / "run")]
    assert run(capsys, "stream", *options)[0] == 0
    code, printed = run(capsys, "analyze", str(tmp_path / "run"), "--out", str(tmp_path / "figures"))
    assert code == 0 and {path.suffix for path in (tmp_path / "figures").iterdir()} >= {".png", ".svg", ".csv", ".html"}


def test_a_report_is_not_lost_where_the_record_cannot_be_written(capsys, tmp_path, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    prompts = tmp_path / "prompts.txt"
    prompts.write_text(PROMPT)
    monkeypatch.setattr(record, "save", full)
    monkeypatch.setattr(roles, "save", full)
    for args in (
        ["stream", "--chunks", "1", "--record", str(tmp_path / "run")],
        ["profile", "--chunks", "6", "--prompts", str(prompts), "--out", str(tmp_path / "roles.json")],
    ):
        code, printed = run(capsys, *args)
        assert code == 2 and "No space left on device" in printed.err and json.loads(printed.out)["model"] == "small"


def test_steps_are_set_for_a_run_and_change_in_it(capsys, tmp_path):
    (tmp_path / "story.txt").write_text("2: steps = 1")
    code, printed = run(capsys, "stream", "--steps", "2", "--chunks", "2", "--story", str(tmp_path / "story.txt"))
    chunks = json.loads(printed.out)["chunks"]
    assert code == 0 and [(chunk["steps"], chunk["events"]) for chunk in chunks] == [(2, []), (1, ["steps: 1"])]


def test_compare_reports_ratios_against_full(capsys):
    code, printed = run(
        capsys, "compare", "--policies", "full,forcing-kv:segments_per_frame=4,retention=3", "--chunks", "5"
    )
    data = json.loads(printed.out)
    hybrid, full = data["policies"]["forcing-kv"], data["policies"]["full"]
    assert code == 0 and len(hybrid["ratio_denoise"]["per_chunk"]) == 5
    assert full["ratio_denoise"]["median"] == 1 and full["psnr_vs_full"] == [None] * 5
    assert hybrid["ratio_kv_bytes"] == full["chunks"][-1]["kv_bytes"] / hybrid["chunks"][-1]["kv_bytes"] > 1
    assert hybrid["psnr_vs_full"][0] is None or hybrid["psnr_vs_full"][0] > 50


def test_compare_draws_what_every_policy_painted(capsys, tmp_path, small, monkeypatch):
    drawn, draw = [], evaluation_plots.filmstrips
    monkeypatch.setattr(evaluation_plots, "filmstrips", lambda *given: drawn.append(given) or draw(*given))
    sheet = tmp_path / "sheet.png"
    assert (
        run(capsys, "compare", "--policies", "forcing-kv", "--chunks", "9", "--seed", "4", "--sheet", str(sheet))[0]
        == 0
    )
    [(titles, strips, seconds, _)] = drawn
    assert titles == ["full", "forcing-kv"] and seconds == [0.75 * number for number in (1, 2, 3, 4, 6, 7, 8, 9)]
    stream = Stream(small, policies.parse("forcing-kv"), PROMPT, 4)
    last = [stream.step().video[-1] for _ in range(9)]
    assert np.array_equal(strips[1], np.stack(last[:4] + last[5:])) and Image.open(sheet).size[0] > 1000
    code, printed = run(capsys, "compare", "--chunks", "3", "--sheet", str(tmp_path / "sheet.gif"))
    assert code == 2 and "--sheet writes png files" in printed.err


def test_compare_takes_all_policies_that_fit_the_model(capsys, monkeypatch):
    monkeypatch.setattr(policies, "fitting", lambda geometry, roles: ["sliding-window", "recompute", "longlive"])
    code, printed = run(capsys, "compare", "--policies", "all,nothing", "--chunks", "2")
    assert code == 2 and "there is no policy 'nothing'" in printed.err
    code, printed = run(capsys, "compare", "--policies", "full,-recompute", "--chunks", "2")
    assert code == 2 and "-recompute leaves a policy out of all, as in all,-recompute" in printed.err
    code, printed = run(capsys, "compare", "--policies", "all,-longlive:sink_frames=2", "--chunks", "2")
    assert code == 2 and "-longlive:sink_frames=2 has parameters, and the policies of all have none" in printed.err
    _, printed = run(capsys, "compare", "--policies", "all,-recompute,recency", "--chunks", "2")
    assert list(json.loads(printed.out)["policies"]) == ["full", "sliding-window", "longlive", "recency"]


def test_compare_shared_shows_the_same_frames_and_no_speed(capsys):
    command = ["compare", "--policies", "full,sliding-window:window_frames=6,forcing-kv", "--chunks", "3"]
    alone, printed = json.loads(run(capsys, *command)[1].out), run(capsys, *command, "--shared")[1]
    shared = json.loads(printed.out)
    assert "7 of 9 chunks were computed and the others shared" in printed.err and "FPS" not in printed.err
    assert (shared["timing"], shared["chunks_asked"], shared["chunks_computed"]) == ("shared", 9, 7)
    assert "fps_meaning" not in shared
    for one, other in zip(alone["policies"].values(), shared["policies"].values(), strict=True):
        assert not any("fps" in name or name.endswith("_s") for name in [*other, *other["chunks"][0]])
        assert "ratio_denoise" not in other
        for name in ("frames_sha256", "psnr_vs_full", "kv_bytes_peak", "ratio_kv_bytes", "policy"):
            assert one[name] == other[name]


@pytest.mark.parametrize("shared", [False, True])
def test_a_comparison_of_no_chunks_is_refused(shared, small):
    with pytest.raises(ValueError, match="the number of chunks must be a whole number from 1 to"):
        fkv.compare(small, [policies.make("full")], "a ball", 0, 0, shared=shared)


def test_compare_adds_full_as_the_reference(capsys):
    _, printed = run(capsys, "compare", "--policies", "sliding-window", "--chunks", "1")
    assert list(json.loads(printed.out)["policies"]) == ["full", "sliding-window"]


def test_policies_and_models_are_listed(capsys):
    assert "forcing-kv" in run(capsys, "policies")[1].out and "retention=0.33" in run(capsys, "policies")[1].out
    assert "tiny" in run(capsys, "models")[1].out


def test_unknown_words_get_a_hint(capsys):
    code, printed = run(capsys, "stream", "--prompt", "a dragon 🐉 over the sea", "--chunks", "1")
    assert code == 0 and "“dragon”" in printed.err


def test_text_that_is_not_read_gets_a_hint_wherever_it_enters(capsys, tmp_path):
    long = " ".join(["a red ball over the sea"] * 5)
    code, printed = run(capsys, "stream", "--say", "1:ein blauer Stern", "--chunks", "1")
    assert code == 0 and "“ein”, “blauer”, “stern”" in printed.err
    assert any("“blauer”" in hint for hint in json.loads(printed.out)["hints"])
    story = tmp_path / "story.txt"
    story.write_text(f"1: {long}")
    code, printed = run(capsys, "stream", "--story", str(story), "--chunks", "1")
    assert code == 0 and "has 30 words that the tiny model knows; the first 24 are read" in printed.err
    code, printed = run(capsys, "stream", "--chunks", "1")
    assert "hint" not in printed.err and "hints" not in json.loads(printed.out)
    options = ["--prompt", "a dragon", "--silence", "0.1", "--chunks", "1"]
    assert "“dragon”" in run(capsys, "surgery", *options)[1].err


@pytest.mark.parametrize(
    "args, message",
    [
        (["--prompt", ""], "prompt is empty"),
        (["--prompt", "a" * 10_000], "at most 4,000"),
        (["--seed", "-1"], "seed must be a whole number from 0"),
        (["--seed", str(10**30)], "seed must be a whole number from 0"),
        (["--chunks", "0"], "chunks must be a whole number from 1"),
        (["--chunks", "1000000"], "to 100,000"),
        (["--policy", "magic"], "there is no policy 'magic'; there are full"),
        (["--model", "sora"], "there is no model 'sora'; there are tiny"),
        (["--device", ""], "there is no device '' here; there is cpu"),
        (["--device", "abacus"], "there is no device 'abacus' here; there is cpu"),
        (["--roles", "/no/such/file.json"], "cannot read head roles"),
        (["--out", "/no/such/folder/v.mp4"], "does not exist or is not writable"),
        (["--out", "/"], "is a folder"),
        (["--out", "/tmp/v.webm"], "--out writes mp4 files, not .webm"),
        (["--out", ""], "--out is empty; name a file or leave it out"),
        (["--record", __file__], "is a file; name a folder"),
        (["--json", "/tmp/" + 300 * "x"], "File name too long"),
        (["--steps", "5"], "number of steps must be a whole number from 1 to 2, not 5"),
        (["--steps", "10"], "number of steps must be a whole number from 1 to 2, not 10"),
        (["--steps", "1000"], "--steps is only for a checkpoint of your own; name one with --checkpoint"),
        (["--frames-per-chunk", "0", "--checkpoint", __file__], "--frames-per-chunk must be from 1 to 21"),
        (["--steps", "250,500", "--checkpoint", __file__], "--steps are falling numbers"),
        (["--shift", "nan", "--checkpoint", __file__], "--shift must be above 0"),
        (["--lora", __file__], "name that with --checkpoint"),
        (["--model", "self-forcing", "--checkpoint", __file__], "are two models; leave one out"),
        (["--checkpoint", __file__], "is incomplete or no PyTorch checkpoint"),
        (
            ["--checkpoint", str(FOLDER / "transformer" / "diffusion_pytorch_model.safetensors")],
            "not of wan-1.3b; name its base",
        ),
        (["--recache"], "--recache goes with another prompt"),
        (["--switch", "forcing-kv"], "CHUNK:WHAT"),
        (["--switch", "0:full"], "there is no chunk 0; chunks are counted from 1"),
        (["--switch", "99:full", "--chunks", "3"], "chunk 99 comes after the last of 3"),
    ],
)
def test_bad_input_is_refused_in_a_sentence(args, message, capsys):
    code, printed = run(capsys, "stream", *args)
    assert code == 2 and message in printed.err and printed.err.startswith("fkv stream:") and not printed.out


@pytest.mark.parametrize("error", [MemoryError(), RuntimeError("CUDA out of memory. Tried to allocate 2.00 GiB.")])
def test_too_little_memory_is_a_sentence_and_a_fault_is_none(error, capsys, monkeypatch):
    def fails(args):
        raise error

    monkeypatch.setattr("fkv.commands.models.run", fails)
    code, printed = run(capsys, "models")
    assert code == 2 and printed.err == "fkv models: out of memory; `fkv fit` counts what a model needs\n"
    error = RuntimeError("a fault")
    with pytest.raises(RuntimeError, match="a fault"):
        main.main(["models"])


def test_words_for_numbers_are_refused_by_the_parser(capsys):
    with pytest.raises(SystemExit) as refusal:
        main.main(["stream", "--chunks", "many"])
    assert refusal.value.code == 2 and "--chunks" in capsys.readouterr().err


def test_a_stream_follows_a_storyboard_of_scenes(capsys, tmp_path, monkeypatch):
    story = tmp_path / "story.txt"
    story.write_text("a blue star over the sea [1.5s] |\n a pink box in the city [1] | a red ball over the hills [2c#]")
    more = ["--switch", "2:sliding-window", "--say", "5:a green heart", "--recache"]
    code, printed = run(capsys, "stream", "--policy", "full", "--story", str(story), *more)
    data = json.loads(printed.out)
    assert code == 0 and data["prompt"] == "a blue star over the sea"
    assert [chunk["index"] for chunk in data["chunks"]] == [0, 1, 2, 3, 4]
    assert [chunk["events"] for chunk in data["chunks"]] == [
        [],
        ["policy: sliding-window"],
        ["prompt: a pink box in the city"],
        ["cut: a red ball over the hills"],
        ["prompt: a green heart"],
    ]
    assert [chunk["rebuild_s"] > 0 for chunk in data["chunks"]] == [False, False, True, False, True]
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO("\ufeff2: a blue star".encode())))
    code, printed = run(capsys, "stream", "--story", "-", "--chunks", "2")
    assert code == 0 and [chunk["prompt"] for chunk in json.loads(printed.out)["chunks"]] == [PROMPT, "a blue star"]


def test_compare_follows_a_storyboard_and_says_what_a_policy_cannot(capsys, tmp_path):
    story = tmp_path / "story.txt"
    story.write_text("2: a blue star\n3: cut = a red ball")
    code, printed = run(
        capsys, "compare", "--policies", "recompute", "--chunks", "3", "--recache", "--story", str(story)
    )
    data = json.loads(printed.out)
    assert code == 0 and data["story"] == "2: re-cache = a blue star\n3: cut = a red ball"
    for policy in data["policies"].values():
        assert [chunk["prompt"] for chunk in policy["chunks"]] == [PROMPT, "a blue star", "a red ball"]
    assert "chunk 2: recompute (recompute) went on without re-cache" in printed.err


@pytest.mark.parametrize(
    "story, args, message",
    [
        ("2: A = full", ["compare"], "'2: A = full' gives stream A another policy; each stream keeps its policy here"),
        ("2: B = full", ["stream"], "gives stream B another policy; only A can"),
        ("20: a star", ["stream"], "line 1 of the storyboard: chunk 20 comes after the last of 14"),
        ("a star [2] | a ball [2]", ["stream", "--switch", "5:full"], "chunk 5 comes after the last of 4"),
        ("a star [2] | a ball [2]", ["stream", "--chunks", "2"], "scene 2 of the storyboard: it begins at chunk 3"),
        ("a star [2]", ["stream", "--prompt", "a ball"], "the storyboard begins with a prompt; leave out --prompt"),
        ("a star", ["stream"], "line 1 of the storyboard"),
        (" \n", ["stream"], "is empty; write a line such as"),
        ("2: threshold = 0.5", ["stream"], "no scores"),
        ("2: steps = 9", ["stream"], "number of steps must be a whole number from 1 to"),
        ("2: flush\n3: cut = a star", ["compare", "--recache"], "--recache goes with another prompt that is no cut"),
        ("1: a star\n2: steps = 1", ["stream", "--recache"], "--recache goes with another prompt that is no cut"),
        ("2: steps = many", ["stream"], "'many' is no number of denoising steps"),
    ],
)
def test_a_storyboard_that_cannot_be_followed_is_refused(story, args, message, capsys, tmp_path):
    file = tmp_path / "story.txt"
    file.write_text(story)
    code, printed = run(capsys, *args, "--story", str(file))
    assert code == 2 and message in printed.err and not printed.out


def test_a_storyboard_that_cannot_be_read_is_refused(capsys, tmp_path):
    (tmp_path / "binary").write_bytes(b"\xff\xfe\xfa")
    for name, words in (("missing", "No such file"), ("binary", "not a text file"), ("", "directory")):
        code, printed = run(capsys, "stream", "--story", str(tmp_path / name))
        assert code == 2 and "cannot read the storyboard" in printed.err and words in printed.err


@pytest.mark.parametrize("command", ["", *main.COMMANDS])
def test_help_waits_for_no_library(command):
    """torch and diffusers take seconds to load; a command imports them when it runs, not for its help."""
    script = (
        "import sys; from fkv.commands import main\n"
        f"try: main.main({[command] if command else []} + ['--help'])\n"
        "finally: print({'torch', 'diffusers', 'transformers', 'gradio', 'pandas'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.stdout.endswith("set()\n"), done.stderr
    assert "usage: fkv" in done.stdout
    if not command:
        assert all(f"  {name} " in done.stdout for name in main.COMMANDS)
