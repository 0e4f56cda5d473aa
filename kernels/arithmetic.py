"""Arithmetic that Triton's interpreter does differently from a GPU; on a GPU these functions are plain Triton.

The interpreter stores bfloat16 as bits and cannot multiply it. Where a GPU rounds to the nearest number and saturates,
the interpreter truncates.
"""

from __future__ import annotations

from .dispatch import INTERPRETED, constant, jit, tl

IN_INTERPRETER = constant(INTERPRETED)


@jit
def product(a, b, acc, PRECISION: tl.constexpr):
    """Return acc + a @ b, summed in float32."""
    if IN_INTERPRETER:
        a = a.to(tl.float32)
        b = b.to(tl.float32)
    return tl.dot(a, b, acc, input_precision=PRECISION)


@jit
def rounded(x, TYPE: tl.constexpr):
    """Round float32 to the nearest number of TYPE."""
    if IN_INTERPRETER:
        if TYPE == tl.bfloat16:
            # Round to even by adding half of the 16 bits that the conversion cuts off.
            bits = x.to(tl.uint32, bitcast=True)
            x = (bits + 0x7FFF + ((bits >> 16) & 1)).to(tl.float32, bitcast=True)
        if TYPE == tl.float8e4nv:
            # Saturate at +-448, then round to even at the 3 bits of mantissa that are left.
            bits = tl.minimum(tl.maximum(x, -448.0), 448.0).to(tl.uint32, bitcast=True)
            x = ((bits + 0x7FFFF + ((bits >> 20) & 1)) & 0xFFF00000).to(tl.float32, bitcast=True)
    return x.to(TYPE)
