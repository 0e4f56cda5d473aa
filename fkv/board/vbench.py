"""VBench-Long, which is a package of its own: its command for the videos of a board, and its results read back.

The videos of a rule lie in one folder as PROMPT-SEED.mp4, which is its custom-input layout (Vchitect/VBench,
vbench2_beta_long). It needs weights and pins old packages, so it runs elsewhere.
"""

from __future__ import annotations

import json
import math
import shlex
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from fkv.files import read_json

from . import result as results
from .columns import VBENCH
from .result import Result
from .run import RESULTS, read_plan, video_file
from .spec import TRUTH, Plan, slug

DIMENSIONS = (
    "subject_consistency",
    "background_consistency",
    "motion_smoothness",
    "dynamic_degree",
    "aesthetic_quality",
    "imaging_quality",
)
"""Those that take prompts of one's own."""
CLIPS = {"subject_consistency": "subject_clip2clip", "background_consistency": "background_clip2clip"}
PERCENT = {"imaging_quality"}  # dimensions whose clips are scored from 0 to 100
FOLDER = "vbench"  # where its results are expected, a folder per rule
MAX_BYTES = 256 << 20


def export(out: Path, repository: str = "VBench") -> list[str]:
    """Write the prompts of all videos, and a script that scores them.

    Args:
        out: The folder of a board that was run with all videos kept.
        repository: Where VBench's repository lies.

    Returns:
        The commands, one per rule, as in the script `vbench.sh`.

    Raises:
        ValueError: A video is missing.
    """
    plan = read_plan(out)
    names = _names(out, plan)
    if missing := [file for file in names if not file.exists()]:
        raise ValueError(
            f"{len(missing)} of {len(names)} videos are not there, such as {missing[0].name}; "
            "run the board with --videos all first"
        )
    prompts = {file.relative_to(out).as_posix(): plan.protocol.prompts[key[1]] for file, key in names.items()}
    (out / "prompts.json").write_text(json.dumps(prompts, indent=1) + "\n", encoding="utf-8")
    commands = [command(out, policy, repository) for policy in plan.rules if policy != TRUTH]
    (out / "vbench.sh").write_text("\n".join(["set -e", *commands, ""]), encoding="utf-8")
    return commands


def command(out: Path, policy: str, repository: str = "VBench") -> str:
    """The command that scores the videos of a rule."""
    videos, target = out / "videos" / slug(policy), out / FOLDER / slug(policy)
    return shlex.join(
        [
            "python",
            f"{repository}/vbench2_beta_long/eval_long.py",
            "--videos_path",
            str(videos),
            "--output_path",
            str(target),
            "--dimension",
            *DIMENSIONS,
            "--mode",
            "long_custom_input",
            "--dev_flag",
        ]
    )


def scores(data: Any) -> dict[str, dict[str, float]]:
    """Read what VBench-Long writes.

    Args:
        data: Dimension -> [overall score, list of `video_path` and `video_results`], for most dimensions with means per
            video as a third. Paths are those of videos, or of their clips in `split_clip/NAME/`.

    Returns:
        Name of the video -> dimension -> mean score; the clip-to-clip part of consistency as a dimension of its own.

    Raises:
        ValueError: It has another form.
    """
    found: dict[str, dict[str, list[float]]] = {}
    try:
        for dimension, (_, details, *_) in data.items():
            for each in details if dimension in DIMENSIONS else ():
                video = found.setdefault(_video_of(each["video_path"]), {})
                scale = 100 if dimension in PERCENT else 1
                video.setdefault(dimension, []).append(_finite(each["video_results"]) / scale)
                if dimension in CLIPS and "clip2clip_score" in each:
                    video.setdefault(CLIPS[dimension], []).append(_finite(each["clip2clip_score"]))
    except (AttributeError, KeyError, TypeError, ValueError):
        raise ValueError(
            "results of VBench-Long have the form {dimension: [score, [{video_path, video_results}]]} "
            "with finite scores, these have not"
        ) from None
    return {name: {key: statistics.mean(values) for key, values in each.items()} for name, each in found.items()}


def _finite(score: Any) -> float:
    """A score as a number. Raises ValueError for NaN, which no result may hold."""
    if not math.isfinite(value := float(score)):
        raise ValueError(f"{value} is no score")
    return value


def _video_of(path: str) -> str:
    """The name of the video that a path of VBench-Long belongs to."""
    file = Path(path)
    return file.parent.name if "split_clip" in file.parts else file.stem


def read(out: Path) -> list[Result]:
    """Put the scores that lie in a board's folder into its results.

    Args:
        out: The folder; `vbench/RULE/*_eval_results.json` are read, the newest last.

    Returns:
        The results that have scores now.

    Raises:
        ValueError: There are none, or videos of a rule have no score.
    """
    plan = read_plan(out)
    names = {slug(policy): policy for policy in plan.rules}
    scored = []
    for folder in sorted((out / FOLDER).glob("*")):
        files = sorted(folder.glob("*_eval_results.json"))
        if folder.name not in names or not files:
            continue
        found: dict[str, dict[str, float]] = {}
        for file in files:
            for name, values in scores(read_json(file, MAX_BYTES)).items():
                found.setdefault(name, {}).update(values)
        result = _with(results.load(out / RESULTS / f"{folder.name}.json"), found, out, plan)
        results.save(result, out / RESULTS)
        scored.append(result)
    if not scored:
        raise ValueError(f"there are no results of VBench-Long in {out / FOLDER}; they are called *_eval_results.json")
    return scored


def _with(result: Result, found: Mapping[str, Mapping[str, float]], out: Path, plan: Plan) -> Result:
    """A result with the scores of its videos."""
    videos = []
    for video in result.videos:
        name = video_file(out, plan, (result.policy, video.prompt, video.seed)).stem
        if name not in found:
            raise ValueError(f"VBench-Long has no score of {name!r} under {result.policy!r}")
        measures = video.measures | {f"{VBENCH}{key}": round(value, 5) for key, value in found[name].items()}
        videos.append(video.model_copy(update={"measures": measures}))
    scored = result.model_copy(update={"videos": videos})
    results.check(scored)
    return scored


def _names(out: Path, plan: Plan) -> dict[Path, tuple[str, int, int]]:
    """Every video that should be there, and whose it is."""
    runs: Sequence[tuple[int, int]] = [
        (number, seed) for number in range(len(plan.protocol.prompts)) for seed in plan.protocol.seeds
    ]
    rules = [policy for policy in plan.rules if policy != TRUTH]
    return {video_file(out, plan, (policy, *run)): (policy, *run) for policy in rules for run in runs}
