"""How much each segment of a frame looks like the same segment one frame later."""

from torch import Tensor
from torch.nn import functional as F


def segment_similarity(keys: Tensor, segments: int) -> Tensor:
    """Mean cosine similarity of neighbouring frames per segment; low means that something moved.

    keys: [batch, heads, frames, tokens, head_dim], post-RoPE, heads are flattened into one vector per token.
    Returns float32 [frames - 1, segments], averaged over each segment's tokens and over the batch.
    """
    vectors = F.normalize(keys.float().movedim(1, 3).flatten(3), dim=-1, eps=1e-8)
    cosine = (vectors[:, :-1] * vectors[:, 1:]).sum(-1)
    return cosine.unflatten(2, (segments, -1)).mean((0, 3))
