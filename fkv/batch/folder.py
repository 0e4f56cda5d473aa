"""What a batch leaves in its folder: a video per job, a record of each that is finished, and a manifest of all."""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path as File
from typing import Any

from fkv.models.base import VideoModel
from fkv.models.identity import identity_of
from fkv.parallel.overlap import Overlap
from fkv.records import append_record, resume_records
from fkv.report import frame_hash
from fkv.video import ENDING, Mp4Writer

from .jobs import Path
from .run import Done

RECORDS = "records.jsonl"
MANIFEST = "manifest.json"


class Folder:
    """The folder of a batch. A later run of the same jobs goes on from what is finished there.

    Args:
        path: The folder; it is made.
        model: The model of all jobs.
        exact: Whether frames are to the last bit those of streams one by one, so that records have their hash.
        forbidden: What the model's guard lets nobody see; None where it has none.
        decoder: What decodes: `own`, or another choice of `fkv.models.release.CHOICES`.

    Raises:
        OSError: The folder cannot be made.
    """

    def __init__(
        self, path: File, model: VideoModel, exact: bool, forbidden: str | None = None, decoder: str = "own"
    ) -> None:
        self.path = path
        self.manifest = path / MANIFEST
        self._model = model
        self._exact = exact
        self._forbidden = forbidden
        self._decoder = decoder
        path.mkdir(parents=True, exist_ok=True)

    @cached_property
    def _run(self) -> dict[str, Any]:
        """What decides frames besides the jobs, as JSON."""
        model = self._model
        first = model.first_schedule
        return {
            **identity_of(model)._asdict(),
            "weights": [file.name for file in model.weights],
            "adapters": list(model.adapters),
            "solver": model.schedule.solver,
            "timesteps": list(model.schedule.timesteps),
            **({"first_timesteps": list(first.timesteps)} if first else {}),
            "latent": list(model.latent),
            "frames_per_chunk": model.frames_per_chunk,
            "decoder": self._decoder,
            "exact": self._exact,
            **({"compiled": True} if model.transformer.compiled else {}),
            **({"forbidden": self._forbidden} if self._forbidden is not None else {}),
        }

    def finished(self, paths: Sequence[Path]) -> dict[str, dict[str, Any]]:
        """Records of the jobs whose videos are there, by name.

        Raises:
            ValueError: The folder is that of other jobs or of another model.
        """
        file = self.path / RECORDS
        if not file.exists():
            if self.manifest.exists():
                raise ValueError(f"{self.path} holds a manifest without records; name another folder")
            return {}
        wanted = {path.job.name: path for path in paths}
        found = {}
        for record in resume_records(file):
            try:
                name, run = record["job"]["name"], record["run"]
            except (KeyError, TypeError):
                raise ValueError(f"{file} has a line that is no record of a batch; name another folder") from None
            if run != self._run:
                raise ValueError(f"{self.path} holds a run with {_difference(run, self._run)}; name another folder")
            if name not in wanted or record["job"] != wanted[name].record():
                raise ValueError(f"{self.path} holds {name!r} of another run; name another folder, or delete this one")
            if (self.path / record["video"]).exists():
                found[name] = record
        return found

    def add(self, done: Done) -> dict[str, Any]:
        """Write the video of a job that has ended, then its record.

        Raises:
            Forbidden: The video must not be shown; nothing of it stays.
            OSError: The disk is full; what was finished before stays, as under every error.
            ValueError: The folder is gone, or the guard's classifier failed.
        """
        name = done.path.job.name
        video = self.path / f"{name}{ENDING}"
        part = _unfinished(video)
        chunks = []
        try:
            with Mp4Writer(part, self._model.fps) as writer:
                for chunk in Overlap(self._model)(done.chunks):
                    assert chunk.video is not None
                    writer.write(chunk.video)
                    chunks.append(chunk)
            part.replace(video)
        finally:
            part.unlink(missing_ok=True)
        record: dict[str, Any] = {
            "job": done.path.record(),
            "run": self._run,
            "video": video.name,
            "frames": sum(chunk.video_frames for chunk in chunks),
            "fps": self._model.fps,
            "kv_bytes_peak": max(chunk.kv_bytes for chunk in chunks),
            "events": [[chunk.index + 1, event] for chunk in chunks for event in chunk.events],
        }
        if self._exact:
            record["frames_sha256"] = frame_hash(chunks)
        append_record(self.path / RECORDS, record)
        return record

    def receive(self, record: dict[str, Any], video: bytes) -> None:
        """Add what the folder of another machine has.

        Args:
            record: As `add` returned it there.
            video: Content of the file that it names.

        Raises:
            OSError: As `add` does.
        """
        _write(self.path / record["video"], video)
        append_record(self.path / RECORDS, record)

    def write_manifest(self, paths: Sequence[Path], records: dict[str, dict[str, Any]], errors: dict[str, str]) -> None:
        """Write what there is of each job, in their order. Raises OSError as `add` does."""
        rows = [
            {"job": path.record(), "error": errors[path.job.name]}
            if path.job.name in errors
            else {key: value for key, value in records[path.job.name].items() if key != "run"}
            for path in paths
        ]
        _write(self.manifest, (json.dumps({**self._run, "jobs": rows}, indent=1) + "\n").encode())


def _unfinished(file: File) -> File:
    """The name of a file until it is whole; no job has a name that begins with a dot."""
    return file.with_name(f".{file.name}")


def _write(file: File, data: bytes) -> None:
    """Write a file that is there as a whole or not at all."""
    part = _unfinished(file)
    try:
        part.write_bytes(data)
        part.replace(file)
    finally:
        part.unlink(missing_ok=True)


OPTIONS = {
    "compiled": "--compile",
    "exact": "--rows or --share",
    "forbidden": "--forbid",
    "timesteps": "--steps or --schedule",
    "latent": "--resolution",
    "frames_per_chunk": "--frames-per-chunk",
}
"""What of a run an option decides whose name is another."""


def _difference(there: dict[str, Any], here: dict[str, Any]) -> str:
    """What differs between two runs, in words."""
    names = [name for name in dict.fromkeys([*here, *there]) if there.get(name) != here.get(name)]
    shown = [f"{name} {there.get(name)!r:.60}, not {here.get(name)!r:.60}" for name in names]
    options = [OPTIONS[name] for name in names if name in OPTIONS]
    return "; ".join(shown) + (f" ({', '.join(options)})" if options else "")
