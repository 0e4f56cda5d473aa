"""The one folder of temporary files, and the end of the process, which removes it.

Nothing here imports Gradio or torch: both choose their temporary folders when they are imported.
"""

from __future__ import annotations

import atexit
import os
import shutil
import signal
import tempfile
from functools import partial
from pathlib import Path

import psutil

FOLDER = "forcing-kv-studio-"
ENDINGS = {signal.SIGINT: 130, signal.SIGTERM: 0}
"""Signals that end the studio, and its exit status."""
if hasattr(signal, "SIGHUP"):  # Windows has none
    ENDINGS[signal.SIGHUP] = 0


def temporary_folder() -> Path:
    """Create the folder of this process for temporary files, and remove those of processes that have ended.

    A folder under our own process id is a leftover too: in a restarted container process ids repeat.
    """
    parent = Path(tempfile.gettempdir())
    for old in parent.glob(f"{FOLDER}*-*"):
        owner = old.name.removeprefix(FOLDER).partition("-")[0]
        if owner.isdecimal() and (int(owner) == os.getpid() or not psutil.pid_exists(int(owner))):
            shutil.rmtree(old, ignore_errors=True)
    folder = Path(tempfile.mkdtemp(prefix=f"{FOLDER}{os.getpid()}-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    os.environ["GRADIO_TEMP_DIR"] = tempfile.tempdir = str(folder)
    return folder


def end_at_signals(folder: Path) -> None:
    """End at once at any signal of `ENDINGS`, and remove a folder: everything else is in memory.

    A signal that is ignored stays so, as SIGHUP under nohup.
    """
    os.environ.setdefault("TORCHINDUCTOR_CACHE_DIR", str(folder / "torchinductor"))
    for number, status in ENDINGS.items():
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, partial(_end, folder, os.getpid(), status))


def _end(folder: Path, owner: int, status: int, *_: object) -> None:
    """Exit at once, even in the middle of a chunk; a forked process leaves the folder to its owner."""
    if os.getpid() == owner:
        for _attempt in range(3):  # another thread may write in between
            shutil.rmtree(folder, ignore_errors=True)
    os._exit(status)
