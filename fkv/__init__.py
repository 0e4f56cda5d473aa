"""Forcing-KV Studio: a hybrid KV cache for live autoregressive video diffusion, and the studio that shows it."""

from transformers.utils import import_utils

# Our package `kernels` stands before the Hub's library of that name, which transformers would otherwise take it for.
import_utils.is_kernels_available = lambda *versions, **names: False

__version__ = "0.1.0"
