"""Forcing-KV Studio: `python app.py`, then open the address that it prints."""

from __future__ import annotations

import argparse
import os
import sys

os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")
os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")


def arguments(argv: list[str] | None = None) -> argparse.Namespace:
    """What the command line and the environment ask for."""
    import torch

    from fkv.models import registry

    env = os.environ.get
    parser = argparse.ArgumentParser(description="Stream video live with a hybrid KV cache, with a full one, or side by side.")
    registry.add_arguments(parser, "cuda" if torch.cuda.is_available() else "cpu")
    parser.set_defaults(**{name: env(f"FKV_{name.upper()}") for name in ("model", "device") if env(f"FKV_{name.upper()}")})
    parser.add_argument("--host", default=env("GRADIO_SERVER_NAME", "127.0.0.1"), help="address to listen at (default: %(default)s)")
    parser.add_argument("--port", type=int, default=env("GRADIO_SERVER_PORT", "7860"), help="port to listen at (default: %(default)s)")
    parser.add_argument("--root-path", default=env("GRADIO_ROOT_PATH"), help="path under which a proxy serves the page")
    parser.add_argument("--share", action="store_true", help="also open a public Gradio link")
    for what, seconds in (("run", "1800"), ("pause", "180")):
        default = env(f"FKV_LONGEST_{what.upper()}", seconds)
        parser.add_argument(
            f"--longest-{what}", type=float, default=default, metavar="SECONDS", help=f"of a visitor's {what} (default: %(default)s)"
        )
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> int:
    """Load the model and serve the page. Returns 2, after one sentence, where that cannot be done."""
    args = arguments(argv)
    try:
        from fkv.studio.serve import check_port

        check_port(args.host, args.port)
        from fkv.models import registry
        from fkv.studio.serve import serve
        from fkv.studio.sessions import Limits

        model = registry.chosen(args)
        serve(model, args.host, args.port, args.share, args.root_path, Limits(seconds=args.longest_run, pause=args.longest_pause))
    except (ValueError, OSError) as error:
        print(f"app.py: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
