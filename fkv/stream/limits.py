"""What a stream takes: prompts, seeds and numbers of chunks, each checked with a sentence for the user."""

from __future__ import annotations

import unicodedata

MAX_PROMPT = 4000
MAX_CHUNKS = 100_000
MAX_SEED = 2**31 - 1
REORDERING = frozenset({"LRE", "RLE", "LRO", "RLO", "PDF", "LRI", "RLI", "FSI", "PDI"})
"""Bidirectional classes of the characters that show the text around them in another order than it is read."""


def check_prompt(prompt: str) -> str:
    """The prompt without surrounding space. Raises ValueError when it is empty, too long or not a text."""
    text = prompt.strip() if isinstance(prompt, str) else ""
    if len(text) > MAX_PROMPT:
        raise ValueError(f"the prompt has {len(text):,} characters; at most {MAX_PROMPT:,} are read")
    if not isinstance(prompt, str) or any(map(_is_control, text)):
        raise ValueError("the prompt must be a text without control characters; describe what the video should show")
    if not any(c.isprintable() and not c.isspace() for c in text):
        raise ValueError("the prompt is empty; describe what the video should show")
    return text


def _is_control(c: str) -> bool:
    is_control = unicodedata.category(c) in ("Cc", "Cs") and not c.isspace()
    return is_control or unicodedata.bidirectional(c) in REORDERING


def check_seed(seed: int) -> int:
    """The seed. Raises ValueError unless it is a whole number from 0 to `MAX_SEED`."""
    if isinstance(seed, bool) or not isinstance(seed, int) or not 0 <= seed <= MAX_SEED:
        raise ValueError(f"the seed must be a whole number from 0 to {MAX_SEED:,}, not {seed!r}")
    return seed


def check_chunks(chunks: int) -> int:
    """The number of chunks. Raises ValueError unless it is a whole number from 1 to `MAX_CHUNKS`."""
    if isinstance(chunks, bool) or not isinstance(chunks, int) or not 1 <= chunks <= MAX_CHUNKS:
        raise ValueError(f"the number of chunks must be a whole number from 1 to {MAX_CHUNKS:,}, not {chunks!r}")
    return chunks
