"""Keep weights in 8 bits in the repository, where the studio loads them and training continues from them.

python -m fkv.training.pack --model runs/memory/model --out assets/tiny-memory
python -m fkv.training.pack --unpack --model assets/tiny-memory --out runs/start    # then train with --from runs/start

The 9 million weights take 9 MB (`fkv.models.eight_bits`). The rest of a run's state, the weights before averaging and
the optimizers' averages, takes over 100 MB and is not kept: training begins again with a rising learning rate.
"""

from __future__ import annotations

import argparse
import shutil
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

from fkv.models.eight_bits import packed, unpacked
from fkv.models.stored import CONFIG, WEIGHTS

PARTS = ("transformer", "text_encoder")


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
        written = (
            {name: weight.float() for name, weight in unpacked(weights).items()} if args.unpack else packed(weights)
        )
        save_file(written, args.out / part / WEIGHTS, metadata={"format": "pt"})
    size = sum(file.stat().st_size for file in args.out.rglob("*") if file.is_file())
    print(f"{args.out}: {size / 1e6:.1f} MB")


if __name__ == "__main__":
    main()
