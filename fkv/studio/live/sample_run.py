"""A short recorded run of the model, which the page plays until a visitor goes live.

    python -m fkv.studio.live.sample_run --out assets/studio/recorded.bin

makes it anew, as is needed whenever the weights change: a studio shows a recording only of the very weights that it runs.
The file is the recording's facts (model, checkpoint, settings, device, date, torch) and then the chunk files of `wire`.
"""

from __future__ import annotations

import argparse
import datetime
import sys
from pathlib import Path
from typing import Any

import torch

from fkv.analysis.profile import checkpoint_hash
from fkv.commands.model_options import add_model, load_model
from fkv.models.base import VideoModel
from fkv.parallel.lockstep import device_of
from fkv.stream import check_chunks
from fkv.studio.media.assets import ASSETS
from fkv.studio.media.protocol import join, unpack

from .live import Plan, live
from .sessions import Limits, Queue, Run

FILE = ASSETS / "recorded.bin"


def record(model: VideoModel, prompt: str, seed: int, chunks: int, a: str = "forcing-kv", b: str = "full") -> bytes:
    """Run a model side by side, after one chunk that warms it up, and keep what the page would be sent.

    Raises ValueError when a setting is out of range or the run breaks off.
    """
    plans = [
        Plan.from_form(prompt=prompt, seed=seed, length=length, view="AB", a=a, b=b)
        for length in (1, check_chunks(chunks))
    ]
    for plan in plans:
        run = Run(memory=1 << 30)
        *_, last = live(model, plan, run, Queue(), Limits(lead=float("inf"), idle=float("inf")))
        if run.ended != "finished":
            raise ValueError(last["text"])
    facts = {
        "model": model.name,
        "checkpoint": checkpoint_hash(model.weights),
        "prompt": plan.prompt,
        "seed": seed,
        "policies": plan.texts,
        "device": device_of(model, len(plan.policies)),
        "date": datetime.date.today().isoformat(),
        "torch": torch.__version__,
    }
    return join(facts, (run.get(number) for number in range(chunks)))


def replay(model: VideoModel, file: Path = FILE) -> tuple[Run, dict[str, Any]] | None:
    """A recording as a finished run and the manifest that plays it; None where there is none of these very weights."""
    if not file.exists():
        return None
    facts, chunks = unpack(file.read_bytes())
    if (facts["model"], facts["checkpoint"]) != (model.name, checkpoint_hash(model.weights)):
        return None
    run = Run(memory=sum(map(len, chunks)))
    for chunk in chunks:
        run.put(chunk)
    source = f"recorded on {facts['device']}, {facts['date']}"
    what = f"“{facts['prompt']}”, twice from the same noise: A keeps what each head uses, B keeps everything"
    text = f"{source[0].upper()}{source[1:]}. {what}. Go live makes a new one."
    return run, {
        "run": run.key,
        "began": 0,
        "chunks": run.count,
        "state": "recorded",
        "text": text,
        "source": source,
        "fps": model.fps,
        "link": "",
        "streams": list(facts["policies"]),
        "policies": facts["policies"],
    }


def main(argv: list[str] | None = None) -> int:
    """Make the recording. Returns 2, after one sentence, where that cannot be done."""
    parser = argparse.ArgumentParser(
        prog="python -m fkv.studio.live.sample_run", description=__doc__.partition("\n")[0]
    )
    add_model(parser)
    parser.add_argument("--prompt", help="what the video shows (default: the model's first example)")
    parser.add_argument("--seed", type=int, default=0, help="default: 0")
    parser.add_argument("--chunks", type=int, default=10, help="how long the recording is (default: 10)")
    parser.add_argument("--out", type=Path, default=FILE, metavar="FILE", help="default: %(default)s")
    args = parser.parse_args(argv)
    try:
        model = load_model(args)
        data = record(model, args.prompt or next(iter(model.examples), ""), args.seed, args.chunks)
        args.out.write_bytes(data)
    except (ValueError, OSError) as error:
        print(f"demo: {error}", file=sys.stderr)
        return 2
    print(f"{args.out}: {args.chunks} chunks, {len(data) / 1e6:.2f} MB", file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main())
