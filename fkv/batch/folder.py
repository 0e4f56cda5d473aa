"""What a batch leaves in its folder: a video per job, a record of each that is finished, and a manifest of all."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path as File
from typing import Any

from fkv.models.base import VideoModel
from fkv.parallel.overlap import Overlap
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

    Raises:
        ValueError: The folder cannot be read.
    """

    def __init__(self, path: File, model: VideoModel, exact: bool, forbidden: str | None = None) -> None:
        self.path = path
        self._model = model
        self._exact = exact
        self._forbidden = forbidden
        path.mkdir(parents=True, exist_ok=True)

    @property
    def _run(self) -> dict[str, Any]:
        model = self._model
        weights = [file.name for file in model.weights]
        return {
            "model": model.name,
            "weights": weights,
            "adapters": list(model.adapters),
            "precision": model.precision,
            "exact": self._exact,
            **({"forbidden": self._forbidden} if self._forbidden is not None else {}),
        }

    def finished(self, paths: Sequence[Path]) -> dict[str, dict[str, Any]]:
        """Records of the jobs whose videos are there, by name.

        Raises:
            ValueError: The folder is that of other jobs or of another model.
        """
        file = self.path / RECORDS
        if not file.exists():
            if (self.path / MANIFEST).exists():
                raise ValueError(f"{self.path} holds a manifest without records; name another folder")
            return {}
        wanted = {path.job.name: path for path in paths}
        found = {}
        for line in file.read_text(encoding="utf-8").splitlines():
            try:
                record = json.loads(line)
                name, run = record["job"]["name"], record["run"]
            except (ValueError, KeyError, TypeError):
                continue  # the line that was being written when a run ended
            if run != self._run:
                there, here = (f"{each['model']} in {each['precision']}" for each in (run, self._run))
                modes = "" if there != here else ", with other --rows, --share or --forbid"
                raise ValueError(
                    f"{self.path} holds a run of {there}{modes}, this is one of {here}; name another folder"
                )
            if name not in wanted or record["job"] != wanted[name].record():
                raise ValueError(f"{self.path} holds {name!r} of another run; name another folder, or delete this one")
            if (self.path / record["video"]).exists():
                found[name] = record
        return found

    def add(self, done: Done) -> dict[str, Any]:
        """Write the video of a job that has ended, then its record.

        Raises:
            Forbidden: The video must not be shown; nothing of it stays.
            OSError: The disk is full, or the folder is gone; what was finished before stays.
        """
        name = done.path.job.name
        video = self.path / f"{name}{ENDING}"
        part = self.path / f"{name}.part{ENDING}"
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
        self._append(record)
        return record

    def receive(self, record: dict[str, Any], video: bytes) -> None:
        """Add what the folder of another machine has.

        Args:
            record: As `add` returned it there.
            video: Content of the file that it names.

        Raises:
            OSError: As `add` does.
        """
        target = self.path / record["video"]
        part = target.with_suffix(f".part{ENDING}")
        try:
            part.write_bytes(video)
            part.replace(target)
        finally:
            part.unlink(missing_ok=True)
        self._append(record)

    def _append(self, record: dict[str, Any]) -> None:
        with (self.path / RECORDS).open("a", encoding="utf-8") as lines:
            lines.write(json.dumps(record) + "\n")

    def write_manifest(self, paths: Sequence[Path], records: dict[str, dict[str, Any]], errors: dict[str, str]) -> File:
        """Write what there is of each job, in their order. Returns the file."""
        rows = [
            {"job": path.record(), "error": errors[path.job.name]}
            if path.job.name in errors
            else {key: value for key, value in records[path.job.name].items() if key != "run"}
            for path in paths
        ]
        file = self.path / MANIFEST
        file.write_text(json.dumps({**self._run, "jobs": rows}, indent=1) + "\n", encoding="utf-8")
        return file
