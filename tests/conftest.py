"""Shared fixtures: the shipped model, a smaller model of the same form, golden data."""

from __future__ import annotations

import os

os.environ.setdefault("GOMP_SPINCOUNT", "1000")  # several workers share the cores; read when torch is loaded

import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import torch
from diffusers import WanTransformer3DModel
from safetensors.torch import load_file

from fkv.models import tiny
from fkv.models.base import VideoModel
from fkv.models.codec import TinyCodec
from fkv.models.release import Base
from fkv.models.words import WordEncoder
from fkv.roles import HeadRoles
from fkv.sampler import Schedule
from fkv.transformer.causal import CausalTransformer

if TYPE_CHECKING:
    from tests.load.client import Visitor

GOLDEN = Path(__file__).parent / "golden"


@pytest.fixture(scope="session", autouse=True)
def folder(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Create pytest's base folder before a studio changes the default folder for temporary files."""
    tmp_path_factory.getbasetemp()


@pytest.fixture(scope="session")
def golden() -> Path:
    return GOLDEN


@pytest.fixture(scope="session")
def base() -> Base:
    """The golden model's architecture, as of a released checkpoint."""
    sizes = json.loads((GOLDEN / "meta.json").read_text())["model"]
    fields = ("num_layers", "num_heads", "dim", "ffn_dim", "in_dim", "text_dim", "text_len", "freq_dim")
    return Base("golden", *(sizes[name] for name in fields))


@pytest.fixture(scope="session")
def plain() -> dict[str, torch.Tensor]:
    """The golden model's weights, under Wan's original names."""
    return load_file(GOLDEN / "weights.safetensors")


@pytest.fixture(scope="session")
def shipped() -> VideoModel:
    return tiny.load()


@pytest.fixture(scope="session")
def small() -> VideoModel:
    return small_model()


@pytest.fixture(scope="module")
def address(small: VideoModel) -> Iterator[str]:
    """The address of a studio in this process, with a short patience."""
    from fkv.studio.live.limits import Limits
    from tests.load.inside import served

    with served(small, Limits(lead=0.2, idle=10)) as url:
        yield url


@pytest.fixture(scope="module")
def visitor(address: str) -> Iterator[Visitor]:
    """A visitor of that studio."""
    from tests.load.client import Visitor

    with Visitor(address) as one:
        yield one


def small_model() -> VideoModel:
    """A model with random weights and the shipped model's structure: 3 layers of 4 heads, frames of 2 x 6 tokens."""
    torch.manual_seed(0)
    words, codec = WordEncoder(dim=16), TinyCodec(latent_channels=4, width=8, depth=1)
    words.eval()
    transformer = WanTransformer3DModel(
        num_attention_heads=4,
        attention_head_dim=12,
        in_channels=12,
        out_channels=4,
        text_dim=16,
        freq_dim=32,
        ffn_dim=64,
        num_layers=3,
    )
    roles = HeadRoles(4, ((0, 1), (1, 2), (0,)))
    return VideoModel(
        "small",
        CausalTransformer(transformer),
        lambda prompt: words([prompt]).detach(),
        Schedule.even(2),
        (4, 4, 12),
        tiny.StreamingCodec(codec),
        roles,
        hints=tiny.hints,
    )
