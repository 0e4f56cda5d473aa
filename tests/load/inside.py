"""A studio in this process, so that a test can break what is inside it."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from fkv.models.base import VideoModel
from fkv.studio.live.limits import Limits
from fkv.studio.server import serve

from .client import free_port


@contextmanager
def served(model: VideoModel, limits: Limits | None = None, metrics: bool = False, **options: Any) -> Iterator[str]:
    """The address of a studio with this model until the block ends; options: further ones of `serve`."""
    before, port = (os.environ.get("GRADIO_TEMP_DIR"), tempfile.tempdir), free_port()
    page = serve(model, "127.0.0.1", port, limits=limits, metrics=metrics, block=False, **options)
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        page.close(verbose=False)
        shutil.rmtree(os.environ["GRADIO_TEMP_DIR"], ignore_errors=True)
        tempfile.tempdir = before[1]
        os.environ.pop("GRADIO_TEMP_DIR") if before[0] is None else os.environ.update(GRADIO_TEMP_DIR=before[0])
