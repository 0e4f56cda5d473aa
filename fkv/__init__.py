"""Forcing-KV: a hybrid KV cache for live autoregressive video diffusion.

The library in four lines:

    import fkv

    model = fkv.load("tiny")  # or a model of your own: a diffusers WanPipeline or WanTransformer3DModel
    stream = fkv.Stream(model, fkv.policies.parse("forcing-kv"), "a red ball bouncing over the hills at sunset")
    chunk = stream.step()  # chunk.video is uint8 [frames, height, width, 3]

| name | |
|-|-|
| `load` | a model by name, or from a loaded diffusers pipeline or transformer |
| `Stream`, `Chunk` | one live generation, and what each of its steps returns |
| `policies` | which pages of the cache survive a chunk; `policies.parse("forcing-kv:retention=0.5")` |
| `roles` | which heads are static and which dynamic: load, save, threshold |
| `compare` | several policies on the same noise |

`import fkv` alone is cheap: a name is imported when it is first used, and torch with it. Figures are in `fkv.analysis`.
"""

import os
from importlib import import_module

TYPE_CHECKING = False
if TYPE_CHECKING:
    from . import policies, roles
    from .comparison import compare
    from .models.pipeline import load
    from .stream import Chunk, Stream

__version__ = "0.2.0"
__all__ = ["Chunk", "Stream", "__version__", "compare", "load", "policies", "roles"]

_MODULES = {
    "Chunk": "fkv.stream",
    "Stream": "fkv.stream",
    "compare": "fkv.comparison",
    "load": "fkv.models.pipeline",
}

_HERE = os.path.dirname(__file__)
if not os.path.isdir(os.path.join(_HERE, "analysis")):
    # In a checkout, the folders of fkv.kernels, fkv.analysis and fkv.assets lie beside this one; in a wheel, inside it.
    __path__.append(os.path.dirname(_HERE))

if not TYPE_CHECKING:  # a type checker reads the imports above instead

    def __getattr__(name: str) -> object:
        """Import a public name when it is first used."""
        if name not in __all__:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        if name in _MODULES:
            value = getattr(import_module(_MODULES[name]), name)
        else:
            value = import_module(f"{__name__}.{name}")
        globals()[name] = value
        return value

    def __dir__() -> list[str]:
        return sorted({*globals(), *__all__})
