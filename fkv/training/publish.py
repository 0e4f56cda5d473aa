"""Write trained weights to the folder that the studio loads.

python -m fkv.training.publish --codec runs/codec/codec --model runs/generator/model

Weights are stored in half precision, which keeps the folder under 40 MB.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from diffusers import WanTransformer3DModel

from fkv.models.codec import TinyCodec
from fkv.models.tiny import FOLDER
from fkv.models.words import WordEncoder


def main() -> None:
    """Publish as the command line says."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--codec", type=Path, required=True)
    parser.add_argument("--model", type=Path, required=True, help="a folder with transformer/ and text_encoder/")
    parser.add_argument("--out", type=Path, default=FOLDER)
    args = parser.parse_args()
    TinyCodec.from_pretrained(args.codec).half().save_pretrained(args.out / "codec")
    WanTransformer3DModel.from_pretrained(args.model / "transformer").half().save_pretrained(args.out / "transformer")
    WordEncoder.from_pretrained(args.model / "text_encoder").half().save_pretrained(args.out / "text_encoder")
    size = sum(file.stat().st_size for file in args.out.rglob("*") if file.is_file())
    print(f"{args.out}: {size / 1e6:.1f} MB")


if __name__ == "__main__":
    main()
