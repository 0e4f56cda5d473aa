"""Draw the training curves of the model card.

python -m fkv.training.curves --codec LOG --generator LOG [LOG ...] --out FILE
"""

from __future__ import annotations

import argparse
from pathlib import Path

import matplotlib
import pandas as pd
import seaborn as sns

matplotlib.use("Agg")
import matplotlib.pyplot as plt  # noqa: E402

INPUTS = {"own": "its own last step", "two steps": "a draft of two steps"}


def read(logs: list[Path]) -> pd.DataFrame:
    """Join the logs of consecutive runs into one table; steps and minutes keep counting from run to run."""
    tables: list[pd.DataFrame] = []
    step = 0
    minutes = 0.0
    for log in logs:
        table = pd.read_json(log, lines=True)
        table["step"] += step
        if "minutes" in table:
            table["minutes"] += minutes
            minutes = table["minutes"].iloc[-1]
        step = table["step"].iloc[-1]
        tables.append(table)
    return pd.concat(tables, ignore_index=True)


def draw(codec: Path, generator: list[Path], out: Path) -> None:
    """Draw two charts: the codec's PSNR, and the generator's error of x0 by noise level.

    Args:
        codec: Log of the codec's training.
        generator: Logs of the generator's runs, in order.
        out: PNG to write.
    """
    sns.set_theme(style="whitegrid", context="talk", font_scale=0.7)
    figure, (left, right) = plt.subplots(1, 2, figsize=(14, 4.2))
    sns.lineplot(read([codec]), x="step", y="psnr", ax=left, color="#0072B2")
    left.set(title="Codec: PSNR on training crops, latents noised", xlabel="step", ylabel="dB")
    long = (
        read(generator)
        .drop(columns=["minutes", "loss", "other"], errors="ignore")
        .melt(["step"], var_name="name", value_name="error")
    )
    name = long["name"].str.extract(r"^(?P<input>own|two steps)? ?(?P<sigma>[0-9.]+)$")
    long["input"] = name["input"].map(INPUTS).fillna("true frames, noised")
    long["sigma"] = name["sigma"].astype(float)
    sns.lineplot(long, x="step", y="error", hue="sigma", style="input", ax=right, palette="cividis")
    sns.move_legend(right, "upper left", bbox_to_anchor=(1, 1), frameon=False)
    right.set(title="Generator: squared error of x0 by noise level", xlabel="step", ylabel="", yscale="log")
    figure.tight_layout()
    figure.savefig(out, dpi=110)


def main() -> None:
    """Draw the curves of the logs on the command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--codec", type=Path, required=True)
    parser.add_argument("--generator", type=Path, nargs="+", required=True)
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    draw(args.codec, args.generator, args.out)


if __name__ == "__main__":
    main()
