"""The run as a film: what is burnt in, what is left plain, and the recording that first visitors see."""

from __future__ import annotations

import json

import av
import cv2
import numpy as np
import pytest

from fkv.studio.live import sample_run
from fkv.studio.live.limits import Limits
from fkv.studio.live.live import live
from fkv.studio.live.plan import Plan
from fkv.studio.live.queue import Queue
from fkv.studio.live.run import Run
from fkv.studio.media.mp4 import Encoding, Recording, write
from fkv.studio.media.protocol import join, pack, unpack


@pytest.fixture(scope="module")
def files(small) -> list[bytes]:
    run = Run(1 << 20)
    plan = Plan.from_form(
        prompt="50 % of $x_1$ & <b>", seed=5, length=2, view="AB", a="forcing-kv", b="full", story="2: a $ star"
    )
    for _ in live(small, plan, run, Queue(), Limits(lead=1e9)):
        pass
    return run.chunks()


def frames_of(path) -> list[np.ndarray]:
    with av.open(str(path)) as film:
        return [frame.to_ndarray(format="rgb24") for frame in film.decode(video=0)]


def test_a_plain_film_is_the_pictures_side_by_side(files, tmp_path):
    assert list(write(Recording(files, 16, "here", plain=True), tmp_path / "film.mp4")) == [1, 2]
    frames = frames_of(tmp_path / "film.mp4")
    record, jpegs = unpack(files[1])
    count = record["streams"]["A"]["video_frames"]
    assert len(frames) == 2 * count and frames[0].shape == (32, 2 * 96, 3)
    last = np.hstack(
        [cv2.imdecode(np.frombuffer(jpegs[i], np.uint8), 1)[..., ::-1] for i in (count - 1, 2 * count - 1)]
    )
    assert np.abs(frames[-1].astype(int) - last).mean() < 12


def test_a_film_has_the_colours_of_the_pictures(tmp_path):
    film = pack({"streams": {"A": {"video_frames": 1}}}, [np.full((1, 32, 96, 3), (220, 40, 20), np.uint8)])
    list(write(Recording([film], 16, "here", plain=True), tmp_path / "film.mp4"))
    assert np.abs(frames_of(tmp_path / "film.mp4")[0].mean((0, 1)) - (220, 40, 20)).max() < 12


def test_the_film_shows_both_streams_with_labels_and_charts(files, tmp_path):
    list(write(Recording(files, 16, "live on a machine"), tmp_path / "film.mp4"))
    frames = frames_of(tmp_path / "film.mp4")
    high, wide, _ = frames[0].shape
    assert wide == 1280 and high % 2 == 0
    labels, charts = [frame[:100].std() for frame in frames], [frame[-200:].std() for frame in frames]
    assert min(labels) > 10 and min(charts) > 5
    assert np.abs(frames[0][-200:].astype(int) - frames[-1][-200:]).max() > 60  # the mark of the chunk has moved on


def test_encoding_runs_beside_and_can_be_left(files, tmp_path):
    with Encoding(Recording(files, 16, "here", plain=True), tmp_path / "film.mp4").running() as work:
        while work.wait(0.05):
            pass
        assert (work.done, work.total, work.problem) == (2, 2, "")
    with Encoding(Recording(files * 200, 16, "here"), tmp_path / "long.mp4").running() as work:
        pass
    assert work.done < work.total and not work.wait(0)
    with Encoding(Recording([], 16, "here"), tmp_path / "none.mp4").running() as work:
        while work.wait(0.05):
            pass
    assert "nothing to record" in work.problem


def test_a_recording_comes_back_as_the_page_is_sent_it(small, tmp_path):
    file = tmp_path / "recorded.bin"
    file.write_bytes(sample_run.record(small, "a red ball", 3, 2))
    run, manifest = sample_run.replay(small, file)
    facts, chunks = unpack(file.read_bytes())
    assert [run.get(i) for i in range(2)] == chunks and manifest["chunks"] == 2 and manifest["run"] == run.key
    assert (
        manifest["source"] == f"recorded on {facts['device']}, {facts['date']}"
        and facts["torch"]
        and facts["seed"] == 3
    )
    assert list(json.loads(json.dumps(manifest))["policies"].values()) == ["forcing-kv", "full"]


def test_no_recording_is_shown_of_other_weights_or_none(small, tmp_path):
    file = tmp_path / "recorded.bin"
    assert sample_run.replay(small, file) is None
    for other in ({"model": "another", "checkpoint": ""}, {"model": "small", "checkpoint": "0123456789abcdef"}):
        file.write_bytes(join(other, []))
        assert sample_run.replay(small, file) is None


def test_the_shipped_recording_is_of_the_shipped_weights(shipped):
    assert sample_run.FILE.stat().st_size < 1_500_000
    assert sample_run.replay(shipped) is not None, "record anew: python -m fkv.studio.live.sample_run"


def test_the_command_refuses_with_a_sentence(tmp_path, capsys):
    assert sample_run.main(["--chunks", "0", "--out", str(tmp_path / "x.bin")]) == 2
    assert "sample_run: " in capsys.readouterr().err and not (tmp_path / "x.bin").exists()
