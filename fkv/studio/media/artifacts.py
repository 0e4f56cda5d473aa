"""Files for visitors to download: a bounded number of them in the studio's folder; the oldest are removed first."""

from __future__ import annotations

import os
import secrets
import shutil
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path


@dataclass
class Artifacts:
    """Files that visitors may download.

    Args:
        seconds: How long a file is kept.
        memory: Bytes of all files at most.
        count: Number of files at most.
    """

    seconds: float = 3600.0
    memory: int = 256 << 20
    count: int = 64
    _files: list[tuple[float, Path]] = field(default_factory=list)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    @contextmanager
    def write(self, name: str) -> Iterator[Path]:
        """The path for a file of this name, in a folder that nobody can guess; the file is removed if the block
        fails."""
        temporary = Path(os.environ.get("GRADIO_TEMP_DIR") or tempfile.gettempdir())
        folder = temporary / "forcing-kv-clips" / secrets.token_urlsafe(12)
        folder.mkdir(parents=True, exist_ok=True)
        self._make_room()
        path = folder / name
        try:
            yield path
        except BaseException:
            shutil.rmtree(folder, ignore_errors=True)
            raise
        with self._lock:
            self._files.append((time.monotonic(), path))
        self._make_room()

    def _make_room(self) -> None:
        """Remove the oldest files while there are too many, or they are too large or too old; the newest stays."""
        now = time.monotonic()
        with self._lock:
            sizes = [path.stat().st_size if path.exists() else 0 for _, path in self._files]
            while self._files:
                written, path = self._files[0]
                crowded = len(self._files) > 1 and (len(self._files) > self.count or sum(sizes) > self.memory)
                if not crowded and now - written <= self.seconds:
                    break
                shutil.rmtree(path.parent, ignore_errors=True)
                del self._files[0], sizes[0]
