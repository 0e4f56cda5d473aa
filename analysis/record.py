"""A recorded run: chunks with page tables and timings, and attention masses, saved as safetensors and JSON.

A folder holds `record.json` (settings, scalars) and `record.safetensors` (latents, page tables, masses, all float32 or
integers). Video is not saved: it follows from the latents.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from fkv import roles as role_files
from fkv.files import read_json
from fkv.pages import Pages
from fkv.policies import Policy
from fkv.policies.kinds import KINDS as KIND_TABLE
from fkv.probe import FrameMassProbe, PassMass
from fkv.report import device_name
from fkv.roles import HeadRoles
from fkv.stream import Chunk, Stream, Timings

SCHEMA = 4
PAGE_COLUMNS = ("slot", "frame", "segment", "position", "edited")
KINDS = list(KIND_TABLE)
MAX_JSON = 64 << 20
SCALARS = (
    "index",
    "frames",
    "prompt",
    "policy",
    "kv_bytes",
    "kv_tokens",
    "kv_tokens_read",
    "context_frames",
    "segments",
    "events",
)


@dataclass(frozen=True)
class Run:
    """A recorded run.

    Args:
        settings: Model, device, and policy with its parameters.
        chunks: The chunks in order.
        masses: Recorded attention, pass by pass; empty where the run had no probe.
        roles: Head roles that the run used, if any.
    """

    settings: dict[str, Any]
    chunks: tuple[Chunk, ...]
    masses: tuple[PassMass, ...] = ()
    roles: HeadRoles | None = None


def settings_of(stream: Stream) -> dict[str, Any]:
    """Describe a stream for a record: model, device, and the policy with all its parameters."""
    policy: Policy = stream.policy
    return {
        "model": stream.model.name,
        "device": device_name(stream.model.device),
        "torch": torch.__version__,
        "policy": {"name": policy.name, **dataclasses.asdict(policy.unwrapped)},
    }


def capture(
    stream: Stream, chunks: int, probe: FrameMassProbe | None = None, progress: Callable[[], Any] = lambda: None
) -> Run:
    """Step a stream and keep everything.

    Args:
        stream: The stream, at its beginning.
        chunks: Number of chunks.
        probe: Records attention, if given.
        progress: Called after every chunk.
    """
    done = []
    masses = []
    for _ in range(chunks):
        done.append(stream.step(probe))
        masses += probe.take() if probe else []
        progress()
    return Run(settings_of(stream), tuple(done), tuple(masses), stream.roles)


def save(run: Run, folder: str | Path) -> None:
    """Write a record into a folder, created if missing."""
    folder = Path(folder)
    arrays: dict[str, np.ndarray] = {}
    folder.mkdir(parents=True, exist_ok=True)
    for i, chunk in enumerate(run.chunks):
        arrays[f"chunk.{i}.latents"] = chunk.latents.float().cpu().numpy()
        for name, pages in chunk.pages.items():
            for part in PAGE_COLUMNS:
                arrays[f"chunk.{i}.{name}.{part}"] = getattr(pages, part)
            arrays[f"chunk.{i}.{name}.kept"] = chunk.kept[name]
            arrays[f"chunk.{i}.{name}.kind"] = np.array([KINDS.index(kind) for kind in chunk.kinds[name]], np.uint8)
    for i, mass in enumerate(run.masses):
        arrays[f"mass.{i}"] = mass.mass
        arrays |= {f"mass.{i}.map.{frame}": values for frame, values in mass.maps.items()}
    listed = {
        "schema": SCHEMA,
        "kinds": KINDS,
        "settings": run.settings,
        "roles": role_files.to_json(run.roles) if run.roles else None,
        "chunks": [
            {name: getattr(chunk, name) for name in SCALARS}
            | {"timings": dataclasses.asdict(chunk.timings), "groups": chunk.heads}
            for chunk in run.chunks
        ],
        "masses": [
            {"chunk": m.chunk, "name": m.name, "frames": m.frames, "key_frames": m.key_frames, "maps": list(m.maps)}
            for m in run.masses
        ],
    }
    save_file({name: np.ascontiguousarray(array) for name, array in arrays.items()}, folder / "record.safetensors")
    (folder / "record.json").write_text(json.dumps(listed, indent=1) + "\n", encoding="utf-8")


def load(folder: str | Path) -> Run:
    """Read a record; its chunks have no video.

    Raises:
        ValueError: A file is missing, damaged, or of another version.
    """
    folder = Path(folder)
    try:
        listed = read_json(folder / "record.json", MAX_JSON)
        arrays = load_file(folder / "record.safetensors")
    except FileNotFoundError as error:
        raise ValueError(
            f"{folder} is not a recorded run: {Path(error.filename or 'record.safetensors').name} is missing"
        ) from None
    except (OSError, ValueError, SafetensorError) as error:
        raise ValueError(f"the record in {folder} cannot be read: {error}") from None
    schema = listed.get("schema") if isinstance(listed, dict) else None
    if schema != SCHEMA:
        known = f"has schema {schema}, this version reads" if schema else "is not a record of"
        raise ValueError(f"{folder / 'record.json'} {known} schema {SCHEMA}; record the run again")
    try:
        chunks = tuple(_chunk(i, entry, arrays, listed["kinds"]) for i, entry in enumerate(listed["chunks"]))
        masses = tuple(
            PassMass(
                entry["chunk"],
                entry["name"],
                tuple(entry["frames"]),
                tuple(entry["key_frames"]),
                arrays[f"mass.{i}"],
                {frame: arrays[f"mass.{i}.map.{frame}"] for frame in entry["maps"]},
            )
            for i, entry in enumerate(listed["masses"])
        )
        roles = role_files.from_json(listed["roles"]) if listed["roles"] else None
        return Run(listed["settings"], chunks, masses, roles)
    except (KeyError, TypeError, AttributeError, IndexError) as error:
        raise ValueError(f"the record in {folder} is damaged: {error} is missing or of the wrong kind") from None


def _chunk(i: int, entry: dict[str, Any], arrays: dict[str, np.ndarray], kinds: Sequence[str]) -> Chunk:
    def array(group: str, part: str) -> np.ndarray:
        return arrays[f"chunk.{i}.{group}.{part}"]

    scalars = {name: entry[name] for name in SCALARS} | {
        "frames": tuple(entry["frames"]),
        "events": tuple(entry["events"]),
    }
    groups: dict[str, list[list[int]]] = entry["groups"]
    return Chunk(
        latents=torch.from_numpy(arrays[f"chunk.{i}.latents"]),
        video=None,
        timings=Timings(**entry["timings"]),
        pages={name: Pages(*(array(name, part) for part in PAGE_COLUMNS)) for name in groups},
        kept={name: array(name, "kept") for name in groups},
        kinds={name: tuple(kinds[kind] for kind in array(name, "kind")) for name in groups},
        heads={name: tuple(map(tuple, heads)) for name, heads in groups.items()},
        **scalars,
    )
