"""One run of a visitor or a program: how it is controlled while it generates, and the encoded chunks that it leaves."""

from __future__ import annotations

import secrets
import threading
import time
from collections import OrderedDict, defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from fkv.storyboard import Change, Cue

from .attention_probe import Watch
from .undo import History

MAX_CHANGES = 64  # changes that may wait for the next chunk; older ones are dropped


@dataclass(frozen=True)
class Control:
    """What a visitor has asked a run to do: enough for another process to follow.

    Args:
        stopped: Whether it shall end.
        paused: Whether it shall wait.
        until: How many chunks it may generate although it is paused.
    """

    stopped: bool = False
    paused: bool = False
    until: int = 0


class Run:
    """One run from Go live to its end.

    Args:
        memory: Bytes of encoded chunks to keep.
        on_chunk: Called after every chunk, to make room among all runs.

    Attributes:
        key: The unguessable name under which its chunks are served.
        live: Whether it waits for its turn or generates.
        ended: How it ended, in a word or two; empty while it goes on.
        source: Where its figures come from, as in "live on ...".
        begun: How many chunks a stream has begun.
        choice: What the visitor chose last among several futures, from 0.
        watch: The head at which the visitor looks, None for none; any thread may set it.
        encoded_bytes: Bytes of all chunks so far.
        kept_bytes: Bytes of the chunks that are still kept.
        kv_bytes: Bytes of KV cache while the newest chunk attended.
        frame_bytes: Bytes of decoded frames that the run keeps until its end; a live run keeps none.
        history: The settings that its changes replaced; None where nobody takes changes back.
    """

    def __init__(self, memory: int, on_chunk: Callable[[], None] = lambda: None) -> None:
        self.key = secrets.token_urlsafe(16)
        self.began = time.monotonic()
        self.live = False
        self.ended = ""
        self.source = ""
        self.begun = 0
        self.choice = 0
        self.watch: Watch | None = None
        self.paused_seconds = 0.0
        self.encoded_bytes = 0
        self.kept_bytes = 0
        self.kv_bytes = 0
        self.frame_bytes = 0
        self.history: History | None = None
        self._memory = memory
        self._on_chunk = on_chunk
        self._control = Control()
        self._changes: list[Change] = []
        self._cues: list[Cue] = []
        self._files: OrderedDict[int, tuple[int, bytes]] = OrderedDict()  # by number: of which chunk, and the file
        self._put = 0
        self._lost = -1  # the last chunk of which a file was dropped
        self._count = 0
        self._paused_at = 0.0
        self._unfetched_since: float | None = None
        self._wake = threading.Condition()

    # Control, from any thread.

    @property
    def stopped(self) -> bool:
        return self._control.stopped

    @property
    def paused(self) -> bool:
        control = self._control
        return control.paused and not control.stopped and self._count >= control.until

    def stop(self) -> None:
        """End at the next chunk boundary."""
        with self._wake:
            self._set(Control(True, self._control.paused, self._control.until))

    def pause(self, paused: bool) -> None:
        """Wait, or go on, at the next chunk boundary."""
        with self._wake:
            self._unfetched_since = None
            self._set(Control(self.stopped, paused))

    def toggle(self) -> None:
        """Pause, or go on where it pauses, also while it generates one more chunk; two at once cancel out."""
        with self._wake:
            self.pause(not self._control.paused)

    def choose(self, number: int) -> None:
        """Go on with one of several futures."""
        with self._wake:
            self.choice = number
            self.pause(False)

    def step(self) -> None:
        """While paused: generate one more chunk, and pause again."""
        with self._wake:
            self._set(Control(self.stopped, self._control.paused, self._count + 1))

    @property
    def control(self) -> Control:
        """What the visitor has asked for, to be followed by the same run in another process."""
        return self._control

    def follow(self, control: Control) -> None:
        """Do what the visitor has asked of this run in another process."""
        with self._wake:
            if control != self._control:
                self._set(control)

    def _set(self, control: Control) -> None:
        if (control.paused, control.until) != (self._control.paused, self._control.until):
            self._paused_at = time.monotonic()
        self._control = control
        self._wake.notify_all()

    def add_change(self, change: Change) -> None:
        """Change the streams when the next chunk begins."""
        with self._wake:
            self._note([change])
            self._changes = [*self._changes, change][-MAX_CHANGES:]

    def undo(self) -> bool:
        """Take the last change back when the next chunk begins. Returns False where there is none."""
        with self._wake:
            changes = self.history.undo() if self.history else []
            self._changes = [*self._changes, *changes][-MAX_CHANGES:]
            return bool(changes)

    def _note(self, changes: Iterable[Change]) -> None:
        for change in changes:
            if self.history:
                self.history.note(change)

    def add_cues(self, cues: Iterable[Cue]) -> None:
        """Change the streams when these chunks begin; replaces what was to come by earlier calls."""
        with self._wake:
            self._cues = list(cues)[-MAX_CHANGES:]

    # For the generating thread.

    def take_changes(self) -> list[Change]:
        """The changes that were added since the last call, and those of cues whose chunk is next or has passed."""
        with self._wake:
            due = [cue.change for cue in self._cues if cue.chunk <= self._count]
            self._cues = [cue for cue in self._cues if cue.chunk > self._count]
            self._note(due)
            changes = self._changes + due
            self._changes = []
            return changes

    @property
    def paused_for(self) -> float:
        """Seconds since the pause began, 0 when there is none."""
        return time.monotonic() - self._paused_at if self.paused else 0.0

    def wait_paused(self, seconds: float) -> bool:
        """Wait while paused, `seconds` at most; the time does not count as running. True when no longer paused."""
        began = time.monotonic()
        with self._wake:
            self._wake.wait_for(lambda: not self.paused, seconds)
        self.paused_seconds += time.monotonic() - began
        return not self.paused

    def rest(self, seconds: float) -> None:
        """Wait, but not beyond a stop or a pause."""
        with self._wake:
            self._wake.wait_for(lambda: self.stopped or self._control.paused, max(0.0, seconds))

    # Encoded chunks.

    @property
    def count(self) -> int:
        """How many chunks there are of the stream that is ahead."""
        return self._count

    @property
    def next_chunk(self) -> int:
        """The first chunk that no stream has begun, from 0: the first one that a change can reach."""
        return max(self._count, self.begun)

    @property
    def files(self) -> int:
        """How many files were put; their numbers run from 0 to `files` - 1."""
        return self._put

    @property
    def idle(self) -> float:
        """Seconds for which there has been a file to fetch and nobody fetched any."""
        with self._wake:
            return 0.0 if self._unfetched_since is None else time.monotonic() - self._unfetched_since

    def put(self, data: bytes, chunk: int | None = None) -> None:
        """Keep the next file, and drop the oldest ones while they exceed the run's memory.

        Args:
            data: An encoded chunk, of all streams or of those that have it by now.
            chunk: Its number, by default that of the next chunk.
        """
        with self._wake:
            chunk = self._count if chunk is None else chunk
            self._files[self._put] = chunk, data
            self._put += 1
            self._count = max(self._count, chunk + 1)
            self.encoded_bytes += len(data)
            self.kept_bytes += len(data)
            while self.kept_bytes > self._memory and len(self._files) > 1:
                _, (self._lost, dropped) = self._files.popitem(last=False)
                self.kept_bytes -= len(dropped)
            if self._unfetched_since is None:
                self._unfetched_since = time.monotonic()
        self._on_chunk()

    def get(self, number: int) -> bytes | None:
        """A file, or None when there is none of that number, or it was dropped."""
        with self._wake:
            self._unfetched_since = None
            _, data = self._files.get(number, (0, None))
            return data

    def chunks(self) -> list[bytes]:
        """All encoded chunks that are kept whole, in order: each the row of its files."""
        rows: defaultdict[int, bytes] = defaultdict(bytes)
        with self._wake:
            for chunk, data in self._files.values():
                rows[chunk] += data
            return [rows[chunk] for chunk in sorted(rows) if chunk > self._lost]
