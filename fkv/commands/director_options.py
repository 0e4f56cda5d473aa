"""Options of the director: the idea, and the language model that writes its scenes."""

from __future__ import annotations

import argparse
import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from fkv.debate.endpoint import Endpoint

KEY_HELP = "its key comes from the environment variable FKV_LLM_KEY alone"


def add_language_model(parser: argparse.ArgumentParser) -> None:
    """Add the options that name a language model."""
    parser.add_argument(
        "--llm",
        metavar="URL",
        help=f"endpoint of the director's language model in OpenAI's protocol, as http://127.0.0.1:8080/v1; {KEY_HELP} "
        "(default: FKV_LLM_URL, or none: a grammar writes the tiny model's scenes)",
    )
    parser.add_argument(
        "--llm-model",
        metavar="NAME",
        help="the language model, as its endpoint names it (default: FKV_LLM_MODEL)",
    )


def endpoint_of(args: argparse.Namespace) -> Endpoint | None:
    """The language model that options and environment name, None for none. Raises ValueError for half a name."""
    from fkv.debate.endpoint import Endpoint

    url = args.llm or os.environ.get("FKV_LLM_URL")
    if not url and args.llm_model:
        raise ValueError("--llm-model goes with --llm URL")
    return Endpoint(url, args.llm_model or os.environ.get("FKV_LLM_MODEL", "")) if url else None
