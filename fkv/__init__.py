"""Forcing-KV Studio: a hybrid KV cache for live autoregressive video diffusion, and the studio that shows it."""

__version__ = "0.1.0"
