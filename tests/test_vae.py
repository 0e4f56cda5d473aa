"""Streaming decoders: chunk by chunk they give what the whole clip gives."""

from __future__ import annotations

import copy
import json

import numpy as np
import pytest
import torch
from diffusers import AutoencoderKLWan
from safetensors.torch import save_file
from small_wan import wan_2_2_vae

from fkv.models import taehv, vae


@pytest.fixture(scope="module")
def wan_vae() -> AutoencoderKLWan:
    torch.manual_seed(0)
    mean, std = [0.1, -0.2, 0.3, 0.0], [1.5, 2.0, 0.7, 1.0]
    return AutoencoderKLWan(
        base_dim=8, z_dim=4, dim_mult=[1, 2, 2, 2], num_res_blocks=1, latents_mean=mean, latents_std=std
    ).eval()


@pytest.fixture(scope="module")
def small() -> taehv.SmallDecoder:
    torch.manual_seed(0)
    return taehv.SmallDecoder(4, (16, 8, 8, 8)).eval()


def chunked(decode, latents, sizes, axis):
    state, parts = None, []
    for part in latents.split(sizes, axis):
        pixels, state = decode(part, state)
        parts.append(pixels)
    return parts


@torch.inference_mode()
def test_the_vae_streams_what_it_decodes_at_once(wan_vae, tmp_path):
    wan_vae.save_pretrained(tmp_path)
    latents = torch.randn(1, 8, 4, 4, 6)
    shape = (1, -1, 1, 1, 1)
    mean, std = (torch.tensor(v).view(shape) for v in (wan_vae.config.latents_mean, wan_vae.config.latents_std))
    whole = wan_vae.decode(latents.transpose(1, 2) * std + mean).sample
    decoder = vae.load(tmp_path)
    parts = chunked(decoder.decode, latents, [3, 3, 2], 1)
    assert [part.shape[2] for part in parts] == [9, 12, 8]
    assert (torch.cat(parts, 2) - whole).abs().max() < 1e-4 and whole.std() > 0.01
    frames = np.concatenate(chunked(decoder, latents, [3, 3, 2], 1))
    assert frames.shape == (29, 32, 48, 3) and frames.dtype == np.uint8
    expected = ((whole[0].permute(1, 2, 3, 0) + 1) * 127.5).numpy()
    assert np.abs(frames - expected).max() <= 0.51


@torch.inference_mode()
def test_the_vae_of_wan_2_2_streams_what_it_decodes_at_once(tmp_path):
    whole_vae = wan_2_2_vae()
    whole_vae.save_pretrained(tmp_path)
    latents = torch.randn(1, 5, 48, 2, 3)
    whole = whole_vae.decode(latents.transpose(1, 2) * 1.5 + 0.1).sample
    parts = chunked(vae.load(tmp_path).decode, latents, [2, 3], 1)
    assert [part.shape for part in parts] == [(1, 3, 5, 32, 48), (1, 3, 12, 32, 48)]
    assert (torch.cat(parts, 2) - whole).abs().max() < 1e-4 and whole.std() > 0.01


@torch.inference_mode()
def test_weights_stored_channels_last_decode_the_same(wan_vae):
    plain, other = vae.StreamingVae(wan_vae), vae.StreamingVae(copy.deepcopy(wan_vae))
    other.channels_last()
    kernels = [parameter for parameter in other.vae.decoder.parameters() if parameter.dim() == 5]
    assert kernels and all(kernel.is_contiguous(memory_format=torch.channels_last_3d) for kernel in kernels)
    latents = torch.randn(1, 6, 4, 4, 6)
    for ours, theirs in zip(*(chunked(decoder.decode, latents, 3, 1) for decoder in (other, plain)), strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-4, rtol=1e-3)


@torch.inference_mode()
def test_two_streams_of_one_vae_do_not_mix(wan_vae):
    decoder = vae.StreamingVae(wan_vae)
    first, second = torch.randn(2, 1, 6, 4, 4, 6)
    alone = torch.cat(chunked(decoder.decode, first, 3, 1), 2)
    a, state_a = decoder.decode(first[:, :3], None)
    _, state_b = decoder.decode(second[:, :3], None)
    b, _ = decoder.decode(first[:, 3:], state_a)
    assert torch.equal(torch.cat([a, b], 2), alone) and state_b is not state_a


def test_a_damaged_vae_folder_is_refused(tmp_path):
    with pytest.raises(ValueError, match="missing or damaged"):
        vae.load(tmp_path)


@torch.inference_mode()
@pytest.mark.parametrize("sizes", [[3, 3, 1], [1] * 7, [7]])
def test_the_small_decoder_streams_what_it_decodes_at_once(small, sizes):
    latents = torch.randn(7, 4, 4, 6)
    whole, _ = small.decode(latents, None)
    assert whole.shape == (1 + 4 * 6, 3, 32, 48)
    assert (torch.cat(chunked(small.decode, latents, sizes, 0)) - whole).abs().max() < 1e-5


