"""Shared fixtures: the shipped model, a smaller model of the same form, golden data.

Libraries are imported where they are used: pytest's first process, which only hands out files, loads none of them.
"""

from __future__ import annotations

import gc
import json
import os
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    import torch

    from fkv.models.base import VideoModel
    from fkv.models.release import Base
    from tests.load.client import Visitor

# Both are read when torch is loaded.
os.environ.setdefault("GOMP_SPINCOUNT", "1000")
if "PYTEST_XDIST_WORKER" in os.environ:  # several workers share the cores
    os.environ.setdefault("OMP_NUM_THREADS", "1")

GOLDEN = Path(__file__).parent / "golden"
LONG = {"test_gpu.py", "test_notebooks.py", "test_package.py", "test_spread.py", "test_zero.py"}
"""Files that take long for the number of their tests; those that are handed out last should be short."""


def pytest_configure(config: pytest.Config) -> None:
    """Hand files out in the order below: xdist would begin with those of most tests."""
    if hasattr(config.option, "loadscopereorder"):
        config.option.loadscopereorder = False


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put the browser's tests first, then the other long files."""
    items.sort(key=lambda item: (item.path.parent.name != "browser", item.path.name not in LONG))


def pytest_collection_finish() -> None:
    """Leave what is loaded by now out of collections of garbage: a studio collects after every run."""
    gc.collect()
    gc.freeze()


def pytest_sessionfinish() -> None:
    """Let it be collected when the process ends, at which Triton would name it as leaked."""
    gc.unfreeze()


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
    from fkv.models.release import Base

    sizes = json.loads((GOLDEN / "meta.json").read_text())["model"]
    fields = ("num_layers", "num_heads", "dim", "ffn_dim", "in_dim", "text_dim", "text_len", "freq_dim")
    return Base("golden", *(sizes[name] for name in fields))


@pytest.fixture(scope="session")
def plain() -> dict[str, torch.Tensor]:
    """The golden model's weights, under Wan's original names."""
    from safetensors.torch import load_file

    return load_file(GOLDEN / "weights.safetensors")


@pytest.fixture(scope="session")
def shipped() -> VideoModel:
    from fkv.models import tiny

    return tiny.load()


@pytest.fixture(scope="session")
def small() -> VideoModel:
    from tests.small_tiny import small_model

    return small_model()


@pytest.fixture(scope="session")
def toy(small: VideoModel) -> VideoModel:
    """A random model whose pictures have the toy world's size."""
    return replace(small, latent=(4, 12, 20))


@pytest.fixture
def stand_in(monkeypatch: pytest.MonkeyPatch) -> Callable[[VideoModel], None]:
    """Puts a model under the name of the shipped one, which commands load."""
    from fkv.models.registry import MODELS, ModelEntry

    return lambda model: monkeypatch.setitem(MODELS, "tiny", ModelEntry("tiny", "a stand-in", lambda device: model))


@pytest.fixture(scope="module")
def small_by_default(small: VideoModel) -> Iterator[None]:
    """The small model under the name of the shipped one, which commands load."""
    from fkv.models import registry

    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(registry.MODELS, "tiny", registry.ModelEntry("tiny", "a stand-in", lambda device: small))
        yield


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
