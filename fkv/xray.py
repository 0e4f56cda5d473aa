"""The page tables of a chunk as JSON, which the X-ray draws."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fkv.pages import Heads, Pages
from fkv.policies import PassReads
from fkv.stream import Chunk

MASK_BITS = 30  # segments in one number of a bit mask; JavaScript shifts numbers of 32 bits


def xray(chunk: Chunk, name: str = "") -> list[dict[str, Any]]:
    """The page tables of a chunk in a pass, by default in the last denoising pass; see `tables`."""
    reads = chunk.other_reads.get(name) or PassReads(chunk.read, chunk.kinds)
    return tables(chunk.pages, chunk.heads, chunk.segments, reads)


def tables(
    cached: Mapping[str, Pages], heads: Mapping[str, Heads], segments: int, reads: PassReads
) -> list[dict[str, Any]]:
    """Page tables as the page draws them.

    Args:
        cached: Head group -> its pages while the chunk attends.
        heads: Head group -> its heads.
        segments: Pages per latent frame.
        reads: What the pass reads, and what the pages are for.

    Returns:
        Per head group that has heads: name, number of heads, segments per frame, and `runs`. A run is a row
        [first frame, last frame, kind, segments] of like neighbouring frames: what the policy says they are for, and a
        bit mask over their cached segments, or a list of masks where there are more than `MASK_BITS`. Some groups also
        have `positions`, where frames are read elsewhere in RoPE than at their number, as rows [first frame,
        last frame, position of the first], and `edited`, the frames with content changed by the policy.
    """
    groups = []
    for name, pages in cached.items():
        count = sum(map(len, heads[name]))
        if not count:
            continue
        masks: dict[tuple[int, str], int] = {}
        for frame, segment, kind in zip(pages.frame.tolist(), pages.segment.tolist(), reads.kinds[name], strict=True):
            masks[frame, kind] = masks.get((frame, kind), 0) | 1 << segment
        runs: list[list[Any]] = []
        for (frame, kind), mask in sorted(masks.items()):
            if runs and runs[-1][1:] == [frame - 1, kind, mask]:
                runs[-1][1] = frame
            else:
                runs.append([frame, frame, kind, mask])
        if segments > MASK_BITS:
            runs = [[first, last, kind, _words(mask, segments)] for first, last, kind, mask in runs]
        group = {"name": name, "heads": count, "segments": segments, "runs": runs}
        extras = {"positions": positions(reads.pages.get(name)), "edited": edited(pages)}
        groups.append(group | {key: rows for key, rows in extras.items() if rows})
    return groups


def _words(mask: int, segments: int) -> list[int]:
    """A bit mask in numbers of `MASK_BITS` bits, lowest first."""
    return [mask >> at & (1 << MASK_BITS) - 1 for at in range(0, segments, MASK_BITS)]


def positions(read: Pages | None) -> list[list[int]]:
    """Where frames are read elsewhere in RoPE than at their number, as rows [first, last, position of the first]."""
    if read is None:
        return []
    rows: list[list[int]] = []
    for frame, position in sorted(dict(zip(read.frame.tolist(), read.position.tolist(), strict=True)).items()):
        if position == frame:
            continue
        if rows and rows[-1][1] == frame - 1 and rows[-1][2] - rows[-1][0] == position - frame:
            rows[-1][1] = frame
        else:
            rows.append([frame, frame, position])
    return rows


def edited(pages: Pages) -> list[int]:
    """Frames with a page whose content the policy has changed, ascending."""
    return sorted(set(pages.frame[pages.edited].tolist()))
