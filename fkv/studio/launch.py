"""The studio as a program: `python app.py`, or the command `fkv-studio` once the package is installed."""

from __future__ import annotations

import argparse
import os
import sys
from dataclasses import replace

from fkv import runtime

runtime.prepare()
os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")
os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")

LIMITS = (
    ("longest-run", float, "1800", "seconds of a visitor's run, pauses included"),
    ("longest-turn", float, "180", "seconds of a run once others wait"),
    ("longest-pause", float, "180", "seconds of a visitor's pause"),
    ("longest-idle", float, "60", "seconds until a run ends that nobody watches"),
    ("most-waiting", int, "24", "visitors in line"),
    ("most-memory", int, "768", "MiB of encoded video kept for all visitors together"),
    ("most-kv", int, "0", "MiB of KV cache per run; 0: half of what is free once the model is loaded"),
)
"""Options that bound what visitors may take; each is also an environment variable, as in FKV_LONGEST_RUN."""


def arguments(argv: list[str] | None = None) -> argparse.Namespace:
    """What the command line and the environment ask for."""
    from fkv.commands.model_options import add_model
    from fkv.models.release import CHOICES

    env = os.environ.get
    parser = argparse.ArgumentParser(
        description="Stream video live with a hybrid KV cache, with a full one, or side by side.",
        epilog="Most options are also environment variables, as FKV_MODEL and FKV_LONGEST_RUN; Spaces.md lists them.",
    )
    add_model(parser)
    chosen = {name: env(f"FKV_{name.upper()}") for name in ("model", "device", "checkpoint", "base", "lora", *CHOICES)}
    parser.set_defaults(**{name: value for name, value in chosen.items() if value})
    parser.add_argument(
        "--host", default=env("GRADIO_SERVER_NAME", "127.0.0.1"), help="address to listen at (default: %(default)s)"
    )
    parser.add_argument(
        "--port", type=int, default=env("GRADIO_SERVER_PORT", "7860"), help="port to listen at (default: %(default)s)"
    )
    parser.add_argument("--root-path", default=env("GRADIO_ROOT_PATH"), help="path under which a proxy serves the page")
    parser.add_argument("--share", action="store_true", help="also open a public Gradio link")
    for name, kind, default, help in LIMITS:
        default = env(f"FKV_{name.upper().replace('-', '_')}", default)
        parser.add_argument(f"--{name}", type=kind, default=default, metavar="N", help=f"{help} (default: %(default)s)")
    parser.add_argument(
        "--metrics", action="store_true", default=env("FKV_METRICS") == "1", help="figures for Prometheus at /metrics"
    )
    mcp = env("GRADIO_MCP_SERVER", "").lower() in ("1", "true")
    parser.add_argument("--mcp", action="store_true", default=mcp, help="also offer the API as tools of an MCP server")
    parser.add_argument(
        "--log-prompts", action="store_true", default=env("FKV_LOG_PROMPTS") == "1", help="log what visitors type"
    )
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> int:
    """Load the model and serve the page. Returns 2, after one sentence, where that cannot be done."""
    if os.environ.get("SPACES_ZERO_GPU"):
        import spaces  # noqa: F401  before anything touches CUDA

        os.environ.setdefault("FKV_LONGEST_RUN", "60")  # a visitor's quota is a few minutes a day
    args = arguments(argv)
    try:
        from fkv.studio.server import check_port

        check_port(args.host, args.port)
        for name, *_ in LIMITS:
            if not (value := getattr(args, name.replace("-", "_"))) >= 0:
                raise ValueError(f"--{name} must be a number of at least 0, not {value}")
        from fkv.commands.model_options import load_model
        from fkv.models.memory import free_memory
        from fkv.studio.live import model_thread, telemetry, zerogpu
        from fkv.studio.live.limits import Limits
        from fkv.studio.server import serve

        total = args.most_memory << 20
        limits = Limits(
            seconds=args.longest_run,
            turn=args.longest_turn,
            pause=args.longest_pause,
            idle=args.longest_idle,
            waiting=args.most_waiting,
            memory=total // 4,
            total=total,
        )
        model = load_model(args) if zerogpu.here() else model_thread.call(load_model, args)
        telemetry.setup(args.log_prompts)
        limits = replace(limits, kv=args.most_kv << 20 or free_memory(args.device)["device"] // 2)
        serve(model, args.host, args.port, args.share, args.root_path, limits, args.metrics, args.mcp)
    except (ValueError, OSError) as error:
        print(f"fkv-studio: {error}", file=sys.stderr)
        return 2
    return 0


def run() -> int:
    """Serve the page; an interrupt ends it without a traceback."""
    try:
        return main()
    except KeyboardInterrupt:
        return 130
