"""What is asked for: one stream a line, as JSON."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field, fields
from typing import Any

from fkv import policies, storyboard
from fkv.files import parse_json
from fkv.models.base import VideoModel
from fkv.storyboard import Storyboard, write_change
from fkv.stream import check_chunks, check_prompt, check_seed

EXAMPLE = '{"name": "dusk", "prompt": "a red ball over the sea", "policy": "full", "seed": 1, "chunks": 14}'
NAME = re.compile(r"[\w-][\w.-]{0,79}")
STREAM = "A"  # the one stream of a job, in storyboards
MAX_JOBS = 10_000


@dataclass(frozen=True)
class Job:
    """A stream that is asked for.

    Args:
        name: Of its video, without the ending.
        prompt: With which it begins; empty where the storyboard says it.
        story: Storyboard, see `fkv.storyboard`.
        policy: As `fkv.policies.parse` reads it.
        seed: Of its noise.
        chunks: Its length; None for that of the storyboard's scenes.
        line: Where it was read.
    """

    name: str
    prompt: str = ""
    story: str = ""
    policy: str = "forcing-kv"
    seed: int = 0
    chunks: int | None = None
    line: int = field(default=0, compare=False)

    def __post_init__(self) -> None:
        for name, kind in (("name", str), ("prompt", str), ("story", str), ("policy", str)):
            if not isinstance(getattr(self, name), kind):
                raise ValueError(f"{name} must be a text, not {getattr(self, name)!r:.60}")
        if not NAME.fullmatch(self.name):
            raise ValueError(f"name {self.name!r:.60} must be a file name of letters, digits, '-', '_' and '.'")
        if self.prompt or not self.story:
            check_prompt(self.prompt)
        if self.chunks is None and not storyboard.has_scenes(self.story):
            raise ValueError('the length is missing; add "chunks": 14, or scenes with durations as the story')
        if self.chunks is not None:
            check_chunks(self.chunks)
        check_seed(self.seed)
        policies.parse(self.policy)
        storyboard.check(self.story)

    def record(self) -> dict[str, Any]:
        """What determines the stream, as JSON."""
        return {name: value for name, value in asdict(self).items() if name != "line"}


def read(text: str) -> list[Job]:
    """Read jobs, one JSON object a line; empty lines are skipped.

    Raises:
        ValueError: Names the line, and says what is wrong with it.
    """
    jobs: dict[str, Job] = {}
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip():
            continue
        try:
            job = Job(**{"name": f"job-{number:03}"} | _fields(line), line=number)
            if job.name in jobs:
                raise ValueError(f"the name {job.name!r} is that of line {jobs[job.name].line}; give it another")
        except ValueError as error:
            raise ValueError(f"line {number}: {error}") from None
        jobs[job.name] = job
    if not jobs:
        raise ValueError(f"there is no job in the file; write one a line, such as {EXAMPLE}")
    if len(jobs) > MAX_JOBS:
        raise ValueError(f"the file has {len(jobs):,} jobs; at most {MAX_JOBS:,} are planned at once")
    return list(jobs.values())


def _fields(line: str) -> dict[str, Any]:
    try:
        found = parse_json(line, "the line")
    except ValueError as error:
        raise ValueError(f"this is no JSON that can be read ({error}); a job looks like {EXAMPLE}") from None
    if not isinstance(found, dict):
        raise ValueError(f"a job is a JSON object such as {EXAMPLE}, not {found!r:.60}")
    known = [each.name for each in fields(Job) if each.name != "line"]
    for name in found:
        if name not in known:
            raise ValueError(f"there is no field {name!r:.60}; a job has {', '.join(known)}")
    return found


@dataclass(frozen=True)
class Path:
    """A job as it runs with a model.

    Args:
        job: The job.
        prompt: With which it begins.
        story: What changes on the way.
        keys: Per chunk what determines it besides the chunks before. Jobs share chunks as long as their keys agree.
    """

    job: Job
    prompt: str
    story: Storyboard
    keys: tuple[tuple[object, ...], ...]

    @classmethod
    def of(cls, job: Job, model: VideoModel) -> Path:
        """Resolve a job.

        Raises:
            ValueError: Its storyboard does not fit the model or its length.
        """
        try:
            story = storyboard.parse(job.story, model.roles, job.chunks, model.chunk_seconds)
            if job.prompt and story.opening is not None:
                raise ValueError("the storyboard begins with a prompt; leave out the job's")
            prompt = story.opening or job.prompt
            check_prompt(prompt)
            chunks = job.chunks or story.chunks
            assert chunks is not None
            story.check_fits(chunks, [STREAM])
            policies.parse(job.policy).groups(model.geometry, model.roles)
            return cls(job, prompt, story, tuple(_keys(job, prompt, story, chunks)))
        except ValueError as error:
            raise ValueError(f"line {job.line}: {error}") from None

    def __len__(self) -> int:
        return len(self.keys)


def _keys(job: Job, prompt: str, story: Storyboard, chunks: int) -> Iterator[tuple[object, ...]]:
    begins = (prompt, policies.write(policies.parse(job.policy)), job.seed)
    for chunk in range(chunks):
        changes = tuple(map(write_change, story.changes(chunk)))
        yield (*begins, *changes) if chunk == 0 else (job.seed, *changes)
