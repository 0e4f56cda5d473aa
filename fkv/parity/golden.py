"""A folder of golden data: recorded settings and inputs, and the model with its recorded weights."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from fkv.files import read_json
from fkv.models.base import VideoModel
from fkv.models.convert import from_wan_names
from fkv.models.precision import stored_as
from fkv.policies import Policy
from fkv.roles import HeadRoles
from fkv.sampler import Schedule
from fkv.stream import Stream
from fkv.transformer.causal import CausalTransformer

MAX_JSON = 4 << 20  # bytes of meta.json


class ParityError(ValueError):
    """A golden folder is not usable; the message names file and place."""


@dataclass(frozen=True)
class RecordedNoise:
    """Noise of a recorded run.

    Args:
        noise: Initial noise of all frames, [1, frames, channels, height, width].
        renoise: Noise between steps, [chunks, steps - 1, frames per chunk, channels, height, width].
    """

    noise: Tensor
    renoise: Tensor

    def initial(self, chunk: int, shape: Sequence[int]) -> Tensor:
        return self.noise[:, chunk * shape[1] : (chunk + 1) * shape[1]]

    def between(self, chunk: int, step: int, shape: Sequence[int]) -> Tensor:
        return self.renoise[chunk, step][None]


@dataclass
class Golden:
    """A loaded golden folder: recorded settings and inputs, and the model with its recorded weights."""

    folder: Path
    meta: dict[str, Any]
    inputs: dict[str, Tensor]
    model: VideoModel

    def expected(self, name: str) -> dict[str, Tensor]:
        """The recorded tensors in a file of the folder."""
        return _tensors(self.folder / name)

    def json(self, name: str) -> Any:
        return _json(self.folder / name)

    def stream(self, policy: Policy, roles: HeadRoles | None = None) -> Stream:
        """A stream of the recorded model on the recorded noise and prompt."""
        noise = RecordedNoise(self.inputs["noise"].float(), self.inputs["renoise"].float())
        return Stream(
            self.model, policy, roles=roles, noise=noise, text=self.inputs["prompt_embeds"].float(), keep_steps=True
        )


def _tensors(path: Path) -> dict[str, Tensor]:
    try:
        return load_file(path)
    except FileNotFoundError:
        raise ParityError(f"{path} is missing") from None
    except (SafetensorError, OSError) as error:
        raise ParityError(f"{path} cannot be read as safetensors: {error}") from None


def _json(path: Path) -> Any:
    try:
        return read_json(path, MAX_JSON)
    except FileNotFoundError:
        raise ParityError(f"{path} is missing") from None
    except (OSError, ValueError) as error:
        raise ParityError(f"{path} cannot be read as JSON: {error}") from None


def load(folder: str | Path, device: str = "cpu", precision: str = "fp32") -> Golden:
    """Load a golden folder.

    Args:
        folder: With meta.json and safetensors files.
        device: Where the model runs.
        precision: Of the model, a key of `fkv.models.precision.COMPUTE`.

    Raises:
        ParityError: Something is missing or does not fit.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise ParityError(f"{folder} is not a folder with golden data")
    meta = _json(folder / "meta.json")
    try:
        latent = meta["latent"]
        sampler = meta["sampler"]
        transformer = from_wan_names(_tensors(folder / meta.get("weights_file", "weights.safetensors")), meta["model"])
        for name, weight in transformer.named_parameters():
            weight.data = weight.data.to(device, stored_as(transformer, name, precision))
        model = VideoModel(
            "golden",
            CausalTransformer(transformer),
            lambda prompt: torch.empty(0),
            Schedule(tuple(sampler["sigmas"])),
            (latent["channels"], latent["height"], latent["width"]),
            frames_per_chunk=meta["frames_per_chunk"],
        )
    except KeyError as error:
        raise ParityError(f"{folder / 'meta.json'} has no entry {error}") from None
    except (TypeError, ValueError, RuntimeError) as error:
        raise ParityError(f"{folder}: weights and meta.json do not fit: {error}") from None
    return Golden(folder, meta, _tensors(folder / meta.get("inputs_file", "inputs.safetensors")), model)
