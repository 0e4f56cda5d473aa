"""The seam for models of one's own: a diffusers pipeline or transformer, and a policy, to a stream."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from peft import LoraConfig
from small_wan import wan_2_2_vae, wan_pipeline, wan_transformer, wan_vae

import fkv
from fkv.models import pipeline as seam
from fkv.roles import HeadRoles
from fkv.roles import save as save_roles
from fkv.sampler import Schedule

PROMPT = "a red fox trots through a snowy forest"
ROLES = HeadRoles(4, ((0, 1), (1, 2), (0,)))


def test_a_pipeline_streams_under_a_policy_in_three_lines():
    pipeline = wan_pipeline()
    model = fkv.load(pipeline, resolution=(64, 96), roles=ROLES)
    stream = fkv.Stream(model, fkv.policies.parse("forcing-kv:segments_per_frame=4"), PROMPT)
    chunks = [stream.step() for _ in range(5)]
    assert [chunk.video.shape for chunk in chunks] == [(9, 64, 96, 3)] + [(12, 64, 96, 3)] * 4
    assert chunks[-1].kv_tokens["static"] < chunks[-1].kv_tokens["dynamic"]


def test_the_pipeline_still_has_all_its_parts_afterwards():
    pipeline = wan_pipeline()
    fkv.Stream(fkv.load(pipeline, resolution=(64, 96)), fkv.policies.parse("full"), PROMPT).step()
    assert pipeline.vae.encoder is not None and pipeline.text_encoder is not None
    assert fkv.load(pipeline).transformer.model is pipeline.transformer


@torch.inference_mode()
def test_prompts_are_encoded_as_the_pipeline_encodes_them():
    pipeline = wan_pipeline()
    expected = pipeline.encode_prompt(PROMPT, do_classifier_free_guidance=False, max_sequence_length=512)[0]
    assert torch.equal(fkv.load(pipeline).encode(PROMPT), expected)


def test_a_bare_transformer_streams_latents_from_embeddings():
    model = fkv.load(wan_transformer(), resolution=(64, 96))
    chunk = fkv.Stream(model, fkv.policies.parse("sliding-window"), text=torch.randn(1, 12, 32)).step()
    assert chunk.video is None and chunk.latents.shape == (1, 3, 16, 8, 12) and chunk.latents.isfinite().all()


def test_a_bare_transformer_says_that_it_cannot_encode_a_prompt():
    model = fkv.load(wan_transformer(), resolution=(64, 96))
    with pytest.raises(ValueError, match=r"prompts cannot be encoded; .* embeddings of shape \[1, tokens, 32\]"):
        fkv.Stream(model, fkv.policies.parse("full"), PROMPT).step()
    with pytest.raises(ValueError, match=r"must be \[batch, tokens, 32\], not \[1, 12, 33\]"):
        fkv.Stream(model, fkv.policies.parse("full"), text=torch.randn(1, 12, 33))


def test_a_pipeline_and_its_bare_transformer_generate_the_same_latents():
    pipeline = wan_pipeline()
    whole = fkv.load(pipeline, resolution=(64, 96))
    bare = fkv.load(pipeline.transformer, resolution=(64, 96))
    policy = fkv.policies.parse("full")
    one = fkv.Stream(whole, policy, PROMPT).step()
    other = fkv.Stream(bare, policy, text=whole.encode(PROMPT)).step()
    assert torch.equal(one.latents, other.latents)


def test_a_pipeline_of_wan_2_2_streams():
    pipeline = with_parts(transformer=wan_transformer(in_channels=48, out_channels=48), vae=wan_2_2_vae())
    model = fkv.load(pipeline, resolution=(64, 96), frames_per_chunk=2)
    assert (model.latent, model.fps) == ((48, 4, 6), 24) and fkv.load(pipeline, resolution="720p").latent == (
        48,
        44,
        80,
    )
    stream = fkv.Stream(model, fkv.policies.parse("sliding-window"), PROMPT)
    assert [stream.step().video.shape for _ in range(2)] == [(5, 64, 96, 3), (8, 64, 96, 3)]
    with pytest.raises(ValueError, match="multiples of 32 pixels"):
        fkv.load(pipeline, resolution=(64, 80))


def test_a_policy_that_needs_head_roles_says_so_without_them():
    model = fkv.load(wan_pipeline(), resolution=(64, 96))
    with pytest.raises(ValueError, match="'forcing-kv' needs head roles; profile the model"):
        fkv.Stream(model, fkv.policies.parse("forcing-kv"), PROMPT)


def test_size_schedule_chunks_and_roles_can_be_chosen(tmp_path):
    save_roles(ROLES, tmp_path / "roles.json")
    model = fkv.load(
        wan_transformer(),
        resolution="720p",
        schedule=Schedule.even(2),
        frames_per_chunk=1,
        roles=tmp_path / "roles.json",
        name="mine",
    )
    assert model.latent == (16, 90, 160) and model.schedule.sigmas == (1.0, 0.5) and model.frames_per_chunk == 1
    assert model.roles == ROLES and model.policies == ("forcing-kv", "full") and model.name == "mine"
    assert fkv.load(wan_transformer()).latent == (16, 60, 104)


def test_a_stream_says_the_same_whether_the_model_is_named_or_handed_over(shipped):
    named = fkv.load("tiny", device="cpu")
    one, other = (
        fkv.Stream(model, fkv.policies.parse("forcing-kv"), "a red ball", seed=2).step() for model in (named, shipped)
    )
    assert np.array_equal(one.video, other.video)


def offloaded():
    pipeline = wan_pipeline()
    pipeline.transformer._hf_hook = object()
    return pipeline


def adapted():
    transformer = wan_transformer()
    transformer.add_adapter(LoraConfig(r=2, target_modules=["to_q"]))
    return transformer


def quantized():
    transformer = wan_transformer()
    transformer.is_quantized = True
    return transformer


def with_parts(**parts):
    pipeline = wan_pipeline()
    pipeline.register_modules(**parts)
    return pipeline


def other_vae():
    vae = wan_vae()
    vae.register_to_config(z_dim=48)
    return vae


@pytest.mark.parametrize(
    "make, message",
    [
        (lambda: 3, "expected the name of a model, a WanTransformer3DModel or a pipeline with one, not int"),
        (lambda: with_parts(transformer=None), "not WanPipeline without a transformer"),
        (lambda: with_parts(transformer_2=wan_transformer()), "two transformers"),
        (lambda: with_parts(transformer=wan_transformer(text_dim=48)), "gives 32 values per token, the transformer"),
        (lambda: with_parts(vae=other_vae()), "the VAE decodes 48 channels, the transformer generates 16"),
        (lambda: with_parts(vae=torch.nn.Identity()), "the pipeline's VAE is not Wan's"),
        (lambda: wan_transformer(in_channels=36), "36 input channels for latents of 16, as image-to-video"),
        (lambda: wan_transformer().to("meta"), "the transformer is offloaded"),
        (offloaded, r"call remove_all_hooks\(\)"),
        (adapted, r"adapters that are not merged into its weights; call fuse_lora\(\)"),
        (quantized, "quantized"),
    ],
)
def test_a_model_that_cannot_be_streamed_is_refused_in_a_sentence(make, message):
    with pytest.raises(ValueError, match=message):
        fkv.load(make())


@pytest.mark.parametrize(
    "options, message",
    [
        ({"resolution": "4k"}, "resolution must be 480p, 720p, 1080p or height and width in pixels, not '4k'"),
        ({"resolution": (70, 96)}, "multiples of 16 pixels, not 70 x 96"),
        ({"resolution": (0, 96)}, "multiples of 16 pixels"),
        ({"resolution": 480}, "or height and width in pixels, not 480"),
        ({"resolution": (480,)}, r"or height and width in pixels, not \(480,\)"),
        ({"resolution": (64.0, 96.0)}, r"or height and width in pixels, not \(64.0, 96.0\)"),
        ({"frames_per_chunk": 0}, "frames_per_chunk must be a whole number of at least 1, not 0"),
        ({"frames_per_chunk": 2.5}, "frames_per_chunk must be a whole number of at least 1, not 2.5"),
        ({"roles": HeadRoles(2, ((0,),))}, "for 1 layers of 2 heads, the model has 3 of 4"),
        ({"roles": "no.json"}, "cannot read head roles from no.json"),
        ({"roles": [[0]]}, "roles must be HeadRoles or the path of a file of them, not a list"),
    ],
)
def test_an_option_out_of_range_is_refused_in_a_sentence(options, message):
    with pytest.raises(ValueError, match=message):
        fkv.load(wan_transformer(), **options)


def test_an_adapter_that_is_merged_changes_the_stream():
    pipeline = wan_pipeline()
    plain = fkv.Stream(fkv.load(pipeline, resolution=(64, 96)), fkv.policies.parse("full"), PROMPT).step()
    pipeline.transformer.add_adapter(LoraConfig(r=2, target_modules=["to_q"], init_lora_weights=False))
    pipeline.fuse_lora(components=["transformer"])
    pipeline.unload_lora_weights()
    merged = fkv.Stream(fkv.load(pipeline, resolution=(64, 96)), fkv.policies.parse("full"), PROMPT).step()
    assert not torch.equal(plain.latents, merged.latents)


def test_the_options_of_a_named_model_are_those_of_its_setup():
    with pytest.raises(ValueError, match="there is no model 'sora'"):
        fkv.load("sora")
    assert seam.load("tiny", device="cpu", precision="fp32").transformer.dtype == torch.float32
