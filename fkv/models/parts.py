"""One sentence for a part of a model whose files are missing or damaged."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from safetensors import SafetensorError


@contextmanager
def loading(part: str, folder: str | Path, remedy: str) -> Iterator[None]:
    """Turn what the libraries raise for missing or damaged files into one sentence.

    Args:
        part: What is loaded, as in "the VAE".
        folder: Where its files are, or its file.
        remedy: What the user can do about it.

    Raises:
        ValueError: Loading failed; names part, folder, reason and remedy.
    """
    try:
        yield
    except (OSError, ValueError, TypeError, AttributeError, RuntimeError, KeyError, SafetensorError) as error:
        lines = str(error).strip().splitlines()
        reason = lines[0] if lines else type(error).__name__
        raise ValueError(f"{part} in {folder} is missing or damaged ({reason}); {remedy}") from None
