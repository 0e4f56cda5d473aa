"""Profiles: scores to roles to files, provenance, stability."""

from __future__ import annotations

import argparse
import hashlib
import json
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fkv import roles as role_files
from fkv.analysis.profile import Profile, divergence, profile
from fkv.commands import profile as command
from fkv.commands.profile import prompts_for, read_prompts
from fkv.models import registry
from fkv.models.identity import checkpoint_hash
from fkv.probe import head_scores
from fkv.world import shots
from fkv.world.captions import parse as parse_caption

PROMPTS = ("a red ball bouncing over the hills at sunset", "a cyan star drifting over the sea at night")


@pytest.fixture(scope="module")
def found(small) -> Profile:
    return profile(small, PROMPTS, chunks=3, threshold=0.6)


def sharp(near: np.ndarray, runs: int = 3) -> Profile:
    """A profile whose heads put `near` [layers, heads] on the last 4 of 21 frames, in every sample."""
    mass = np.zeros((runs, 2, *near.shape, 3, 21), np.float32)
    mass[..., -4:] = near[..., None, None] / 4
    mass[..., 1:-4] = (1 - near)[..., None, None] / 16
    frames = tuple(range(18, 21))
    return Profile(
        "m",
        "",
        tuple((f"p{i}", 0) for i in range(runs)),
        ("step 0", "context"),
        ("context",),
        frames,
        tuple(range(21)),
        mass,
    )


def test_every_chunk_of_every_run_is_reported_and_the_last_is_scored(small):
    steps = []
    result = profile(small, PROMPTS, seeds=(0, 1), chunks=3, progress=lambda chunk: steps.append(1))
    assert len(steps) == 2 * 2 * 3
    assert result.runs == tuple((prompt, seed) for prompt in PROMPTS for seed in (0, 1))
    assert (
        result.passes == ("step 0", "step 1", "context")
        and result.frames == (6, 7, 8)
        and result.key_frames == tuple(range(9))
    )
    assert profile(small, PROMPTS * 2, seeds=(0, 0), chunks=3).runs == tuple((prompt, 0) for prompt in PROMPTS)
    assert result.scores.shape == (4, 3, 3, 4) and result.uniform == pytest.approx(4 / 8)
    assert np.ptp(result.scores, axis=0).max() > 0


def test_roles_follow_from_the_scored_passes(found):
    np.testing.assert_allclose(found.head_scores, head_scores(found.mass[:, -1]).mean(0))
    assert (found.roles.is_static() == (found.head_scores >= 0.6)).all()
    every = replace(found, scored=found.passes)
    np.testing.assert_allclose(every.head_scores, found.scores.mean((0, 1)))


def test_roles_say_where_they_come_from_and_survive_a_file(found, tmp_path):
    role_files.save(found.roles, tmp_path / "roles.json")
    loaded = role_files.load(tmp_path / "roles.json")
    assert loaded == found.roles
    np.testing.assert_allclose(loaded.scores, found.head_scores, atol=1e-4)
    attention = loaded.provenance["attention"]
    np.testing.assert_allclose(attention["mass"], found.mass[:, -1].mean(0), atol=1e-4)
    assert attention["frames"] == [6, 7, 8] and attention["key_frames"] == list(range(9))
    wanted = {
        "model": "small",
        "threshold": 0.6,
        "sink": 1,
        "last_k": 4,
        "prompts": list(PROMPTS),
        "seeds": [0],
        "chunks": 3,
    }
    assert wanted.items() <= loaded.provenance.items()
    assert (
        loaded.provenance["passes"] == ["context"]
        and loaded.provenance["uniform_score"] == 0.5
        and loaded.provenance["date"]
    )


def test_the_report_is_json_and_holds_every_sample(found):
    report = json.loads(json.dumps(found.report()))
    assert len(report["samples"]) == 2 * 3 and np.shape(report["samples"][0]["scores"]) == (3, 4)
    assert report["stability"]["within_heads"] == pytest.approx(found.stability.within.mean(), abs=1e-4)
    assert role_files.from_json(report) == found.roles and "attention" not in report


def test_heads_that_never_change_are_perfectly_stable():
    near = np.array([[0.95, 0.1], [0.5, 0.9]])
    stability = sharp(near).stability
    assert stability.within.max() == pytest.approx(0, abs=1e-9) and stability.over_runs == pytest.approx(0, abs=1e-9)
    shares = np.stack([near.ravel(), 1 - near.ravel()], 1)  # on the last frames and on older ones, each spread evenly
    apart = np.array([[divergence(one, other) for other in shares] for one in shares])
    np.testing.assert_allclose(stability.between.ravel(), apart.sum(1) / 3, atol=1e-6)
    assert stability.between.min() > 0.05 and stability.ratio < 1e-6 and stability.agreement == 1.0


def test_a_head_that_changes_with_the_prompt_is_less_stable():
    result = sharp(np.array([[0.95, 0.1], [0.5, 0.9]]))
    mass = result.mass.copy()
    mass[0, :, 0, 0] = result.mass[0, :, 0, 1]
    stability = replace(result, mass=mass).stability
    assert stability.within[0, 0] > 0.1 and stability.within[1].max() == pytest.approx(0, abs=1e-9)
    assert stability.over_runs > 0 and stability.over_passes == pytest.approx(0, abs=1e-9) and stability.agreement < 1


