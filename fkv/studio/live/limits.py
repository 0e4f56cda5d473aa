"""What a visitor, and all visitors together, may take of the machine."""

from __future__ import annotations

from dataclasses import dataclass

from .run import Run


@dataclass(frozen=True)
class Limits:
    """Bounds of runs.

    Args:
        seconds: Longest run in seconds, pauses included.
        turn: Longest run in seconds once others wait.
        pause: Longest pause in seconds.
        idle: Longest time in seconds for which nobody fetches the video.
        waiting: Visitors in the queue.
        visitors: Runs that are kept in all.
        memory: Bytes of encoded chunks kept per run.
        total: Bytes of encoded chunks kept for all runs together.
        kv: Bytes of KV cache per run.
        lead: Seconds of video that may be generated ahead of playback.

    Raises:
        ValueError: If a limit is negative or not a number.
    """

    seconds: float = 1800.0
    turn: float = 180.0
    pause: float = 180.0
    idle: float = 60.0
    waiting: int = 24
    visitors: int = 32
    memory: int = 192 << 20
    total: int = 768 << 20
    kv: int = 2 << 30
    lead: float = 1.5

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if not value >= 0:
                raise ValueError(f"the limit {name!r} must be a number of at least 0, not {value}")

    def exceeded(self, run: Run, seconds: float, others_wait: bool) -> tuple[str, str] | None:
        """Find a limit that a run exceeds.

        Args:
            run: The run, whose pause, idle time and KV bytes count.
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
            return (
                "turn",
                f"others are waiting, so a turn may last at most {longest}. Press Go live to rejoin the queue",
            )
        if run.idle > self.idle:
            return "idle", f"nobody fetched the video for {span(self.idle)}"
        if run.kv_bytes > self.kv:
            return "kv limit", f"its KV cache exceeded the limit of {self.kv / 1e6:,.0f} MB; forcing-kv needs less"
        return None


def span(seconds: float) -> str:
    """A length of time in words."""
    count, unit = (seconds, "second") if seconds < 60 else (seconds / 60, "minute")
    return f"{count:g} {unit}{'' if count == 1 else 's'}"
