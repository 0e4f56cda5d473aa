"""Which part may know which: the core knows no page, and storage knows neither policies nor head roles."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent


def loaded_by(modules: list[str]) -> set[str]:
    """What is loaded after these modules were imported in a fresh interpreter."""
    script = f"import importlib, json, sys; list(map(importlib.import_module, {modules})); print(json.dumps(list(sys.modules)))"
    return set(
        json.loads(subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout)
    )


def test_the_core_knows_neither_gradio_nor_plotly_nor_the_page():
    files = [
        file.relative_to(ROOT).with_suffix("")
        for folder in ("fkv", "kernels")
        for file in (ROOT / folder).rglob("*.py")
    ]
    core = [".".join(("fkv", *file.parts[file.parts[0] == "fkv" :])).removesuffix(".__init__") for file in files]
    core = [name for name in core if not name.startswith("fkv.studio") and not name.endswith("__main__")]
    assert {"fkv.stream", "fkv.commands.bench", "fkv.kernels.hybrid_attention"} < set(core)
    assert not {"gradio", "plotly", "fkv.studio"} & loaded_by(core)


def test_storage_knows_neither_policies_nor_roles():
    assert not [name for name in loaded_by(["fkv.cache"]) if name.startswith(("fkv.policies", "fkv.roles"))]
