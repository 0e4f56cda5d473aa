"""What one visitor or program does to the others: places, sessions, keys, changes, links."""

from __future__ import annotations

import random
import secrets
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing

from tests.load.client import Visitor, settle

from . import Attempt, Target, check
from .requests import answers

REORDERED = "\u202ea red ball\u202c"
LETTERS = str.maketrans("0123456789", "ghijklmnop")
SCRIPT = "</script><script>alert(1)</script><img src=x onerror=alert(1)>"


@check("programs that fill the queue leave the page its places")
def places(target: Target) -> Iterator[Attempt]:
    body = {"data": ["a red ball", "full", 120, 0]}
    with Visitor(target.address) as attacker, Visitor(target.address) as visitor:
        for _ in range(target.count(160)):
            status = attacker.http.post("/gradio_api/call/generate_clip", json=body).status_code
            yield f"a call: {status}", status in (200, 503)
        event = visitor.event("fkv-go")
        for _ in range(target.count(30)):
            status = visitor.join(event, visitor.form(event, prompt="a red ball", chunks=1)).status_code
            yield f"Go live: {status}", status == 200
    with Visitor(target.address) as watcher:  # nobody listens to the calls, so they end
        yield "the queue is empty again", not settle(watcher, 120)["waiting"]


@check("strangers cannot cut a stream")
def strangers(target: Target) -> Iterator[Attempt]:
    with (
        Visitor(target.address) as visitor,
        target.client() as client,
        closing(visitor.go(chunks=0, stream="A")) as shown,
    ):
        seen = next(manifest for manifest in shown if manifest.get("chunks"))
        event = visitor.event("fkv-stop")
        for _ in range(target.count(2081)):
            body = {"data": [], "fn_index": event["id"], "session_hash": secrets.token_hex(8)}
            status = client.post("/gradio_api/queue/join", json=body).status_code
            yield f"a session of its own: {status}", status in (200, 400, 422, 503)
            if secrets.randbelow(200) == 0:
                next(shown)
        later = next(manifest for manifest in shown if manifest.get("chunks", 0) > seen["chunks"] + 1)
        yield f"the stream: {later['state']}", later["state"] == "live"


@check("nobody reaches the run of another")
def keys(target: Target) -> Iterator[Attempt]:
    with Visitor(target.address) as first, Visitor(target.address) as second:
        with closing(first.go(chunks=0, stream="A")) as shown:
            key = next(manifest for manifest in shown if manifest.get("chunks"))["run"]
            guesses = [key[:-1], key.swapcase(), key[::-1], "*", "%00", "..", second.session, first.session]
            guesses += [secrets.token_urlsafe(16) for _ in range(target.count(200))]
            for guess in guesses:
                status = second.http.get(f"/stage/{guess}/0").status_code
                yield f"/stage/{guess}/0: {status}", status in (404, 400)
            for press in ("fkv-stop", "fkv-pause", "fkv-change"):
                second.press(press)
            state = next(shown)["state"]
            yield f"after the presses of another: {state}", state == "live"


@check("a change at any moment ends no run")
def changes(target: Target) -> Iterator[Attempt]:
    for number in range(target.count(6)):
        with Visitor(target.address) as visitor, ExitStack() as stack:
            ahead = stack.enter_context(Visitor(target.address)) if number % 2 == 0 else None
            if ahead is not None:  # the visitor waits in line while the changes come
                running = stack.enter_context(closing(ahead.go(chunks=0, stream="A")))
                next(manifest for manifest in running if manifest.get("chunks"))
            with closing(visitor.go(chunks=3, stream="AB")) as shown:
                next(shown)
                for press in ("fkv-change", "fkv-flush", "fkv-cut", "fkv-pause", "fkv-pause"):
                    visitor.press(press)
                if ahead is not None:
                    ahead.press("fkv-stop")
                *_, last = shown
            yield f"{'in line' if ahead else 'at the start'}: {last['text']}", last["state"] == "done"


