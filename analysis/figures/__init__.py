"""Records to figures: each class computes a table and draws it by Plotly to look at and by matplotlib for files.

`HeadMap(roles).plotly("dark")`, `.matplotlib()`, `.table`, `.to_html()` and `.save(folder)` are the forms of one
figure; see `View`. A new figure is a subclass of `View` in a file of its own.
"""

from .atlas import RoleAtlas, agreement_matrix
from .board import Board
from .cost import ChunkCost
from .heads import HeadMap
from .mass import AgeBars, FrameMap, age_table, frame_matrix
from .pareto import Pareto
from .recall import Recall
from .stability import HeadStability
from .surgery import SurgeryEffects
from .view import View
from .xray import CacheXray, page_kinds, page_table

__all__ = [
    "AgeBars",
    "Board",
    "CacheXray",
    "ChunkCost",
    "FrameMap",
    "HeadMap",
    "HeadStability",
    "Pareto",
    "Recall",
    "RoleAtlas",
    "View",
    "age_table",
    "agreement_matrix",
    "SurgeryEffects",
    "frame_matrix",
    "page_kinds",
    "page_table",
]
