"""Head-role files: three forms in, two out, and exact refusals."""

import json
from pathlib import Path

import numpy as np
import pytest

from fkv import roles
from fkv.roles import HeadRoles, RolesError

RELEASED = sorted((Path(__file__).parents[1] / "assets" / "head_roles").glob("*.json"))


@pytest.mark.parametrize("path", RELEASED, ids=lambda p: p.stem)
def test_released_splits_load_and_survive_both_forms(path, tmp_path):
    loaded = roles.load(path)
    for official in (True, False):
        roles.save(loaded, tmp_path / "r.json", official)
        assert roles.load(tmp_path / "r.json") == loaded
    assert roles.from_json(roles.to_json(loaded, official=True)["layers"]) == loaded


def test_there_are_five_released_splits_with_the_published_shares():
    shares = {path.stem: roles.load(path).static_share for path in RELEASED}
    assert len(shares) == 5
    assert shares["self_forcing"] == pytest.approx(0.372, abs=5e-4) and shares["longlive"] == pytest.approx(
        0.428, abs=5e-4
    )
    assert shares["krea_realtime_14b"] == 0.5
    by_name = {path.stem: roles.load(path) for path in RELEASED}
    assert by_name["self_forcing"].agreement(by_name["longlive"]) == pytest.approx(0.917, abs=5e-4)


def test_scores_at_the_threshold_are_static_and_provenance_is_kept(tmp_path):
    made = roles.from_scores(np.array([[0.8, 0.79], [0.1, 0.95]]), 0.8, model="m", prompts=3)
    assert made.static == ((0,), (1,))
    roles.save(made, tmp_path / "r.json")
    again = roles.load(tmp_path / "r.json")
    assert again == made and again.provenance["model"] == "m" and again.provenance["threshold"] == 0.8
    assert np.allclose(again.scores, made.scores)


def test_the_threshold_is_known_until_a_head_is_flipped():
    found = roles.from_scores(np.array([[0.2, 0.9], [0.85, 0.1]]), 0.8)
    assert (
        found.threshold == 0.8
        and found.flipped(1, 0).threshold is None
        and found.flipped(1, 0).flipped(1, 0).threshold == 0.8
    )
    assert HeadRoles(2, ((1,), (0,))).threshold is None


def test_flipping_a_head_twice_changes_nothing():
    one = HeadRoles(3, ((0,), (1, 2)))
    assert one.flipped(1, 0).static == ((0,), (0, 1, 2)) and one.flipped(1, 0).flipped(1, 0) == one
    with pytest.raises(RolesError, match="no head 3 in layer 0"):
        one.flipped(0, 3)


LAYER = {"static_head": [0], "dynamic_head": [1]}
BAD = {
    "layer 1 is missing": {"layers": [LAYER | {"layer_idx": 0}, LAYER | {"layer_idx": 2}]},
    "layer 0 is listed twice": [LAYER | {"layer_idx": 0}, LAYER | {"layer_idx": 0}],
    "head 1 is both static and dynamic": [{"static_head": [0, 1], "dynamic_head": [1]}],
    "layer 0: a head is listed twice": {"num_heads": 2, "static_heads": [[1, 1]]},
    "layer 1: invalid head 5": {"num_heads": 2, "static_heads": [[1], [5]]},
    "layer 0: invalid head True": {"num_heads": 2, "static_heads": [[True]]},
    "layer 1: invalid head 7": [LAYER, {"static_head": [0], "dynamic_head": [7]}],
    "layer 0: head 2 has no role": {"num_heads": 3, "layers": [LAYER]},
    "layer 1 is missing: num_layers is 2": {"num_heads": 2, "num_layers": 2, "static_heads": [[0]]},
    "num_heads must be a whole number from 1 to 4,096, it is '8'": {"num_heads": "8", "layers": [LAYER]},
    "num_heads must be a whole number from 1 to 4,096, it is [8]": {"num_heads": [8], "layers": [LAYER]},
    "num_heads must be a whole number from 1 to 4,096, it is inf": {"num_heads": float("inf"), "layers": [LAYER]},
    "num_heads must be a whole number from 1 to 4,096, it is 300000000": {"num_heads": 300000000, "layers": [LAYER]},
    "num_heads must be a whole number from 1 to 4,096, it is 300000001": {
        "num_heads": 300000001,
        "static_heads": [[0]],
    },
    "layers must be a whole number from 1 to 1,024": {"num_heads": 2, "static_heads": [[]] * 5000},
    "the heads of layer 0 must be a whole number from 0 to 4,096": {
        "layers": [{"static_head": [0] * 50_000, "dynamic_head": [1] * 50_000}]
    },
    "num_heads must be a whole number": {"num_heads": "two", "static_heads": [[0]]},
    "layer 0: static_heads must be a list": {"num_heads": 2, "static_heads": [3]},
    "dynamic_head must be a list": [{"static_head": [0]}],
    "entry 0 must be an object": [3],
    "needs 'layers'": {"heads": []},
    "holds an object or a list": "text",
    "scores must be": {"num_heads": 2, "static_heads": [[0]], "scores": [[0.5]]},
}


@pytest.mark.parametrize("message", BAD)
def test_malformed_roles_are_refused_with_the_place(message, tmp_path):
    path = tmp_path / "bad.json"
    path.write_text(json.dumps(BAD[message]))
    with pytest.raises(RolesError) as refusal:
        roles.load(path)
    assert "bad.json" in str(refusal.value) and message in str(refusal.value)


def test_files_that_are_not_json_too_large_or_absent_are_refused(tmp_path):
    path = tmp_path / "bad.json"
    for content, message in (
        (b"{", "line 1, column 2"),
        (b"\xff\xfe\x00", "not a text file"),
        (b"[" * 200_000, "not JSON|nested too deeply"),
        (b" " * (5 << 20), "larger than 4 MiB"),
    ):
        path.write_bytes(content)
        with pytest.raises(RolesError, match=message):
            roles.load(path)
    with pytest.raises(RolesError, match="cannot read head roles"):
        roles.load(tmp_path / "none.json")


def test_roles_for_another_model_are_refused():
    with pytest.raises(RolesError, match="for 1 layers of 2 heads, the model has 30 of 12"):
        HeadRoles(2, ((0,),)).check(30, 12)
