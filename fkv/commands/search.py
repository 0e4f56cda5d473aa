"""python -m fkv search: try several futures of a stream, chunk by chunk, and keep the best."""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode

from tqdm import tqdm

from .common import RunSettings, add_changes, add_run, check_run, cues_of, load, read_story
from .model_options import check_options
from .output import emit, outputs

if TYPE_CHECKING:
    from fkv.sampler import Noise
    from fkv.search.futures import Begin
    from fkv.search.head import Head
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
        help="best-of, beam, dvts, rebase, ets, saffron; parameters as in ets:cost=nodes+distance=0.1 (default: beam)",
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
        help="what counts, the mean of several joined by +: continuity, change, adherence, jury, truth, faithful "
        "(to the full cache), wish:left@3 "
        "(or middle, right, apart, close), rules:red,night, MODULE:FUNCTION (default: continuity)",
    )
    parser.add_argument(
        "--moves",
        default="noise",
        metavar="KIND,...",
        help="how futures differ: noise, code (noises that are the same at every chunk), wording of a new prompt, "
        "recache with it or not, when it comes, policy (the model's two), steps (all or half), avoid (prompts without "
        "the words of rules) (default: noise)",
    )
    parser.add_argument(
        "--passes",
        type=int,
        default=400,
        help="at most this many passes of the model per strategy; where they are too few for --width, fewer futures "
        "are tried (default: 400)",
    )
    parser.add_argument(
        "--learn",
        type=int,
        default=0,
        metavar="RUNS",
        help="first train saffron's head on RUNS streams with random moves; runs that are in DIR/saffron already are "
        "reused",
    )
    parser.add_argument(
        "--calibrate",
        metavar="FILE",
        help="also write how far siblings of this search look apart (20th percentile), below which ets counts looks as "
        "one, and how it was measured",
    )
    parser.add_argument(
        "--looks", metavar="FILE", help="a file of --calibrate, for ets (default: the one beside the weights)"
    )
    parser.add_argument("--head", metavar="FILE", help="a head that was trained earlier (default: that in DIR/saffron)")
    parser.add_argument(
        "--out", metavar="DIR", required=True, help="folder for the best video and tree of each strategy"
    )


def run(args: argparse.Namespace) -> int:
    """Search. Raises ValueError with a sentence for the user."""
    from fkv import policies
    from fkv.search import looks, strategies
    from fkv.search import rewards as reward_names
    from fkv.search.futures import cost_of
    from fkv.search.moves import Moves
    from fkv.search.search import check_size
    from fkv.storyboard import STREAM
    from fkv.stream import Stream

    check_run(args)
    check_options(args)
    if args.learn < 0:
        raise ValueError(f"--learn has a number of runs, not {args.learn}")
    if args.learn and args.head:
        raise ValueError("--learn trains a head and --head names one; leave one of them out")
    policy = policies.parse(args.policy)
    chosen = {text.strip(): strategies.parse(text) for text in args.strategy.split(",")}
    if args.calibrate and (len(chosen) > 1 or args.width < 2):
        raise ValueError(
            "--calibrate measures siblings of one search; name one --strategy, and a --width of at least 2"
        )
    needs_head = any(strategy.needs_head for strategy in chosen.values())
    if (args.head or args.learn) and not needs_head:
        raise ValueError("--head and --learn are for saffron; name it with --strategy, or leave them out")
    if args.looks and not any(isinstance(each, strategies.Ets) and each.distance is None for each in chosen.values()):
        raise ValueError("--looks is for ets without a distance; name it with --strategy, or leave --looks out")
    rewards = reward_names.parse(args.reward)
    text = read_story(args.story)
    cues = cues_of(args)
    out, report, _ = outputs(args, "out/", "json", "calibrate")
    assert out is not None
    settings = load(args, text, cues, [STREAM])
    model = settings.model
    chosen = {name: looks.fitted(each, model, args.looks and Path(args.looks)) for name, each in chosen.items()}
    reward_names.check_seconds(rewards, settings.chunks * model.chunk_seconds)
    reward_names.check_model(rewards, model)
    reward_names.check_prompts(rewards, [settings.prompt, *settings.story.prompts])
    kinds = tuple(kind.strip() for kind in args.moves.split(","))
    moves = Moves(
        settings.story,
        kinds,
        settings.prompt,
        args.policy,
        model.policies if "policy" in kinds else (),
        len(model.schedule.sigmas),
        settings.chunks,
        rewards.forbidden,
    )

    check_size(args.width, args.lookahead, args.passes, cost_of(model, moves, rewards))

    def begin_with(prompt: str) -> Begin:
        def begin(noise: Noise) -> Stream:
            return Stream(model, policy, prompt, roles=settings.roles, noise=noise)

        return begin

    begin = begin_with(settings.prompt)
    head = _head(args, settings, begin_with, moves, rewards, out) if needs_head else None
    out.mkdir(parents=True, exist_ok=True)
    rows = {
        name: _search(args, settings, begin, strategy, moves, rewards, head, out / re.sub(r"[^\w-]+", "-", name))
        for name, strategy in chosen.items()
    }
    emit(_report(args, settings, begin, rewards, rows), report)
    return 0


