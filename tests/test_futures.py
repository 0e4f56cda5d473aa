"""A live run that branches: one past, then two futures, and the same ones from its link."""

import dataclasses
from urllib.parse import parse_qsl

import pytest

from fkv.models.vae import StreamingVae
from fkv.studio.live.limits import Limits
from fkv.studio.live.live import live
from fkv.studio.live.plan import Branch, Plan
from fkv.studio.live.queue import Queue
from fkv.studio.live.run import Run
from fkv.studio.media.mp4 import Recording, write
from fkv.studio.media.protocol import unpack
from fkv.studio.tabs.live.branch import Future, branched
from fkv.video import read_frames

PROMPT = "a red ball over the sea"
POLICY = "forcing-kv:segments_per_frame=4"


def plan(**fields):
    return Plan.from_form(**{"prompt": PROMPT, "seed": 3, "length": 5, "view": "AB", "a": POLICY, "b": "full"} | fields)


def run(model, wanted):
    """The chunk files of a run, and the last thing said of it."""
    made = Run(1 << 30)
    *_, last = live(model, wanted, made, Queue(), Limits(lead=float("inf"), idle=float("inf")))
    return made.chunks(), last


def hashes(files, name):
    return [unpack(file)[0]["streams"].get(name, {}).get("hash") for file in files]


def test_a_branch_has_one_past_and_two_futures(small, tmp_path):
    story = "2: a blue star\n5: a pink box"
    alone, _ = run(small, plan(view="A", story=story))
    files, last = run(small, plan(story=story, branch="4 seed=7: a green heart in the city"))
    records = [unpack(file)[0] for file in files]
    assert [list(record["streams"]) for record in records] == [["A"]] * 3 + [["A", "B"]] * 2
    assert hashes(files, "A") == hashes(alone, "A")
    assert not {*hashes(files, "B")} & {*hashes(files, "A")}
    assert [record.get("branch") for record in records] == [
        *[None] * 3,
        "branch 4 seed=7: a green heart in the city",
        None,
    ]
    assert [record["events"] for record in records] == [[], ["a blue star"], [], [], ["a pink box"]]
    assert records[3]["streams"]["B"]["policy"] == "full" and records[2]["streams"]["A"]["policy"] == POLICY
    assert last["state"] == "done" and "from chunk 4 on B full." in last["text"]
    again, _ = run(small, plan(**_form(last["link"])))
    assert again and hashes(again, "A") == hashes(files, "A") and hashes(again, "B") == hashes(files, "B")
    for plain in (True, False):
        film = tmp_path / f"{plain}.mp4"
        assert list(write(Recording(files, 16, "here", plain), film)) == [1, 2, 3, 4, 5]
        assert len(list(read_frames(film))) == 5 * 12


def _form(link):
    fields = dict(parse_qsl(link))
    fields.pop("model")
    return fields | {name: int(fields[name]) for name in ("seed", "length")}


def test_a_decoder_whose_state_cannot_be_copied_refuses_before_the_past(small):
    class Decoder:
        copy = StreamingVae.copy

        def __call__(self, latents, state):
            raise AssertionError("a chunk was decoded")

    files, last = run(dataclasses.replace(small, decoder=Decoder()), plan(branch="4: a blue star"))
    assert not files and last["state"] == "error" and "use --decoder small" in last["text"]


@pytest.mark.parametrize("fields", [{}, {"branch": "4"}, {"branch": "4 seed=3"}])
def test_b_is_a_until_it_leaves_it(small, fields):
    files, _ = run(small, plan(b=POLICY, length=4, **fields))
    assert hashes(files, "A")[3:] == hashes(files, "B")[3:]


@pytest.mark.parametrize(
    "fields, message",
    [
        ({"branch": "soon"}, "a branch is written CHUNK: PROMPT, as in 9: a blue star"),
        ({"branch": "1: a blue star"}, "needs a past: from chunk 2 on"),
        ({"branch": "6"}, "begins with chunk 6, after the last of 5"),
        ({"branch": "3", "view": "A"}, "two futures; choose A and B"),
        ({"branch": "3", "b": "recompute"}, "B cannot leave A for 'recompute'"),
        ({"branch": "3 seed=9999999999"}, "the seed must be a whole number"),
    ],
)
def test_branches_that_cannot_be_are_refused_in_words(fields, message):
    with pytest.raises(ValueError, match=message):
        plan(**fields)


@pytest.mark.parametrize("branch", [Branch(3), Branch(3, "a blue star"), Branch(3, seed=5), Branch(3, "a: b", 5)])
def test_branches_are_written_and_read_back(branch):
    assert Branch.read(branch.write()) == branch
    assert Branch.read("  ") is None


PAST = dict(parse_qsl(plan(story="2: A = full\n3: B = full\n9: cut", length=9).link))


def test_the_form_of_a_branch_keeps_the_past_of_a_and_says_what_b_does():
    form = branched(PAST, 4, PROMPT, Future("a blue star", 3, "full"))
    assert form == [PROMPT, 3, None, "AB", POLICY, "full", None, "2: A = full", "5: a blue star"]
    form = branched(PAST | {"view": "B"}, 4, PROMPT, Future(PROMPT, 8, POLICY))
    assert form == [PROMPT, 3, None, "AB", "full", POLICY, None, "3: A = full", "5 seed=8"]
    with pytest.raises(ValueError, match="A branch differs in something"):
        branched(PAST, 4, PROMPT, Future(PROMPT, 3, POLICY))
