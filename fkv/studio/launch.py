"""The studio as a program: `python app.py`, or the command `fkv-studio` once the package is installed."""

from __future__ import annotations

import argparse
import gc
import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, get_type_hints

from pydantic import Field

from fkv import runtime
from fkv.parameters import Count, check, describe

from . import lean_gradio
from .folder import end_at_signals, temporary_folder

if TYPE_CHECKING:
    from fkv.studio.live.limits import Limits

runtime.prepare()
os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")
os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
os.environ.setdefault("MPLBACKEND", "agg")

Seconds = Annotated[float, Field(ge=0, json_schema_extra={"unit": "seconds"})]
Mebibytes = Annotated[int, Field(ge=0, json_schema_extra={"unit": "MiB"})]


@dataclass(frozen=True)
class LimitOptions:
    """Options that bound what visitors may take; each is also an environment variable, such as FKV_LONGEST_RUN."""

    longest_run: Annotated[Seconds, Field(description="longest run of a visitor, pauses included")] = 1800.0
    longest_turn: Annotated[Seconds, Field(description="longest run once others wait")] = 180.0
    longest_pause: Annotated[Seconds, Field(description="longest pause of a visitor")] = 180.0
    longest_idle: Annotated[Seconds, Field(description="how long a run goes on that nobody watches")] = 60.0
    most_waiting: Annotated[Count, Field(description="visitors in the queue")] = 24
    together: Annotated[
        Count, Field(ge=1, description="visitors with one stream each whose passes are computed together; 1: in turns")
    ] = 1
    most_memory: Annotated[Mebibytes, Field(description="encoded video kept for all visitors together")] = 768
    most_kv: Annotated[
        Mebibytes, Field(description="KV cache per run; 0: half of what is free once the model is loaded")
    ] = 0

    @classmethod
    def from_arguments(cls, args: argparse.Namespace) -> LimitOptions:
        """Read the parsed options. Raises ValueError that names an option out of range."""
        for name, annotation in get_type_hints(cls, include_extras=True).items():
            check(_option(name), getattr(args, name), annotation)
        return cls(**{name: getattr(args, name) for name in get_type_hints(cls, include_extras=True)})

    def limits(self, free_bytes: int) -> Limits:
        """The limits of the studio; free_bytes: of the device, once the model is loaded."""
        from fkv.studio.live.limits import Limits

        total = self.most_memory << 20
        return Limits(
            seconds=self.longest_run,
            turn=self.longest_turn,
            pause=self.longest_pause,
            idle=self.longest_idle,
            waiting=self.most_waiting,
            together=self.together,
            memory=total // 4,
            total=total,
            kv=self.most_kv << 20 or free_bytes // 2 // self.together,
        )


