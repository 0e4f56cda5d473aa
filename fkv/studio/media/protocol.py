"""What the page gets of a chunk: a JSON record and the frames as JPEG, in one binary file.

The file is a row of parts, each a little-endian uint32 length and as many bytes: first the record, then the frames of
every stream in the order of `record["streams"]`.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Iterable, Mapping
from typing import Any

import cv2
import numpy as np

from fkv.pages import Heads, Pages
from fkv.policies import PassReads, kinds, write
from fkv.report import chunk_record, rates
from fkv.stream import STAGES, Chunk, Stream

JPEG = [cv2.IMWRITE_JPEG_QUALITY, 92, cv2.IMWRITE_JPEG_SAMPLING_FACTOR, cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444]

UNIT = 10_000  # attention masses travel as whole numbers of 1 / UNIT
GONE = -1  # stands for the mass of a frame that is not cached
MASK_BITS = 30  # segments in one number of a bit mask; JavaScript shifts numbers of 32 bits
RATE_CHUNKS = 4  # the large FPS figures are means over so many chunks


def page_facts() -> dict[str, Any]:
    """Return the constants that the page shares with Python; `assets/studio/shared.js` describes them."""
    return {
        "kinds": kinds.table(),
        "stages": list(STAGES),
        "unit": UNIT,
        "gone": GONE,
        "rateChunks": RATE_CHUNKS,
    }


def pack(record: Mapping[str, Any], videos: Iterable[np.ndarray]) -> bytes:
    """Write one file of a record and the frames, uint8 [T, H, W, 3], of every stream it names."""
    return join(record, (jpeg(frame) for video in videos for frame in video))


def unpack(data: bytes) -> tuple[dict[str, Any], list[bytes]]:
    """Read the record of a file and its other parts, the JPEGs."""
    parts: list[bytes] = []
    at = 0
    while at < len(data):
        (size,) = struct.unpack_from("<I", data, at)
        parts.append(data[at + 4 : at + 4 + size])
        at += 4 + size
    return json.loads(parts[0]), parts[1:]


def join(record: Mapping[str, Any], parts: Iterable[bytes]) -> bytes:
    """Write a row of parts that begins with a record; `unpack` reads it."""
    row = [json.dumps(record, separators=(",", ":")).encode(), *parts]
    return b"".join(struct.pack("<I", len(part)) + part for part in row)


def jpeg(frame: np.ndarray) -> bytes:
    """Encode an RGB frame, uint8 [H, W, 3], as JPEG with full colour resolution."""
    return cv2.imencode(".jpg", cv2.cvtColor(frame, cv2.COLOR_RGB2BGR), JPEG)[1].tobytes()


def record(chunk: Chunk, stream: Stream, digest: str) -> dict[str, Any]:
    """The record of the newest chunk of a stream.

    Args:
        chunk: The chunk.
        stream: Its stream.
        digest: The hash of all frames so far.

    Returns:
        `fkv.report.chunk_record` with rates, the policy with its parameters, `hash`, `xray`, the page tables in the
        last denoising pass, and `passes`, pass -> its page tables, None where they are those of `xray`.
    """
    passes = {name: xray(chunk, name) if name in chunk.other_reads else None for name in stream.pass_names}
    told = {"policy": write(stream.policy), "hash": digest, "xray": xray(chunk), "passes": passes}
    return chunk_record(chunk) | rates([chunk]) | told


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
