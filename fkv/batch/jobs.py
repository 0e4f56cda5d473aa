"""What is asked for: one stream a line, as JSON."""

from __future__ import annotations

import re
from dataclasses import asdict, dataclass, field, fields
from typing import Any

from fkv import policies, storyboard
from fkv import roles as role_files
from fkv.files import parse_json
from fkv.models.base import VideoModel
from fkv.policies import Policy
from fkv.roles import HeadRoles
from fkv.storyboard import STREAM, Change, SetPrompt, Storyboard, write_change
from fkv.stream import check_chunks, check_prompt, check_seed

from .opening import opening_of

EXAMPLE = '{"name": "dusk", "prompt": "a red ball over the sea", "policy": "full", "seed": 1, "chunks": 14}'
NAME = re.compile(r"[\w-][\w.-]{0,79}")
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
        roles: File of head roles; empty for those of the model.
        line: Where it was read.
    """

    name: str
    prompt: str = ""
    story: str = ""
    policy: str = "forcing-kv"
    seed: int = 0
    chunks: int | None = None
    roles: str = ""
    line: int = field(default=0, compare=False)

    def __post_init__(self) -> None:
        for name, kind in (("name", str), ("prompt", str), ("story", str), ("policy", str), ("roles", str)):
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
        """The fields, as JSON."""
        return {name: value for name, value in asdict(self).items() if name != "line"}


def read(text: str) -> list[Job]:
    """Read jobs, one JSON object a line; empty lines are skipped.

    Raises:
        ValueError: Names the line, and says what is wrong with it.
    """
    jobs: dict[str, Job] = {}
    for number, line in enumerate(text.split("\n"), 1):  # JSON may hold the other characters that end a line
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
        roles: Head roles in place of the model's.
    """

    job: Job
    prompt: str
    story: Storyboard
    keys: tuple[tuple[object, ...], ...]
    roles: HeadRoles | None = None

    @classmethod
    def of(cls, job: Job, model: VideoModel) -> Path:
        """Resolve a job.

        Raises:
            ValueError: Its storyboard does not fit the model or its length.
        """
        try:
            roles = role_files.load(job.roles) if job.roles else None
            if roles:
                roles.check(model.transformer.layers, model.transformer.heads)
            story = storyboard.parse(job.story, roles or model.roles, job.chunks, model.chunk_seconds)
            if job.prompt and story.opening is not None:
                raise ValueError("the storyboard begins with a prompt; leave out the job's")
            prompt = story.opening or job.prompt
            check_prompt(prompt)
            chunks = job.chunks or story.chunks
            assert chunks is not None
            story.check_fits(chunks, [STREAM], model.schedule)
            return cls.along(job, prompt, story, chunks, model, roles)
        except ValueError as error:
            raise ValueError(f"line {job.line}: {error}") from None

    @classmethod
    def along(
        cls,
        job: Job,
        prompt: str,
        story: Storyboard,
        chunks: int,
        model: VideoModel,
        roles: HeadRoles | None = None,
    ) -> Path:
        """A job along a storyboard that has been read; arguments as the fields, and its length and model.

        Raises:
            ValueError: The policy does not fit the model.
        """
        policy = policies.parse(job.policy)
        policies.check_fit(policy, model.geometry, roles or model.roles)
        opening = opening_of(model.geometry, policy, roles or model.roles, chunks, model.transformer.dtype)
        keys: list[tuple[object, ...]] = []
        opens = True
        for chunk in range(chunks):
            changes = story.changes(chunk)
            opens = opens and chunk < opening.chunks and all(map(_is_plain_prompt, changes))
            rule = opening.kind if opens else (policies.write(policy), job.roles)
            keys.append((job.seed, rule, prompt if chunk == 0 else "", *map(write_change, changes)))
        return cls(job, prompt, story, tuple(keys), roles)

    @property
    def policy(self) -> Policy:
        """The policy with which it begins."""
        return policies.parse(self.job.policy)

    def record(self) -> dict[str, Any]:
        """What determines the stream, as JSON."""
        if self.roles is None:
            return self.job.record()
        return {**self.job.record(), "roles_sha256": role_files.digest(self.roles)}

    def __len__(self) -> int:
        return len(self.keys)


def _is_plain_prompt(change: Change) -> bool:
    """Whether a change is another prompt and nothing else, which acts alike under every policy."""
    return isinstance(change, SetPrompt) and not change.recache and not change.cut
