"""What Triton's interpreter does not do as a GPU does: it keeps bfloat16 as bits, cannot multiply them, and cuts where a
GPU rounds and keeps within range. On a GPU these are plain Triton."""

from __future__ import annotations

from .dispatch import INTERPRETED, jit, tl

BY_HAND = tl.constexpr(INTERPRETED) if tl else INTERPRETED


@jit
def product(a, b, acc, PRECISION: tl.constexpr):
    """acc + a @ b, summed in float32."""
    if BY_HAND:
        a, b = a.to(tl.float32), b.to(tl.float32)
    return tl.dot(a, b, acc, input_precision=PRECISION)


@jit
def rounded(x, TYPE: tl.constexpr):
    """float32 to the nearest of TYPE."""
    if BY_HAND:
        if TYPE == tl.bfloat16:
            bits = x.to(tl.uint32, bitcast=True)
            x = (bits + 0x7FFF + ((bits >> 16) & 1)).to(tl.float32, bitcast=True)
        if TYPE == tl.float8e4nv:
            bits = tl.minimum(tl.maximum(x, -448.0), 448.0).to(tl.uint32, bitcast=True)
            x = ((bits + 0x7FFFF + ((bits >> 20) & 1)) & 0xFFF00000).to(tl.float32, bitcast=True)
    return x.to(TYPE)
