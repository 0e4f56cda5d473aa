"""Sparse debate: the exact events of debates computed by hand, and plain debate in the same code."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pytest

from fkv.debate.engine import Cosine, Debate, NoAnswer
from fkv.debate.transcript import Event, Message


@dataclass
class Scripted:
    """An agent that gives one answer after another, and the last one from then on; notes what it hears.

    A message takes one token to write, and one token for each message heard and one for the question to read.
    """

    name: str
    script: str
    evidence: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        self.heard: list[list[str]] = []

    def answer(self, question: str, own: Message | None, heard: Sequence[Message]) -> Message:
        self.heard.append([f"{message.agent} {message.answer}" for message in heard])
        said = self.script[min(len(self.heard), len(self.script)) - 1]
        if said == "!":
            raise NoAnswer("no answer came", 3)
        return Message(self.name, said, f"it is {said}", self.evidence, 1 + len(heard), 1)


def debate(scripts: str, **settings) -> tuple[list[Scripted], Debate]:
    agents = [Scripted(name, script) for name, script in zip("PQRSTU", scripts.split(), strict=False)]
    return agents, Debate(agents, **settings)


def short(events: list[Event]) -> list[str]:
    stages = {"opening": "0", "end": "end"}
    return [
        f"{stages.get(event.when, event.when)} {event.who} {event.kind} {event.text} {event.tokens or ''}".strip()
        for event in events
    ]


def test_the_events_of_a_debate_computed_by_hand():
    agents, held = debate("xx yx y yyx", groups=2, intra_rounds=1, inter_rounds=1, stages=2)
    transcript = held.hold("x or y?")
    assert short(transcript.events) == [
        "0 P answer it is x 2",
        "0 Q answer it is y 2",
        "0 R answer it is y 2",
        "0 S answer it is y 2",
        "stage 1, round 1 group 2 agreement it is y",
        "stage 1, round 1 P answer it is x 3",
        "stage 1, round 1 Q answer it is x 3",
        "stage 1, summaries group 1 agreement it is x",
        "stage 1, summaries group 1 summary it is x",
        "stage 1, summaries group 2 summary it is y",
        "stage 1, between groups, round 1 P answer it is x 3",
        "stage 1, between groups, round 1 Q answer it is x 3",
        "stage 1, between groups, round 1 R answer it is y 3",
        "stage 1, between groups, round 1 S answer it is y 3",
        "stage 2, round 1 group 1 agreement it is x",
        "stage 2, round 1 group 2 agreement it is y",
        "stage 2, summaries group 1 summary it is x",
        "stage 2, summaries group 2 summary it is y",
        "stage 2, between groups, round 1 P answer it is x 3",
        "stage 2, between groups, round 1 Q answer it is x 3",
        "stage 2, between groups, round 1 R answer it is y 3",
        "stage 2, between groups, round 1 S answer it is x 3",
        "end all verdict it is x",
    ]
    assert agents[3].heard == [[], ["group 1 x"], ["group 1 x"]]
    assert (transcript.tokens, transcript.calls, transcript.silent_share) == (38, 14, 0)


def test_what_an_agent_knows_is_dropped():
    agents, held = debate("x y x yx", groups=1, intra_rounds=1, stages=1)
    transcript = held.hold("x or y?")
    assert short(transcript.events)[4:] == [
        "stage 1, round 1 P drop R says the same as P",
        "stage 1, round 1 P drop S says the same as Q",
        "stage 1, round 1 P answer it is x 3",
        "stage 1, round 1 Q drop R says the same as P",
        "stage 1, round 1 Q drop S says the same as Q",
        "stage 1, round 1 Q answer it is y 3",
        "stage 1, round 1 R drop P says the same as R",
        "stage 1, round 1 R drop S says the same as Q",
        "stage 1, round 1 R answer it is x 3",
        "stage 1, round 1 S drop Q says the same as S",
        "stage 1, round 1 S drop R says the same as P",
        "stage 1, round 1 S answer it is x 3",
        "end all verdict it is x",
    ]


def test_a_debate_stops_once_all_agents_or_all_summaries_agree():
    _, held = debate("x yx x x", groups=2, intra_rounds=1)
    transcript = held.hold("x or y?")
    assert short(transcript.events)[-2] == "stage 1, summaries all stop all agents agree" and transcript.calls == 6
    _, held = debate("x x y x x y", groups=2, intra_rounds=1)
    transcript = held.hold("x or y?")
    assert short(transcript.events)[-2] == "stage 1, summaries all stop all summaries agree" and transcript.calls == 12


def test_who_hears_nothing_new_is_not_called():
    agents, held = debate("x x y y y", groups=2, intra_rounds=0, stages=1)
    transcript = held.hold("x or y?")
    assert short(transcript.events)[8:] == [
        "stage 1, between groups, round 1 P answer it is x 3",
        "stage 1, between groups, round 1 Q answer it is x 3",
        "stage 1, between groups, round 1 R drop group 2 says the same as R",
        "stage 1, between groups, round 1 R silence heard nothing new",
        "stage 1, between groups, round 1 S answer it is y 3",
        "stage 1, between groups, round 1 T answer it is y 3",
        "end all verdict it is y",
    ]
    assert agents[2].heard == [[]] and transcript.silent_share == 0.2
    _, held = debate("x", groups=1, intra_rounds=1, stages=1, similar=lambda a, b: False)
    assert [event.text for event in held.hold("x?").events if event.kind == "silence"] == ["heard nobody"]


def test_plain_debate_calls_everybody_with_everything_in_every_round():
    agents, held = debate("x x x", groups=1, intra_rounds=2, stages=2, sparse=False)
    transcript = held.hold("x or y?")
    assert transcript.calls == 3 * 5 and held.rounds == 4
    assert agents[0].heard == [[], *[["Q x", "R x"]] * 4]
    assert {event.kind for event in transcript.events} == {"answer", "verdict"}
    assert transcript.tokens == 3 * (2 + 4 * 4)


def test_a_vote_takes_no_round():
    _, held = debate("x y y", stages=0, groups=1)
    transcript = held.hold("x or y?")
    assert transcript.verdict.answer == "y" and transcript.calls == 3


def test_an_agent_that_fails_keeps_its_answer_and_the_debate_goes_on():
    agents, held = debate("x! y !", groups=1, intra_rounds=1, stages=1)
    transcript = held.hold("x or y?")
    assert short(transcript.events) == [
        "0 P answer it is x 2",
        "0 Q answer it is y 2",
        "0 R failure no answer came 3",
        "stage 1, round 1 P failure no answer came 3",
        "stage 1, round 1 Q answer it is y 3",
        "stage 1, round 1 R failure no answer came 3",
        "end all verdict it is x",
    ]
    assert agents[1].heard[1] == ["P x"] and transcript.tokens == 16
    _, held = debate("! !", groups=1)
    assert held.hold("x or y?").verdict is None


def test_a_summary_rests_on_the_evidence_of_all_who_share_its_answer():
    agents = [Scripted("P", "x", (1, 5)), Scripted("Q", "y", (2,)), Scripted("R", "x", (3, 5)), Scripted("S", "y")]
    events = Debate(agents, groups=2, intra_rounds=0, stages=1).hold("?").events
    assert [(e.who, e.evidence) for e in events if e.kind == "summary"] == [("group 1", (1, 5)), ("group 2", (3, 5))]


def test_answers_that_mean_the_same_are_similar():
    vectors = {"it is x": (1.0, 0.1), "it is y": (1.0, 0.0), "it is z": (0.0, 1.0)}
    _, held = debate("x y z", groups=1, intra_rounds=1, stages=1, similar=Cosine(lambda t: np.array(vectors[t]), 0.9))
    transcript = held.hold("?")
    assert [e.text for e in transcript.events if e.kind == "drop"][:2] == [
        "Q says the same as P",
        "P says the same as Q",
    ]
    assert transcript.verdict.answer == "x"
    assert not Cosine(lambda text: np.zeros(2))(Message("P", "x", "it is x"), Message("Q", "x", "it is x"))


def test_whoever_listens_can_end_the_debate():
    def enough(event: Event) -> None:
        if event.who == "Q":
            raise TimeoutError

    agents, held = debate("x y z")
    with pytest.raises(TimeoutError):
        held.hold("?", enough)
    assert agents[2].heard == []


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"groups": 5}, "2 agents cannot form 5 groups"),
        ({"groups": 0}, "groups must be a whole number"),
        ({"stages": -1}, "stages must be a whole number"),
        ({"intra_rounds": 1000}, "intra_rounds must be a whole number"),
    ],
)
def test_it_refuses_what_is_no_debate(settings, sentence):
    with pytest.raises(ValueError, match=sentence):
        debate("x y", **settings)
    with pytest.raises(ValueError, match="at least one agent"):
        Debate([])
    with pytest.raises(ValueError, match="names that differ"):
        Debate([Scripted("P", "x"), Scripted("P", "y")])
