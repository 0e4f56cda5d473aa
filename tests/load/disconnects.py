"""Visitors who vanish at random moments: `python -m tests.load.disconnects --count 200`.

Passes when no stream is left running, no folder is left but the studio's own, and the resident memory is back where it
was once everything had been used: after a quarter as many disconnects before those that count. It is printed by
quarters.
"""

from __future__ import annotations

import argparse
import random
import sys
import threading
import time
from contextlib import closing

import httpx

from .client import PROMPT, Visitor, settle, studio
from .table import verdict


def disconnect(address: str, dice: random.Random, longest: float = 6.0) -> str:
    """Go live and vanish after up to `longest` seconds, in one of the ways in which visitors do. Returns which."""
    way = dice.choice(("close", "pause", "vanish before the answer", "stop", "start anew"))
    with Visitor(address) as visitor:
        seconds = dice.uniform(0, longest)
        try:
            if way == "vanish before the answer":
                event = visitor.event("fkv-go")
                visitor.join(event, visitor.form(event, prompt=PROMPT, chunks=0))
                return way
            with closing(visitor.go(chunks=0, stream=dice.choice(("A", "AB")), seed=dice.randrange(1000))) as manifests:
                deadline = time.monotonic() + seconds
                for _ in manifests:
                    if time.monotonic() > deadline:
                        break
                if way in ("pause", "stop"):
                    visitor.press(f"fkv-{way}")
            if way == "start anew":
                with closing(visitor.go(chunks=0)) as manifests:
                    next(manifests, None)
        except httpx.HTTPError as error:
            return f"{way}: {type(error).__name__}"
    return way


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=200, help="visitors in all (default: 200)")
    parser.add_argument("--at-once", type=int, default=4, help="visitors at a time (default: 4)")
    parser.add_argument("--seed", type=int, default=0, help="of when they leave (default: 0)")
    args = parser.parse_args(argv)
    dice, ways, lock = random.Random(args.seed), dict[str, int](), threading.Lock()
    with studio("--longest-idle", "10") as started, Visitor(started.address) as watcher:

        def come_and_go(count: int) -> None:
            left = iter(range(count))

            def work() -> None:
                while True:
                    with lock:
                        if next(left, None) is None:
                            return
                        own = random.Random(dice.random())
                    way = disconnect(started.address, own)
                    with lock:
                        ways[way] = ways.get(way, 0) + 1

            threads = [threading.Thread(target=work, daemon=True) for _ in range(args.at_once)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join(count * 30)

        come_and_go(args.count // 4)
        settle(watcher, 120)
        ways.clear()
        memory = [started.memory]
        for quarter in range(4):
            come_and_go((quarter + 1) * args.count // 4 - quarter * args.count // 4)
            health = settle(watcher, 400)
            memory.append(started.memory)
        ended: dict[str, int] = {}
        for line in started.lines():
            ended[line.get("ended", "")] = ended.get(line.get("ended", ""), 0) + 1
        folders = [path for path in started.folder.glob("forcing-kv-studio-*/*") if path.is_file()]
        growth = memory[-1] / memory[0] - 1
        return verdict(
            {
                "disconnects": sum(ways.values()),
                "ways": ways,
                "streams ended": ended,
                "resident MB": [round(each / 1e6) for each in memory],
                "of them video MB": health["chunk_bytes"] / 1e6,
            },
            {
                "all clients came through": sum(ways.values()) == args.count and not any(":" in way for way in ways),
                "no stream runs or waits": not (health["running"] or health["waiting"]),
                "no file is left": not folders,
                f"memory grew by {growth:+.1%}, at most 5 %": growth <= 0.05,
                "no error in the log": not started.errors(),
            },
        )


if __name__ == "__main__":
    sys.exit(main())
