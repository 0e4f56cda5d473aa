"""Keep weights in 8 bits in the repository, for training to continue from on another machine.

python -m fkv.training.pack --model runs/memory/model --out assets/memory/model
python -m fkv.training.pack --unpack --model assets/memory/model --out runs/start    # then train with --from runs/start

Every row of a matrix is whole numbers from -127 to 127 times a scale of its own, so the 9 million weights take 9 MB;
vectors stay in half precision. The rest of a run's state, the weights before averaging and the optimizers' averages,
takes over 100 MB and is not kept: training begins again with a rising learning rate.
"""

from __future__ import annotations

import argparse
import shutil
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from fkv.models.stored import CONFIG, WEIGHTS

PARTS = ("transformer", "text_encoder")
SCALE = ".scale"


def packed(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return weights in 8 bits.

    Args:
        weights: By name, of any floating type. Those with two dimensions or more are packed, row by row of the first.

    Returns:
        The same names, int8 with a scale beside it, or float16.
    """
    found: dict[str, Tensor] = {}
    for name, weight in weights.items():
        if weight.ndim < 2:
            found[name] = weight.half()
            continue
        rows = weight.float().flatten(1)
        scale = rows.abs().amax(1).clamp(min=1e-12) / 127
        found[name] = (rows / scale[:, None]).round().to(torch.int8).view(weight.shape)
        found[name + SCALE] = scale
    return found


def unpacked(found: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return the weights that `packed` stored, in float32."""
    weights: dict[str, Tensor] = {}
    for name, weight in found.items():
        scale = found.get(name + SCALE)
        if not name.endswith(SCALE):
            rows = weight.float()
            weights[name] = rows if scale is None else rows * scale.view(-1, *[1] * (weight.ndim - 1))
    return weights


def main(arguments: list[str] | None = None) -> None:
    """Pack or unpack as the command line says."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--model", type=Path, required=True, help="a folder with transformer/ and text_encoder/")
    parser.add_argument("--out", type=Path, required=True, help="the folder to write, of the same form")
    parser.add_argument("--unpack", action="store_true", help="write weights that training reads")
    args = parser.parse_args(arguments)
    for part in PARTS:
        if not (args.model / part / WEIGHTS).is_file():
            parser.error(f"{args.model / part} has no {WEIGHTS}; name a folder with transformer/ and text_encoder/")
        weights = load_file(args.model / part / WEIGHTS)
        if args.unpack != any(weight.dtype == torch.int8 for weight in weights.values()):
            parser.error(f"the weights in {args.model / part} are {'not' if args.unpack else 'already'} packed")
    for part in PARTS:
        weights = load_file(args.model / part / WEIGHTS)
        (args.out / part).mkdir(parents=True, exist_ok=True)
        shutil.copyfile(args.model / part / CONFIG, args.out / part / CONFIG)
        written = unpacked(weights) if args.unpack else packed(weights)
        save_file(written, args.out / part / WEIGHTS, metadata={"format": "pt"})
    size = sum(file.stat().st_size for file in args.out.rglob("*") if file.is_file())
    print(f"{args.out}: {size / 1e6:.1f} MB")


if __name__ == "__main__":
    main()
