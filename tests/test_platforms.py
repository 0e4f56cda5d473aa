"""What only Linux has is not needed: the calls of other systems, simulated here."""

from __future__ import annotations

import importlib
import os
import signal
import sys
import tempfile
from pathlib import Path

import psutil
import pytest

from fkv import report
from fkv.models import memory
from fkv.studio import errors, folder
from fkv.studio.media import mp4


@pytest.fixture
def elsewhere(monkeypatch):
    """A system without /proc and /sys, whose signal 0 ends processes."""
    for name in ("exists", "is_file", "is_dir"):
        real = getattr(Path, name)
        monkeypatch.setattr(Path, name, lambda self, real=real: not _linux(self) and real(self))
    for name in ("open", "read_text", "read_bytes"):
        real = getattr(Path, name)

        def read(self, *arguments, real=real, **options):
            if _linux(self):
                raise FileNotFoundError(self)
            return real(self, *arguments, **options)

        monkeypatch.setattr(Path, name, read)
    for name in ("sysconf", "setpriority", "getuid", "fork"):
        monkeypatch.delattr(os, name, raising=False)
    monkeypatch.setattr(os, "kill", lambda *arguments: pytest.fail("os.kill ends a process on Windows"))
    monkeypatch.setattr(sys, "platform", "win32")


def _linux(path: Path) -> bool:
    return path.parts[:2] in (("/", "proc"), ("/", "sys"))


def test_memory_and_processor_are_told_without_proc(elsewhere):
    total = psutil.virtual_memory().total
    assert 0 < memory.host_memory() < total
    assert memory.free_memory("cpu") == {"device": pytest.approx(memory.host_memory(), rel=0.2)}
    report.processor.cache_clear()
    assert report.processor()
    report.processor.cache_clear()


def test_leftovers_of_ended_studios_are_removed_without_signals(elsewhere, monkeypatch, tmp_path):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setenv("GRADIO_TEMP_DIR", "")
    monkeypatch.setattr(psutil, "pid_exists", lambda process: process == 111)  # on Linux it sends a signal itself
    for process in (111, 222):
        (tmp_path / f"{folder.FOLDER}{process}-x").mkdir()
    made = folder.temporary_folder()
    assert {path.name for path in tmp_path.iterdir()} == {f"{folder.FOLDER}111-x", made.name}


def test_the_studio_ends_at_the_signals_there_are(monkeypatch):
    with monkeypatch.context() as patch:
        patch.delattr(signal, "SIGHUP")
        endings = importlib.reload(folder).ENDINGS
        assert set(endings) == {signal.SIGINT, signal.SIGTERM}
    assert signal.SIGHUP in importlib.reload(folder).ENDINGS


def test_memory_is_freed_and_recordings_are_encoded_without_calls_of_linux(elsewhere, tmp_path):
    import torch

    errors.free(torch.device("cpu"))
    encoding = mp4.Encoding(mp4.Recording([], 16, "here"), tmp_path / "v.mp4")
    with encoding.running():
        encoding.wait(10)
    assert "nothing to record" in encoding.problem
