"""Records: what they say of known chunks."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from fkv.report import chunk_record, stream_record
from fkv.stream import Chunk, Timings


def chunk(kv_bytes=0, **kv_tokens):
    timings = Timings(text=1, rebuild=2, denoise=3, context=4, decode=5)
    return Chunk(
        0,
        (0, 1, 2),
        "a",
        "full",
        torch.empty(0),
        np.zeros((12, 8, 8, 3), np.uint8),
        timings,
        kv_bytes,
        kv_tokens,
        3,
        1,
        {},
        {},
    )


@pytest.mark.parametrize(
    "held, told",
    [
        ({"static": 10, "dynamic": 20}, {"static": 10, "dynamic": 20}),
        ({"all": 30}, {"static": 30, "dynamic": 30, "all": 30}),
        ({"static": 10, "dynamic": 20, "silenced": 5}, {"static": 10, "dynamic": 20, "silenced": 5}),
    ],
)
def test_key_lengths_are_told_by_role_whatever_the_groups(held, told):
    assert chunk_record(chunk(**held))["kv_tokens"] == told


def test_a_stream_is_told_by_its_peak_and_by_what_its_seconds_count(small):
    told = stream_record([chunk(1), chunk(3), chunk(2)], small, 0, "cpu")
    assert told["kv_bytes_peak"] == 3 and told["denoise_s_median"] == 9
    assert (told["fps_denoise"], told["fps_end_to_end"]) == (pytest.approx(12 / 9), pytest.approx(12 / 15))


def test_a_stream_that_is_not_decoded_has_no_hash_of_frames(small):
    assert stream_record([replace(chunk(), video=None)], small, 0, "cpu")["frames_sha256"] is None
    assert stream_record([chunk()], small, 0, "cpu")["frames_sha256"] is not None
