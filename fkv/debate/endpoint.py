"""Ask a language model behind any endpoint that speaks OpenAI's protocol, and survive whatever it does.

An answer is bounded in seconds and bytes, so that an endpoint may be down, slow or endless. The key comes from the
environment alone (`FKV_LLM_KEY`) and appears in no message. Redirects are not followed: they could lead it elsewhere.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

import httpx

KEY = "FKV_LLM_KEY"
TRIES = 2
PAUSE = 0.5  # seconds before another try
MOST_BYTES = 1 << 18
MOST_TOKENS = 800  # of an answer
BUSY = (408, 425, 429, 500, 502, 503, 504)


class Unanswered(Exception):
    """The endpoint gave no answer; the message is a clause that says why."""


class _Busy(Unanswered):
    """Another try may help."""


@dataclass(frozen=True)
class Reply:
    """An answer of the model.

    Args:
        text: What it wrote.
        read: Tokens of what it was asked, as the endpoint counts them; words where it does not.
        written: Tokens of the answer, likewise.
    """

    text: str
    read: int
    written: int


@dataclass(frozen=True)
class Endpoint:
    """A language model.

    Args:
        url: Of the endpoint up to `/chat/completions`, such as http://127.0.0.1:8080/v1.
        model: Name of the model, as the endpoint knows it.
        seconds: Longest time to wait for an answer.
        key: Sent as a bearer token, by default from the environment.

    Raises:
        ValueError: The address is none, or holds a key or a query.
    """

    url: str
    model: str
    seconds: float = 30.0
    key: str = field(default_factory=lambda: os.environ.get(KEY, ""), repr=False)

    def __post_init__(self) -> None:
        try:
            url = httpx.URL(self.url)
        except httpx.InvalidURL:
            url = httpx.URL()
        if url.scheme not in ("http", "https") or not url.host:
            raise ValueError(
                "the address of a language model begins with http:// or https://, as in http://127.0.0.1:8080/v1"
            )
        if url.userinfo or url.query or url.fragment:
            raise ValueError(f"the address of a language model holds no key and no query; put the key into {KEY}")
        if not self.model.strip():
            raise ValueError("name the language model with --llm-model")

    def ask(self, messages: Sequence[Mapping[str, str]], seconds: float | None = None) -> Reply:
        """Ask the model.

        Args:
            messages: As OpenAI's protocol has them, with `role` and `content`.
            seconds: A shorter time to wait than the endpoint's.

        Raises:
            Unanswered: There is no answer that could be read.
        """
        seconds = self.seconds if seconds is None else min(self.seconds, seconds)
        deadline = time.monotonic() + seconds
        for number in range(1, TRIES + 1):
            try:
                return self._reply(self._post(messages, deadline, seconds), messages)
            except _Busy as error:
                if number == TRIES or time.monotonic() + PAUSE > deadline:
                    raise Unanswered(str(error)) from None
                time.sleep(PAUSE)
        raise AssertionError("unreachable")

    def _post(self, messages: Sequence[Mapping[str, str]], deadline: float, seconds: float) -> bytes:
        left = deadline - time.monotonic()
        if left <= 0:
            raise Unanswered("there was no time left to ask the language model")
        headers = {"Accept-Encoding": "identity"} | ({"Authorization": f"Bearer {self.key}"} if self.key else {})
        body = {"model": self.model, "messages": list(messages), "max_tokens": MOST_TOKENS, "temperature": 0.8}
        data = bytearray()
        try:
            address = f"{self.url.rstrip('/')}/chat/completions"
            with _client().stream("POST", address, json=body, headers=headers, timeout=left) as response:
                self._check(response.status_code)
                for part in response.iter_bytes():
                    data += part
                    if len(data) > MOST_BYTES:
                        raise Unanswered("the language model's answer did not end")
                    if time.monotonic() > deadline:
                        raise Unanswered(f"the language model did not finish its answer within {seconds:.3g} s")
        except httpx.TimeoutException:
            raise Unanswered(f"the language model did not answer within {seconds:.3g} s") from None
        except (httpx.HTTPError, httpx.StreamError, UnicodeError):
            raise _Busy("the language model cannot be reached") from None
        return bytes(data)

    def _check(self, status: int) -> None:
        if status in (401, 403):
            raise Unanswered(f"the language model's endpoint refused the key; set {KEY}")
        if status in BUSY:
            raise _Busy(f"the language model's endpoint is busy (status {status})")
        if status == 404:
            raise Unanswered(f"the endpoint knows no such address, or no model {self.model!r:.60} (status 404)")
        if status != 200:
            raise Unanswered(f"the language model's endpoint answered with status {status}")

    @staticmethod
    def _reply(data: bytes, messages: Sequence[Mapping[str, str]]) -> Reply:
        try:
            answer: Any = json.loads(data)
            text = answer["choices"][0]["message"]["content"]
            usage = answer.get("usage") or {}
        except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
            raise _Busy("the language model's endpoint did not answer as OpenAI's protocol has it") from None
        if not isinstance(text, str):
            raise _Busy("the language model's answer holds no text")
        asked = sum(len(message["content"].split()) for message in messages)
        return Reply(text, _count(usage, "prompt_tokens", asked), _count(usage, "completion_tokens", len(text.split())))


@lru_cache(maxsize=1)
def _client() -> httpx.Client:
    """One client for all calls, since it takes a while to read the certificates of authorities."""
    return httpx.Client(trust_env=False)


def _count(usage: Any, name: str, words: int) -> int:
    """A number of tokens as the endpoint tells it, or else the number of words."""
    told = usage.get(name) if isinstance(usage, dict) else None
    return told if isinstance(told, int) and not isinstance(told, bool) and 0 <= told < 1 << 31 else words
