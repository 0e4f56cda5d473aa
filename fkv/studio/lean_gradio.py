"""Gradio without what the studio has no use for and what takes long.

At every import it parses the source of its components and writes a `.pyi` file for editors beside each, two fifths
of what its import takes. Around every event it sets matplotlib's backend and sets it back, so the first event imports
matplotlib. For every session it describes all components of the page again, while nobody else is answered, and keeps
what was typed into them. Figures are in assets/benchmarks/README.md.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from contextlib import nullcontext
from importlib.machinery import ModuleSpec, PathFinder, SourceFileLoader
from types import ModuleType, SimpleNamespace
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from gradio import Blocks

MODULE = "gradio.component_meta"  # has `create_or_modify_pyi`


class _Loader(SourceFileLoader):
    def exec_module(self, module: ModuleType) -> None:
        super().exec_module(module)
        module.create_or_modify_pyi = lambda *_: None  # type: ignore[attr-defined]


class _Finder(PathFinder):
    @classmethod
    def find_spec(
        cls, fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        spec = super().find_spec(fullname, path, target) if fullname == MODULE else None
        if spec is not None and spec.origin is not None:
            spec.loader = _Loader(fullname, spec.origin)
        return spec


def skip_stubs() -> None:
    """Let Gradio write no stubs when it is imported later."""
    sys.meta_path.insert(0, _Finder)


def keep_backend() -> None:
    """Let events leave matplotlib's backend as it is: `MPLBACKEND` has named the one that draws to files."""
    import gradio.utils

    gradio.utils.MatplotlibBackendMananger = nullcontext  # type: ignore[assignment, misc]


def keep_no_components() -> None:
    """Let sessions describe no components and keep no values: links that would need them are closed."""
    import gradio.route_utils
    import gradio.state_holder
    from gradio.state_holder import SessionState

    class Session(SessionState):
        def __init__(self, blocks: Blocks) -> None:
            nothing: Any = SimpleNamespace(default_config=blocks.default_config, blocks={})
            super().__init__(nothing)

        def _update_config(self, *_: Any) -> None:
            pass

        def _update_value_in_config(self, *_: Any) -> None:
            pass

    for module in (gradio.route_utils, gradio.state_holder):
        vars(module)["SessionState"] = Session
