"""Classes of heads: from constructed logits, from a stream, and from a roles file to the policy that reads them."""

from __future__ import annotations

import numpy as np
import pytest

from fkv import roles as role_files
from fkv.analysis.head_classes import LogitProbe, classify, head_classes, periodicity, with_classes
from fkv.commands.main import main
from fkv.policies import Full, parse
from fkv.policies import pyramid_forcing as pyramid
from fkv.roles import HeadRoles, RolesError
from fkv.stream import Stream

AT = np.arange(36)


def test_an_oscillation_has_its_period_and_a_trend_has_none():
    share, period = periodicity(np.cos(2 * np.pi * AT / 6) + 0.1 * AT)
    assert share > 0.95 and period == 6
    assert periodicity(3 - 0.2 * AT) == (0, 0)
    noise = np.random.default_rng(0).normal(size=(50, 36))
    assert np.mean([periodicity(series)[0] for series in noise]) < 0.5


def test_heads_are_classed_by_period_then_by_sign():
    wave = 0.5 * np.cos(2 * np.pi * AT / 6)
    slow = np.abs(np.random.default_rng(1).normal(size=36))
    assert classify(np.array([[wave, slow, -slow], [wave - 3, -slow, slow]])).tolist() == [[0, 1, 2], [0, 2, 1]]


def test_the_probe_sees_the_mean_logit_of_every_frame_of_the_past(small):
    seen = {}

    class Keep(LogitProbe):
        def record(self, layer, group, heads, query, keys, cache):
            super().record(layer, group, heads, query, keys, cache)
            if layer == 1 and self._watching:
                scores = query[0].float() @ keys[0].float().transpose(1, 2) * cache.geometry.head_dim**-0.5
                frames = scores.unflatten(2, (-1, cache.geometry.tokens_per_frame)).mean((1, 3)).cpu().numpy()
                seen.update({(layer, head): row[:-3] for head, row in zip(heads, frames, strict=True)})

    probe = Keep()
    stream = Stream(small, Full(), "a red ball", decode=False)
    stream.step()
    stream.step()
    stream.step(probe)
    assert len(probe.logits) == 12 and len(seen) == 4
    for head, expected in seen.items():
        assert probe.logits[head] == pytest.approx(expected, abs=1e-5) and len(expected) == 6


def test_classes_go_through_a_roles_file_to_the_policy(small, monkeypatch, tmp_path, capsys):
    monkeypatch.setattr("fkv.commands.profile.load_model", lambda args: small)
    file = tmp_path / "roles.json"
    command = ["profile", "--prompts", "1", "--chunks", "3", "--json", str(tmp_path / "report.json")]
    monkeypatch.setattr("fkv.commands.profile.prompts_for", lambda model, count: ["a red ball"])
    assert main([*command, "--classes", "8", "--out", str(file)]) == 0
    found = role_files.load(file)
    classes = found.provenance["classes"]
    assert classes["provenance"]["prompts"] == ["a red ball"] and classes["provenance"]["chunks"] == 8
    expected = {name: tuple(map(tuple, classes[name])) for name in pyramid.NAMES}
    assert parse("pyramid-forcing").groups(small.geometry, found) == expected
    assert main([*command, "--classes", "8"]) == 2 and "name one with --out" in capsys.readouterr().err
    assert (
        main([*command, "--classes", "3", "--out", str(file)]) == 2 and "at least 8 chunks" in capsys.readouterr().err
    )


@pytest.mark.parametrize(
    ("classes", "sentence"),
    [
        ({"wave": [[0, 1]], "anchor": [[1]], "veil": [[]]}, "layer 0: every head needs one class"),
        ({"wave": [[0]], "anchor": [[]], "veil": [[]]}, "layer 0: every head needs one class"),
        ({"wave": [[0.0]], "anchor": [[True]], "veil": [[]]}, "layer 0: invalid head 0.0"),
        ({"wave": [], "anchor": [], "veil": []}, "for 0 layers, the roles for 1"),
        ({"wave": [[0, 1]]}, "lists per layer, of wave, anchor, veil"),
        ({"wave": [["0", 1]], "anchor": [[]], "veil": [[]]}, "lists per layer"),
        (3, "lists per layer"),
    ],
)
def test_classes_of_a_file_are_checked(classes, sentence):
    with pytest.raises(RolesError, match=sentence):
        pyramid.head_classes(with_classes(HeadRoles(2, ((0,),)), classes))


def test_equal_runs_have_equal_classes(small):
    one, two = (head_classes(small, ["a red ball"], chunks=8) for _ in range(2))
    assert one == two
