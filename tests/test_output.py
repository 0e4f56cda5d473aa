"""Where commands write: refused before any work, and never lost after it."""

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from fkv.commands.output import emit, outputs


def asked(**options):
    return argparse.Namespace(**options)


def test_paths_are_checked_without_leaving_a_trace(tmp_path):
    old = tmp_path / "old.json"
    old.write_text("kept")
    options = {
        "json": str(old),
        "out": str(tmp_path / "new.mp4"),
        "figures": str(tmp_path / "deep" / "figures"),
        "sheet": None,
    }
    assert outputs(asked(**options), "json", "out", "figures/", "sheet") == [
        *map(Path, list(options.values())[:3]),
        None,
    ]
    assert old.read_text() == "kept" and list(tmp_path.iterdir()) == [old]
    assert outputs(asked(json=os.devnull, out=os.devnull), "json", "out") == [Path(os.devnull)] * 2
    assert outputs(asked(json="-"), "json") == [None]


@pytest.mark.parametrize(
    "option, path, message",
    [
        ("json", "", "--json is empty; name a file"),
        ("figures/", "", "--figures is empty; name a folder"),
        ("json", ".", "is a folder; name a file in it"),
        ("json", "missing/r.json", "missing does not exist or is not writable"),
        ("json", 300 * "x", "File name too long"),
        ("figures/", "file", "is a file; name a folder"),
        ("figures/", "file/below", "is a file; name a folder"),
    ],
)
def test_what_cannot_be_written_is_refused(option, path, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("file").touch()
    with pytest.raises(ValueError, match=message):
        outputs(asked(**{option.rstrip("/"): path}), option)


def test_two_options_need_a_path_each(tmp_path):
    same = {"out": str(tmp_path / "same"), "json": str(tmp_path / "." / "same")}
    with pytest.raises(ValueError, match="--out and --json both name"):
        outputs(asked(**same), "out", "json")


def test_a_report_that_cannot_be_written_after_all_goes_to_stdout(tmp_path, capsys):
    with pytest.raises(ValueError, match="is on stdout instead"):
        emit({"measured": 1}, tmp_path / "gone" / "r.json")
    assert json.loads(capsys.readouterr().out) == {"measured": 1}


def test_what_json_cannot_write_becomes_null(capsys):
    emit({"rows": [{"recall": float("nan"), "seconds": (1.5, float("inf"))}]}, None)
    assert json.loads(capsys.readouterr().out, parse_constant=pytest.fail) == {
        "rows": [{"recall": None, "seconds": [1.5, None]}]
    }


def test_a_reader_who_leaves_is_no_error():
    command = subprocess.Popen(
        [sys.executable, "-m", "fkv", "policies"], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    command.stdout.close()
    told = command.stderr.read()
    assert command.wait(60) == 0 and b"Broken pipe" not in told and b"Traceback" not in told
