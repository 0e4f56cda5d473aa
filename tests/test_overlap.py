"""Decoding beside the next chunk: the same video, and really beside."""

import dataclasses
import json
import threading

import av
import numpy as np
import pytest

from fkv import policies
from fkv.commands import main
from fkv.parallel.overlap import Overlap
from fkv.stream import Stream


def stream(model, **options):
    return Stream(model, policies.make("forcing-kv"), "a red ball", seed=2, **options)


def test_the_video_is_the_same(small):
    plain = stream(small)
    wanted = [plain.step() for _ in range(5)]
    beside = stream(small, decode=False)
    made = list(Overlap(small)(beside.step() for _ in range(5)))
    assert [chunk.index for chunk in made] == [0, 1, 2, 3, 4]
    for ours, theirs in zip(made, wanted, strict=True):
        np.testing.assert_array_equal(ours.video, theirs.video)


def test_a_chunk_is_decoded_while_the_next_one_is_generated(small):
    """Every decoding but the last ends only once the next chunk is under way; one after the other, it never would."""
    under_way = [threading.Event() for _ in range(4)]

    def decoder(latents, state):
        chunk = state or 0
        if chunk + 1 < len(under_way):
            assert under_way[chunk + 1].wait(30)
        return np.full((1, 8, 8, 3), chunk, np.uint8), chunk + 1

    model = dataclasses.replace(small, decoder=decoder)
    source = stream(model, decode=False)

    def chunks():
        for started in under_way:
            started.set()
            yield source.step()

    assert [int(chunk.video[0, 0, 0, 0]) for chunk in Overlap(model)(chunks())] == [0, 1, 2, 3]


def test_decoding_counts_for_as_long_as_it_is_waited_for(small):
    """The first one is ready before it is asked for, the last one is not."""
    ready, asked = threading.Event(), threading.Event()

    def decoder(latents, state):
        if state:
            assert asked.wait(30)
            threading.Event().wait(0.2)
        else:
            ready.set()
        return np.zeros((1, 8, 8, 3), np.uint8), True

    model = dataclasses.replace(small, decoder=decoder)
    source = stream(model, decode=False)

    def chunks():
        yield source.step()
        chunk = source.step()
        assert ready.wait(30)
        yield chunk
        asked.set()

    first, last = Overlap(model)(chunks())
    assert first.timings.decode < 0.1 and last.timings.decode >= 0.2


def test_a_decoder_that_fails_is_heard(small):
    def decoder(latents, state):
        raise RuntimeError("no pixels")

    model = dataclasses.replace(small, decoder=decoder)
    with pytest.raises(RuntimeError, match="no pixels"):
        list(Overlap(model)(stream(model, decode=False).step() for _ in range(2)))


def test_without_a_decoder_there_is_nothing_to_overlap(small):
    with pytest.raises(ValueError, match="no decoder"):
        Overlap(dataclasses.replace(small, decoder=None))


def test_it_is_refused_where_there_is_no_gpu(capsys):
    for command in (["stream"], ["bench"]):
        assert main.main([*command, "--overlap", "--device", "cpu"]) == 2
        assert "the model would run on cpu; add --device cuda" in capsys.readouterr().err


def test_the_command_line_makes_the_same_video_so(small_by_default, tmp_path, monkeypatch):
    monkeypatch.setattr("fkv.parallel.overlap.check_overlap", lambda device: None)
    reports = []
    for name, options in (("plain", []), ("beside", ["--overlap"])):
        target = tmp_path / f"{name}.json"
        video = ["--out", str(tmp_path / f"{name}.mp4"), "--record", str(tmp_path / name)]
        assert (
            main.main(["stream", "--chunks", "3", "--switch", "2:full", "--json", str(target), *video, *options]) == 0
        )
        reports.append(json.loads(target.read_text()))
    plain, beside = reports
    assert plain["frames_sha256"] == beside["frames_sha256"]
    assert [chunk["events"] for chunk in plain["chunks"]] == [chunk["events"] for chunk in beside["chunks"]]
    with av.open(str(tmp_path / "beside.mp4")) as file:
        assert sum(1 for _ in file.decode(video=0)) == 36
    assert sorted(path.name for path in (tmp_path / "beside").iterdir()) == sorted(
        path.name for path in (tmp_path / "plain").iterdir()
    )
