"""Golden data of published cache rules, recorded from their authors' code: latents, reads and decisions are equal."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import load_file, save_file

from fkv import parity
from fkv.parity import measures, rules
from fkv.policies import POLICIES

FOLDERS = [Path(__file__).with_name(name) for name in ("golden_rules_a", "golden_rules_b")]
RUNS = [(folder, name) for folder in FOLDERS for name in json.loads((folder / "meta.json").read_text())["rules"]]


@pytest.fixture(scope="module")
def goldens() -> dict[Path, parity.Golden]:
    return {folder: parity.load(folder) for folder in FOLDERS}


@pytest.mark.parametrize("folder, name", RUNS, ids=[name for _, name in RUNS])
def test_a_rule_equals_its_authors_code(goldens, folder, name):
    report = rules.check(goldens[folder], [name])[name]
    assert report["latents"]["max"] < 5e-5
    assert "reads_equal" in report
    assert all(part["ok"] for part in report.values()), report


def copy(tmp_path: Path, name: str) -> Path:
    """A golden folder of one run."""
    folder = FOLDERS[1]
    meta = json.loads((folder / "meta.json").read_text())
    meta |= {
        "rules": {name: meta["rules"][name]},
        "weights_file": str(folder.parent / "golden" / "weights.safetensors"),
    }
    for file in (meta["inputs_file"], meta["rules"][name]["file"]):
        shutil.copy(folder / file, tmp_path / Path(file).name)
    (tmp_path / "meta.json").write_text(json.dumps(meta))
    return tmp_path


@pytest.mark.parametrize("tensor", ["latents", "read_positions"])
def test_a_difference_is_found(tmp_path, tensor):
    folder = copy(tmp_path, "longlive_infinity")
    file = folder / "expected_longlive_infinity.safetensors"
    tensors = load_file(file)
    tensors[tensor][5] += 1
    save_file(tensors, file)
    report = parity.check(folder)
    assert not report["ok"] and report["runs"]["longlive_infinity"]["latents"]["ok"] == (tensor != "latents")


def test_nan_is_a_difference_unless_it_was_recorded():
    nan = float("nan")
    assert not measures.close([0.0, nan], [0.0, 1.0], 1e-3)["ok"]
    assert not measures.close([0.0, 1.0], [0.0, nan], 1e-3)["ok"]
    assert measures.close([0.0, nan], [0.0, nan], 1e-3)["ok"]
    found = {"scores": measures.close([0.0, nan], [0.0, 1.0], 1e-3)}
    measures.widen(found, 0.1)
    assert not found["scores"]["ok"], "nor is it one of rounding"
    made = [SimpleNamespace(latents=torch.full((1, 2), value)) for value in (0.0, nan)]
    assert not measures.latents(made, torch.zeros(2, 2), 1e-3)["ok"]


def test_another_parameter_is_found(tmp_path):
    folder = copy(tmp_path, "reward_forcing_a09")
    meta = json.loads((folder / "meta.json").read_text())
    meta["rules"]["reward_forcing_a09"]["params"]["compression_alpha"] = 0.8
    (folder / "meta.json").write_text(json.dumps(meta))
    assert not parity.check(folder)["ok"]


def test_an_unknown_rule_is_named(tmp_path):
    folder = copy(tmp_path, "longlive")
    meta = json.loads((folder / "meta.json").read_text())
    meta["rules"]["longlive"]["rule"] = "nonsense"
    (folder / "meta.json").write_text(json.dumps(meta))
    with pytest.raises(parity.ParityError, match="rule 'nonsense' is not known; known are attention_sink"):
        parity.check(folder)


def test_policies_that_claim_to_equal_their_authors_code_are_replayed():
    official = {"full", "sliding-window", "forcing-kv"}  # tests/golden
    runs = [json.loads((folder / "meta.json").read_text())["rules"].values() for folder in FOLDERS]
    replayed = {rules.RULES[run["rule"]](run["params"]).unwrapped.name for each in runs for run in each}
    assert {name for name, policy in POLICIES.items() if policy.checked} == official | replayed
