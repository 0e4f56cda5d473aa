"""Golden data of the official implementation, through the public command."""

import json
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file

from fkv import parity
from fkv.commands.main import main


@pytest.fixture
def copy(golden, tmp_path):
    return shutil.copytree(golden, tmp_path / "golden")


def test_every_run_and_variant_is_within_tolerance(golden, tmp_path, capsys):
    assert main(["parity", str(golden), "--json", str(tmp_path / "r.json")]) == 0
    report = json.loads((tmp_path / "r.json").read_text())
    assert report["ok"] and "parity: ok" in capsys.readouterr().err
    runs = report["runs"]
    assert runs.keys() == {"full", "attention", "rolling", "forcing_kv"}
    assert len(runs["forcing_kv"]["latents"]["per_chunk"]) == 7
    assert {
        "patch_scores",
        "kept_segments_equal",
        "kv_tokens_equal",
        "no_dynamic_temporal3",
        "temporal2_dynamic1",
    } <= runs["forcing_kv"].keys()
    assert max(run["latents"]["max"] for name, run in runs.items() if name != "attention") < 5e-5


def test_bfloat16_differs_by_its_rounding(golden):
    report = parity.check(golden, precision="bf16", names=["rolling"])
    assert report["ok"] and report["runs"].keys() == {"rolling"} and report["precision"] == "bf16"
    assert 1e-3 < report["runs"]["rolling"]["latents"]["max"] < 8 * torch.finfo(torch.bfloat16).eps


def test_a_run_that_there_is_not_is_refused_in_a_sentence(golden, capsys):
    assert main(["parity", str(golden), "--runs", "rolling,magic"]) == 2
    assert "has no run 'magic'; its runs are full, rolling, forcing_kv" in capsys.readouterr().err


@pytest.mark.parametrize(
    "name, run", [("latents", "rolling"), ("kept_segments", "forcing_kv"), ("kv_tokens", "forcing_kv")]
)
def test_a_difference_is_found(copy, name, run, tmp_path):
    file = copy / f"expected_{run}.safetensors"
    tensors = load_file(file)
    tensors[name][2] += 0.01 if name == "latents" else 1
    save_file(tensors, file)
    assert main(["parity", str(copy), "--runs", run, "--json", str(tmp_path / "r.json")]) == 1


def test_another_switch_chunk_or_sink_is_found(copy):
    meta = json.loads((copy / "meta.json").read_text())
    meta["runs"]["forcing_kv"]["ar_start"] = 2
    (copy / "meta.json").write_text(json.dumps(meta))
    assert not parity.check(copy, names=["forcing_kv"])["runs"]["forcing_kv"]["latents"]["ok"]


def spoil(copy, how):
    if how == "no folder":
        shutil.rmtree(copy)
    elif how == "no weights":
        (copy / "weights.safetensors").unlink()
    elif how == "cut off":
        data = (copy / "inputs.safetensors").read_bytes()
        (copy / "inputs.safetensors").write_bytes(data[: len(data) // 2])
    elif how == "not json":
        (copy / "meta.json").write_text("{")
    elif how == "bad heads":
        (copy / "heads.json").write_text(json.dumps({"layers": [{"static_head": [0], "dynamic_head": [0]}]}))
    elif how == "weight missing":
        tensors = load_file(copy / "weights.safetensors")
        tensors.pop("blocks.1.self_attn.q.weight")
        save_file(tensors, copy / "weights.safetensors")
    elif how == "entry missing":
        meta = json.loads((copy / "meta.json").read_text())
        meta.pop("sampler")
        (copy / "meta.json").write_text(json.dumps(meta))
    elif how == "chunk missing":
        meta = json.loads((copy / "meta.json").read_text())
        meta["runs"]["forcing_kv"]["scored_chunks"][0] = 99
        (copy / "meta.json").write_text(json.dumps(meta))
    elif how == "wrong noise":
        tensors = load_file(copy / "inputs.safetensors")
        tensors["noise"] = torch.zeros(1, 3, 16, 8, 12, dtype=torch.float16)
        save_file(tensors, copy / "inputs.safetensors")


REFUSALS = {
    "no folder": "is not a folder",
    "no weights": "weights.safetensors is missing",
    "cut off": "inputs.safetensors cannot be read",
    "not json": "meta.json cannot be read as JSON",
    "bad heads": "both static and dynamic",
    "weight missing": "1 missing, first blocks.1.attn1.to_q.weight",
    "entry missing": "no entry 'sampler'",
    "chunk missing": "do not fit",
    "wrong noise": "do not fit",
}


@pytest.mark.parametrize("how", REFUSALS)
def test_unusable_folders_are_named_and_exit_with_2(copy, how, capsys):
    spoil(copy, how)
    assert main(["parity", str(copy)]) == 2
    printed = capsys.readouterr()
    assert REFUSALS[how] in printed.err and "Traceback" not in printed.err and not printed.out
