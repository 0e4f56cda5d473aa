"""Files that users give, as large and hostile as they come: each is refused in a sentence, in bounded time."""

from __future__ import annotations

import json
import struct
import time
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from fkv import parity, policies, roles, storyboard
from fkv.analysis import record
from fkv.commands import bench, common, profile
from fkv.files import parse_json
from fkv.models import checkpoints
from fkv.models.adapters import Config
from fkv.models.weight_files import CheckpointError
from fkv.stream import check_prompt

SIZE = 16 << 20
LONGEST = 30.0  # seconds for one file, on a machine that does other things besides


def filled(text: str) -> str:
    """A text repeated up to `SIZE` characters."""
    return text * (SIZE // len(text))


def listed(start: str, item: str, end: str) -> str:
    """A list in JSON of as many items as fit."""
    return start + filled(f"{item},")[:-1] + end


TEXTS: dict[str, Callable[[], str]] = {
    "nothing": lambda: "\0" * SIZE,
    "depth": lambda: "[" * SIZE,
    "objects": lambda: filled('{"a":'),
    "digits": lambda: "1" * SIZE,
    "a long text": lambda: f'"{"x" * SIZE}"',
    "an open text": lambda: '"' + filled("\\u0061"),
    "empty lists": lambda: listed("[", "[]", "]"),
    "layers": lambda: listed('{"num_heads": 4096, "layers": [', '{"static_head": [0], "dynamic_head": []}', "]}"),
    "heads": lambda: listed('{"num_heads": 12, "static_heads": [[', "0", "]]}"),
    "scores": lambda: listed('{"num_heads": 1, "static_heads": [[0]], "scores": [[', "0.5", "]]}"),
    "chunks": lambda: listed(f'{{"schema": {record.SCHEMA}, "kinds": [], "settings": {{}}, "chunks": [', "{}", "]}"),
    "shards": lambda: '{"weight_map": {' + ",".join(f'"{i}":"{i}"' for i in range(SIZE // 24)) + "}}",
    "lines": lambda: filled("1: A = full\n"),
    "policies": lambda: filled("forcing-kv:"),
    "parameters": lambda: f"full:{filled('a=1,')}",
    "scenes": lambda: filled("a[1]|"),
    "durations": lambda: filled("[ "),
    "prompts": lambda: filled("a red ball\n"),
    "one line": lambda: "x" * SIZE,
}


def in_folder(name: str, read: Callable[[Path], Any]) -> Callable[[Path], Any]:
    """Read a file of a given name as that of its folder."""

    def folder(file: Path) -> Any:
        named = file.with_name(name)
        file.rename(named)
        return read(named.parent)

    return folder


READERS: dict[str, Callable[[Path], Any]] = {
    "head roles": roles.load,
    "a record": in_folder("record.json", record.load),
    "golden data": in_folder("meta.json", parity.load),
    "a report": lambda file: bench.read(str(file)),
    "prompts": lambda file: profile.read_prompts(str(file)),
    "a storyboard": lambda file: common.read_story(str(file)),
    "weights": checkpoints.read,
    "an index": in_folder("model.safetensors.index.json", checkpoints.read),
    "a prompt": lambda file: check_prompt(file.read_text()),
    "a policy": lambda file: policies.parse(file.read_text()),
    "policies": lambda file: [policies.parse(each) for each in policies.split(file.read_text())],
    "a timeline": lambda file: storyboard.check(file.read_text()),
}


def refused_in_time(read: Callable[[], Any]) -> None:
    """Check that something is refused in a short sentence."""
    began = time.monotonic()
    with pytest.raises(ValueError) as refused:
        read()
    assert time.monotonic() - began < LONGEST
    assert 10 < len(str(refused.value)) < 1000 and "\n" not in str(refused.value)


@pytest.mark.parametrize("reader", READERS)
def test_any_16_mib_are_refused_in_bounded_time(tmp_path, reader):
    for name, text in TEXTS.items():
        folder = tmp_path / name
        folder.mkdir()
        (folder / "given").write_text(text())
        refused_in_time(lambda file=folder / "given": READERS[reader](file))
        for left in folder.iterdir():
            left.unlink()


def safetensors(header: bytes, data: bytes = b"") -> bytes:
    return struct.pack("<Q", len(header)) + header + data


TENSOR = '{"dtype":"F32","shape":[0],"data_offsets":[0,0]}'


@pytest.mark.parametrize(
    "header",
    [
        "{" + "[" * SIZE,
        f'{{"{"x.lora_A." * (SIZE // 9)}": {TENSOR}}}',
        '{"a": {"dtype":"F32","shape":[4294967295,4294967295],"data_offsets":[0,16]}}',
        '{"a": {"dtype":"F32","shape":[' + "1," * (SIZE // 2) + '1],"data_offsets":[0,4]}}',
    ],
    ids=["depth", "a long name", "a large shape", "many dimensions"],
)
def test_hostile_headers_of_weights_are_refused_in_bounded_time(tmp_path, header):
    (tmp_path / "w.safetensors").write_bytes(safetensors(header.encode(), b"\0" * 16))
    refused_in_time(lambda: checkpoints.read(tmp_path / "w.safetensors"))


def test_an_archive_that_unpacks_to_more_than_it_holds_is_refused(tmp_path):
    with zipfile.ZipFile(tmp_path / "w.pt", "w", zipfile.ZIP_DEFLATED) as archive:
        with archive.open("w/data.pkl", "w", force_zip64=True) as out:
            for _ in range(256):
                out.write(b"\0" * (1 << 20))
    refused_in_time(lambda: checkpoints.read(tmp_path / "w.pt"))


@pytest.mark.parametrize(
    "patterns",
    [{"(a+)+": 1}, {"a" * 1000: 1}, {"(": 1}, {"a": "x"}, [1], {str(i): 1 for i in range(1000)}, {"a{1,9}b{1,9}c*": 1}],
    ids=["nested", "long", "broken", "no number", "a list", "many", "repetitions"],
)
def test_patterns_that_could_take_long_to_match_are_refused(patterns):
    with pytest.raises(CheckpointError, match="alpha_pattern"):
        Config.of({"alpha_pattern": patterns}).scale("blocks.0.attn1.to_q", 4, None)


@pytest.mark.parametrize("header", ["[" * 100_000, "1" * 5000, "[]", "3", '{"lora_alpha": null}'])
def test_any_metadata_of_an_adapter_is_read(header):
    assert Config.of({"lora_adapter_metadata": header}).scale("blocks.0.attn1.to_q", 4, None) == 1.0


def test_what_is_wrong_with_json_is_said():
    for text, words in (("[" * 100_000, "nested"), ("1" * 5000, "digits"), ('{"a": ', "line 1, column 7")):
        with pytest.raises(ValueError, match=words):
            parse_json(text, "x.json")
    assert parse_json(json.dumps({"a": [1]}), "x.json") == {"a": [1]}
