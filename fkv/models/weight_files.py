"""Files of weights: safetensors and PyTorch files, whole or in shards, told apart by content and read without running
code in them."""

from __future__ import annotations

import pickle
import re
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file

from fkv.files import read_json

MAX_JSON = 4 << 20  # bytes of an index, or of an adapter's settings
HEAD = 64  # bytes that tell what a file is
INDEX = ".index.json"
SHARD = re.compile(r"-(\d+)-of-(\d+)\.\w+$")
FORMATS = ("*.safetensors", "*.bin", "*.pt", "*.pth")
FOREIGN = {
    b"GGUF": "is a GGUF file, which is not read; get the same weights as .safetensors",
    b"version https://git-lfs": (
        "is a Git LFS pointer, not the weights themselves; fetch it with `git lfs pull` or `hf download`"
    ),
    b"<": "is a web page, not weights; download the file itself again, with `hf download` or the page's download link",
    b"\x1f\x8b": "is a gzip archive; unpack it and give the file in it",
    b"\x89HDF": "is an HDF5 file, which is not read; get the same weights as .safetensors",
}
"""First bytes of files that hold no weights that are read, and what to say of them."""

# What training scripts write beside the weights; nothing here can do harm when it is loaded.
HARMLESS = re.compile(
    r"argparse\.Namespace|pathlib\.\w*Path|datetime\.\w+|collections\.(deque|defaultdict)|builtins\.(set|frozenset)"
    r"|numpy(\._?core)?(\.multiarray)?\.(scalar|_reconstruct|dtype|ndarray)|numpy\.dtypes\.\w+|numpy\.\w+\d+"
    r"|_codecs\.encode|types\.SimpleNamespace|omegaconf\.[\w.]+"
)


class CheckpointError(ValueError):
    """A file of weights that cannot be used; the message names it and what to do."""


def read(path: str | Path, place: str = "cpu") -> Any:
    """Read weights, memory-mapped, without running code that a file holds.

    Args:
        path: A file of weights, the index of sharded ones, or the folder of either.
        place: `cpu`, or `meta` for names and shapes alone, and whether numbers are whole.

    Returns:
        What the file holds, usually nested dicts of tensors.

    Raises:
        CheckpointError: A file is missing, incomplete, of another kind, or a pickle that holds more than tensors.
    """
    try:
        files = files_of(path)
        if len(files) == 1:
            return _file(files[0], place)
        weights: dict[str, Any] = {}
        for file in files:
            shard = _file(file, place)
            if twice := sorted(weights.keys() & shard.keys()):
                raise CheckpointError(f"{twice[0]} is in {file.name} and in another shard")
            weights |= shard
        return weights
    except OSError as error:
        raise CheckpointError(f"cannot read the checkpoint {path}: {error.strerror or error}") from None


def files_of(path: str | Path) -> list[Path]:
    """Return the files that hold weights: the file itself, or the shards of an index, which a folder may have too.

    Args:
        path: As in `read`.

    Raises:
        CheckpointError: A folder has no weights or several files of them, or shards of an index are missing.
        OSError: The path cannot be read.
    """
    path = Path(path)
    if path.is_dir():
        path = _in_folder(path)
    head = _head(path)
    return _shards(path) if head.lstrip().startswith(b"{") and not _is_safetensors(head) else [path]


def metadata(path: str | Path, data: Any) -> dict[str, Any]:
    """Return what a file says beside its tensors.

    Args:
        path: As in `read`.
        data: What `read` returned.

    Returns:
        The header of a safetensors file, the numbers and texts beside the weights of a PyTorch file, and, for an
        adapter that peft saved, its adapter_config.json.
    """
    file = files_of(path)[0]
    config = file.with_name("adapter_config.json")
    found: dict[str, Any] = {}
    if isinstance(data, Mapping):
        found = {name: value for name, value in data.items() if isinstance(value, str | int | float)}
    if _is_safetensors(_head(file)):
        with safe_open(file, "pt") as tensors:
            found |= tensors.metadata() or {}
    if file.stem.startswith("adapter_model") and config.is_file():
        try:
            found |= read_json(config, MAX_JSON)
        except (ValueError, TypeError) as error:
            raise CheckpointError(f"{config} holds no settings ({error}); download it again") from None
    return found


def _head(path: Path) -> bytes:
    """The first bytes of a file."""
    with path.open("rb") as file:
        return file.read(HEAD)


def _is_safetensors(head: bytes) -> bool:
    """Whether a file begins with the length of a JSON header, 8 bytes of which the last is 0, and the header."""
    return head[7:9] == b"\0{"


