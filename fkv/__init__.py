"""Forcing-KV Studio: a hybrid KV cache for live autoregressive video diffusion, and the studio that shows it."""

from pathlib import Path

__version__ = "0.2.0"

_HERE = Path(__file__).parent
if not (_HERE / "kernels").is_dir():
    # In a checkout, the folders of fkv.kernels, fkv.analysis and fkv.assets lie beside this one; in a wheel, inside it.
    __path__.append(str(_HERE.parent))
