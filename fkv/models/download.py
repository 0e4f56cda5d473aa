"""Files from the Hugging Face Hub: resumed, cached, pinned to a revision; a sentence for what can go wrong."""

from __future__ import annotations

import errno
import shutil
from pathlib import Path
from typing import Any

import huggingface_hub
from huggingface_hub import constants, errors

from .release import Source


class DownloadError(ValueError):
    """A file that cannot be downloaded; the message says what to do."""


def fetch(source: Source, instead: str = "") -> Path:
    """Return the local path of a Hub file or folder; download it where it is not cached.

    A cached file of the pinned revision is used without asking the network; `HF_HUB_OFFLINE=1` never asks. Progress
    goes to stderr.

    Args:
        source: The file, or a folder, whose name ends with a slash.
        instead: What the user can do where the Hub has no such file.

    Raises:
        DownloadError: No network, no such file, a gated repository, or a full disk.
    """
    cached = huggingface_hub.try_to_load_from_cache(source.repo, source.file, revision=source.revision)
    if isinstance(cached, str):
        return Path(cached)
    what = f"{source.file} of {source.repo}"
    cache = Path(constants.HF_HUB_CACHE)
    try:
        online = _reachable()
        if online:
            _check_room(source, what, cache)
        return _download(source, only_cached=not online)
    except errors.GatedRepoError:
        page = f"https://huggingface.co/{source.repo}"
        todo = f"accept its terms on {page}, run `hf auth login` with that account, and start again"
        raise DownloadError(f"{what} is gated: {todo}") from None
    except errors.LocalEntryNotFoundError as error:
        if _disk_full(error):
            raise _no_room(source, what, cache) from None
        by_hand = f"hf download {source.repo} --include '{source.file}*' --revision {source.revision}"
        raise DownloadError(
            f"{what} is not in the cache {cache} and the Hub cannot be reached; connect to the network, or run "
            f"`{by_hand}` where there is one and copy the cache here (the model `tiny` needs no download)"
        ) from None
    except (errors.RepositoryNotFoundError, errors.RevisionNotFoundError, errors.EntryNotFoundError):
        todo = f"; it may have moved: {instead}" if instead else ""
        raise DownloadError(f"the Hub has no {what} at revision {source.revision}{todo}") from None
    except OSError as error:
        if _disk_full(error):
            raise _no_room(source, what, cache) from None
        lines = str(error).strip().splitlines()
        reason = lines[0] if lines else type(error).__name__
        raise DownloadError(f"downloading {what} failed ({reason}); start again to resume where it stopped") from None


def _download(source: Source, only_cached: bool) -> Path:
    """Return the path of a file or folder in the cache; raises what the Hub's library raises."""
    options: dict[str, Any] = {"revision": source.revision, "local_files_only": only_cached}
    if not source.file.endswith("/"):
        return Path(huggingface_hub.hf_hub_download(source.repo, source.file, **options))
    snapshot = huggingface_hub.snapshot_download(source.repo, allow_patterns=f"{source.file}*", **options)
    folder = Path(snapshot) / source.file
    if not folder.is_dir():
        raise errors.EntryNotFoundError(f"{folder} is not there")
    return folder


def _reachable() -> bool:
    """Whether the Hub answers at all. Its client would try for half a minute before it says no."""
    try:
        huggingface_hub.get_session().head(constants.ENDPOINT, timeout=5)
    except Exception:
        return False
    return True


def _disk_full(error: BaseException | None) -> bool:
    """Whether an error, or one behind it, is a full disk."""
    while error is not None:
        if getattr(error, "errno", None) == errno.ENOSPC:
            return True
        error = error.__cause__ or error.__context__
    return False


def _no_room(source: Source, what: str, cache: Path) -> DownloadError:
    return DownloadError(
        f"{what} takes {source.gigabytes:g} GB, which {cache} has no room for; "
        f"free some, or set HF_HOME to a larger disk"
    )


def _check_room(source: Source, what: str, cache: Path) -> None:
    """Raise DownloadError where the disk has less room than what is left to download."""
    there = next(folder for folder in (cache, *cache.parents) if folder.exists())
    blobs = cache / f"models--{source.repo.replace('/', '--')}" / "blobs"
    cached = sum(file.stat().st_size for file in blobs.glob("*"))
    if shutil.disk_usage(there).free + cached < source.gigabytes * 1e9:
        raise _no_room(source, what, cache)