def _in_folder(folder: Path) -> Path:
    """The one index or file of weights in a folder."""
    for pattern in (f"*{INDEX}", *FORMATS):
        found = sorted(folder.glob(pattern))
        if len(found) == 1:
            return found[0]
        if found:
            names = ", ".join(path.name for path in found[:2])
            raise CheckpointError(f"the folder {folder.name} has {len(found)} files of weights ({names}…); name one")
    raise CheckpointError(f"the folder {folder.name} has no weights in it; name a file of weights or its index")


def _shards(index: Path) -> list[Path]:
    """The files that an index names."""
    try:
        names = sorted(set(read_json(index, MAX_JSON)["weight_map"].values()))
        files = [index.parent / Path(name).name for name in names]
    except (ValueError, KeyError, TypeError, AttributeError):
        raise CheckpointError(
            f"{index.name} is a JSON file but no index of weights (it has no weight_map); give the weights themselves"
        ) from None
    missing = [file.name for file in files if not file.is_file()]
    if missing or not files:
        first = f", first {missing[0]}" if missing else ""
        raise CheckpointError(
            f"{index.name} names {len(files)} shards, of which {len(missing)} are not beside it{first}; "
            f"download the others to the same folder"
        )
    return files


def check_whole(path: Path) -> None:
    """Raise CheckpointError for one shard of several."""
    found = SHARD.search(path.name)
    if found and int(found[2]) > 1 and path.is_file():
        raise CheckpointError(
            f"{path.name} is shard {int(found[1])} of {int(found[2])}; give the folder of all shards, or its {INDEX}"
        )


def _file(path: Path, place: str) -> Any:
    """What one file holds."""
    head = _head(path)
    if _is_safetensors(head):
        return _safetensors(path, place)
    for start, sentence in FOREIGN.items():
        if head.lstrip().startswith(start):
            raise CheckpointError(f"{path.name} {sentence}")
    return _pytorch(path, place)


def _safetensors(path: Path, place: str) -> dict[str, Any]:
    try:
        if place == "cpu":
            return load_file(path)
        with safe_open(path, "pt") as tensors:
            found = {name: tensors.get_slice(name) for name in tensors.keys()}
            return {
                name: torch.empty(
                    value.get_shape(), dtype=torch.float32 if "F" in value.get_dtype() else torch.int64, device=place
                )
                for name, value in found.items()
            }
    except SafetensorError as error:
        raise CheckpointError(f"{path.name} is incomplete or damaged ({error}); download it again") from None


def _pytorch(path: Path, place: str) -> Any:
    if zipfile.is_zipfile(path):
        _check_zip(path)
    try:
        if path.suffix == ".safetensors":  # torch.load goes by the name of a path
            with path.open("rb") as file:
                return torch.load(file, map_location=place, weights_only=True)
        return torch.load(path, map_location=place, weights_only=True, mmap=zipfile.is_zipfile(path))
    except OSError:
        raise
    except Exception as error:
        found = re.search(r"(?:GLOBAL|class) ([\w.]+)", str(error))
        if isinstance(error, pickle.UnpicklingError) and found is not None:
            raise CheckpointError(_more_than_tensors(path, found[1])) from None
        if zipfile.is_zipfile(path):
            kind = "is a zip archive but no PyTorch checkpoint; if it holds files of weights, unpack it and give one"
            raise CheckpointError(f"{path.name} {kind}") from None
        raise CheckpointError(
            f"{path.name} is incomplete or no PyTorch checkpoint or safetensors file; download it again, "
            f"or get the weights as .safetensors"
        ) from None


def _check_zip(path: Path) -> None:
    """Raise CheckpointError for an archive that unpacks to more than the file holds; PyTorch compresses nothing."""
    try:
        with zipfile.ZipFile(path) as archive:
            unpacked = sum(entry.file_size for entry in archive.infolist())
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError) as error:
        raise CheckpointError(f"{path.name} is a damaged zip archive ({error}); download it again") from None
    if unpacked > path.stat().st_size:
        raise CheckpointError(f"{path.name} is a compressed zip archive and no PyTorch checkpoint; unpack it")


def _more_than_tensors(path: Path, found: str) -> str:
    """The sentence for a pickle with other objects; tells how to save it anew where they are harmless."""
    try:
        objects = torch.serialization.get_unsafe_globals_in_checkpoint(path)
    except Exception:  # not a zip file, or one that cannot be followed
        objects = []
    if objects and all(HARMLESS.fullmatch(name) for name in objects):
        line = f"d = torch.load({path.name!r}, weights_only=False); torch.save(d['model'], 'weights.pt')"
        return (
            f"{path.name} holds more than tensors ({found}), so nothing was read; if the file is from your own "
            f"training, save only its weights (replace 'model' by your key): {line}"
        )
    return (
        f"{path.name} holds more than tensors ({found}); nothing in it was run. Only files of plain tensors are read: "
        f"get the weights as .safetensors from a source that you trust"
    )
