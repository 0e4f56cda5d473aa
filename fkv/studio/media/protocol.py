"""What the page gets of a chunk: a JSON record and the frames as JPEG, in one binary file.

The file is a row of parts, each a little-endian uint32 length and as many bytes: first the record, then the frames of
every stream in the order of `record["streams"]`. A chunk that streams have at different times is a row of such files;
in `later` a record names the streams that are still to come.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Iterable, Mapping
from typing import Any

import cv2
import numpy as np

from fkv.policies import kinds, write
from fkv.report import chunk_record, rates
from fkv.stream import STAGES, Chunk, Stream
from fkv.xray import xray

JPEG = [cv2.IMWRITE_JPEG_QUALITY, 92, cv2.IMWRITE_JPEG_SAMPLING_FACTOR, cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444]

UNIT = 10_000  # attention masses travel as whole numbers of 1 / UNIT
GONE = -1  # stands for the mass of a frame that is not cached
RATE_CHUNKS = 4  # the large FPS figures are means over so many chunks
MOST_AHEAD = 40  # chunks by which a stream may be ahead of the other one


def page_facts() -> dict[str, Any]:
    """Return the constants that the page shares with Python; `assets/studio/shared.js` describes them."""
    return {
        "kinds": kinds.table(),
        "stages": list(STAGES),
        "unit": UNIT,
        "gone": GONE,
        "rateChunks": RATE_CHUNKS,
        "mostAhead": MOST_AHEAD,
    }


def pack(record: Mapping[str, Any], videos: Iterable[np.ndarray]) -> bytes:
    """Write one file of a record and the frames, uint8 [T, H, W, 3], of every stream it names."""
    return join(record, (jpeg(frame) for video in videos for frame in video))


def unpack(data: bytes) -> tuple[dict[str, Any], list[bytes]]:
    """Read the record of a file and its other parts, the JPEGs; of a row of files, those of the whole chunk."""
    parts: list[bytes] = []
    at = 0
    while at < len(data):
        (size,) = struct.unpack_from("<I", data, at)
        parts.append(data[at + 4 : at + 4 + size])
        at += 4 + size
    record = json.loads(parts.pop(0))
    jpegs = _take_frames(record, parts)
    while parts:
        later = json.loads(parts.pop(0))
        jpegs |= _take_frames(later, parts)
        record = _merged(record, later)
    return record, [jpeg for name in sorted(jpegs) for jpeg in jpegs[name]]


def _take_frames(record: Mapping[str, Any], parts: list[bytes]) -> dict[str, list[bytes]]:
    """Take the frames of a record's streams from the beginning of `parts`; all parts where it names no streams."""
    streams = record.get("streams", {"": {"video_frames": len(parts)}})
    counts = {name: own["video_frames"] for name, own in streams.items()}
    return {name: [parts.pop(0) for _ in range(count)] for name, count in counts.items()}


def _merged(record: dict[str, Any], later: dict[str, Any]) -> dict[str, Any]:
    """The record of a chunk from two files of it, as `assets/studio/protocol.js` merges them."""
    streams = dict(sorted((record["streams"] | later["streams"]).items()))
    quality = {**later["quality"], "drift": record["quality"]["drift"] | later["quality"]["drift"]}
    before = {key: value for key, value in record.items() if key != "later"}
    return {**before, **later, "streams": streams, "quality": quality}


def whole(files: Iterable[bytes]) -> list[bytes]:
    """The chunks that all streams have."""
    return [file for file in files if "later" not in unpack(file)[0]]


def join(record: Mapping[str, Any], parts: Iterable[bytes]) -> bytes:
    """Write a row of parts that begins with a record; `unpack` reads it."""
    row = [json.dumps(record, separators=(",", ":")).encode(), *parts]
    return b"".join(struct.pack("<I", len(part)) + part for part in row)


def jpeg(frame: np.ndarray) -> bytes:
    """Encode an RGB frame, uint8 [H, W, 3], as JPEG with full colour resolution."""
    return cv2.imencode(".jpg", cv2.cvtColor(frame, cv2.COLOR_RGB2BGR), JPEG)[1].tobytes()


def decoded(frame: bytes) -> np.ndarray:
    """Decode a frame of `jpeg`: RGB, uint8 [H, W, 3]. Raises ValueError for what is no JPEG."""
    picture = cv2.imdecode(np.frombuffer(frame, np.uint8), cv2.IMREAD_COLOR)
    if picture is None:
        raise ValueError("a frame of the run is no JPEG")
    return cv2.cvtColor(picture, cv2.COLOR_BGR2RGB)


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
