"""What one visitor who means harm can do to the others: calls, bodies, sessions, names, logs, signals."""

from __future__ import annotations

import asyncio
import io
import json
import logging
import logging.config
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from itertools import product
from types import SimpleNamespace

import gradio as gr
import gradio.route_utils
import gradio.state_holder
import httpx
import pytest
from gradio.queueing import Queue
from hypothesis import given
from hypothesis import strategies as st
from starlette.responses import PlainTextResponse

from fkv.models import tiny
from fkv.stream import check_prompt
from fkv.studio import lean_gradio
from fkv.studio.live import disconnect, telemetry
from fkv.studio.server import takes_files
from fkv.studio.serving import admission, calls, middleware, requests
from fkv.studio.serving.admission import Admission, Messages
from fkv.studio.tabs.live.prompt import LAST_WORD
from tests.load.attack import SHORT, run
from tests.load.attacks import CHECKS, Target
from tests.load.client import ROOT, Studio, Visitor, free_port

PLAIN = {"Content-Type": "application/json"}


# Bodies, session hashes, names.


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ("[" * 100_000, "more than 20,000 values"),
        ('{"a":' * 1000 + "1" + "}" * 1000, "nested deeper than 32 levels"),
        (json.dumps({"data": ["x", "full"]})[:-2] + ", 1" + "0" * 400 + "]}", "more than 32 digits"),
        ('{"data": [1e400]}', "beyond e99"),
        ('{"data": [Infinity, NaN]}', "not finite"),
        (json.dumps({"session_hash": "x" * 200_000}), "at most 64 characters"),
        (r'{"session\u005fhash": "' + "x" * 100 + '"}', "at most 64 characters"),
        ('{"session_hash": ["x"]}', "at most 64 characters"),
        ('["\u2200", [1e400]]'.encode("utf-16-le"), "not JSON"),
        ('{"data": [' + "[]," * 20_000 + "[]]}", "more than 20,000 values"),
        ('"' + '\\"' * 100_000, "not JSON"),
        ("nonsense", "not JSON"),
        (b"\xff\xfe", "not UTF-8"),
    ],
)
@pytest.mark.parametrize("path", ["queue/join", "run/predict", "call/generate_clip", "cancel", "mcp/"])
def test_absurd_bodies_are_refused_before_anything_reads_them(visitor, path, body, said):
    answer = visitor.http.post(f"/gradio_api/{path}", content=body, headers=PLAIN)
    assert answer.status_code == 400 and said in answer.text


@given(st.recursive(st.none() | st.text() | st.integers(-(10**20), 10**20), lambda each: st.lists(each, max_size=3)))
def test_a_sound_body_is_read_as_it_is(value):
    body = {"data": [value, '"[{' * 40, "1" * 400, "NaN"], "session_hash": "abc"}
    assert requests.read_json(json.dumps(body).encode()) == body


@pytest.mark.parametrize("path", ["queue/data?session_hash=", "heartbeat/"])
def test_long_session_hashes_in_the_address_are_refused(visitor, path):
    assert visitor.http.get(f"/gradio_api/{path}{'x' * 65}").status_code == 400


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"Host": "evil.example"}, 403),
        ({"Host": "evil.example", "Origin": "http://evil.example"}, 403),
        ({"Origin": "http://evil.example"}, 403),
        ({"Origin": "null"}, 403),
        ({}, 404),
        ({"Origin": "http://127.0.0.1"}, 404),
    ],
)
def test_no_other_site_may_call_mcp(visitor, headers, status):
    # without --mcp what is let through finds no such route
    assert visitor.http.post("/gradio_api/mcp/", json={}, headers=headers).status_code == status


def test_what_the_page_does_by_itself_cannot_be_called(visitor):
    by_itself = [each for each in visitor.config["dependencies"] if not each["backend_fn"]]
    assert by_itself
    for event in by_itself:
        assert "nothing to call" in visitor.refusal(event, visitor.form(event))
        assert "nothing to call" in visitor.refusal(event | {"queue": True}, visitor.form(event))


