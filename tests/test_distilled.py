"""Models that were never distilled are told from those that generate in few steps."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from diffusers import WanTransformer3DModel
from small_wan import wan_pipeline, wan_transformer

import fkv
from fkv.distilled import SHARE, doubt, noise_share

PROMPT = "a red fox trots through a snowy forest"


@torch.no_grad()
def undistilled(video: float = 0.5) -> WanTransformer3DModel:
    """A transformer that answers as a flow-matching model does to noise: the flow to one video, whatever the noise.

    Its blocks add nothing, the patch embedding keeps each value beside its negative, so that the last norm only scales.
    """
    model = wan_transformer(attention_head_dim=32)
    silent = ("to_out.0", "net.2", "time_embedder.linear_2", "proj_out", "patch_embedding")
    for name, value in model.named_parameters():
        if any(part in name for part in silent) or name == "scale_shift_table":
            value.zero_()
    inputs = torch.eye(64)
    model.patch_embedding.weight.copy_(torch.cat([inputs, -inputs]).view(128, 16, 1, 2, 2))
    back = inputs.view(16, 2, 2, 64).permute(1, 2, 0, 3).reshape(64, 64)  # outputs are ordered rows, columns, channels
    model.proj_out.weight.copy_(torch.cat([back, -back], dim=1) / 2)
    model.proj_out.bias.fill_(-video)
    return model


def loaded(transformer: WanTransformer3DModel) -> fkv.VideoModel:
    pipeline = wan_pipeline()
    pipeline.transformer = transformer
    return replace(fkv.load(pipeline, resolution=(64, 96), name="mine"), examples=(PROMPT,))


def test_a_model_whose_first_step_hardly_depends_on_the_noise_is_doubted():
    model = loaded(undistilled())
    assert 0 < noise_share(model, PROMPT) < SHARE / 2
    assert doubt(model).startswith("mine looks as if it was never distilled to a few steps: other noise changes")


@pytest.mark.parametrize("transformer", [wan_transformer(), undistilled(video=0.0)], ids=["random", "noise alone"])
def test_a_model_that_makes_another_video_of_other_noise_is_not(transformer):
    model = loaded(transformer)
    assert noise_share(model, PROMPT) > 0.5 and doubt(model) == ""
