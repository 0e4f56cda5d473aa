"""The inner loops of the compression core: tensors in, tensors out.

Each file holds one function: its PyTorch definition (the twin) and, where that pays, a Triton kernel.
`fkv.kernels.dispatch` decides which of the two runs.
"""

from pkgutil import extend_path

__path__ = extend_path(__path__, __name__)  # in a checkout, also the folder kernels/ beside fkv/

from .attention import attention, choose_attention
from .dispatch import choices
from .frame_mass import frame_mass
from .head_table import tables_used
from .hybrid_attention import attention_of_rows, attention_over_runs, hybrid_attention
from .linear import linear, multiplies_fp8, packed
from .merged_attention import merged_attention
from .norm_rope_store import norm_rope_store
from .pages import join, put, take
from .rope import apply_rope, rope_freqs_cis
from .segment_similarity import segment_similarity
from .threads import one_thread_between

__all__ = [
    "apply_rope",
    "attention",
    "attention_of_rows",
    "attention_over_runs",
    "choices",
    "choose_attention",
    "frame_mass",
    "hybrid_attention",
    "join",
    "linear",
    "multiplies_fp8",
    "merged_attention",
    "norm_rope_store",
    "one_thread_between",
    "packed",
    "put",
    "rope_freqs_cis",
    "segment_similarity",
    "tables_used",
    "take",
]