@torch.inference_mode()
def test_the_small_decoder_remembers_one_frame_per_block(small):
    """Against the definition, block by block and frame by frame."""
    latents = torch.randn(3, 4, 4, 6)
    frames = [latents[i : i + 1] for i in range(3)]
    for layer in small.decoder:
        if isinstance(layer, taehv.MemBlock):
            before = [torch.zeros_like(frames[0]), *frames[:-1]]
            frames = [torch.relu(layer.conv(torch.cat(pair, 1)) + pair[0]) for pair in zip(frames, before, strict=True)]
        elif isinstance(layer, taehv.TGrow):
            frames = [part for frame in frames for part in layer.conv(frame).chunk(layer.stride, 1)]
        else:
            frames = [layer(frame) for frame in frames]
    assert torch.allclose(small.decode(latents, None)[0], torch.cat(frames)[3:], atol=1e-6)


def published() -> dict[str, torch.Size]:
    """Names and shapes in the published taew2_1 file, its decoder."""
    shapes = {
        "decoder.1.weight": (256, 16, 3, 3),
        "decoder.1.bias": (256,),
        "decoder.22.weight": (3, 64, 3, 3),
        "decoder.22.bias": (3,),
    }
    for first, wide, narrow, times in ((3, 256, 128, 1), (9, 128, 64, 2), (15, 64, 64, 2)):
        for block in range(first, first + 3):
            for index, into in ((0, 2 * wide), (2, wide), (4, wide)):
                shapes |= {
                    f"decoder.{block}.conv.{index}.weight": (wide, into, 3, 3),
                    f"decoder.{block}.conv.{index}.bias": (wide,),
                }
        shapes |= {
            f"decoder.{first + 4}.conv.weight": (wide * times, wide, 1, 1),
            f"decoder.{first + 5}.weight": (narrow, wide, 3, 3),
        }
    return shapes


def test_published_weights_load(tmp_path):
    torch.manual_seed(0)
    weights = {name: torch.randn(shape) * 0.02 for name, shape in published().items()}
    path = tmp_path / "taew2_1.safetensors"
    save_file(weights | {"encoder.0.weight": torch.ones(2)}, path)
    decoder = taehv.load(path)
    assert {name: tuple(value.shape) for name, value in decoder.state_dict().items()} == published()
    frames, state = decoder(torch.randn(1, 3, 16, 4, 6), None)
    assert frames.shape == (9, 32, 48, 3) and len(state) == 9
    older = weights | {
        "decoder.7.conv.weight": torch.cat([torch.zeros(256, 256, 1, 1), weights["decoder.7.conv.weight"]])
    }
    assert torch.equal(taehv.from_weights(older).decoder[7].conv.weight, weights["decoder.7.conv.weight"])


def test_a_small_decoder_that_cannot_be_read_is_named(tmp_path):
    other, decoder, config = (tmp_path / name for name in ("other.safetensors", "taew2_1.safetensors", "config.json"))
    save_file({"weight": torch.ones(1)}, other)
    with pytest.raises(ValueError, match=r"the small decoder in .*other.safetensors .* choose another --decoder"):
        taehv.load(other)
    save_file(taehv.SmallDecoder().state_dict(), decoder)
    config.write_text("{}")
    with pytest.raises(ValueError, match=r"the VAE's configuration in .*config.json is missing or damaged"):
        taehv.load(decoder, vae_config=config)


def test_weights_of_something_else_are_refused():
    wrong = {name: torch.zeros(shape) for name, shape in published().items() if name != "decoder.22.bias"}
    wrong["decoder.30.weight"] = torch.ones(1)
    with pytest.raises(ValueError, match="1 missing, first decoder.22.bias; 1 unexpected, first decoder.30.weight"):
        taehv.from_weights(wrong)


@torch.inference_mode()
@pytest.mark.parametrize("channels, patch, side", [(16, 1, 8), (48, 2, 16)])
def test_light_decoders_take_latents_as_the_vae_does(channels, patch, side, tmp_path):
    torch.manual_seed(0)
    weights = taehv.SmallDecoder(channels, patch=patch).state_dict()
    save_file(weights, tmp_path / "light.safetensors")
    scale = {"latents_mean": [0.1 * i for i in range(channels)], "latents_std": [1.5] * channels}
    (tmp_path / "config.json").write_text(json.dumps(scale))
    plain = taehv.load(tmp_path / "light.safetensors", "cpu", channels, patch)
    light = taehv.load(tmp_path / "light.safetensors", "cpu", channels, patch, tmp_path / "config.json")
    latents = torch.randn(1, 2, channels, 2, 3)
    mean = torch.tensor(scale["latents_mean"]).view(-1, 1, 1)
    frames, _ = light(latents, None)
    assert frames.shape == (5, 2 * side, 3 * side, 3)
    assert np.array_equal(frames, plain(latents * 1.5 + mean, None)[0]) and frames.std() > 0
    assert not np.array_equal(frames, plain(latents, None)[0])
