"""Features of frames and what follows from them, on vectors whose answer is known."""

import numpy as np
import pytest
import torch
from transformers import Dinov2Config, Dinov2Model, ViTImageProcessor

from fkv.analysis.features import clip_consistency, identity, layout, load, mean_of, of_clips

EAST, NORTH = np.array([1.0, 0.0]), np.array([0.0, 1.0])


def frames(*levels):
    return np.stack([np.full((24, 40, 3), level, np.uint8) for level in levels])


def test_a_layout_tells_colours_and_places_apart():
    bright, dark = layout(frames(255, 0))
    assert bright @ dark == pytest.approx(-1) and np.linalg.norm(bright) == pytest.approx(1)
    left = frames(255)
    left[:, :, 20:] = 0
    assert layout(left)[0] @ bright == pytest.approx(0, abs=1e-6)


def test_clips_are_compared_with_the_one_before_and_the_first():
    assert clip_consistency(np.array([EAST, EAST, EAST])) == 1
    assert clip_consistency(np.array([EAST, NORTH, NORTH])) == 0.25  # before: 0, 1; first: 0, 0
    assert clip_consistency(np.array([EAST, -EAST])) == 0 and clip_consistency(np.array([EAST])) is None


def test_clips_begin_every_two_seconds():
    seen = []
    of_clips(frames(*range(9)), 2, lambda chosen: seen.extend(chosen[:, 0, 0, 0].tolist()))
    assert seen == [0, 4, 8]


def test_identity_is_likeness_to_ones_own_opening_beyond_that_of_the_prompt():
    assert identity(EAST, EAST, [NORTH, EAST]) == 0.5
    assert identity(NORTH, EAST, [NORTH]) == -1 and identity(EAST, EAST, []) is None
    assert mean_of(np.array([EAST, NORTH])) == pytest.approx([0.5**0.5] * 2)


def test_a_vision_model_gives_features(tmp_path):
    torch.manual_seed(0)
    config = Dinov2Config(hidden_size=16, num_hidden_layers=1, num_attention_heads=2, image_size=28, patch_size=14)
    model = Dinov2Model(config).eval()
    model.save_pretrained(tmp_path)
    prepare = ViTImageProcessor(size={"height": 28, "width": 28})
    prepare.save_pretrained(tmp_path)
    found = load(str(tmp_path))(frames(0, 90, 200))
    pixels = prepare(list(frames(0, 90, 200)), return_tensors="pt")["pixel_values"]
    with torch.inference_mode():
        pooled = model(pixels).pooler_output
    assert found == pytest.approx((pooled / pooled.norm(dim=-1, keepdim=True)).numpy(), abs=1e-5)


def test_features_that_cannot_be_loaded_are_refused(tmp_path):
    with pytest.raises(ValueError, match="cannot load features from .*name a vision model"):
        load(str(tmp_path))