@pytest.mark.parametrize(
    ("field", "value", "told"),
    [
        ("Seed", "12", "Seed must be a number, not '12'."),
        ("Seed", True, "Seed must be a number, not True."),
        ("Chunks", {"value": 1}, "must be a number"),
        ("Chunks", 0.5, "must be a whole number, not 0.5"),
        ("Threshold", None, calls.UNREADABLE),
        ("Threshold", 1e99, "greater than maximum value 1"),
        ("Stream", "C", "not in the list of choices"),
    ],
)
def test_a_value_that_its_field_does_not_take_is_refused_in_a_sentence(visitor, caplog, field, value, told):
    event = visitor.event("fkv-go")
    assert told in visitor.refusal(event, visitor.form(event, **{field: value}))
    told_of = [record.message for record in caplog.records if record.name != "matplotlib.font_manager"]  # its first use
    assert told_of == ["call refused"]


def test_a_call_with_too_few_values_is_refused_in_a_sentence(visitor):
    for name in ("fkv-go", "fkv-change"):
        event = visitor.event(name)
        form = visitor.form(event)
        assert f"takes {len(form)} values, not 1" in visitor.refusal(event, form[:1])


# Uploads.


def test_uploads_are_shut_while_no_event_takes_a_file(visitor):
    assert visitor.http.post("/gradio_api/upload", files={"files": ("a.txt", b"0")}).status_code == 404


def test_whether_an_event_takes_a_file_is_seen():
    for part, takes in ((gr.Textbox, False), (gr.File, True), (gr.Image, True), (gr.Video, True)):
        with gr.Blocks() as page:
            gr.Button().click(print, part(), None)
        assert takes_files(page) == takes


# Places.


def test_the_page_keeps_its_places_whatever_programs_do(address, monkeypatch):
    monkeypatch.setattr(admission, "API_PLACES", 4)
    with Visitor(address) as attacker, Visitor(address) as visitor:
        body = {"data": ["a red ball", "full", 120, 0]}
        answers = [attacker.http.post("/gradio_api/call/generate_clip", json=body) for _ in range(8)]
        assert [answer.status_code for answer in answers] == [200] * 4 + [503] * 4
        assert "cannot take another call" in answers[-1].json()["detail"]
        public = next(each for each in visitor.config["dependencies"] if each["api_name"] == "generate_clip")
        assert attacker.join(public, body["data"]).status_code == 503, "nor by the number of the function"
        event = visitor.event("fkv-go")
        assert visitor.join(event, visitor.form(event, prompt="a red ball", chunks=1)).status_code == 200


def test_one_address_does_not_take_all_places():
    event = SimpleNamespace(alive=True, request=SimpleNamespace(client=SimpleNamespace(host="10.0.0.1")))
    event.fn = SimpleNamespace(api_visibility="private")
    page = SimpleNamespace(_queue=_queue(), fns={3: event.fn})
    admit = Admission(page).refuse
    page._queue.event_ids_to_events |= {str(number): event for number in range(admission.ADDRESS_PLACES)}
    assert "from this address" in (admit("/gradio_api/queue/join", {"fn_index": 3}, "10.0.0.1") or "")
    assert admit("/gradio_api/queue/join", {"fn_index": 3}, "10.0.0.2") is None
    assert admit("/gradio_api/cancel", {"fn_index": 3}, "10.0.0.1") is None
    assert admission.ADDRESS_PLACES + admission.API_PLACES < admission.PLACES


