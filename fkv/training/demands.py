"""Does a prompt say which strategy of `window-kv` suits it? Measured labels, a classifier, and the majority class.

WindowKV classes prompts into those that ask for a few places (`max`) and those that ask for many (`average`). Here a
prompt's label is the strategy that stays nearer to the frames of `full`, over at least `LEAST_SEEDS` seeds; prompts
without a clear label are left out. The classifier is a logistic regression on the mean embedding of the prompt by the
model's own encoder, judged on prompts that it was not fitted to.

python -m fkv.training.demands --prompts 48 --seeds 8 --seconds 20 --json assets/benchmarks/sources-demands.json

The record is written after every prompt, and a later run with the same settings continues from it, also on another
machine: all streams of a prompt are generated on one.
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tqdm import tqdm

from fkv import policies
from fkv.comparison import interleave, psnr
from fkv.files import read_json
from fkv.models import registry
from fkv.models.base import VideoModel
from fkv.report import device_name
from fkv.stream import Stream
from fkv.world.captions import caption, sample_scene

STRATEGIES = ("max", "average")
LEAST_SEEDS = 8  # labels of fewer streams are noise
FOLDS = 4
FIRST_PROMPT = 2**41  # scenes of these seeds are in no other set
MAX_RECORD = 1 << 20  # bytes of an earlier record


def measure(
    model: VideoModel, prompt: str, seeds: int, chunks: int, budget: float, progress: Callable[[], object]
) -> list[float]:
    """How much nearer to `full` the strategy `max` is than `average`, in decibels, for every seed.

    Args:
        model: What generates; it has a decoder.
        prompt: The prompt.
        seeds: How many seeds, counted from 0.
        chunks: Length of the streams.
        budget: `budget_frames` of both.
        progress: Called after every chunk.
    """
    texts = ["full", *(f"window-kv:strategy={strategy},budget_frames={budget}" for strategy in STRATEGIES)]
    found = []
    for seed in range(seeds):
        streams = [Stream(model, policies.parse(text), prompt, seed) for text in texts]
        videos: list[list[np.ndarray]] = [[] for _ in texts]
        for which, chunk in interleave(streams, chunks):
            if chunk.video is None:
                raise ValueError(f"model {model.name!r} has no decoder, so there are no frames to compare")
            videos[which].append(chunk.video)
            progress()
        full, most, average = (np.concatenate(each) for each in videos)
        pair = [psnr(full, most), psnr(full, average)]
        found.append(0.0 if None in pair else float(pair[0]) - float(pair[1]))  # type: ignore[arg-type]
    return found


def label(gains: Sequence[float]) -> str | None:
    """The strategy that is nearer to full by more than two standard errors, None where neither is."""
    mean = statistics.mean(gains)
    error = statistics.stdev(gains) / len(gains) ** 0.5
    if abs(mean) <= 2 * error:
        return None
    return STRATEGIES[0] if mean > 0 else STRATEGIES[1]


DECAY = 1.0  # weight of the squared coefficients


def fit(features: np.ndarray, labels: np.ndarray) -> Callable[[np.ndarray], np.ndarray]:
    """Fit a logistic regression.

    Args:
        features: [prompts, dimensions].
        labels: 0 or 1, [prompts].

    Returns:
        A function from features to the class of each prompt.
    """
    mean, scale = features.mean(0), features.std(0) + 1e-6
    inputs = torch.from_numpy((features - mean) / scale)
    targets = torch.from_numpy(labels.astype(np.float64))
    weight = torch.zeros(features.shape[1] + 1, dtype=torch.float64, requires_grad=True)
    optimiser = torch.optim.LBFGS([weight], max_iter=100)

    def loss() -> torch.Tensor:
        optimiser.zero_grad()
        logits = inputs @ weight[1:] + weight[0]
        value = torch.nn.functional.binary_cross_entropy_with_logits(logits, targets, reduction="sum")
        value = value + DECAY / 2 * weight[1:].square().sum()
        value.backward()
        return value

    optimiser.step(loss)
    found = weight.detach().numpy()
    return lambda given: ((given - mean) / scale @ found[1:] + found[0] > 0).astype(int)


def judge(features: np.ndarray, labels: np.ndarray) -> dict[str, Any]:
    """Accuracy on prompts that were not fitted, of the classifier and of the majority of the others.

    Args:
        features: [prompts, dimensions].
        labels: 0 or 1, [prompts].

    Returns:
        `classifier` and `majority`, shares of right answers over `FOLDS` folds; `error`, the standard error of their
        difference; `ships`, whether the classifier is better by more than two standard errors.
    """
    right = np.zeros((2, len(labels)))
    for fold in range(FOLDS):
        held = np.arange(len(labels)) % FOLDS == fold
        if not held.any() or held.all():
            continue
        rest = labels[~held]
        right[0, held] = fit(features[~held], rest)(features[held]) == labels[held]
        right[1, held] = labels[held] == (2 * rest.sum() > len(rest))
    gain = right[0] - right[1]
    error = float(gain.std(ddof=1) / len(gain) ** 0.5) if len(gain) > 1 else float("nan")
    return {
        "classifier": float(right[0].mean()),
        "majority": float(right[1].mean()),
        "error": error,
        "ships": bool(gain.mean() > 2 * error),
    }


Row = dict[str, Any]
"""A prompt, its mean gain of `max` in decibels, its label, and the device on which its streams were compared."""


def study(
    model: VideoModel,
    prompts: int,
    seeds: int,
    seconds: float,
    budget: float,
    known: Sequence[Row] = (),
    seen: Callable[[list[Row]], object] = lambda rows: None,
) -> dict[str, Any]:
    """Measure labels and judge a classifier.

    Args:
        model: What generates.
        prompts: How many prompts.
        seeds: Seeds of each, at least `LEAST_SEEDS`.
        seconds: Length of the streams.
        budget: `budget_frames` of both strategies.
        known: Rows of the first prompts, from an earlier study with the same settings.
        seen: Called with all rows so far after every prompt.

    Returns:
        `prompts`, a row for each; `judged`, see `judge`, or None where fewer
        than `FOLDS` prompts have a label.

    Raises:
        ValueError: There are too few seeds or prompts.
    """
    if seeds < LEAST_SEEDS:
        raise ValueError(f"labels need at least {LEAST_SEEDS} seeds, not {seeds}; single streams are noise")
    if prompts < FOLDS:
        raise ValueError(f"{FOLDS} folds need at least {FOLDS} prompts, not {prompts}")
    chunks = max(1, round(seconds / model.chunk_seconds))
    texts = [caption(sample_scene(random.Random(FIRST_PROMPT + index))) for index in range(prompts)]
    rows = list(known[:prompts])
    each = seeds * chunks * (len(STRATEGIES) + 1)
    with tqdm(total=prompts * each, initial=len(rows) * each, unit="chunk", file=sys.stderr) as bar:
        for text in texts[len(rows) :]:
            gains = measure(model, text, seeds, chunks, budget, bar.update)
            row = {"prompt": text, "gain_db": statistics.mean(gains), "label": label(gains)}
            rows.append(row | {"device": device_name(model.device)})
            seen(rows)
    known = [row for row in rows if row["label"]]
    labels = np.array([STRATEGIES.index(str(row["label"])) for row in known])
    features = [model.encode(str(row["prompt"])).float().mean((0, 1)).cpu().double().numpy() for row in known]
    judged = judge(np.stack(features), labels) if len(known) >= FOLDS else None
    return {"prompts": rows, "judged": judged}


def sentence(found: dict[str, Any]) -> str:
    """What a study found, in words."""
    rows, judged = found["prompts"], found["judged"]
    counts = {name: sum(row["label"] == name for row in rows) for name in STRATEGIES}
    labelled = f"of {len(rows)} prompts {counts['max']} are nearer to full with max, {counts['average']} with average"
    if judged is None:
        return f"{labelled}; too few have a clear label to judge a classifier"
    verdict = "beats" if judged["ships"] else "does not beat"
    return (
        f"{labelled}; on prompts that were not fitted the classifier is right for {judged['classifier']:.0%}, the "
        f"majority class for {judged['majority']:.0%} (standard error of the difference {judged['error']:.0%}): "
        f"it {verdict} the majority class"
    )


def settings_of(model: VideoModel, args: argparse.Namespace) -> dict[str, Any]:
    """What a record says of how it was made; a study continues only one of the same settings."""
    from fkv.models.identity import identity_of

    name, checkpoint, precision = identity_of(model)
    return {
        "model": name,
        "checkpoint": checkpoint,
        "precision": precision,
        "seeds": args.seeds,
        "seconds": args.seconds,
        "budget_frames": args.budget_frames,
    }


def read_rows(path: Path, settings: dict[str, Any]) -> list[Row]:
    """The rows of an earlier record, none where there is no file.

    Raises:
        ValueError: It is no record, or one of other settings.
    """
    if not path.exists():
        return []
    found = read_json(path, MAX_RECORD)
    if not isinstance(found, dict) or not isinstance(found.get("prompts"), list):
        raise ValueError(f"{path} is no record of this study; name another file")
    other = [name for name, value in settings.items() if found.get(name) != value]
    if other:
        told = ", ".join(f"{name} {found.get(name)!r} instead of {settings[name]!r}" for name in other)
        raise ValueError(f"{path} was recorded with {told}; remove it or name another file")
    return list(found["prompts"])


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the study and print what it found."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="tiny")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--prompts", type=int, default=48)
    parser.add_argument("--seeds", type=int, default=LEAST_SEEDS)
    parser.add_argument("--seconds", type=float, default=20)
    parser.add_argument("--budget-frames", type=float, default=4.0)
    parser.add_argument("--json", type=Path, help="write the record there after every prompt; continue from it")
    args = parser.parse_args(arguments)
    try:
        model = registry.load(args.model, args.device)
        settings = settings_of(model, args)
        known = read_rows(args.json, settings) if args.json else []

        def keep(rows: list[Row], judged: dict[str, Any] | None = None) -> None:
            if args.json:
                part = args.json.with_suffix(".part")
                part.write_text(json.dumps(settings | {"prompts": rows, "judged": judged}, indent=1) + "\n", "utf-8")
                part.replace(args.json)

        found = study(model, args.prompts, args.seeds, args.seconds, args.budget_frames, known, keep)
    except ValueError as error:
        parser.error(str(error))
    keep(found["prompts"], found["judged"])
    print(sentence(found))


if __name__ == "__main__":
    main()
