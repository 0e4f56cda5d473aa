"""What a visitor, and all visitors together, may take of the machine."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from pydantic import Field

from fkv.parameters import Count, check_fields

from .queue import LENGTH
from .run import Run

Seconds = Annotated[float, Field(ge=0, json_schema_extra={"unit": "seconds"})]
Bytes = Annotated[Count, Field(json_schema_extra={"unit": "bytes"})]


@dataclass(frozen=True)
class Limits:
    """Bounds of runs. Raises ValueError if one is negative or not a number."""

    seconds: Annotated[Seconds, Field(description="longest run, pauses included")] = 1800.0
    turn: Annotated[Seconds, Field(description="longest run once others wait")] = 180.0
    pause: Annotated[Seconds, Field(description="longest pause")] = 180.0
    idle: Annotated[Seconds, Field(description="longest time for which nobody fetches the video")] = 60.0
    waiting: Annotated[Count, Field(description="visitors in the queue")] = LENGTH
    together: Annotated[Count, Field(ge=1, description="visitors with one stream each that share passes")] = 1
    visitors: Annotated[Count, Field(description="runs that are kept in all")] = 32
    memory: Annotated[Bytes, Field(description="encoded chunks kept per run")] = 192 << 20
    total: Annotated[Bytes, Field(description="encoded chunks kept for all runs together")] = 768 << 20
    kv: Annotated[Bytes, Field(description="KV cache per run")] = 2 << 30
    lead: Annotated[Seconds, Field(description="video that may be generated ahead of playback")] = 1.5

    def __post_init__(self) -> None:
        check_fields(self)

    def exceeded(self, run: Run, seconds: float, others_wait: bool) -> tuple[str, str] | None:
        """Find a limit that a run exceeds.

        Args:
            run: The run, whose pause, idle time, KV bytes and frame bytes count.
            seconds: How long its turn has lasted.
            others_wait: Whether it has to make way for others.

        Returns:
            The reason in a word or two for the log, and a clause for the visitor; None while the run may go on.
        """
        if run.paused_for > self.pause:
            return "pause limit", f"a pause may last at most {span(self.pause)}"
        if seconds > self.seconds:
            return "time limit", f"a run may last at most {span(self.seconds)}"
        if others_wait and seconds > self.turn:
            longest = span(self.turn)
            return "turn", f"others are waiting, so a turn may last at most {longest}"
        if run.idle > self.idle:
            return "idle", f"nobody fetched the video for {span(self.idle)}"
        if run.kv_bytes > self.kv:
            return "kv limit", f"its KV cache exceeded the limit of {self.kv / 1e6:,.0f} MB; forcing-kv needs less"
        if run.frame_bytes > self.total:
            return "memory limit", f"its frames exceeded the limit of {self.total / 1e6:,.0f} MB; ask for fewer chunks"
        return None


def span(seconds: float) -> str:
    """A length of time in words."""
    count, unit = (seconds, "second") if seconds < 60 else (seconds / 60, "minute")
    return f"{round(count, 2):g} {unit}{'' if count == 1 else 's'}"
