"""From records to numbers to figures: quality measures, evaluation, head profiles, and views for notebooks.

| name | |
|-|-|
| `xray` | what each chunk could attend to, page by page |
| `cost` | bytes of K and V and seconds, chunk by chunk |
| `head_map` | which heads are static and which dynamic |
| `frame_mass` | where one head looks, frame by frame |
| `mass_by_age` | how old the frames are that heads look at |
| `stability` | whether head roles are the same for every prompt and pass |

`import fkv.analysis` alone is cheap: a view imports Plotly and matplotlib when it is first used.
"""

from importlib import import_module

TYPE_CHECKING = False
if TYPE_CHECKING:
    from .views import cost, frame_mass, head_map, mass_by_age, stability, xray

__all__ = ["cost", "frame_mass", "head_map", "mass_by_age", "stability", "xray"]

if not TYPE_CHECKING:  # a type checker reads the import above instead

    def __getattr__(name: str) -> object:
        """Import a view when it is first used."""
        if name not in __all__:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        return getattr(import_module(f"{__name__}.views"), name)

    def __dir__() -> list[str]:
        return sorted({*globals(), *__all__})
