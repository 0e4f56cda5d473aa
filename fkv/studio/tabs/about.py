"""How it works: sentences and a figure below Live, and in a tab of their own with the terms that the page uses."""

from __future__ import annotations

from collections.abc import Collection, Mapping

SENTENCES = (
    "The video is generated in chunks of a few latent frames. While a chunk is denoised, every attention head looks"
    " back at the keys and values of earlier frames in the KV cache.",
    "If everything is kept, that cache grows with every chunk, and with it memory and time.",
    "Measured over many prompts, heads fall into two kinds: <b>static</b> heads attend mostly to the newest frames and "
    "the very first one; <b>dynamic</b> heads also look further back, at what moves.",
    "Forcing-KV therefore keeps only the sink and the anchor frame for static heads, and for dynamic heads also the"
    " segments that changed most. Everything else is dropped, so the cache stays the same size however long the "
    "stream runs.",
)

PAPER = "https://arxiv.org/abs/2605.09681"
TERMS = {
    "Chunk": (
        "a few latent frames, generated together in a few denoising steps; each latent frame becomes four frames of"
        " video."
    ),
    "Context pass": "one more pass over a finished chunk, without noise; the cache keeps its keys and values.",
    "Sink": "the very first latent frame. Every head keeps attending to it, so it is never dropped.",
    "Anchor frame": "the last latent frame before the current chunk: the transition into it.",
    "Segment": "some rows of patches of a latent frame. The cache keeps or drops a segment as a whole; it is one page.",
    "Moved most": "segments whose keys are least similar to those of the same segment one frame later.",
    "Retention": "the share of the last chunk's segments that dynamic heads keep: those that moved most.",
    "Score of a head": (
        "the share of its attention beyond the sink that goes to the newest four frames: the current chunk and the "
        "anchor frame."
    ),
    "Threshold": "heads with at least this score are static, all others dynamic.",
    "Silenced head": "a head that attends to the current chunk alone; its cached keys are dropped.",
    "Policy": "the rule for what each head keeps; also called cache rule.",
    "Full": "the policy that drops nothing, the reference for Forcing-KV.",
    "Re-cache": "at a new prompt, the keys and values in the cache are computed again under it.",
    "Flush": "the cache forgets all but the first frame and the two newest.",
    "Cut": "the next chunk begins another scene, under policies that know cuts.",
}

FRAMES = 12
SINK = 0
ANCHOR = 8
EVERY = range(4)  # the segments of a frame
STATIC = {SINK: ("sink", EVERY), ANCHOR: ("anchor", EVERY)} | {
    frame: ("current", EVERY) for frame in range(ANCHOR + 1, FRAMES)
}
DYNAMIC = STATIC | {5: ("moved", (1, 3)), 6: ("moved", (0, 2, 3)), 7: ("moved", (2,))}
COLUMNS = ((SINK, "sink"), (4, "dropped, except what moved"), (ANCHOR, "anchor"), (10, "current chunk"))
LEFT = 190
CELL = 56
HIGH = 24
AXIS = (
    "latent frames, oldest to newest; each is split into segments, and a page of the cache is one segment of one frame"
)
ALT = (
    "Static heads keep the sink and the anchor frame; dynamic heads also keep the segments that moved most; "
    "the rest is dropped."
)


def html(terms: bool = False) -> str:
    """The explanation as HTML, and a figure of what each kind of head keeps.

    Args:
        terms: Also explain the terms that the page uses.
    """
    parts = [f"<p>{sentence}</p>" for sentence in SENTENCES] + [_figure()]
    if terms:
        parts.append(f"<dl>{''.join(f'<dt>{term}</dt><dd>{meaning}</dd>' for term, meaning in TERMS.items())}</dl>")
        parts.append(
            f'<p>The method: <a href="{PAPER}" target="_blank" rel="noopener">Forcing-KV, arXiv 2605.09681</a>.</p>'
        )
    return f'<article class="fkv-how">{"".join(parts)}</article>'


def _figure() -> str:
    """Columns are latent frames, rows segments of a frame."""
    heads = "".join(
        _text(LEFT + CELL * (frame + 0.5) - 2, 40, 15, text, 'text-anchor="middle"') for frame, text in COLUMNS
    )
    static = _rows(58, "static heads", "sink + anchor frame", STATIC)
    dynamic = _rows(180, "dynamic heads", "and what moved most", DYNAMIC)
    axis = _text(20, 306, 15, AXIS, 'class="soft"')
    size = f"0 0 {LEFT + CELL * FRAMES + 24} 326"
    svg = f'<svg viewBox="{size}" role="img" aria-label="{ALT}">{heads}{static}{dynamic}{axis}</svg>'
    return f'<div class="fkv-scroll" tabindex="0" role="region" aria-label="What each kind of head keeps">{svg}</div>'


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
