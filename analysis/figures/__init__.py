"""Records to figures, pure functions: `name(...)` gives a Plotly figure to look at, `draw_name(...)` a matplotlib figure for
a file, and the table beside them the numbers behind both. `theme` is "light" or "dark"."""

from .atlas import agreement_matrix, atlas_table, draw_role_atlas, released, role_atlas, with_own
from .cost import chunk_cost, cost_table, draw_chunk_cost
from .heads import draw_head_map, head_map, head_table
from .mass import age_bars, age_table, draw_age_bars, draw_frame_map, frame_map, frame_matrix
from .pareto import draw_pareto, pareto, pareto_table
from .stability import draw_head_stability, head_stability, stability_table
from .surgery import draw_surgery, surgery_table
from .xray import cache_xray, draw_cache_xray, page_states, page_table

__all__ = [
    "age_bars",
    "age_table",
    "agreement_matrix",
    "atlas_table",
    "cache_xray",
    "chunk_cost",
    "cost_table",
    "draw_age_bars",
    "draw_cache_xray",
    "draw_chunk_cost",
    "draw_frame_map",
    "draw_head_map",
    "draw_head_stability",
    "draw_pareto",
    "draw_role_atlas",
    "draw_surgery",
    "frame_map",
    "frame_matrix",
    "head_map",
    "head_stability",
    "head_table",
    "page_states",
    "page_table",
    "pareto",
    "pareto_table",
    "released",
    "role_atlas",
    "stability_table",
    "surgery_table",
    "with_own",
]
