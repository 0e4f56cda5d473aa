"""Which part may know which: the core knows no page, and storage knows neither policies nor head roles."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent


def loaded_by(modules: list[str]) -> set[str]:
    """What is loaded after these modules were imported in a fresh interpreter."""
    return loaded_after(f"import importlib\nlist(map(importlib.import_module, {modules}))")


def loaded_after(script: str) -> set[str]:
    """What is loaded after a script was run in a fresh interpreter."""
    script += "\nimport json, sys\nprint(json.dumps(list(sys.modules)))"
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


def test_batches_and_searches_know_no_analysis():
    files = [file for folder in ("batch", "search") for file in (ROOT / "fkv" / folder).glob("[a-z]*.py")]
    found = loaded_by([f"fkv.{file.parent.name}.{file.stem}" for file in files])
    assert "fkv.records" in found and not [name for name in found if name.startswith("fkv.analysis")]


HEAVY = {"diffusers", "transformers", "peft", "accelerate", "gradio", "pandas", "plotly", "seaborn", "matplotlib", "av"}
"""What takes longer to import than the shipped model to load; each is imported where it is used."""


def test_a_stream_of_the_shipped_model_imports_nothing_that_it_does_not_use(tmp_path):
    loaded = tmp_path / "loaded.json"
    script = (
        "import json, pathlib, sys\n"
        "from fkv.commands.main import main\n"
        "main(['stream', '--chunks', '1', '--json', sys.argv[1]])\n"
        "pathlib.Path(sys.argv[1]).write_text(json.dumps(list(sys.modules)))"
    )
    subprocess.run([sys.executable, "-c", script, loaded], cwd=ROOT, capture_output=True, check=True)
    modules = {name.partition(".")[0] for name in json.loads(loaded.read_text())}
    assert "torch" in modules and not HEAVY & modules


def test_the_studio_starts_without_what_it_uses_later_or_never():
    later = {"diffusers", "transformers", "peft", "accelerate", "matplotlib", "seaborn", "plotly", "scipy"}
    assert not later & loaded_after(
        "from fkv.studio import lean_gradio\n"
        "lean_gradio.skip_stubs()\n"
        "import fkv.studio.server, gradio.component_meta, gradio.utils\n"
        "lean_gradio.keep_backend()\n"
        "gradio.component_meta.create_or_modify_pyi(None, None, None)  # Gradio's own would fail\n"
        "with gradio.utils.MatplotlibBackendMananger():\n"
        "    pass"
    )


def test_storage_knows_neither_policies_nor_roles():
    assert not [name for name in loaded_by(["fkv.cache"]) if name.startswith(("fkv.policies", "fkv.roles"))]


ROOMS = ("errors theme folder lean_gradio", "media", "live", "tabs serving", "page", "server", "launch")
"""The rooms of the studio from the lowest to the highest; each may import those before it, and itself."""


def imports(file: Path) -> set[str]:
    """The modules that a file imports, by their full names."""
    package = file.relative_to(ROOT).parent.parts
    found = set()
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            start = package[: len(package) + 1 - node.level] if node.level else ()
            module = ".".join((*start, *filter(None, [node.module])))
            found |= {module, *(f"{module}.{alias.name}" for alias in node.names)}
    return found


def test_rooms_of_the_studio_import_only_lower_rooms():
    height = {room: i for i, rooms in enumerate(ROOMS) for room in rooms.split()}
    wrong, seen = [], set()
    for file in (ROOT / "fkv" / "studio").rglob("*.py"):
        room = file.relative_to(ROOT / "fkv" / "studio").parts[0].removesuffix(".py")
        if room == "__init__":
            continue
        for module in imports(file):
            parts = module.split(".")
            if parts[:2] == ["fkv", "studio"] and len(parts) > 2:
                seen.add((room, parts[2]))
                if parts[2] != room and height[parts[2]] >= height[room]:
                    wrong.append(f"{file.name} imports {module}")
    assert ("page", "tabs") in seen and ("live", "media") in seen and not wrong


LAYERS = ("kernels", "the core", "analysis", "board", "commands", "training", "studio")
"""The packages of `fkv` from the lowest to the highest; all that are not named are the core."""
ENTRIES = {"fkv/__main__.py", "fkv/runtime.py"}  # the commands `fkv` and `fkv-studio`


def layer(name: str) -> int:
    """The layer of a part of `fkv`."""
    return LAYERS.index(name if name in LAYERS else "the core")


def test_packages_import_only_lower_ones():
    wrong, seen = [], set()
    for folder in ("fkv", "kernels", "analysis"):
        for file in (ROOT / folder).rglob("*.py"):
            path = file.relative_to(ROOT)
            if path.as_posix() in ENTRIES:
                continue
            own = folder if folder != "fkv" else path.parts[1]
            for module in imports(file):
                package, _, rest = module.partition(".")
                other = rest.partition(".")[0] if package == "fkv" else package if package in LAYERS else ""
                if other:
                    seen.add((own, other))
                    if layer(other) > layer(own):
                        wrong.append(f"{path} imports {module}")
    assert {("policies", "kernels"), ("analysis", "stream"), ("studio", "commands")} <= seen and not wrong
