"""Options of the commands that generate: the model, the prompt or storyboard, the length and the seed.

Nothing here imports torch before a command runs, so that `--help` is quick.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from fkv.files import decode, read_text
from fkv.world import PROMPT

from .model_options import add_model, load_model

if TYPE_CHECKING:
    from fkv.models.base import VideoModel
    from fkv.roles import HeadRoles
    from fkv.storyboard import Cue, Storyboard

CHUNKS = 14
MAX_STORY_BYTES = 1 << 20
STORY_HELP = (
    "a text file, or - for stdin, that says what changes when: lines such as `6: a blue star`, `6: re-cache = a blue "
    "star`, `6: threshold = 0.7` or `6: steps = 2`, whose chunks count from 1; or scenes with durations in seconds or "
    "chunks, `a red ball [10s] | the same ball at night [12c#]`, where # marks a hard cut, which policies without "
    "cuts make as a change of the prompt"
)


def read_policies(text: str, load: Callable[[], VideoModel]) -> list[str]:
    """Split a comma-separated list of policies.

    Args:
        text: The list; `all` in it stands for every policy that fits the model with its default parameters, and `-NAME`
            leaves one of them out.
        load: Gives the model; called where the list has `all`.

    Raises:
        ValueError: A policy cannot be read, or one is left out that the list does not have.
    """
    from fkv import policies

    parts = policies.split(text)
    left_out = [part.removeprefix("-") for part in parts if part.startswith("-")]
    parts = [part for part in parts if not part.startswith("-")]
    for part in (*(part for part in parts if part != "all"), *left_out):
        policies.parse(part)
    if left_out and "all" not in parts:
        raise ValueError(f"-{left_out[0]} leaves a policy out of all, as in all,-{left_out[0]}; the list has no all")
    for name in left_out:
        if name not in policies.POLICIES:
            raise ValueError(f"-{name} has parameters, and the policies of all have none; write the name alone")
    if "all" in parts:
        model = load()
        at = parts.index("all")
        fitting = policies.fitting(model.geometry, model.roles)
        parts[at : at + 1] = [name for name in fitting if name not in left_out]
    return parts


@dataclass(frozen=True)
class RunSettings:
    """What the options of `add_run` choose.

    Args:
        model: The loaded model.
        roles: Head roles that replace the model's, None without `--roles`.
        prompt: The prompt with which the run begins.
        chunks: Length of the run in chunks.
        story: What changes on the way.
    """

    model: VideoModel
    roles: HeadRoles | None
    prompt: str
    chunks: int
    story: Storyboard


def add_run(parser: argparse.ArgumentParser) -> None:
    """Add the options that choose a model and a run of it."""
    add_model(parser)
    parser.add_argument("--roles", metavar="FILE", help="head roles to use instead of the model's")
    parser.add_argument("--prompt", help=f"what the video shows (default: {PROMPT!r})")
    parser.add_argument(
        "--chunks", type=int, help=f"how many chunks to generate (default: {CHUNKS}, or the length of --story's scenes)"
    )
    parser.add_argument("--seed", type=int, default=0, help="whole number that chooses the noise (default: 0)")
    add_story(parser)
    parser.add_argument("--recache", action="store_true", help="recompute the cache at every new prompt except cuts")
    parser.add_argument("--json", metavar="FILE", help="write the report there instead of to stdout")


def add_story(parser: argparse.ArgumentParser) -> None:
    """Add the option that names a storyboard."""
    parser.add_argument("--story", metavar="FILE", help=STORY_HELP)


def add_changes(parser: argparse.ArgumentParser) -> None:
    """Add the options that change the one stream of a run on its way."""
    parser.add_argument(
        "--switch",
        action="append",
        default=[],
        metavar="CHUNK:POLICY",
        help="continue with another policy from that chunk on; chunks count from 1; may be repeated",
    )
    parser.add_argument(
        "--say",
        action="append",
        default=[],
        metavar="CHUNK:PROMPT",
        help="continue with another prompt from that chunk on; chunks count from 1; may be repeated",
    )


def cues_of(args: argparse.Namespace) -> list[Cue]:
    """The changes of `add_changes`.

    Raises:
        ValueError: One cannot be read or comes after the end.
    """
    from fkv import policies
    from fkv.storyboard import STREAM, Cue, SetPolicy, SetPrompt, at_chunk
    from fkv.stream import check_prompt

    chunks = None if args.story else args.chunks or CHUNKS
    cues = []
    for text in args.switch:
        chunk, policy = at_chunk(text, chunks, "5:forcing-kv")
        policies.parse(policy)
        cues.append(Cue(chunk, SetPolicy(STREAM, policy)))
    for text in args.say:
        chunk, prompt = at_chunk(text, chunks, "5:a blue star")
        cues.append(Cue(chunk, SetPrompt(check_prompt(prompt))))
    return cues


def read_story(path: str | None) -> str:
    """Read the text of a storyboard and check what can be checked without a model.

    Args:
        path: A file, `-` for stdin, None for no storyboard.

    Returns:
        The text, empty without a storyboard.

    Raises:
        ValueError: The file cannot be read, or its text is no storyboard.
    """
    from fkv import storyboard

    if path is None:
        return ""
    text = read_input("the storyboard", path, MAX_STORY_BYTES)
    if not text.strip():
        raise ValueError(f"the storyboard {path} is empty; write a line such as 6: a blue star")
    storyboard.check(text)
    return text


def read_input(what: str, path: str, most: int) -> str:
    """Read a text file that the user names.

    Args:
        what: What it is, as an error calls it.
        path: The file, `-` for stdin.
        most: Bytes at most.

    Raises:
        ValueError: It cannot be read, is too large or no text.
    """
    try:
        if path == "-":
            return decode(sys.stdin.buffer.read(most + 1), most, "stdin")
        return read_text(path, most)
    except OSError as error:
        raise ValueError(f"cannot read {what} {path}: {error.strerror}") from None
    except ValueError as error:
        raise ValueError(f"cannot read {what} {path}: {error}") from None


def check_run(args: argparse.Namespace) -> None:
    """Raise ValueError for a prompt, seed or length that no stream can have."""
    from fkv.stream import check_chunks, check_prompt, check_seed

    check_seed(args.seed)
    if args.prompt is not None:
        check_prompt(args.prompt)
    if args.chunks is not None:
        check_chunks(args.chunks)


def print_hints(model: VideoModel, prompts: Iterable[str]) -> None:
    """Say on stderr what the user should know about prompts: that they are cut, or which words are not known."""
    for hint in model.hints_of(prompts):
        print(f"hint: {hint}", file=sys.stderr)


def load(
    args: argparse.Namespace, story_text: str, cues: Collection[Cue] = (), streams: Collection[str] = ()
) -> RunSettings:
    """Load the model and resolve the storyboard; says on stderr which words of the prompts the model does not know.

    Args:
        args: The options of `add_run`.
        story_text: The storyboard, as `read_story` returns it.
        cues: Changes from other options.
        streams: Names of the streams to which the storyboard may give another policy.

    Raises:
        ValueError: The model or roles cannot be loaded, or the storyboard does not fit the run.
    """
    from fkv import roles as role_files
    from fkv import storyboard

    if args.recache:
        recached = storyboard.parse(story_text, storyboard.ANY_ROLES, None, 1.0).with_cues(cues).with_recache()
        changes = [cue.change for cue in recached.without_opening().cues]
        if not any(isinstance(change, storyboard.SetPrompt) and change.recache for change in changes):
            raise ValueError(
                "--recache goes with another prompt that is no cut; write one into --story, as in 7: a blue star"
            )
    override = role_files.load(args.roles) if args.roles else None
    model = load_model(args)
    if override:
        override.check(model.transformer.layers, model.transformer.heads)
    length = args.chunks or (None if storyboard.has_scenes(story_text) else CHUNKS)
    story = storyboard.parse(story_text, override or model.roles, length, model.chunk_seconds)
    if args.prompt is not None and story.opening is not None:
        raise ValueError("the storyboard begins with a prompt; leave out --prompt")
    chunks = length or story.chunks or CHUNKS
    story = story.with_cues(cues)
    story.check_fits(chunks, streams, model.schedule)
    if args.recache:
        story = story.with_recache()
    prompt = story.opening or args.prompt or PROMPT
    print_hints(model, (prompt, *story.prompts))
    return RunSettings(model, override, prompt, chunks, story)