def test_calls_outside_the_queue_leave_threads_for_others(tmp_path):
    async def answer(scope, receive, send):
        await asyncio.sleep(0.02)
        await PlainTextResponse("done")(scope, receive, send)

    gate = middleware.Gate(answer, tmp_path)

    async def post(path: str, address: str) -> int:
        transport = httpx.ASGITransport(gate, client=(address, 1))
        async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1") as client:
            return (await client.post(path, json={})).status_code

    async def posts() -> list[int]:
        paths = ["/gradio_api/run/predict", "/gradio_api/component_server"] * middleware.DIRECT_CALLS
        calls = [post(path, "10.0.0.1") for path in paths]
        return await asyncio.gather(*calls, post(paths[0], "10.0.0.2"), post("/gradio_api/queue/join", "10.0.0.1"))

    *statuses, other, queued = asyncio.run(posts())
    assert statuses == [200] * middleware.DIRECT_CALLS + [503] * middleware.DIRECT_CALLS
    assert other == queued == 200 and not gate._under_way


def test_answers_of_one_address_are_worked_on_in_turn(tmp_path):
    busy: Counter[str] = Counter()
    most: Counter[str] = Counter()

    async def answer(scope, receive, send):
        address = scope["client"][0]
        busy[address] += 1
        most[address] = max(most[address], busy[address])
        await asyncio.sleep(0.01)
        busy[address] -= 1
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await asyncio.sleep(0.2)  # somebody reads slowly
        await send({"type": "http.response.body", "body": b""})

    gate = middleware.Gate(answer, tmp_path)

    async def get(path: str, address: str) -> float:
        transport = httpx.ASGITransport(gate, client=(address, 1))
        async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1") as client:
            assert (await client.get(path)).status_code == 200
            return time.monotonic()

    async def gets() -> list[float]:
        paths = ("/", "/config", "/theme.css", "/atlas/role-atlas.svg", "/board/rows.json")
        pages = [get(path, "10.0.0.1") for path in paths * 6]
        return await asyncio.gather(get("/", "10.0.0.2"), get("/healthz", "10.0.0.3"), *pages)

    began = time.monotonic()
    other, health, *_, last = asyncio.run(gets())
    assert most["10.0.0.1"] == middleware.TURNS and not gate._turns
    assert max(other, health) < last and last - began < 30 * 0.2 / middleware.TURNS, "slow readers hold no turn"


def test_a_session_with_an_event_under_way_is_never_evicted(monkeypatch):
    monkeypatch.setattr(admission, "SESSIONS", 10)
    queue = _queue()
    kept = queue.pending_messages_per_session = Messages(queue)
    queue.event_ids_to_events["event"] = object()
    queue.pending_event_ids_session["visitor"] = {"event"}
    kept["visitor"] = "messages"
    for number in range(100):
        kept[f"stranger {number}"] = "messages"
        queue.pending_event_ids_session[f"stranger {number}"] = {f"finished {number}"}
    assert len(kept) == 10 and kept["visitor"] == "messages"
    assert len(queue.pending_event_ids_session) == 10, "nothing is left of the others"


def _queue() -> Queue:
    return Queue(True, 1, 1, None, gr.Blocks())


def test_a_session_describes_no_components_and_keeps_nothing_that_is_typed(monkeypatch):
    for module in (gradio.route_utils, gradio.state_holder):
        monkeypatch.setattr(module, "SessionState", module.SessionState)
    with gr.Blocks() as page:
        typed = gr.Textbox()
        count = gr.State(3)
    lean_gradio.keep_no_components()
    session = gradio.state_holder.SessionState(page)
    session._update_value_in_config(typed._id, "a secret")
    session._update_config(typed._id)
    assert not session.config_values and (session[typed._id], session[count._id]) == (typed, 3)


def test_an_answer_that_breaks_off_is_ended_and_is_no_error(visitor, caplog):
    answer = visitor.http.get("/gradio_api/queue/data", params={"session_hash": "nobody"})
    assert '"session_not_found":true' in answer.text
    assert [(record.levelname, record.message) for record in caplog.records] == [("WARNING", "answer broken off")]


# The log.


