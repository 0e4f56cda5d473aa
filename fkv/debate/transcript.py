"""What happened in a debate: messages, the events around them, and what they cost."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

Kind = Literal["answer", "failure", "drop", "silence", "agreement", "summary", "stop", "verdict"]


@dataclass(frozen=True)
class Message:
    """An answer of an agent, as others hear it.

    Args:
        agent: Who says it.
        answer: What similarity and the vote compare; None where the agent has no answer.
        text: The same in words.
        evidence: What it rests on, such as frame numbers.
        read: Tokens that the agent read for it.
        written: Tokens of the message.
    """

    agent: str
    answer: Hashable
    text: str
    evidence: tuple[int, ...] = ()
    read: int = 0
    written: int = 0


@dataclass(frozen=True)
class Event:
    """One thing that happened.

    Args:
        kind: answer (an agent was called and answered), failure (it was called and could not answer), drop (a message
            was not passed on), silence (an agent was not called), agreement (of a group), summary (of a group), stop
            (of the whole debate before its last round), verdict.
        when: Stage and round in words, such as "stage 1, round 2", "opening" or "end".
        who: The agent or group that it happened to.
        text: What was said, or why it happened.
        tokens: Read and written for it.
        evidence: What an answer or a summary rests on.
    """

    kind: Kind
    when: str
    who: str
    text: str
    tokens: int = 0
    evidence: tuple[int, ...] = ()

    @property
    def line(self) -> str:
        """The event as a line of text."""
        cost = f" ({self.tokens} tokens)" if self.tokens else ""
        return f"{self.when}: {self.who}: {self.kind}: {self.text}{cost}"


@dataclass
class Transcript:
    """A debate from the question to the verdict.

    Args:
        question: What was asked.
        agents: Names of the agents.
        events: What happened, in order.
        messages: All answers, in order.
        verdict: The message with which the debate ended, None where no agent had an answer.
    """

    question: str
    agents: tuple[str, ...]
    events: list[Event] = field(default_factory=list)
    messages: list[Message] = field(default_factory=list)
    verdict: Message | None = None

    @property
    def tokens(self) -> int:
        """Tokens read and written by all agents."""
        return sum(event.tokens for event in self.events)

    @property
    def calls(self) -> int:
        """How often an agent was called, answered or not."""
        return self.count("answer") + self.count("failure")

    @property
    def silent_share(self) -> float:
        """Share of the turns after the opening in which an agent was not called; 0 where there was no turn."""
        turns = [event for event in self.events if event.kind in ("answer", "failure", "silence")][len(self.agents) :]
        return sum(event.kind == "silence" for event in turns) / len(turns) if turns else 0.0

    def count(self, kind: Kind) -> int:
        """Number of events of a kind."""
        return sum(event.kind == kind for event in self.events)

    def as_json(self) -> dict[str, Any]:
        """The transcript as JSON values."""
        return {
            "question": self.question,
            "agents": list(self.agents),
            "verdict": self.verdict.text if self.verdict else None,
            "calls": self.calls,
            "tokens": self.tokens,
            "silent_share": round(self.silent_share, 4),
            "events": [asdict(event) for event in self.events],
        }
