"""What went wrong, in a sentence for the visitor and a word for the log; and memory given back after it."""

from __future__ import annotations

import ctypes
import errno
import gc
import sys

import torch

SMALLER = (
    "A policy that keeps less, such as forcing-kv, one stream instead of two, or a shorter run needs less; whoever runs the studio can "
    "choose a smaller --resolution or --precision"
)


def sentence(error: Exception | str) -> str:
    """An error message as a sentence for the visitor."""
    text = str(error)
    return text[:1].upper() + text[1:] + ("" if text.endswith(".") else ".")


def explain(error: Exception, after: str) -> tuple[str, str]:
    """How a run ended, in a word (refused, out of memory, disk full, failed), and a sentence. `after`: what was made, as in "3 chunks"."""
    text = str(error).lower()
    if isinstance(error, ValueError):
        return "refused", sentence(error)
    if (
        isinstance(error, (torch.OutOfMemoryError, MemoryError))
        or "out of memory" in text
        or "defaultcpuallocator" in text
    ):
        return "out of memory", f"The machine ran out of memory after {after}, and has it back now. {SMALLER}."
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return "disk full", "The disk of this machine is full; try again later, or tell whoever runs the studio."
    return "failed", f"The stream broke off after {after}: {type(error).__name__}. Go live starts a new one."


def free(device: torch.device) -> None:
    """Give back what a finished run held, to the system as well: glibc keeps freed memory of threads that come and go."""
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()
    if sys.platform == "linux" and (trim := getattr(ctypes.CDLL(None), "malloc_trim", None)):
        trim(0)
