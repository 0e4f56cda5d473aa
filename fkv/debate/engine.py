"""Sparse debate, after S2-MAD: agents answer alone, then hear only what they have not heard, and else keep silent.

    opening           every agent answers alone
    stage             rounds within the groups, until a group agrees; each group writes a summary; rounds between the
                      groups, in which every agent hears the summaries of the other groups
    end               when all agree, or all summaries do; else after the last stage, by vote

Before its turn an agent drops every message that is similar to its own, or to one that it keeps already. Where nothing
remains it keeps its answer and is not called. Only the newest messages are heard. A summary is the most frequent answer
of the group with the evidence of all who gave it, and takes no call; in the paper a model writes it.

With `sparse=False` nothing is dropped, nobody keeps silent and nothing stops early. With one group that is plain
debate: all hear all, and all answer in every round.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Annotated, Protocol

import numpy as np
from pydantic import Field

from fkv.parameters import check

from .transcript import Event, Kind, Message, Transcript

Similarity = Callable[[Message, Message], bool]
MOST = 16  # groups, stages, and rounds in each


class NoAnswer(Exception):
    """An agent could not answer.

    Args:
        reason: A clause that says why.
        tokens: Read and written in vain.
    """

    def __init__(self, reason: str, tokens: int = 0) -> None:
        super().__init__(reason)
        self.tokens = tokens


class Agent(Protocol):
    """Whoever takes part in a debate. Agents keep no state: all they know of the debate they are told."""

    @property
    def name(self) -> str: ...

    def answer(self, question: str, own: Message | None, heard: Sequence[Message]) -> Message:
        """Answer a question.

        Args:
            question: What is asked.
            own: The agent's last answer, None at first.
            heard: What others said since.

        Raises:
            NoAnswer: There is none; the agent keeps its last answer.
        """


def same_answer(a: Message, b: Message) -> bool:
    """Whether two messages hold the same answer."""
    return a.answer is not None and a.answer == b.answer


@dataclass(frozen=True)
class Cosine:
    """Whether two messages mean about the same.

    Args:
        embed: Gives the vector of a text, float [n].
        least: Cosine from which on two vectors are similar.
    """

    embed: Callable[[str], np.ndarray]
    least: float = 0.9

    def __call__(self, a: Message, b: Message) -> bool:
        if a.answer is None or b.answer is None:
            return False
        one, other = self.embed(a.text), self.embed(b.text)
        lengths = float(np.linalg.norm(one) * np.linalg.norm(other))
        return lengths > 0 and float(one @ other) >= self.least * lengths


@dataclass(frozen=True)
class Debate:
    """How agents debate.

    Args:
        agents: Who takes part; neighbours share a group.
        groups: Number of groups.
        intra_rounds: Rounds within the groups in each stage.
        inter_rounds: Rounds between the groups in each stage.
        stages: How often both are repeated.
        similar: Whether two messages say the same.
        sparse: Whether agents drop what they have heard, keep silent and stop early; False is plain debate.

    Raises:
        ValueError: There are no agents, two share a name, or a number is out of range.
    """

    agents: Sequence[Agent]
    groups: int = 2
    intra_rounds: int = 2
    inter_rounds: int = 1
    stages: int = 2
    similar: Similarity = same_answer
    sparse: bool = True

    def __post_init__(self) -> None:
        for name, least in (("groups", 1), ("intra_rounds", 0), ("inter_rounds", 0), ("stages", 0)):
            check(name, getattr(self, name), Annotated[int, Field(ge=least, le=MOST)])
        if len({agent.name for agent in self.agents}) < max(1, len(self.agents)):
            raise ValueError("a debate needs at least one agent, and names that differ")
        if self.groups > len(self.agents):
            raise ValueError(f"{len(self.agents)} agents cannot form {self.groups} groups; each needs at least one")

    @property
    def rounds(self) -> int:
        """Rounds after the opening, if none is spared."""
        return self.stages * (self.intra_rounds + (self.inter_rounds if self.groups > 1 else 0))

    def hold(self, question: str, seen: Callable[[Event], None] = lambda event: None) -> Transcript:
        """Hold the debate.

        Args:
            question: What the agents are asked.
            seen: Is told every event as it happens; an exception that it raises ends the debate.
        """
        return _Session(self, question, seen).run()


class _Session:
    """One debate while it goes on."""

    def __init__(self, debate: Debate, question: str, seen: Callable[[Event], None]) -> None:
        self._debate = debate
        self._seen = seen
        self._when = "opening"
        self._transcript = Transcript(question, tuple(agent.name for agent in debate.agents))
        numbers = np.array_split(np.arange(len(debate.agents)), debate.groups)
        self._groups = {f"group {i}": [debate.agents[n] for n in group] for i, group in enumerate(numbers, 1)}
        self._newest: dict[str, Message] = {}

    def run(self) -> Transcript:
        for agent in self._debate.agents:
            self._call(agent, [])
        for stage in range(1, self._debate.stages + 1):
            if self._stage(stage):
                break
        self._when = "end"
        verdict = self._most_frequent(self._debate.agents)
        self._note("verdict", "all", verdict.text if verdict else "no agent has an answer")
        self._transcript.verdict = verdict
        return self._transcript

    def _stage(self, stage: int) -> bool:
        """Debate within the groups, then between them. Returns whether the debate is settled."""
        debate = self._debate
        ended: set[str] = set()
        for number in range(1, debate.intra_rounds + 1):
            self._when = f"stage {stage}, round {number}"
            self._end_groups(ended)
            self._round(
                [
                    (agent, [self._newest[other.name] for other in group if other.name in self._newest])
                    for name, group in self._groups.items()
                    if name not in ended
                    for agent in group
                ]
            )
        self._when = f"stage {stage}, summaries"
        self._end_groups(ended)
        if debate.sparse and self._agree(debate.agents):
            self._note("stop", "all", "all agents agree")
            return True
        if debate.groups == 1:
            return False
        summaries = {name: summary for name, group in self._groups.items() if (summary := self._summary(name, group))}
        for summary in summaries.values():
            self._note("summary", summary.agent, summary.text, evidence=summary.evidence)
        if debate.sparse and len(summaries) == debate.groups and self._similar(list(summaries.values())):
            self._note("stop", "all", "all summaries agree")
            return True
        for number in range(1, debate.inter_rounds + 1):
            self._when = f"stage {stage}, between groups, round {number}"
            self._round(
                [
                    (agent, [summary for other, summary in summaries.items() if other != name])
                    for name, group in self._groups.items()
                    for agent in group
                ]
            )
        return False

    def _end_groups(self, ended: set[str]) -> None:
        """Add the groups that agree now to those whose stage has ended."""
        for name, group in self._groups.items():
            if self._debate.sparse and name not in ended and self._agree(group):
                ended.add(name)
                self._note("agreement", name, self._newest[group[0].name].text)

    def _round(self, turns: list[tuple[Agent, list[Message]]]) -> None:
        """Give agents their turn; all hear what was said before the round."""
        for agent, said in turns:
            others = [message for message in said if message.agent != agent.name]
            heard = self._filtered(agent.name, others) if self._debate.sparse else others
            if heard or not self._debate.sparse:
                self._call(agent, heard)
            else:
                self._note("silence", agent.name, "heard nothing new" if others else "heard nobody")

    def _filtered(self, name: str, messages: list[Message]) -> list[Message]:
        """The messages that tell an agent something new."""
        kept: list[Message] = []
        own = self._newest.get(name)
        for message in messages:
            if own and self._debate.similar(own, message):
                self._note("drop", name, f"{message.agent} says the same as {name}")
            elif before := next((each for each in kept if self._debate.similar(each, message)), None):
                self._note("drop", name, f"{message.agent} says the same as {before.agent}")
            else:
                kept.append(message)
        return kept

    def _call(self, agent: Agent, heard: list[Message]) -> None:
        try:
            message = agent.answer(self._transcript.question, self._newest.get(agent.name), heard)
        except NoAnswer as error:
            self._note("failure", agent.name, str(error), error.tokens)
            return
        self._newest[agent.name] = message
        self._transcript.messages.append(message)
        self._note("answer", agent.name, message.text, message.read + message.written, message.evidence)

    def _note(self, kind: Kind, who: str, text: str, tokens: int = 0, evidence: tuple[int, ...] = ()) -> None:
        event = Event(kind, self._when, who, text, tokens, evidence)
        self._transcript.events.append(event)
        self._seen(event)

    def _agree(self, agents: Sequence[Agent]) -> bool:
        return all(agent.name in self._newest for agent in agents) and self._similar(
            [self._newest[agent.name] for agent in agents]
        )

    def _similar(self, messages: Sequence[Message]) -> bool:
        return all(self._debate.similar(messages[0], message) for message in messages)

    def _followers(self, message: Message, agents: Sequence[Agent]) -> list[Message]:
        """The newest messages of agents that say the same as a message, that message included."""
        newest = [self._newest[agent.name] for agent in agents if agent.name in self._newest]
        return [each for each in newest if each is message or self._debate.similar(each, message)]

    def _most_frequent(self, agents: Sequence[Agent]) -> Message | None:
        """The answer that most agents share, the first of those where several are as frequent."""
        answers = [self._newest[agent.name] for agent in agents if agent.name in self._newest]
        answers = [message for message in answers if message.answer is not None]
        return max(answers, key=lambda message: len(self._followers(message, agents)), default=None)

    def _summary(self, name: str, group: Sequence[Agent]) -> Message | None:
        """The most frequent answer of a group, with the evidence of all who gave it."""
        message = self._most_frequent(group)
        if message is None:
            return None
        evidence = {each for follower in self._followers(message, group) for each in follower.evidence}
        return replace(message, agent=name, evidence=tuple(sorted(evidence)))
