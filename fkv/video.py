"""Write videos to MP4 (H.264), a chunk at a time, and read them frame by frame."""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from types import TracebackType

import av
import numpy as np
from av.video.codeccontext import VideoCodecContext
from av.video.reformatter import ColorRange, Colorspace
from av.video.stream import VideoStream

ENDING = ".mp4"
BT709 = 1  # FFmpeg's number of BT.709 primaries and of its transfer curve


class Mp4Writer:
    """A context manager that appends frames to an MP4 file that browsers play. The file is complete after the block.

    Args:
        path: The file to write, whose name ends with .mp4.
        fps: Frames per second.
        crf: Of x264: 18 looks like the frames, more takes fewer bytes.

    Raises:
        ValueError: The file has another ending or cannot be written.
    """

    def __init__(self, path: str | Path, fps: int, crf: int = 18) -> None:
        path = Path(path)
        if path.suffix.lower() != ENDING:
            raise ValueError(f"videos are written as MP4; {path.name} must end with {ENDING}")
        try:
            self._file = av.open(str(path), "w", format="mp4", options={"movflags": "+faststart"})
        except OSError as error:
            raise ValueError(f"cannot write the video to {path}: {error.strerror or error}") from None
        self._fps = fps
        self._crf = crf
        self._track: VideoStream | None = None

    def write(self, frames: np.ndarray) -> None:
        """Append frames.

        Args:
            frames: RGB, uint8 [T, H, W, 3].

        Raises:
            ValueError: Height or width is odd, which H.264 in its common form does not take.
        """
        height, width = frames.shape[1:3]
        if height % 2 or width % 2:
            raise ValueError(f"an MP4 takes frames of even height and width, not {width} x {height}; cut or pad them")
        if self._track is None:
            options = {"crf": str(self._crf), "preset": "veryfast"}
            self._track = self._file.add_stream("libx264", rate=Fraction(self._fps), options=options)
            self._track.height = height
            self._track.width = width
            self._track.pix_fmt = "yuv420p"
            self._tag(self._track.codec_context)
        for frame in frames:
            picture = av.VideoFrame.from_ndarray(frame, format="rgb24").reformat(
                format="yuv420p", dst_colorspace=Colorspace.ITU709, dst_color_range=ColorRange.MPEG
            )
            picture.colorspace = Colorspace.ITU709
            picture.color_range = ColorRange.MPEG
            self._file.mux(self._track.encode(picture))

    @staticmethod
    def _tag(encoder: VideoCodecContext) -> None:
        """Say that colours are those of BT.709: players guess untagged ones from the picture's height."""
        encoder.colorspace = Colorspace.ITU709
        encoder.color_range = ColorRange.MPEG
        encoder.color_primaries = BT709
        encoder.color_trc = BT709

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


def read_frames(path: str | Path) -> Iterator[np.ndarray]:
    """Decode the first video track of a file.

    Args:
        path: A video in any format that FFmpeg reads.

    Yields:
        Frames, RGB, uint8 [H, W, 3].

    Raises:
        ValueError: The file cannot be read, or holds no video.
    """
    try:
        with av.open(str(path)) as file:
            if not file.streams.video:
                raise ValueError(f"{path} holds no video")
            for frame in file.decode(video=0):
                yield frame.to_ndarray(format="rgb24")
    except (OSError, av.error.FFmpegError) as error:
        raise ValueError(f"cannot read the video {path}: {error.strerror or error}") from None
