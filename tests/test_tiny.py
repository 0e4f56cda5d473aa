"""The shipped model: it loads, shows what the prompt says, and says what is wrong with damaged weights."""

import shutil
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch

from fkv import policies
from fkv.commands.main import main
from fkv.models import registry, releases, tiny
from fkv.resources import asset
from fkv.stream import Stream
from fkv.transformer.causal import CausalTransformer
from fkv.world import oracle, shots
from fkv.world.captions import parse
from fkv.world.shots import memory_words


def test_the_folders_are_small_enough_to_ship():
    files = [file for name in releases.SHIPPED for file in asset(name).rglob("*") if file.is_file()]
    assert sum(file.stat().st_size for file in files) < 40e6


def test_the_model_of_the_memory_world_streams_from_weights_in_8_bits(monkeypatch):
    model = registry.load("tiny-memory")
    stream = Stream(model, policies.make("full"), tiny.MEMORY_EXAMPLES[2], seed=0)
    seen = []
    run = CausalTransformer.__call__

    def seeing(transformer, latents, *rest):
        seen.append(latents)
        return run(transformer, latents, *rest)

    monkeypatch.setattr(CausalTransformer, "__call__", seeing)
    reading = oracle.read(np.concatenate([stream.step().video for _ in range(2)]))
    noise = stream.noise.initial(1, seen[0].shape)
    *steps, context = seen[len(seen) // 2 :]
    assert len(steps) == 4 and all(torch.equal(noise[:, 0, :, 0, 0], latents[:, 0, :, 0, 0]) for latents in steps)
    assert not torch.equal(noise[:, 0, :, 0, 0], context[:, 0, :, 0, 0])
    assert model.transformer.events and (reading.place, reading.time) == ("city", "night")
    assert all(not model.hints(prompt) and shots.parse(prompt) for prompt in tiny.MEMORY_EXAMPLES)


def test_it_has_roles_of_both_kinds_drawn_from_its_own_attention(shipped):
    assert shipped.roles.provenance["model"] == "tiny" and shipped.roles.scores is not None
    assert 0.05 < shipped.roles.static_share < 0.95


@pytest.mark.parametrize("prompt", tiny.EXAMPLES[:2])
def test_it_shows_place_time_and_colour_of_the_prompt(shipped, prompt):
    stream = Stream(shipped, policies.make("forcing-kv"), prompt, seed=0)
    reading = oracle.read(np.concatenate([stream.step().video for _ in range(4)][1:]))
    scene = parse(prompt)
    assert (reading.place, reading.time) == (scene.place, scene.time)
    assert scene.things[0].colour in {thing.colour for thing in reading.things}


def test_a_folder_of_weights_is_a_model(tmp_path):
    folder = shutil.copytree(tiny.FOLDER, tmp_path / "mine")
    assert registry.load(str(folder)).name == "mine"
    with pytest.raises(ValueError, match="there is no model"):
        registry.load(str(tmp_path))


@pytest.mark.parametrize("part", ["transformer", "text_encoder", "codec"])
@pytest.mark.parametrize("damage", ["missing", "truncated"])
def test_damaged_weights_are_named(part, damage, tmp_path):
    folder = shutil.copytree(tiny.FOLDER, tmp_path / "tiny")
    weights = folder / part / "diffusion_pytorch_model.safetensors"
    if damage == "missing":
        weights.unlink()
    else:
        weights.write_bytes(weights.read_bytes()[:1000])
    with pytest.raises(ValueError, match=f"the tiny model's {part} .* is missing or damaged"):
        tiny.load(folder)


def test_the_command_line_survives_missing_weights(tmp_path, monkeypatch, capsys):
    entry = registry.MODELS["tiny"]
    monkeypatch.setitem(registry.MODELS, "tiny", replace(entry, load=partial(tiny.load, tmp_path)))
    assert main(["stream", "--chunks", "1"]) == 2
    assert "is missing or damaged" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("prompt", "said"),
    [
        ("ball", "Name a place, a time of day, a colour, a motion too"),
        ("a red ball bouncing over the sea", "Name a time of day too"),
        ("\U0001f534 ball \U0001f305", "does not know “\U0001f534”, “\U0001f305”"),
        ("a red ball bouncing over the sea by day", None),
        ("", None),
    ],
)
def test_a_prompt_of_too_few_words_is_told_what_to_name(prompt, said):
    hints = tiny.hints(prompt)
    assert (said is None and hints == []) or said in hints[0]


def test_a_model_of_the_memory_world_knows_its_own_words():
    prompt = "something hiding over the sea by day, camera left"
    assert "“something”, “hiding”" in tiny.hints(prompt)[0]
    assert not tiny.hints(prompt, vocabulary=memory_words())
    (said,) = tiny.hints("a dragon, camera left", vocabulary=memory_words())
    assert "does not know “dragon”" in said and "; and left, ahead, right, hiding" in said
    assert tiny.hints("camera left", vocabulary=memory_words()) == [
        "Name a place, a time of day too: the tiny model blurs what is left open."
    ]