def _head(
    args: argparse.Namespace,
    settings: RunSettings,
    begin: Callable[[str], Begin],
    moves: Moves,
    rewards: Rewards,
    out: Path,
) -> Head:
    """Train the head that predicts rewards of moves, or load it. Raises ValueError where there is none."""
    from fkv.analysis.oracle_checks import draws_world
    from fkv.search.head import Head
    from fkv.search.learning import HEAD, check_head, check_moves, facts_of, learn, lessons

    if "noise" in moves.kinds:
        raise ValueError("saffron predicts moves that it has seen, and each noise is new; use code, as in --moves code")
    facts = facts_of(settings.model, rewards, moves, settings.roles)
    folder = out / "saffron"
    if args.learn:
        toy_world = draws_world(settings.model)
        with tqdm(total=args.learn, unit="run", desc="learn", file=sys.stderr) as bar:
            runs = lessons(begin, moves, args.learn, toy_world)
            prompts = "scenes of the toy world" if toy_world else settings.prompt
            return learn(folder, settings.model, rewards, runs, facts | {"prompts": prompts}, bar.update)
    path = Path(args.head) if args.head else folder / HEAD
    if not path.exists():
        raise ValueError(f"saffron goes by a trained head, and there is none at {path}; train one with --learn 40")
    head = Head.load(path)
    check_head(head, facts, ("model", "checkpoint", "rewards"))
    check_moves(head, moves)
    return head


def _search(
    args: argparse.Namespace,
    settings: RunSettings,
    begin: Begin,
    strategy: Strategy,
    moves: Moves,
    rewards: Rewards,
    head: Head | None,
    target: Path,
) -> dict[str, Any]:
    """Search with one strategy, and write its video and tree at `target`. Returns its row of the report."""
    from fkv.report import frame_hash
    from fkv.search.futures import Futures, cost_of
    from fkv.search.head import Foresight
    from fkv.search.looks import measured, save
    from fkv.search.report import found, replay, rewarded, story_of, tree_of
    from fkv.search.search import Search
    from fkv.storyboard import write
    from fkv.video import ENDING, Mp4Writer

    model = settings.model
    newest = settings.chunks if args.lookahead is None else args.lookahead + 1
    if not strategy.needs_head:
        head = None
    futures = Futures(begin, args.seed, rewards, newest, Foresight(model, moves, head))
    cost = cost_of(model, moves, rewards)
    total = min(args.passes, args.width * sum(cost.most))
    with tqdm(total=total, unit="pass", desc=strategy.name, file=sys.stderr) as bar:
        search = Search(
            strategy,
            moves,
            futures,
            settings.chunks,
            args.width,
            args.lookahead,
            args.passes,
            cost,
        )
        path = []
        for event, node in search.events():
            if event == "made":
                bar.update(node.passes)
            else:
                path.append(node)
        bar.total = bar.n  # passes that were allowed and not needed
    story = story_of(path)
    chunks = replay(begin, args.seed, path[-1].path, story, len(path))
    video = target.with_suffix(ENDING)
    with Mp4Writer(video, model.fps) as writer:
        for chunk in chunks:
            assert chunk.video is not None
            writer.write(chunk.video)
    target.with_suffix(".json").write_text(json.dumps(tree_of(search, path), indent=1) + "\n", encoding="utf-8")
    if args.calibrate:
        run = {"strategy": strategy.name, "prompt": settings.prompt, "policy": args.policy, "moves": args.moves}
        run |= {"seed": args.seed, "chunks": settings.chunks, "width": args.width, "story": write(settings.story)}
        save(measured(search.root, model, run), Path(args.calibrate))
    return {
        **rewarded(rewards, begin, args.seed, path[-1].path, story, chunks),
        **found(search, path, chunks),
        **({"head": head.facts, "head_calls": sum(1 for _ in search.root)} if head else {}),
        "video": str(video),
        "frames_sha256": frame_hash(chunks),
        **({} if args.roles else {"link": _link(args, settings, path[-1].path, write(story))}),
    }


def _link(args: argparse.Namespace, settings: RunSettings, path: Sequence[int], story: str) -> str:
    """What to add to the address of a studio, whose Live tab then generates a path as a plain stream.

    Head roles of a file have no place in it.
    """
    from fkv.storyboard import SetSteps, write_change

    if isinstance(args.steps, int):
        story = f"1: {write_change(SetSteps(args.steps))}\n{story}"
    fields = {
        "model": settings.model.name,
        "prompt": settings.prompt,
        "seed": args.seed,
        "length": settings.chunks,
        "view": "A",
        "a": args.policy,
        "story": story,
        "schedule": args.schedule,
        "frames": args.frames_per_chunk,
        "path": ",".join(map(str, path)),
    }
    return f"?{urlencode({name: value for name, value in fields.items() if value not in (None, '')})}"


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
    plain = rewarded(rewards, begin, args.seed, (), settings.story, chunks)
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
        "plain": {**plain, "passes": sum(chunk.passes for chunk in chunks)},
        "strategies": rows,
    }
