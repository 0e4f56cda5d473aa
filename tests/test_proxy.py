"""The configurations of docs/proxy, run before two studios: sub-path, streams, limits, headers, visitors who stay."""

from __future__ import annotations

import re
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing
from dataclasses import replace
from pathlib import Path

import httpx
import pytest

from fkv.studio.live.limits import Limits
from fkv.studio.serving import middleware
from tests.load.client import ROOT, Visitor, free_port
from tests.load.inside import served

PROXY = ROOT / "docs" / "proxy"
NGINX = "user root; daemon off; pid {0}/pid; error_log {0}/log; events {{}} http {{ access_log off; {1} {2} }}"
STORES = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")


def nginx(folder: Path, port: int, replicas: list[str]) -> list[str]:
    """Write the configuration for these ports; returns the command."""
    text = (PROXY / "nginx.conf").read_text().replace("listen 80;", f"listen 127.0.0.1:{port};")
    stores = " ".join(f"{name}_temp_path {folder}/{name};" for name in STORES)
    (folder / "nginx.conf").write_text(NGINX.format(folder, stores, pointed_at(text, replicas)))
    return ["nginx", "-e", f"{folder}/log", "-c", f"{folder}/nginx.conf"]


def caddy(folder: Path, port: int, replicas: list[str]) -> list[str]:
    """The same for Caddy, without TLS and without its own port for administration."""
    text = (PROXY / "Caddyfile").read_text().replace("\nstudio.example {", f"\nhttp://127.0.0.1:{port} {{")
    text = text.replace("\n\tservers {", "\n\tadmin off\n\tservers {", 1)
    (folder / "Caddyfile").write_text(pointed_at(text, replicas))
    return ["caddy", "run", "--adapter", "caddyfile", "--config", f"{folder}/Caddyfile"]


def pointed_at(text: str, replicas: list[str]) -> str:
    for port, address in zip((7860, 7861), replicas, strict=True):
        text, count = re.subn(
            rf"^(?!#)(.*)127\.0\.0\.1:{port}", rf"\g<1>{httpx.URL(address).netloc.decode()}", text, flags=re.M
        )
        assert count == 1
    return text


PROXIES = {"nginx": nginx, "caddy": caddy}


@pytest.fixture(scope="module", params=PROXIES)
def proxied(small, request, tmp_path_factory) -> Iterator[str]:
    """The address of the proxy, under which two studios are served."""
    if shutil.which(request.param) is None:
        pytest.skip(f"{request.param} is not installed")
    folder, port = tmp_path_factory.mktemp(request.param), free_port()
    options = {"root_path": f"http://127.0.0.1:{port}/studio", "proxies": "127.0.0.1"}
    with ExitStack() as stack:
        replicas = [
            stack.enter_context(served(replace(small, name=name), Limits(lead=0.2), **options))
            for name in ("one", "two")
        ]
        with (folder / "out").open("w") as out:
            command = PROXIES[request.param](folder, port, replicas)
            process = subprocess.Popen(
                command, stdout=out, stderr=out, env={"HOME": str(folder), "PATH": "/usr/sbin:/usr/bin"}
            )
        try:
            wait(f"http://127.0.0.1:{port}/studio/healthz", process, folder / "out")
            yield f"http://127.0.0.1:{port}/studio"
        finally:
            process.terminate()
            process.wait(20)


def wait(address: str, process: subprocess.Popen, log: Path) -> None:
    deadline = time.monotonic() + 30
    while True:
        try:
            httpx.get(address, trust_env=False).raise_for_status()
            return
        except httpx.HTTPError:
            assert process.poll() is None and time.monotonic() < deadline, log.read_text()
            time.sleep(0.1)


def get(url: str, source: str = "127.0.0.1", **options) -> httpx.Response:
    with httpx.Client(transport=httpx.HTTPTransport(local_address=source), trust_env=False) as client:
        return client.get(url, **options)


def test_the_page_and_its_scripts_come_from_the_sub_path(proxied):
    page = httpx.get(proxied, follow_redirects=True, trust_env=False)
    assert page.status_code == 200 and str(page.url) == f"{proxied}/"
    assert get(f"{proxied}/config").json()["root"] == proxied
    assert get(f"{proxied}/fkv/address.js").status_code == 200


def test_a_run_is_shown_while_it_goes_on_and_its_chunks_are_fetched(proxied):
    with Visitor(proxied) as visitor, closing(visitor.go(chunks=0, stream="A")) as manifests:
        seen = next(manifest for manifest in manifests if manifest.get("chunks", 0) > 1)
        assert seen["state"] == "live" and visitor.health()["running"] == 1
        assert visitor.chunk(seen["run"], 0).status_code == 200


def test_a_visitor_stays_with_one_studio_and_both_have_some(proxied):
    names = {}
    for last in range(1, 13):
        answered = {get(f"{proxied}/healthz", f"127.0.0.{last}").json()["model"] for _ in range(3)}
        assert len(answered) == 1
        names |= dict.fromkeys(answered)
    assert set(names) == {"one", "two"}


def test_a_visitor_cannot_pretend_another_address(proxied, monkeypatch):
    seen = []
    address = middleware._address
    monkeypatch.setattr(middleware, "_address", lambda scope: (seen.append(address(scope)), address(scope))[1])
    get(f"{proxied}/healthz", "127.0.0.5", headers={"X-Forwarded-For": "10.9.8.7", "Forwarded": "for=10.9.8.7"})
    assert set(seen) == {"127.0.0.5"}


@pytest.mark.parametrize("stated", [True, False])
def test_large_bodies_are_refused(proxied, stated):
    content = b" " * (2 << 20) if stated else iter([b" " * (1 << 16)] * 32)
    large = httpx.stream("POST", f"{proxied}/gradio_api/queue/join", content=content, trust_env=False)
    with large as answer:  # the rest of the answer is lost where the proxy closes before it has read everything
        assert answer.status_code == 413


def test_headers_are_set(proxied):
    headers = get(f"{proxied}/healthz").headers
    assert headers["x-content-type-options"] == "nosniff" and headers["referrer-policy"] == "same-origin"
    assert headers["content-security-policy"] == "frame-ancestors 'self'"


def test_mcp_knows_the_name_of_the_proxy_and_no_other(proxied):
    address = f"{proxied}/gradio_api/mcp/"
    assert httpx.post(address, json={}, trust_env=False).status_code == 404, "let through, to a studio without --mcp"
    other = httpx.post(address, json={}, headers={"Host": "evil.example"}, trust_env=False)
    assert other.status_code == 403 or not other.content, "Caddy answers no name that it does not know"