def test_one_run_has_no_divergence_over_runs():
    assert sharp(np.array([[0.9, 0.2]]), runs=1).stability.over_runs is None


@given(st.lists(st.floats(0.01, 1), min_size=5, max_size=5), st.lists(st.floats(0.01, 1), min_size=5, max_size=5))
def test_divergence_is_a_bounded_symmetric_measure(p, q):
    p, q = np.array(p), np.array(q)
    assert 0 <= divergence(p, q) <= 1 and divergence(p, q) == pytest.approx(divergence(q, p), abs=1e-12)
    assert divergence(p, 3 * p) == pytest.approx(0, abs=1e-12)


def test_divergence_of_disjoint_distributions_is_one_bit():
    assert divergence(np.array([1.0, 0]), np.array([0, 1.0])) == pytest.approx(1)


@pytest.mark.parametrize(
    "changes, words",
    [
        ({"prompts": []}, "at least one prompt"),
        ({"threshold": 0}, "threshold"),
        ({"passes": "some"}, "passes must be"),
        ({"chunks": 1}, "leave no older frames"),
        ({"chunks": 0}, "number of chunks"),
        ({"last_k": 8}, "leave no older frames"),
        ({"prompts": [" "]}, "prompt is empty"),
        ({"seeds": [-1]}, "seed"),
        ({"queries": 0}, "queries"),
    ],
)
def test_bad_parameters_are_named(small, changes, words):
    with pytest.raises(ValueError, match=words):
        profile(small, **{"prompts": PROMPTS, "chunks": 3} | changes)


def test_the_checkpoint_hash_is_the_files_sha256(tmp_path):
    (tmp_path / "w").write_bytes(b"weights")
    assert checkpoint_hash([tmp_path / "w"]) == hashlib.sha256(b"weights").hexdigest()[:16]
    assert checkpoint_hash([]) == ""
    strengths = [checkpoint_hash([tmp_path / "w"], [f"style.safetensors:{strength}"]) for strength in (1, 0.5)]
    assert len({checkpoint_hash([tmp_path / "w"]), *strengths}) == 3


def test_prompts_come_from_a_file_from_examples_or_from_the_toy_world(small, tmp_path):
    (tmp_path / "prompts.txt").write_text("one\n\n two \n")
    assert read_prompts(str(tmp_path / "prompts.txt")) == ["one", "two"]
    toy = replace(small, name="tiny")
    assert len(set(prompts_for(toy, 6))) == 6 and prompts_for(toy, 6)[:3] == prompts_for(toy, 3)
    assert not any(toy.hints(prompt) for prompt in prompts_for(toy, 6))
    memory = prompts_for(replace(toy, transformer=SimpleNamespace(events=True)), 6)
    assert [parse_caption(text) for text in memory[::2]] and [shots.parse(text) for text in memory[1::2]]
    released = replace(small, examples=("one", "two", "three"))
    assert prompts_for(released, None) == ["one", "two", "three"] and prompts_for(released, 2) == ["one", "two"]
    assert len(prompts_for(toy, None)) == 8
    with pytest.raises(ValueError, match="comes with 3 example prompts, not 4"):
        prompts_for(released, 4)
    with pytest.raises(ValueError, match="comes with 0 example prompts"):
        prompts_for(small, None)
    (tmp_path / "empty.txt").write_text("\n")
    (tmp_path / "picture.png").write_bytes(b"\x89PNG\xff")
    for name, message in (
        ("missing.txt", "No such file"),
        ("empty.txt", "has no prompt"),
        ("picture.png", "picture.png is not a text file"),
    ):
        with pytest.raises(ValueError, match=message):
            read_prompts(str(tmp_path / name))


def arguments(*words: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    command.add_arguments(parser)
    return parser.parse_args(words)


def test_the_command_writes_roles_figures_and_a_report(small, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(registry, "load", lambda name, device: replace(small, name=name))
    out, report = tmp_path / "roles.json", tmp_path / "report.json"
    words = ["--prompts", "2", "--chunks", "3", "--out", str(out), "--figures", str(tmp_path / "figures")]
    assert command.run(arguments(*words, "--json", str(report))) == 0
    assert capsys.readouterr().out == ""
    written = {path.name for path in (tmp_path / "figures").iterdir()}
    assert {
        "profile.html",
        "head-map.png",
        "head-map.svg",
        "head-map.csv",
        "stability.png",
        "atlas.csv",
        "mass-by-age.svg",
    } <= written
    roles = role_files.load(out)
    assert (roles.num_layers, roles.num_heads) == (3, 4) and json.loads(report.read_text())["static_heads"] == [
        list(h) for h in roles.static
    ]
    assert (
        command.run(
            arguments("--prompts", "2", "--chunks", "3", "--out", str(out), "--official", "--compare", str(out))
        )
        == 0
    )
    assert json.loads(capsys.readouterr().out)["agreement_with"] == {"file": "roles.json", "agreement": 1.0}
    assert json.loads(out.read_text())["format"] == "forcingkv_offline" and role_files.load(out) == roles


@pytest.mark.parametrize("words", [("--seeds", "0"), ("--chunks", "0"), ("--out", "/nowhere/roles.json")])
def test_the_command_refuses_bad_input_before_it_loads_a_model(words, monkeypatch):
    monkeypatch.setattr(registry, "load", lambda *_: pytest.fail("a model was loaded"))
    with pytest.raises(ValueError):
        command.run(arguments(*words))
