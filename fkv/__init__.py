"""Forcing-KV Studio: a hybrid KV cache for live autoregressive video diffusion, and the studio that shows it."""

import os

# How many turns OpenMP's threads wait awake for each other. Its own 300,000 take milliseconds at every loop while another process has a
# processor that they need; with 1,000 the second thread falls asleep between the operations of a pass. Read when torch is loaded.
os.environ.setdefault("GOMP_SPINCOUNT", "3000")

from transformers.utils import import_utils  # noqa: E402

# Our package `kernels` stands before the Hub's library of that name, which transformers would otherwise take it for.
import_utils.is_kernels_available = lambda *versions, **names: False

__version__ = "0.1.0"
