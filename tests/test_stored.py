"""Models without diffusers: the same weights in the same folders, and the same passes."""

from __future__ import annotations

import json

import pytest
import torch
from diffusers import WanTransformer3DModel
from small_wan import wan_transformer

from fkv.cache import KVCache
from fkv.models.codec import TinyCodec
from fkv.models.stored import StoredModel
from fkv.models.wan_transformer import WanTransformer
from fkv.models.words import WordEncoder
from fkv.transformer.causal import CausalTransformer


def flow(transformer):
    """The result of a pass over a chunk of noise."""
    causal = CausalTransformer(transformer)
    geometry = causal.geometry(4, 12, 3)
    cache = KVCache(geometry, geometry.every_head, dtype=causal.dtype)
    cache.begin((0, 1, 2))
    noise = torch.Generator().manual_seed(0)
    latents, text = torch.randn(1, 3, 16, 4, 12, generator=noise), torch.randn(1, 5, 32, generator=noise)
    return causal(latents, 937.5, causal.prepare_text(text), cache, causal.rope((0, 1, 2), 2, 6))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_transformer_is_that_of_diffusers_bit_by_bit(dtype, tmp_path):
    wan_transformer().save_pretrained(tmp_path)
    theirs = WanTransformer3DModel.from_pretrained(tmp_path, torch_dtype=dtype)
    ours = WanTransformer.from_pretrained(tmp_path, dtype)
    weights = theirs.state_dict()
    assert ours.state_dict().keys() == weights.keys()
    assert all(weight.dtype == weights[name].dtype for name, weight in ours.state_dict().items())
    wanted = json.loads((tmp_path / "config.json").read_text())
    assert json.loads(json.dumps(ours.config)) == {name: wanted[name] for name in ours.config}
    assert torch.equal(flow(ours), flow(theirs))


def test_diffusers_loads_what_was_stored(tmp_path):
    wan_transformer().save_pretrained(tmp_path / "theirs")
    WanTransformer.from_pretrained(tmp_path / "theirs").save_pretrained(tmp_path / "ours")
    one, other = (WanTransformer3DModel.from_pretrained(tmp_path / name).state_dict() for name in ("theirs", "ours"))
    assert all(torch.equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize(
    "model",
    [TinyCodec(4, 8, 1, [0.1] * 4, [2.0] * 4), WordEncoder(16, 8, ["red", "ball"])],
    ids=lambda model: type(model).__name__,
)
def test_a_model_is_stored_whole(model: StoredModel, tmp_path):
    model.save_pretrained(tmp_path)
    again = type(model).from_pretrained(tmp_path)
    assert again.config == model.config and again.state_dict().keys() == model.state_dict().keys()
    assert all(torch.equal(weight, again.state_dict()[name]) for name, weight in model.state_dict().items())
    assert all(torch.equal(a, b) for a, b in zip(model.buffers(), again.buffers(), strict=True))
    half = type(model).from_pretrained(tmp_path, torch.bfloat16)
    assert {tensor.dtype for tensor in (*half.parameters(), *half.buffers())} == {torch.bfloat16}


def test_another_architecture_is_refused_in_a_sentence(tmp_path):
    wan_transformer().save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config | {"image_dim": 1280}))
    with pytest.raises(ValueError, match="image_dim=1280, which is not of Wan's text-to-video"):
        WanTransformer.from_pretrained(tmp_path)
