"""Models in folders of diffusers' form, `config.json` beside one safetensors file, without importing diffusers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, ClassVar, Self

import torch
from safetensors.torch import load_file, save_file
from torch import nn

from .eight_bits import unpacked

CONFIG = "config.json"
WEIGHTS = "diffusion_pytorch_model.safetensors"


class Config(dict[str, Any]):
    """The constructor arguments of a model, also as attributes."""

    def __getattr__(self, name: str) -> Any:
        try:
            return self[name]
        except KeyError:
            raise AttributeError(name) from None


class StoredModel(nn.Module):
    """A model that can be stored in a folder. `config` holds its constructor arguments.

    Importing diffusers takes longer than everything else before a stream's first chunk; its `ModelMixin` reads and
    writes the same folders.
    """

    config: Config
    _keep_in_fp32_modules: ClassVar[tuple[str, ...]] = ()  # parts of names, as diffusers lists them

    @classmethod
    def from_pretrained(cls, folder: str | Path, dtype: torch.dtype = torch.float32) -> Self:
        """Load a model; weights in 8 bits are unpacked.

        Args:
            folder: Its folder.
            dtype: Type of the weights, except those that stay in float32.

        Raises:
            OSError: A file is missing.
            ValueError: A file is damaged.
            RuntimeError: Weights are missing, left over or misshapen.
        """
        folder = Path(folder)
        config = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
        model = cls(**{name: value for name, value in config.items() if not name.startswith("_")})
        for name, buffer in model.named_buffers():
            model.register_buffer(name, buffer.to(dtype), persistent=False)
        weights = unpacked(load_file(folder / WEIGHTS))
        for name, weight in weights.items():
            kept = set(name.split(".")) & set(cls._keep_in_fp32_modules)
            weights[name] = weight.to(torch.float32 if kept else dtype)
        model.load_state_dict(weights, assign=True)
        return model

    def save_pretrained(self, folder: str | Path) -> None:
        """Store the model in a folder, which is created where it is missing."""
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        config = {"_class_name": type(self).__name__, **self.config}
        (folder / CONFIG).write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
        weights = {name: weight.contiguous() for name, weight in self.state_dict().items()}
        save_file(weights, folder / WEIGHTS, metadata={"format": "pt"})
