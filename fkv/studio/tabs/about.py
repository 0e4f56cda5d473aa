"""What explains: four sentences and a picture at the foot of Live, and in a tab of their own with the words that the page uses."""

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

PAPER = "https://arxiv.org/abs/2605.09681"
TERMS = {
    "Chunk": "three latent frames, made together in a few denoising steps; a latent frame becomes four frames of video.",
    "Context pass": "one more pass over a chunk that is done, without noise, whose keys and values the cache keeps.",
    "Sink": "the very first latent frame. Every head goes on looking at it, so it is never dropped.",
    "Anchor frame": "the last latent frame before the current chunk: the transition into it.",
    "Segment": "a part of a latent frame, some rows of its patches. The cache keeps or drops it as a whole: that is a page.",
    "Moved most": "segments whose keys are least like those of the same segment one frame later.",
    "Retention": "the share of these segments that dynamic heads keep.",
    "Score of a head": "of its attention beyond the sink, the share on the newest four frames: the current chunk and the anchor frame.",
    "Threshold": "heads with this score or more are static, all others dynamic.",
    "Full": "the policy that drops nothing: what Forcing-KV is compared with.",
}

FRAMES, SEGMENTS, SINK, ANCHOR = 12, 4, 0, 8
EVERY = range(SEGMENTS)
STATIC = {SINK: ("sink", EVERY), ANCHOR: ("anchor", EVERY)} | {
    frame: ("current", EVERY) for frame in range(ANCHOR + 1, FRAMES)
}
DYNAMIC = STATIC | {5: ("moved", (1, 3)), 6: ("moved", (0, 2, 3)), 7: ("moved", (2,))}
COLUMNS = ((SINK, "sink"), (4, "dropped, but for what moved"), (ANCHOR, "anchor"), (10, "current chunk"))
LEFT, CELL, HIGH = 190, 56, 24
READING = (
    "latent frames, oldest to newest; each is cut into segments, and a page of the cache is one segment of one frame"
)
SPOKEN = "Static heads keep the sink and the anchor frame; dynamic heads also keep the segments that moved most; the rest is dropped."


def html(terms: bool = False) -> str:
    """The explanation and the picture of what either kind of head keeps; with `terms`, what the words on the page mean."""
    parts = [f"<p>{sentence}</p>" for sentence in SENTENCES] + [_picture()]
    if terms:
        parts.append(f"<dl>{''.join(f'<dt>{term}</dt><dd>{meaning}</dd>' for term, meaning in TERMS.items())}</dl>")
        parts.append(
            f'<p>The method: <a href="{PAPER}" target="_blank" rel="noopener">Forcing-KV, arXiv 2605.09681</a>.</p>'
        )
    return f'<article class="fkv-how">{"".join(parts)}</article>'


def _picture() -> str:
    """Columns are latent frames, rows segments of a frame."""
    heads = "".join(
        _text(LEFT + CELL * (frame + 0.5) - 2, 40, 15, text, 'text-anchor="middle"') for frame, text in COLUMNS
    )
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
            parts.append(
                f'<rect x="{x}" y="{y}" width="{CELL - 5}" height="{HIGH - 3}" rx="2" fill="var(--fkv-kind-{colour})"/>'
            )
    return "".join(parts)


def _text(x: float, y: float, size: int, text: str, style: str) -> str:
    return f'<text x="{x:g}" y="{y:g}" font-size="{size}" {style}>{text}</text>'
