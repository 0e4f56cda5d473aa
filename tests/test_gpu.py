"""`python -m tests.gpu`, rehearsed on a CPU: every kind of part works, and none can end the others."""

from __future__ import annotations

import json
import operator
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.gpu import __main__ as command
from tests.gpu.bounded import Processes

ROOT = Path(__file__).parent.parent


def test_a_rehearsal_writes_every_part_and_a_summary(tmp_path):
    out = tmp_path / "out"
    ran = subprocess.run(
        [sys.executable, "-m", "tests.gpu", "--rehearse", "--out", out], cwd=ROOT, capture_output=True, text=True
    )
    assert ran.returncode == 0, (out / "log.txt").read_text() + ran.stderr
    found = {file.stem: json.loads(file.read_text()) for file in out.glob("*.json")}
    assert found["machine"]["ceilings"]["fp32"]["tflops"] > 0
    assert found["kernels"] == {"tests": {"passed": 4, "skipped": 0, "failed": 0}, "failures": {}}
    assert found["golden-fp32"]["ok"] and set(found["golden-fp32"]["runs"]) == {"rolling"}
    assert found["480p"]["ceilings"]["tflops"] > 0 and found["480p"]["results"][1]["policy"] == "forcing-kv"
    assert (found["480p-everything"]["decoder"], found["480p-everything"]["precision"]) == ("small", "fp8")
    assert found["14b-480p"]["model"] == "wan-14b" and found["layer-480p"]["attention"]["equal"]
    kernels = found["480p-by-kernel"]["chunks"]["forcing-kv"]["kernels"]
    assert kernels[0]["seconds"] >= kernels[1]["seconds"] > 0
    summary = (out / "summary.txt").read_text()
    assert all(f"== {name}\n" in summary for name in found) and kernels[0]["name"][:20] in summary


@pytest.fixture(scope="module")
def processes():
    return Processes([])


def test_what_a_part_does_never_ends_the_others(processes, tmp_path):
    log = tmp_path / "log.txt"
    assert processes.run(20, log, print, "here") == "ok"
    assert processes.run(20, log, operator.truediv, 1, 0).startswith("failed")
    assert processes.run(20, log, os._exit, 7).startswith("failed with status 7")
    assert processes.run(20, log, os.abort).startswith("failed with status -6")
    assert processes.run(20, log, len, "x").startswith("failed")
    text = log.read_text()
    assert "here" in text and "ZeroDivisionError" in text


def test_a_part_ends_in_time_with_all_that_it_started(processes, tmp_path):
    pid = tmp_path / "pid"
    began = time.monotonic()
    assert processes.run(3, tmp_path / "log.txt", os.system, f"echo $$ > {pid}; sleep 60") == "stopped after 3 s"
    assert time.monotonic() - began < 30
    with pytest.raises(ProcessLookupError):
        for _ in range(50):
            os.kill(int(pid.read_text()), 0)
            time.sleep(0.1)


def test_where_a_forked_process_cannot_work_each_imports_for_itself(tmp_path, monkeypatch):
    processes = Processes([])
    ways = iter(["failed", "ok", "ok"])
    used = []
    monkeypatch.setattr(
        Processes, "_once", staticmethod(lambda way, *_: used.append(way.get_start_method()) or next(ways))
    )
    assert [processes.run(1, tmp_path, print) for _ in range(2)] == ["ok", "ok"]
    assert used == ["forkserver", "spawn", "spawn"]


def test_every_part_is_a_command_that_there_is():
    from fkv.commands.main import _parser
    from fkv.models.release import RESOLUTIONS
    from tests.gpu import parts

    assert len({part.name for part in parts.PARTS}) == len(parts.PARTS)
    commands = [part.words.split() for part in parts.PARTS if part.work is parts.fkv]
    read = [_parser(words[:1]).parse_args([*words, "--device", "cuda", "--json", "x"]) for words in commands]
    benched = [args for args in read if args.command == "bench"]
    assert {args.resolution for args in benched} >= set(RESOLUTIONS)
    for option in ("graphs", "compile", "overlap"):
        assert {getattr(args, option) for args in benched} == {True, False}
    goldens = {(Path(args.folder).name, args.precision) for args in read if args.command == "parity"}
    folders = [folder.name for folder in (ROOT / "tests").glob("golden*")]
    assert goldens == {(folder, precision) for folder in folders for precision in ("fp32", "bf16")}


@pytest.mark.parametrize(
    "words, sentence",
    [
        ("--only nothing --rehearse", "no part has 'nothing' in its name; there are machine"),
        ("--minutes 0", "--minutes must be more than 0"),
    ],
)
def test_bad_input_is_refused_in_a_sentence(words, sentence, tmp_path, capsys):
    assert command.main(["--out", str(tmp_path), *words.split()]) == 2
    assert sentence in capsys.readouterr().err


def test_missing_packages_are_named_and_help_says_how_to_carry_them(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(command, "find_spec", lambda package: None if package == "diffusers" else package)
    assert command.main(["--out", str(tmp_path)]) == 2
    assert "diffusers missing" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        command.main(["--help"])
    shown = capsys.readouterr().out
    assert "pip download --no-deps" in shown and "diffusers==" in shown and "PYTHONPATH=site" in shown
