"""Failures in plain words: a sentence for the visitor, a short reason for the log, and the memory freed afterwards."""

from __future__ import annotations

import ctypes
import errno
import gc
import sys
import traceback

import torch

LESS_MEMORY = (
    "Try forcing-kv, one stream instead of two, or fewer chunks; "
    "the operator can choose a smaller --resolution or --precision"
)


class Disconnected(Exception):
    """The client that called an endpoint is gone."""

    def __init__(self) -> None:
        super().__init__("Cancelled: the client disconnected.")


def sentence(error: Exception | str) -> str:
    """An error message as a sentence for the visitor."""
    text = str(error)
    return text[:1].upper() + text[1:] + ("" if text.endswith(".") else ".")


def explain(error: Exception, progress: str, work: str = "stream") -> tuple[str, str]:
    """Explain why a run ended.

    Args:
        error: The exception that ended it.
        progress: What was generated before, as in "3 of 12 chunks".
        work: What was under way: stream, comparison, clip, profile or recording.

    Returns:
        The reason in a word or two for the log (refused, left, out of memory, disk full, failed), and a sentence for
        the visitor.
    """
    text = str(error).lower()
    if isinstance(error, ValueError):
        return "refused", sentence(error)
    if isinstance(error, Disconnected):
        return "left", str(error)
    if _is_out_of_memory(error, text):
        return (
            "out of memory",
            f"The machine ran out of memory after {progress}; the memory has been freed. {LESS_MEMORY}.",
        )
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return "disk full", "The disk of this machine is full. Try again later, or tell the operator of this studio."
    again = " Press Go live to start a new one." if work == "stream" else ""
    return "failed", f"The {work} failed after {progress}: {type(error).__name__}.{again}"


def _is_out_of_memory(error: Exception, text: str) -> bool:
    known = isinstance(error, (torch.OutOfMemoryError, MemoryError))
    return known or "out of memory" in text or "defaultcpuallocator" in text


def release(error: BaseException | None) -> None:
    """Drop what the frames of an exception refer to, such as a stream and its cache, while it is still handled."""
    while error is not None:
        traceback.clear_frames(error.__traceback__)
        error = error.__context__


def free(device: torch.device) -> None:
    """Free the memory of a finished run, and return it to the system: glibc keeps what short-lived threads freed."""
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()
    if sys.platform == "linux" and (trim := getattr(ctypes.CDLL(None), "malloc_trim", None)):
        trim(0)
