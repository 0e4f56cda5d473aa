"""Settings under which policies hold the same bytes, so that what they keep can be compared and not how much.

python -m fkv eval --policy window-kv,sliding-window,forcing-kv,dummy-forcing --bytes 12,25,50 --seconds 21
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from fkv import policies
from fkv.models.base import VideoModel
from fkv.models.page_tables import simulated
from fkv.policies import Policy
from fkv.policies.dummy_forcing import DummyForcing
from fkv.stream import Stream
from fkv.world import PROMPT

SECONDS = 2, 3600
SETTINGS: dict[str, Callable[[int], str]] = {
    "sliding-window": lambda frames: f"sliding-window:window_frames={frames}",
    "window-kv": lambda frames: f"window-kv:budget_frames={float(frames)}",
    "forcing-kv": lambda frames: f"forcing-kv:anchor_frames={frames},dynamic_anchor_frames={frames}",
    "dummy-forcing": lambda chunks: f"dummy-forcing:local_chunks={chunks}",
    "ca2-vdm": lambda chunks: f"ca2-vdm:prefix_frames={3 * chunks}",
}
"""Policies that can hold any number of bytes: their text for a number of frames or chunks."""


def shares(text: str) -> list[float]:
    """Read shares such as `12,25,50`, in percent. Raises ValueError for anything but numbers above 0, at most 100."""
    try:
        found = [float(part) for part in text.split(",")]
    except ValueError:
        found = [0.0]
    if not all(0 < share <= 100 for share in found):
        raise ValueError(f"--bytes takes percentages above 0, at most 100, such as 12,25,50, not {text!r}")
    return [share / 100 for share in found]


def fitted(model: VideoModel, names: Sequence[str], wanted: Sequence[float], seconds: float) -> list[str]:
    """`full`, and every policy with the settings under which it holds a share of the bytes of `full`.

    Args:
        model: What generates.
        names: Policies, keys of `SETTINGS`; `full` is passed over.
        wanted: Shares of the bytes that `full` holds in the last chunk, above 0.
        seconds: Length of the streams.

    Returns:
        Policies as `fkv.policies.parse` reads them, share by share.

    Raises:
        ValueError: A policy has no setting for this, holds more even at its least, or there is none but `full`.
    """
    unknown = [name for name in names if name not in SETTINGS and name != "full"]
    if unknown:
        raise ValueError(f"{unknown[0]} cannot be fitted to bytes; these can: {', '.join(SETTINGS)}")
    if set(names) <= {"full"}:
        raise ValueError(f"--bytes is for other policies than full; name some of {', '.join(SETTINGS)}")
    least, most = SECONDS
    if not least <= seconds <= most:
        raise ValueError(f"--bytes counts streams of {least} to {most} seconds, not {seconds:g}")
    chunks = max(2, round(seconds / model.chunk_seconds))
    full = peak_bytes(model, policies.make("full"), chunks)
    texts = [fit(model, name, share * full, chunks) for share in wanted for name in names if name != "full"]
    return ["full", *dict.fromkeys(texts)]


def fit(model: VideoModel, name: str, limit: float, chunks: int) -> str:
    """The largest setting of a policy within a number of bytes. Raises ValueError where none is, or none fits.

    Half of the heads of `dummy-forcing` keep a single frame, so it may hold less than it is given.
    """
    setting = SETTINGS[name]
    low, high = 0, chunks * model.frames_per_chunk + 1
    policies.check_fit(policies.parse(setting(high)), model.geometry, model.roles)
    while high - low > 1:
        middle = (low + high) // 2
        try:
            fits = peak_bytes(model, policies.parse(setting(middle)), chunks) <= limit
        except ValueError:  # a policy cannot be that small
            fits = True
        low, high = (middle, high) if fits else (low, middle)
    try:
        policies.parse(setting(low))
    except ValueError:
        raise ValueError(f"{name} cannot hold as little as {limit / 1e6:.3g} MB; allow it more with --bytes") from None
    return setting(low)


def peak_bytes(model: VideoModel, policy: Policy, chunks: int) -> int:
    """Most bytes that a stream of this length holds, counted from page tables alone, except where attention decides."""
    stream = Stream(model, policy, PROMPT, decode=False)
    if isinstance(policy, DummyForcing):
        return _dummy_bytes(stream, policy, chunks)
    states = simulated(stream.geometry, policy, model.roles, chunks, model.transformer.dtype)
    return max(state.cache.bytes() for state in states)


def _dummy_bytes(stream: Stream, policy: DummyForcing, chunks: int) -> int:
    """Bytes after the heads were classed, which takes real chunks."""
    while "dummy" not in stream.caches[0].groups:
        stream.step()
    cache = stream.caches[0]
    frame = cache.geometry.tokens_per_frame * 2 * cache.geometry.head_dim * cache.dtype.itemsize
    count = {name: sum(map(len, group.heads)) for name, group in cache.groups.items()}
    local = min(policy.local_chunks, chunks - 1) * stream.model.frames_per_chunk
    held = {"sink": 1, "dummy": 1, "neighbour": local}
    return frame * sum(count[name] * (held[name] + stream.model.frames_per_chunk) for name in held)