@pytest.fixture
def lines() -> Iterator[list[logging.LogRecord]]:
    records: list[logging.LogRecord] = []
    handler = logging.Handler()
    handler.emit = records.append
    logger = logging.getLogger()
    logger.addHandler(handler)
    yield records
    logger.removeHandler(handler)


SECRET = 'a secret\n{"event": "stream", "logger": "fkv.streams"}'


@pytest.mark.parametrize("prompts", [False, True])
@pytest.mark.parametrize("name", ["py.warnings", "uvicorn.error", "fkv.studio"])
def test_a_line_of_the_log_is_one_object_without_typed_text(name, prompts):
    try:
        try:
            raise KeyError(SECRET)
        except KeyError as cause:
            raise ValueError(SECRET) from cause
    except ValueError:
        caught = sys.exc_info()
    own = name.startswith("fkv")
    record = logging.LogRecord(name, 40, "", 0, "it failed" if own else "%s", None if own else (SECRET,), caught)
    record.facts = {"path": f"/stage/{SECRET}", "prompt": SECRET}
    line = telemetry.JsonLines(prompts).format(record)
    assert "\n" not in line and ("a secret" in line) == prompts
    told = json.loads(line)
    assert (
        "ValueError" in told["traceback"] and "KeyError" in told["traceback"] and "test_attack.py" in told["traceback"]
    )


def test_tracebacks_of_gradio_and_uvicorn_reach_the_same_filter(monkeypatch):
    from gradio import queueing, routes
    from uvicorn import config

    for module in (queueing, routes):
        monkeypatch.setattr(module, "traceback", module.traceback)
    usual = json.loads(json.dumps(config.LOGGING_CONFIG))
    monkeypatch.setattr(config, "LOGGING_CONFIG", json.loads(json.dumps(usual)))
    for name in (None, "fkv"):
        monkeypatch.setattr(logging.getLogger(name), "handlers", logging.getLogger(name).handlers)
    for attribute in ("propagate", "level"):
        monkeypatch.setattr(logging.getLogger("fkv"), attribute, getattr(logging.getLogger("fkv"), attribute))
    monkeypatch.setattr(telemetry.threading, "excepthook", telemetry.threading.excepthook)
    monkeypatch.setattr(sys, "stderr", told := io.StringIO())
    telemetry.setup()
    logging.config.dictConfig(config.LOGGING_CONFIG)
    try:
        raise ValueError(SECRET)
    except ValueError:
        queueing.traceback.print_exc()
    logging.getLogger("uvicorn.error").error("Exception in %s", SECRET)
    for _ in range(1000):
        logging.getLogger("asyncio").error("out of files")
    logging.captureWarnings(False)
    logging.config.dictConfig(usual)
    lines = [json.loads(line) for line in told.getvalue().splitlines()]
    assert "a secret" not in told.getvalue()
    assert [line["logger"] for line in lines] == ["fkv.gradio", "uvicorn.error", "asyncio"]
    assert all(logger["propagate"] and not logger["handlers"] for logger in config.LOGGING_CONFIG["loggers"].values())


# Signals.


@pytest.mark.parametrize("delay", [0.15, 0.4, 0.8, 1.2])
def test_an_interrupt_in_the_first_second_prints_nothing(tmp_path, delay):
    with subprocess.Popen(
        [sys.executable, "app.py", "--port", str(free_port())],
        cwd=ROOT,
        env={**os.environ, "TMPDIR": str(tmp_path)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    ) as process:
        time.sleep(delay)
        process.send_signal(signal.SIGINT)
        said, _ = process.communicate(timeout=60)
    assert (process.returncode, said) == (130, b"") and not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("number", "status"),
    [(signal.SIGINT, 130), (signal.SIGHUP, 0)],
    ids=["INT", "HUP"],  # TERM: tests/test_safety.py
)
def test_a_signal_in_the_middle_of_a_run_leaves_nothing(tmp_path, number, status):
    started = Studio(tmp_path)
    try:
        started.wait()
        with Visitor(started.address) as one, closing(one.go(chunks=0)) as manifests:
            next(manifest for manifest in manifests if manifest.get("chunks"))
            assert started.folders, "the studio writes into its folder"
            began = time.monotonic()
            assert started.end(number) == status
            assert time.monotonic() - began < 5
    finally:
        started.end(signal.SIGKILL)
    assert started.folders == [] and not started.errors()


