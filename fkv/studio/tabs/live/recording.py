"""The card Record to MP4: what is kept of the visitor's newest run as a file."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import gradio as gr

from fkv.models.base import VideoModel
from fkv.studio.live.sessions import Registry
from fkv.studio.media.artifacts import Artifacts

from .events import PRIVATE

NO_RECORDING = "Nothing recorded yet"
ONE_AT_A_TIME = PRIVATE | {"concurrency_id": "film", "concurrency_limit": 1, "trigger_mode": "once"}


class RecordingCard:
    """The card's components and handlers.

    Args:
        model: What generates.
        registry: The runs of all visitors.
    """

    def __init__(self, model: VideoModel, registry: Registry) -> None:
        self._model = model
        self._registry = registry
        self._artifacts = Artifacts()
        with gr.Accordion("Record to MP4", open=False, elem_id="fkv-record"), gr.Row():
            plain = gr.Checkbox(False, label="Plain", info="only the frames, without labels and charts", scale=2)
            record = gr.Button("Make MP4", elem_id="fkv-film", scale=1)
            self.download = gr.DownloadButton(NO_RECORDING, elem_id="fkv-fetch", interactive=False, scale=2)
        record.click(self._record, plain, self.download, **ONE_AT_A_TIME)

    def _record(self, plain: bool, request: gr.Request) -> Iterator[Any]:
        """Encode what is kept of the visitor's newest run, which may still go on."""
        from fkv.studio.media.mp4 import Encoding, Recording
        from fkv.studio.media.protocol import whole

        run = self._registry.last(request.session_hash)
        if run is None or not run.count:
            yield gr.DownloadButton("Nothing of a run is kept to record: go live first", interactive=False)
            return
        files = whole(run.chunks())
        if not files:  # the other stream has no chunk yet
            yield gr.DownloadButton("Nothing to record yet", interactive=False)
            return
        recording = Recording(files, self._model.fps, run.source, plain)
        with self._artifacts.write(recording.name) as path:
            with Encoding(recording, path).running() as work:
                while work.wait(0.5) and not self._registry.replaced(request.session_hash, run):
                    yield gr.DownloadButton(f"Writing chunk {work.done + 1} of {work.total}", interactive=False)
            if self._registry.replaced(request.session_hash, run):
                return
            if work.problem:
                yield gr.DownloadButton(work.problem, interactive=False)
                return
            label = f"Download MP4: {work.total} chunks, {path.stat().st_size / 1e6:.1f} MB"
            yield gr.DownloadButton(label, value=path, interactive=True, variant="primary")

    def forget(self) -> gr.DownloadButton:
        """Withdraw the recording of the last run when a new one begins."""
        return gr.DownloadButton(NO_RECORDING, value=None, interactive=False, variant="secondary")
