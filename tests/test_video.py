"""MP4 files: the colours that were generated in every player, at once when they are on a web page."""

from __future__ import annotations

import base64
import os
import shutil

import av
import numpy as np
import pytest
import torch

from fkv.models.frames import to_frames
from fkv.video import Mp4Writer

COLOURS = {
    "red": (255, 0, 0),
    "green": (0, 255, 0),
    "blue": (0, 0, 255),
    "yellow": (255, 255, 0),
    "magenta": (255, 0, 255),
    "cyan": (0, 255, 255),
    "white": (255, 255, 255),
    "black": (0, 0, 0),
    "brown": (140, 90, 40),
}
CHROMIUM = os.environ.get("CHROMIUM") or shutil.which("chromium")
SIZES = [(96, 160), (480, 832), (720, 1280), (1088, 1920)]


def bars(height: int, width: int) -> np.ndarray:
    """A frame of upright bars of all colours."""
    frame = np.zeros((height, width, 3), np.uint8)
    for i, colour in enumerate(COLOURS.values()):
        frame[:, width * i // len(COLOURS) : width * (i + 1) // len(COLOURS)] = colour
    return frame


def middles(frame: np.ndarray) -> np.ndarray:
    """The colours in the middles of the bars."""
    height, width, _ = frame.shape
    return np.stack([frame[height // 2, int(width * (i + 0.5) / len(COLOURS))] for i in range(len(COLOURS))]).astype(
        int
    )


def write(path, size, frames=3):
    with Mp4Writer(path, 16) as out:
        out.write(np.stack([bars(*size)] * frames))
    return path


def by_the_tags(path) -> np.ndarray:
    """The first frame as sRGB, computed here from its planes and the file's tags, [height, width, 3]."""
    with av.open(str(path)) as video:
        context = video.streams.video[0].codec_context
        assert (context.colorspace, context.color_primaries, context.color_trc, context.color_range) == (1, 1, 1, 1)
        frame = next(video.decode(video=0))
    planes = [
        np.frombuffer(plane, np.uint8).reshape(plane.height, plane.line_size)[:, : plane.width]
        for plane in frame.planes
    ]
    luma = (planes[0].astype(float) - 16) / 219
    blue, red = ((plane.astype(float).repeat(2, 0).repeat(2, 1) - 128) / 224 for plane in planes[1:])
    r, b = luma + 1.5748 * red, luma + 1.8556 * blue  # ITU-R BT.709
    g = (luma - 0.2126 * r - 0.0722 * b) / 0.7152
    return (np.stack([r, g, b], -1).clip(0, 1) * 255).round().astype(np.uint8)


@pytest.mark.parametrize("size", SIZES)
def test_the_colours_are_those_generated_when_decoded_by_the_tags(size, tmp_path):
    decoded = by_the_tags(write(tmp_path / "v.mp4", size))
    assert np.abs(middles(decoded) - middles(bars(*size))).max() <= 5


def test_stream_and_container_are_tagged_and_the_index_comes_first(tmp_path):
    data = write(tmp_path / "v.MP4", (720, 1280)).read_bytes()
    assert data.index(b"moov") < data.index(b"mdat")
    box = data.index(b"colr")
    assert data[box + 4 : box + 15] == b"nclx" + bytes([0, 1, 0, 1, 0, 1, 0])  # primaries, transfer, matrix, tv range


@pytest.mark.skipif(CHROMIUM is None, reason="no chromium: install it, or name one in $CHROMIUM")
@pytest.mark.parametrize("size", [(720, 1280), (96, 160)])
def test_chromium_shows_the_colours_generated(size, tmp_path):
    playwright = pytest.importorskip("playwright.sync_api")
    film = base64.b64encode(write(tmp_path / "v.mp4", size, 16).read_bytes()).decode()
    script = """async (film) => {
        const video = document.createElement("video");
        video.muted = true;
        video.src = "data:video/mp4;base64," + film;
        await new Promise((done, failed) => { video.onseeked = done; video.onerror = () => failed(video.error.message);
            video.onloadeddata = () => { video.currentTime = 0.3 } });
        const canvas = new OffscreenCanvas(video.videoWidth, video.videoHeight);
        const pen = canvas.getContext("2d");
        pen.drawImage(video, 0, 0);
        return Array.from(pen.getImageData(0, canvas.height >> 1, canvas.width, 1).data);
    }"""
    with playwright.sync_playwright() as engines:
        browser = engines.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        row = np.array(browser.new_page().evaluate(script, film)).reshape(1, -1, 4)[..., :3]
        browser.close()
    assert (
        np.abs(middles(row) - middles(bars(*size))).max() <= 16
    )  # libyuv limits the blue factor of BT.709 to seven bits


@pytest.mark.parametrize("size", [(95, 160), (96, 161)])
def test_odd_sizes_are_refused_in_a_sentence(size, tmp_path):
    with pytest.raises(ValueError, match=f"even height and width, not {size[1]} x {size[0]}"):
        write(tmp_path / "v.mp4", size)


@pytest.mark.parametrize("name", ["v.webm", "v.gif", "v", "v.mp4.part"])
def test_other_endings_are_refused_in_a_sentence(name, tmp_path):
    with pytest.raises(ValueError, match="must end with .mp4"):
        write(tmp_path / name, (96, 160))
    assert not (tmp_path / name).exists()


def test_a_decoder_that_gives_nan_ends_with_a_sentence_and_infinity_is_clamped():
    pixels = torch.zeros(1, 3, 4, 4)
    pixels[0, 0, 0, 0] = float("inf")
    assert to_frames(pixels)[0, 0, 0].tolist() == [255, 128, 128]
    pixels[0, 0, 0, 1] = float("nan")
    with pytest.raises(ValueError, match="the decoder gave pixels that are not numbers .* try another --decoder"):
        to_frames(pixels)