def arguments(argv: list[str] | None = None) -> argparse.Namespace:
    """Read the command line and the environment."""
    from fkv.commands.director_options import add_language_model
    from fkv.commands.model_options import SAMPLING, add_model
    from fkv.models.release import CHOICES

    env = os.environ.get
    parser = argparse.ArgumentParser(
        description="Stream video live with a hybrid KV cache, with a full one, or side by side.",
        epilog="Most options are also environment variables, as FKV_MODEL and FKV_LONGEST_RUN; Spaces.md lists them.",
    )
    add_model(parser)
    names = ("model", "device", "checkpoint", "base", *SAMPLING, *CHOICES)
    chosen = {name: env(f"FKV_{name.upper()}") for name in names}
    parser.set_defaults(**{name: value for name, value in chosen.items() if value})
    parser.add_argument(
        "--host", default=env("GRADIO_SERVER_NAME", "127.0.0.1"), help="address to listen at (default: %(default)s)"
    )
    parser.add_argument(
        "--port", type=int, default=env("GRADIO_SERVER_PORT", "7860"), help="port to listen at (default: %(default)s)"
    )
    parser.add_argument(
        "--root-path", default=env("GRADIO_ROOT_PATH"), help="address, or path, under which a proxy serves the page"
    )
    parser.add_argument(
        "--trust-proxy",
        default=env("FKV_TRUST_PROXY", ""),
        metavar="ADDRESSES",
        help="proxies whose X-Forwarded-For names the visitor, with commas between them (default: none)",
    )
    parser.add_argument("--share", action="store_true", help="also open a public Gradio link")
    for parameter in describe(LimitOptions):
        parser.add_argument(
            _option(parameter.name),
            type=type(parameter.default),
            default=env(f"FKV_{parameter.name.upper()}", parameter.default),
            metavar=parameter.unit or "N",
            help=f"{parameter.help} (default: %(default)s)",
        )
    parser.add_argument(
        "--metrics", action="store_true", default=env("FKV_METRICS") == "1", help="figures for Prometheus at /metrics"
    )
    parser.add_argument(
        "--forbid",
        default=env("FKV_FORBID", ""),
        metavar="WHAT",
        help="end every run before a chunk that shows what is forbidden: words that the tiny model's oracle sees, as "
        "in red,night, or a classifier MODULE:FUNCTION(video, prompt) that returns less than 0.5 then; no safety "
        "guarantee",
    )
    add_language_model(parser)
    mcp = env("GRADIO_MCP_SERVER", "").lower() in ("1", "true")
    parser.add_argument("--mcp", action="store_true", default=mcp, help="also offer the API as tools of an MCP server")
    parser.add_argument(
        "--log-prompts", action="store_true", default=env("FKV_LOG_PROMPTS") == "1", help="log what visitors type"
    )
    args = parser.parse_args(argv)
    args.lora = args.lora or [one for one in env("FKV_LORA", "").split(",") if one]
    return args


def _option(name: str) -> str:
    return f"--{name.replace('_', '-')}"


def main(argv: list[str] | None = None, folder: Path | None = None) -> int:
    """Load the model and serve the page. Returns 2, after one sentence, where that is not possible.

    Args:
        argv: The command line.
        folder: For temporary files, by default a new one.
    """
    if os.environ.get("SPACES_ZERO_GPU"):
        import spaces  # noqa: F401  before anything touches CUDA

        os.environ.setdefault("FKV_LONGEST_RUN", "60")  # a visitor's quota is a few minutes a day
    args = arguments(argv)
    lean_gradio.skip_stubs()
    try:
        from fkv.studio.server import check_port

        check_port(args.host, args.port)
        options = LimitOptions.from_arguments(args)
        from fkv.commands.director_options import endpoint_of

        endpoint = endpoint_of(args)  # refused before a model is loaded
        from fkv.commands.model_options import load_model
        from fkv.models.memory import free_memory
        from fkv.studio.live import model_thread, telemetry, zerogpu
        from fkv.studio.server import serve

        model = load_model(args) if zerogpu.here() else model_thread.call(load_model, args)
        if args.forbid:
            from fkv.search.forbidden import guarded

            model = guarded(model, args.forbid)
        telemetry.setup(args.log_prompts)
        lean_gradio.keep_backend()
        lean_gradio.keep_no_components()
        if zerogpu.here() and options.together > 1:
            raise ValueError("--together needs a machine that visitors have in common; ZeroGPU lends one to each")
        limits = options.limits(free_memory(args.device)["device"])
        serve(
            model,
            args.host,
            args.port,
            args.share,
            args.root_path,
            limits,
            args.metrics,
            args.mcp,
            folder=folder,
            proxies=args.trust_proxy,
            endpoint=endpoint,
        )
    except (ValueError, OSError) as error:
        print(f"fkv-studio: {error}", file=sys.stderr)
        return 2
    return 0


def run() -> int:
    """Serve the page until a signal ends the process, at any moment, without a word and without leftovers."""
    gc.disable()  # until the page is served: while modules are imported, nearly everything stays
    try:
        folder = temporary_folder()
    except OSError:
        print("fkv-studio: no folder for temporary files can be written; name one with TMPDIR", file=sys.stderr)
        return 2
    end_at_signals(folder)
    return main(folder=folder)