@check("links with absurd values keep what can be read, scripts stay text")
def links(target: Target) -> Iterator[Attempt]:
    values = ("²", "-1", "1e9", "9" * 400, "NaN", SCRIPT, "\ud7ff", "%00", "", "x" * 4000)
    with Visitor(target.address) as visitor:
        loaded = (each for each in visitor.config["dependencies"] if any(kind == "load" for _, kind in each["targets"]))
        event = next(loaded)
        body = {"data": [], "fn_index": event["id"], "session_hash": visitor.session}
        for name in (
            "seed",
            "length",
            "view",
            "a",
            "b",
            "threshold",
            "story",
            "prompt",
            "model",
            "branch",
            "schedule",
            "frames",
            "path",
        ):
            for value in (*values, REORDERED, ["1", "2", ""], ["1"] * 2000)[: target.count(50)]:
                answer = visitor.http.post("/gradio_api/run/predict", params={name: value}, json=body)
                text = answer.text
                yield (
                    f"{name}={str(value)[:20]!r}: {answer.status_code}",
                    answer.status_code == 200 and "Traceback" not in text,
                )


@check("prompts and timelines of scripts are told as text, those that reorder it are refused")
def scripts(target: Target) -> Iterator[Attempt]:
    with Visitor(target.address) as visitor:
        ball = {"prompt": "a red ball"}
        for field in (
            {"prompt": SCRIPT},
            ball | {"what changes": f"2: {SCRIPT}"},
            {"prompt": REORDERED},
            ball | {"what changes": f"2: {REORDERED}"},
        ):
            try:
                with closing(visitor.go(chunks=2, stream="A", **field)) as shown:
                    *_, last = shown
                reorders = REORDERED in str(field.values())
                yield f"{field}: {last['state']}", last["state"] in (("error",) if reorders else ("done", "error"))
            except LookupError:
                yield f"the page has no {list(field)[-1]}", False
            time.sleep(0.1)


@check("long texts in any field of the page freeze nobody")
def long_texts(target: Target) -> Iterator[Attempt]:
    with Visitor(target.address) as visitor:
        texts = ("a" * 250_000 + "!", " ".join(secrets.token_hex(3).translate(LETTERS) for _ in range(35_000)))
        texts = (*texts, "2:" * 120_000, "[" + " " * 250_000, "2" + " " * 250_000 + "x", "\n" * 120_000, "a," * 120_000)
        fields = [
            (event, place)
            for event in visitor.config["dependencies"]
            for place, part in enumerate(event["inputs"])
            if visitor.is_text(part)
        ]
        random.Random(0).shuffle(fields)
        for event, place in fields[: target.count(len(fields))]:
            for text in texts:
                data = visitor.form(event)
                data[place] = text
                body = {"data": data, "fn_index": event["id"], "session_hash": secrets.token_hex(8)}
                where = "queue/join" if event["queue"] else "run/predict"
                status = visitor.http.post(f"/gradio_api/{where}", json=body).status_code
                yield f"{event['targets']}, {text[:9]!r}: {status}", status in (200, 500, 503)
            yield answers(target)


@check("calls that cannot be meant are refused in words")
def unmeant(target: Target) -> Iterator[Attempt]:
    with Visitor(target.address) as visitor:
        for event in visitor.config["dependencies"]:
            form = visitor.form(event)
            calls = [] if event["backend_fn"] else [form]
            calls += [form[:-1]] if form else []
            for place in filter(lambda place: visitor.is_number(event["inputs"][place]), range(len(form))):
                values = ("12", "NaN", True, [], {"value": 1}, "²")[: target.count(6)]
                calls += [[*form[:place], value, *form[place + 1 :]] for value in values]
            for data in calls:
                told = visitor.refusal(event, data)
                yield f"{event['api_name']} with {len(data)} of {len(form)} values: {told}", told not in ("", "None")


@check("calls of what the page does not have are refused")
def unknown(target: Target) -> Iterator[Attempt]:
    with target.client() as client:
        for path in ("run/predict", "api/predict", "queue/join", "call/nothing", "call/v2/nothing", "component_server"):
            for number in (-1, 99_999, 10**30, 1.5, "x", [0], {}, None):
                body = {"data": [], "fn_index": number, "session_hash": "a", "component_id": number, "fn_name": "x"}
                status = client.post(f"/gradio_api/{path}", json=body).status_code
                yield f"{path}, {number}: {status}", status in (400, 404, 422)
