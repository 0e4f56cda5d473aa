"""The inner loops of the compression core: pure tensors in, tensors out. Each file holds one function."""

from .frame_mass import frame_mass
from .rope import apply_rope, rope_table
from .segment_similarity import segment_similarity

__all__ = ["apply_rope", "frame_mass", "rope_table", "segment_similarity"]
