"""Write videos to MP4 (H.264), a chunk at a time."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path
from types import TracebackType

import av
import numpy as np
from av.video.stream import VideoStream


class Mp4Writer:
    """A context manager that appends frames to an MP4 file that browsers play. The file is complete after the block.

    Args:
        path: The file to write.
        fps: Frames per second.

    Raises:
        ValueError: The file cannot be written.
    """

    def __init__(self, path: str | Path, fps: int) -> None:
        try:
            self._file = av.open(str(path), "w", format="mp4")
        except OSError as error:
            raise ValueError(f"cannot write the video to {path}: {error.strerror or error}") from None
        self._fps = fps
        self._track: VideoStream | None = None

    def write(self, frames: np.ndarray) -> None:
        """Append frames, RGB uint8 [T, H, W, 3]."""
        if self._track is None:
            options = {"crf": "18", "preset": "veryfast"}
            self._track = self._file.add_stream("libx264", rate=Fraction(self._fps), options=options)
            self._track.height, self._track.width = frames.shape[1:3]
            self._track.pix_fmt = "yuv420p"
        for frame in frames:
            self._file.mux(self._track.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))

    def __enter__(self) -> Mp4Writer:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            # FFmpeg crashes when it writes again after a failed write.
            if self._track is not None and not isinstance(error, OSError):
                self._file.mux(self._track.encode())
        finally:
            self._file.close()
