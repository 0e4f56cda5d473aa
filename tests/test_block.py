"""Our pass over the blocks against the library's own, and compiled against eager."""

from __future__ import annotations

import pytest
import torch
from diffusers import WanTransformer3DModel

from fkv import policies
from fkv.cache import KVCache
from fkv.commands.main import main
from fkv.kernels import multiplies_fp8
from fkv.kernels.onednn import computes_bfloat16
from fkv.models.precision import stored_as, use_fp8
from fkv.stream import Stream
from fkv.transformer.causal import MAX_TIMESTEPS, CausalTransformer, check_compiler

fp8_products = pytest.mark.skipif(not multiplies_fp8("cpu"), reason="this CPU does not multiply 8-bit numbers")
LATENTS, WORDS = torch.randn(2, 3, 4, 4, 6, generator=torch.Generator().manual_seed(1)), torch.ones(2, 5, 8).cumsum(1)


SIZES = dict(
    num_attention_heads=2,
    attention_head_dim=16,
    in_channels=4,
    out_channels=4,
    text_dim=8,
    freq_dim=16,
    ffn_dim=32,
    num_layers=2,
)


def transformer(precision: str = "fp32") -> WanTransformer3DModel:
    torch.manual_seed(0)
    model = WanTransformer3DModel(**SIZES).eval()
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(False).data = (parameter + 0.1 * torch.randn_like(parameter)).to(
            stored_as(model, name, precision)
        )
    use_fp8(model, precision)
    return model


def by_library(model: WanTransformer3DModel, timestep: float) -> torch.Tensor:
    dtype = model.proj_out.weight.dtype
    return (
        model(LATENTS.transpose(1, 2).to(dtype), torch.full((2,), timestep), WORDS.to(dtype))
        .sample.transpose(1, 2)
        .float()
    )


def by_us(streamed: CausalTransformer, timestep: float) -> torch.Tensor:
    geometry = streamed.geometry(4, 6, 3, batch=2)
    cache = KVCache(geometry, geometry.every_head, dtype=streamed.dtype)
    cache.begin((0, 1, 2))
    return streamed(LATENTS, timestep, streamed.prepare_text(WORDS), cache, streamed.rope((0, 1, 2), 2, 3))


@torch.inference_mode()
def test_an_opening_chunk_is_what_the_library_makes_of_it_at_every_timestep():
    model = transformer()
    streamed = CausalTransformer(model)
    for timestep in 2 * [1000 / (1 + step) for step in range(MAX_TIMESTEPS + 1)]:
        torch.testing.assert_close(by_us(streamed, timestep), by_library(model, timestep), atol=2e-6, rtol=1e-5)


@pytest.mark.parametrize("patch", [(2, 2, 2), (1, 2, 1)])
def test_patches_that_are_not_squares_of_one_frame_are_refused(patch):
    with pytest.raises(
        ValueError, match=f"squares of one latent frame, this model's are {patch[0]} x {patch[1]} x {patch[2]}"
    ):
        CausalTransformer(WanTransformer3DModel(**SIZES, patch_size=patch))


@torch.inference_mode()
@pytest.mark.parametrize("precision", ["bf16", "fp8", pytest.param("fp8-fast", marks=fp8_products)])
def test_rounded_weights_err_no_more_than_in_the_library(precision):
    model, exact = transformer(precision), transformer()
    exact.load_state_dict({name: tensor.float() for name, tensor in model.state_dict().items()})
    wanted = by_library(exact, 500.0)
    ours, theirs = (
        (made - wanted).norm() / wanted.norm()
        for made in (by_us(CausalTransformer(model), 500.0), by_library(model, 500.0))
    )
    assert ours < max(1.1 * theirs, 4e-3) < 0.03


def test_compiled_blocks_make_the_same_stream_without_compiling_again(small, monkeypatch):
    try:
        check_compiler()
    except ValueError as missing:
        pytest.skip(str(missing))
    eager, compiled = (Stream(small, policies.make("full"), "a red ball", decode=False) for _ in range(2))
    expected = [eager.step().latents for _ in range(4)]
    for half in ("_pre_attention", "_post_attention"):
        monkeypatch.setattr(small.transformer, half, getattr(small.transformer, half))  # given back after the test
    small.transformer.compile()
    for chunk, latents in enumerate(expected):
        with torch.compiler.set_stance("fail_on_recompile" if chunk else "default"):
            torch.testing.assert_close(compiled.step().latents, latents, atol=1e-5, rtol=1e-4)


def test_a_model_on_a_cpu_has_chosen_its_attention_before_it_streams(monkeypatch):
    chosen = []
    monkeypatch.setattr("fkv.transformer.causal.choose_attention", lambda *of: chosen.append(of))
    CausalTransformer(transformer("bf16"))
    CausalTransformer(transformer().to("meta"))
    assert chosen == [(16, torch.bfloat16)]


def test_weights_are_packed_for_eager_blocks_alone(monkeypatch):
    monkeypatch.setattr("fkv.transformer.causal.check_compiler", lambda: None)
    ours = CausalTransformer(transformer("bf16"))
    order = (tuple(range(ours.heads)),) * ours.layers
    assert ours.weights_for(order)[0].up_proj.is_mkldnn == computes_bfloat16()
    ours.compile()
    assert not ours.weights_for(order)[0].up_proj.is_mkldnn


def test_a_missing_compiler_is_named(monkeypatch, capsys):
    monkeypatch.setenv("CXX", "no-such-compiler")
    assert main(["stream", "--compile", "--chunks", "1"]) == 2
    assert "--compile needs a C++ compiler and no-such-compiler is not there" in capsys.readouterr().err
