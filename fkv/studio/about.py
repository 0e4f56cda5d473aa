"""The tab that explains, in four sentences and one picture."""

from __future__ import annotations

from collections.abc import Collection, Mapping

SENTENCES = (
    "The video is made in chunks of three latent frames; while a chunk is denoised, every attention head looks back at keys "
    "and values of earlier frames, which lie in the KV cache.",
    "Kept in full, that cache grows with every chunk, and so do memory and time.",
    "Measured over prompts, heads fall into two kinds: <b>static</b> heads look almost only at the newest frames and at the "
    "very first one, <b>dynamic</b> heads also look further back, at what moves.",
    "Forcing-KV therefore lets static heads keep only sink and anchor frame, lets dynamic heads keep in addition the segments "
    "that changed most, and drops the rest, so the cache stays the same size however long the stream runs.",
)

FRAMES, SEGMENTS, SINK, ANCHOR = 12, 4, 0, 8
EVERY = range(SEGMENTS)
STATIC = {SINK: ("sink", EVERY), ANCHOR: ("anchor", EVERY)} | {frame: ("current", EVERY) for frame in range(ANCHOR + 1, FRAMES)}
DYNAMIC = STATIC | {5: ("dynamic", (1, 3)), 6: ("dynamic", (0, 2, 3)), 7: ("dynamic", (2,))}
COLUMNS = ((SINK, "sink"), (4, "dropped, but for what moved"), (ANCHOR, "anchor"), (10, "current chunk"))
LEFT, CELL, HIGH = 190, 56, 24
READING = "latent frames, oldest to newest; each is cut into segments, and a page of the cache is one segment of one frame"
SPOKEN = "Static heads keep the sink and the anchor frame; dynamic heads also keep the segments that moved most; the rest is dropped."


def html() -> str:
    """The explanation and the picture of what either kind of head keeps."""
    return f'<article class="fkv-how">{"".join(f"<p>{sentence}</p>" for sentence in SENTENCES)}{_picture()}</article>'


def _picture() -> str:
    """Columns are latent frames, rows segments of a frame."""
    heads = "".join(_text(LEFT + CELL * (frame + 0.5) - 2, 40, 15, text, 'text-anchor="middle"') for frame, text in COLUMNS)
    static = _rows(58, "static heads", "sink + anchor frame", STATIC)
    dynamic = _rows(180, "dynamic heads", "and what moved most", DYNAMIC)
    axis = _text(20, 306, 15, READING, 'class="soft"')
    return f'<svg viewBox="0 0 {LEFT + CELL * FRAMES + 24} 326" role="img" aria-label="{SPOKEN}">{heads}{static}{dynamic}{axis}</svg>'


def _rows(top: int, name: str, what: str, kept: Mapping[int, tuple[str, Collection[int]]]) -> str:
    parts = [_text(20, top + 42, 18, name, 'font-weight="700"'), _text(20, top + 64, 15, what, 'class="soft"')]
    for frame in range(FRAMES):
        kind, segments = kept.get(frame, ("dropped", ()))
        for segment in EVERY:
            colour, x, y = kind if segment in segments else "dropped", LEFT + CELL * frame, top + HIGH * segment
            parts.append(f'<rect x="{x}" y="{y}" width="{CELL - 5}" height="{HIGH - 3}" rx="2" fill="var(--fkv-{colour})"/>')
    return "".join(parts)


def _text(x: float, y: float, size: int, text: str, style: str) -> str:
    return f'<text x="{x:g}" y="{y:g}" font-size="{size}" {style}>{text}</text>'