# Comparisons on the page.


def test_a_comparison_on_the_page_runs_and_one_that_nobody_listens_to_ends(address, monkeypatch, caplog):
    handler = logging.Handler()
    handler.emit = lambda record: ended.extend([record.facts["ended"]] * (record.facts["kind"] == "compare"))
    ended: list[str] = []
    monkeypatch.setattr(telemetry.log, "handlers", [handler])
    caplog.set_level(logging.INFO, telemetry.log.name)
    with Visitor(address) as first, Visitor(address) as second:
        event = first.event("fkv-compare-go")
        form = {"policies": ["full", "sliding-window"], "prompts": "a red ball", "chunks": 2}
        first.join(event, first.form(event, **form)).raise_for_status()
        assert any("Finished" in str(shown[0]) for shown in first.outputs())
        monkeypatch.setattr(disconnect, "PATIENCE", 0.3)
        second.join(event, second.form(event, **form | {"chunks": 60})).raise_for_status()
        deadline = time.monotonic() + 30
        while len(ended) < 2 and time.monotonic() < deadline:
            time.sleep(0.05)
    assert ended == ["finished", "left"]


# Text that is looked at while it is typed.


def test_the_word_that_is_being_typed_is_found_in_linear_time():
    assert LAST_WORD.sub("", "a red bal") == "a red "
    text = "a" * 900_000 + "!"
    assert LAST_WORD.sub("", text) == text, "from every letter on, it would take an hour"


def test_hints_on_many_words_take_linear_time():
    many = " ".join("".join(word) for word in product("bcdfghjk", repeat=6)) + " red"
    assert "and more" in tiny.hints(many)[0], "each word looked up among all others, it would take an hour"


@pytest.mark.parametrize("prompt", ["a red \u202eball", "\u2066a red ball\u2069", "a\u202a", "\ud800", "a\0"])
def test_a_prompt_that_reorders_what_is_shown_around_it_is_refused(prompt):
    with pytest.raises(ValueError, match="without control characters"):
        check_prompt(prompt)


def test_a_prompt_without_anything_to_see_is_empty_and_joiners_are_text():
    with pytest.raises(ValueError, match="is empty"):
        check_prompt("\u200b \ufeff")
    assert check_prompt(" نمی\u200cدانم 👨\u200d👩\u200d👧 ") == "نمی\u200cدانم 👨\u200d👩\u200d👧"


# Links.


@pytest.mark.parametrize(("name", "value"), [("seed", "²"), ("seed", "-1"), ("length", "٣x"), ("threshold", "nan")])
def test_a_link_with_a_value_that_is_no_number_says_so_and_keeps_the_rest(visitor, name, value):
    event = next(each for each in visitor.config["dependencies"] if any(kind == "load" for _, kind in each["targets"]))
    body = {"data": [], "fn_index": event["id"], "session_hash": visitor.session}
    answer = visitor.http.post("/gradio_api/run/predict", params={name: value, "prompt": "a pink box"}, json=body)
    shown = answer.raise_for_status().json()["data"]
    assert f"Not read: {name}={value!r}" in str(shown[0]) and "a pink box" in shown


# The short form of tests.load.attack.


@pytest.mark.parametrize("name", CHECKS)
def test_it_holds_against_a_few_attempts_of_every_kind(address, tmp_path, name):
    (row,) = run({name: CHECKS[name]}, Target(address, tmp_path, SHORT))
    assert row.attempts and not row.failed, row
