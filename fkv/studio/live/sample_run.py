"""A short recorded run of the model, which the page plays until a visitor goes live.

    python -m fkv.studio.live.sample_run --out assets/studio/recorded.bin

records it again, as is needed whenever the weights change: a studio plays only a recording of the very weights that it
runs. The file holds the facts of the run (model, checkpoint, settings, device, date, torch), then the chunks as
`media.protocol` packs them.
"""

from __future__ import annotations

import argparse
import datetime
import sys
from pathlib import Path
from typing import Any

import torch

from fkv.commands.model_options import add_model, load_model
from fkv.models.base import VideoModel
from fkv.models.identity import identity_of
from fkv.parallel.lockstep import device_of
from fkv.search.forbidden import is_guarded
from fkv.stream import check_chunks
from fkv.studio.media.assets import ASSETS
from fkv.studio.media.protocol import join, unpack

from .limits import Limits
from .live import live
from .plan import Plan
from .queue import Queue
from .run import Run

FILE = ASSETS / "recorded.bin"


def record(model: VideoModel, prompt: str, seed: int, chunks: int, a: str = "forcing-kv", b: str = "full") -> bytes:
    """Run two policies side by side, after one chunk to warm up, and pack what the page would be sent.

    Args:
        model: What generates.
        prompt: What the video shows.
        seed: Chooses the noise.
        chunks: Length of the run.
        a: The policy of stream A.
        b: The policy of stream B.

    Raises:
        ValueError: If a setting is out of range or the run fails.
    """
    for length in (1, check_chunks(chunks)):
        plan = Plan.from_form(prompt=prompt, seed=seed, length=length, view="AB", a=a, b=b)
        run = Run(memory=1 << 30)
        *_, last = live(model, plan, run, Queue(), Limits(lead=float("inf"), idle=float("inf")))
        if run.ended != "finished":
            raise ValueError(last["text"])
    facts = {
        "model": model.name,
        "checkpoint": identity_of(model).checkpoint,
        "prompt": plan.prompt,
        "seed": seed,
        "policies": plan.texts,
        "device": device_of(model, len(plan.policies)),
        "date": datetime.date.today().isoformat(),
        "torch": torch.__version__,
    }
    return join(facts, [join(*unpack(chunk)) for chunk in run.chunks()])  # a file a chunk, though streams went apart


def replay(model: VideoModel, file: Path = FILE) -> tuple[Run, dict[str, Any]] | None:
    """A recording as a finished run and the manifest that plays it; None where there is none of these very weights.

    Where a guard is on there is none either: no detector has seen its frames.
    """
    if not file.exists() or is_guarded(model):
        return None
    facts, chunks = unpack(file.read_bytes())
    if (facts["model"], facts["checkpoint"]) != identity_of(model)[:2]:
        return None
    run = Run(memory=sum(map(len, chunks)))
    for chunk in chunks:
        run.put(chunk)
    source = f"recorded on {facts['device']}, {facts['date']}"
    return run, {
        "run": run.key,
        "began": 0,
        "chunks": run.count,
        "state": "recorded",
        "text": f"A recording: “{facts['prompt']}”, the same noise twice: A caches what each head needs, B caches "
        "everything. Press Go live to generate a new video.",
        "source": source,
        "fps": model.fps,
        "link": "",
        "streams": list(facts["policies"]),
        "policies": facts["policies"],
    }


def main(argv: list[str] | None = None) -> int:
    """Record a run. Returns 2, after one sentence, where that is not possible."""
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
        print(f"sample_run: {error}", file=sys.stderr)
        return 2
    print(f"{args.out}: {args.chunks} chunks, {len(data) / 1e6:.2f} MB", file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main())
