"""Functions in processes of their own that end in time, whatever happens in them."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable, Sequence
from multiprocessing import get_context
from pathlib import Path
from typing import Any

ENDS = {0: "ok", 1: "failed: its file or the log says how"}


class Processes:
    """Starts processes from a server that has imported everything, which saves each its imports.

    Where a process cannot use the GPU after such a fork, which shows in the first one, each imports for itself.

    Args:
        modules: What the server imports.
    """

    def __init__(self, modules: Sequence[str]) -> None:
        os.environ["PYTORCH_NVML_BASED_CUDA_CHECK"] = "1"  # looking for a GPU must not touch CUDA in the server
        server = get_context("forkserver")
        server.set_forkserver_preload(list(modules))
        self._ways: list[Any] = [server, get_context("spawn")]

    def run(self, seconds: float, log: Path, work: Callable[..., int], *args: Any) -> str:
        """Call a function in a process.

        Args:
            seconds: After so many the process is ended, with all that it started.
            log: What it prints is appended there.
            work: The function, which returns an exit status.
            *args: Of `work`.

        Returns:
            `ok`, or what became of it.
        """
        status = self._once(self._ways[0], seconds, log, work, *args)
        if len(self._ways) > 1:
            if status == "ok":
                self._ways.pop()
            else:
                self._ways.pop(0)
                status = self._once(self._ways[0], seconds, log, work, *args)
        return status

    @staticmethod
    def _once(way: Any, seconds: float, log: Path, work: Callable[..., int], *args: Any) -> str:
        process = way.Process(target=_child, args=(log, work, *args))
        process.start()
        try:
            process.join(seconds)
            if process.exitcode is None:
                return f"stopped after {seconds:.0f} s"
            return ENDS.get(process.exitcode, f"failed with status {process.exitcode}: the log says how")
        finally:
            if process.is_alive():
                _end(process.pid)
                process.join()


def _child(log: Path, work: Callable[..., int], *args: Any) -> None:
    """Work as a process group whose output goes to the log, and end with the status of the work."""
    os.setsid()
    with log.open("ab") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    sys.exit(work(*args))


def _end(process: int) -> None:
    """End a process and those that it started."""
    try:
        os.killpg(process, signal.SIGKILL)
    except ProcessLookupError:  # it is no group of its own yet
        os.kill(process, signal.SIGKILL)
