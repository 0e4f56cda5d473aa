"""python -m fkv search: try several futures of a stream, chunk by chunk, and keep the best."""

from __future__ import annotations

import argparse
import json
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tqdm import tqdm

from .common import STREAM, RunSettings, add_changes, add_run, check_run, cues_of, load, read_story
from .model_options import check_options
from .output import emit, outputs

if TYPE_CHECKING:
    from fkv.sampler import Noise
    from fkv.search.futures import Begin
    from fkv.search.moves import Moves
    from fkv.search.rewards import Rewards
    from fkv.search.strategies import Strategy
    from fkv.stream import Stream


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `fkv search`."""
    add_run(parser)
    add_changes(parser)
    parser.add_argument("--policy", default="forcing-kv", help="NAME or NAME:key=value,... (default: forcing-kv)")
    parser.add_argument(
        "--strategy",
        default="beam",
        metavar="NAME,...",
        help="best-of, beam, dvts, rebase, ets; parameters as in ets:cost=nodes+distance=0.1 (default: beam)",
    )
    parser.add_argument("--width", type=int, default=8, help="futures side by side, at most (default: 8)")
    parser.add_argument(
        "--lookahead",
        type=int,
        metavar="L",
        help="decide each chunk once futures are L chunks ahead of it (default: decide at the end)",
    )
    parser.add_argument(
        "--reward",
        default="continuity",
        help="what counts, the mean of several joined by +: continuity, change, adherence, jury, wish:left@3 (or "
        "middle, right, apart, close), rules:red,night, MODULE:FUNCTION (default: continuity)",
    )
    parser.add_argument(
        "--moves",
        default="noise",
        metavar="KIND,...",
        help="how futures differ: noise, wording of a new prompt, recache with it or not, when it comes, policy (the "
        "model's two), steps (all or half) (default: noise)",
    )
    parser.add_argument(
        "--passes",
        type=int,
        default=400,
        help="passes of the model per strategy, at most; fewer futures where they do not pay for all (default: 400)",
    )
    parser.add_argument(
        "--out", metavar="DIR", required=True, help="folder for the best video and tree of each strategy"
    )


def run(args: argparse.Namespace) -> int:
    """Search. Raises ValueError with a sentence for the user."""
    from fkv import policies
    from fkv.search import rewards as reward_names
    from fkv.search import strategies
    from fkv.search.moves import Moves
    from fkv.stream import Stream

    check_run(args)
    check_options(args)
    policy = policies.parse(args.policy)
    chosen = {text: strategies.parse(text) for text in args.strategy.split(",")}
    rewards = reward_names.parse(args.reward)
    text = read_story(args.story)
    cues = cues_of(args)
    out, report = outputs(args, "out/", "json")
    assert out is not None
    settings = load(args, text, cues, [STREAM])
    _check(settings, rewards)
    model = settings.model
    kinds = tuple(args.moves.split(","))
    moves = Moves(
        settings.story,
        kinds,
        settings.prompt,
        args.policy,
        model.policies if "policy" in kinds else (),
        len(model.schedule.sigmas),
        settings.chunks,
    )

    def begin(noise: Noise) -> Stream:
        return Stream(model, policy, settings.prompt, roles=settings.roles, noise=noise)

    out.mkdir(parents=True, exist_ok=True)
    rows = {
        name: _search(args, settings, begin, strategy, moves, rewards, out / re.sub(r"[^\w-]+", "-", name))
        for name, strategy in chosen.items()
    }
    emit(_report(args, settings, begin, rewards, rows), report)
    return 0


def _check(settings: RunSettings, rewards: Rewards) -> None:
    """Raise ValueError when the model's videos cannot be rewarded."""
    from fkv.search.rewards import check_prompts
    from fkv.world import HEIGHT, WIDTH

    model = settings.model
    if model.decoder is None:
        raise ValueError("a search sees videos, and there is no decoder; choose one with --decoder")
    if rewards.need_the_oracle and model.latent[1:] != (HEIGHT // 8, WIDTH // 8):
        raise ValueError("only continuity and MODULE:FUNCTION see other videos than those of the tiny model's world")
    check_prompts(rewards, [settings.prompt, *settings.story.prompts])


def _search(
    args: argparse.Namespace,
    settings: RunSettings,
    begin: Begin,
    strategy: Strategy,
    moves: Moves,
    rewards: Rewards,
    target: Path,
) -> dict[str, Any]:
    """Search with one strategy, and write its video and tree at `target`. Returns its row of the report."""
    from fkv.report import frame_hash
    from fkv.search.futures import Futures, most_passes
    from fkv.search.report import found, replay, rewarded, story_of, tree_of
    from fkv.search.search import Search
    from fkv.video import ENDING, Mp4Writer

    model = settings.model
    newest = settings.chunks if args.lookahead is None else args.lookahead + 1
    futures = Futures(begin, args.seed, rewards, newest)
    most = most_passes(model, moves)
    total = min(args.passes, args.width * settings.chunks * most)
    with tqdm(total=total, unit="pass", desc=strategy.name, file=sys.stderr) as bar:
        search = Search(
            strategy,
            moves,
            futures,
            settings.chunks,
            args.width,
            args.lookahead,
            args.passes,
            most,
            lambda node: bar.update(node.passes),
        )
        path = list(search.run())
    chunks = replay(begin, args.seed, path[-1].path, story_of(path), len(path))
    video = target.with_suffix(ENDING)
    with Mp4Writer(video, model.fps) as writer:
        for chunk in chunks:
            assert chunk.video is not None
            writer.write(chunk.video)
    target.with_suffix(".json").write_text(json.dumps(tree_of(search, path), indent=1) + "\n", encoding="utf-8")
    return {
        **rewarded(rewards, chunks),
        **found(search, path),
        "video": str(video),
        "frames_sha256": frame_hash(chunks),
    }


def _report(
    args: argparse.Namespace,
    settings: RunSettings,
    begin: Begin,
    rewards: Rewards,
    rows: dict[str, Any],
) -> dict[str, Any]:
    """The report of all strategies, and of the plain stream beside them."""
    from fkv.report import device_name
    from fkv.search.report import replay, rewarded

    model = settings.model
    chunks = replay(begin, args.seed, (), settings.story, settings.chunks)
    return {
        "model": model.name,
        "precision": model.precision,
        "device": device_name(model.device),
        "prompt": settings.prompt,
        "policy": args.policy,
        "seed": args.seed,
        "chunks": settings.chunks,
        "rewards": args.reward,
        "moves": args.moves,
        "width": args.width,
        "lookahead": args.lookahead,
        "passes_allowed": args.passes,
        "plain": {**rewarded(rewards, chunks), "passes": sum(chunk.passes for chunk in chunks)},
        "strategies": rows,
    }
