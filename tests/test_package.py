"""The package from outside: its public names, its dependencies, the wheel, and the folder as a Space."""

from __future__ import annotations

import inspect
import json
import os
import shutil
import socket
import subprocess
import sys
import tomllib
import urllib.request
import zipfile
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from time import monotonic, sleep

import pytest
from packaging.requirements import Requirement

import fkv
from fkv.commands.main import main

ROOT = Path(__file__).parents[1]


def output_of(script: str, *options: str) -> str:
    """What a script prints in a fresh interpreter that finds this checkout."""
    command = [sys.executable, *options, "-c", script]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout.strip()


def test_importing_fkv_loads_no_other_library_and_changes_no_environment():
    script = (
        "import os, sys; before = dict(os.environ); import fkv;"
        "print({'torch', 'numpy', 'diffusers', 'gradio'} & set(sys.modules), dict(os.environ) == before)"
    )
    assert output_of(script) == "set() True"


def test_every_public_name_can_be_used_first_and_is_documented():
    names = [name for name in fkv.__all__ if not name.startswith("_")]
    script = (
        "import os, torch, fkv\n"
        f"for name in {names}:\n"
        "    if not os.fork():\n"
        "        print(name, bool(getattr(fkv, name).__doc__), name in dir(fkv), flush=True)\n"
        "        os._exit(0)\n"
        "    os.wait()"
    )
    assert output_of(script).splitlines() == [f"{name} True True" for name in names]
    assert all(f"`{name}`" in fkv.__doc__ for name in names)


def test_a_public_name_stays_what_it_is_after_its_module_was_imported():
    script = (
        "import fkv; from fkv import comparison, stream; print(callable(fkv.compare), isinstance(fkv.Stream, type))"
    )
    assert output_of(script) == "True True"
    assert fkv.compare is fkv.compare and inspect.ismodule(fkv.policies) and inspect.ismodule(fkv.roles)


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="module 'fkv' has no attribute 'paint'"):
        getattr(fkv, "paint")  # noqa: B009


# Dependencies.


@pytest.fixture(scope="module")
def project() -> dict:
    return tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]


def requirements(file: Path) -> set[str]:
    """The requirements of a file in one spelling, without those it includes."""
    lines = [line for line in file.read_text().splitlines() if line and not line.startswith(("#", "-r"))]
    return {str(Requirement(line)) for line in lines}


def test_the_dependencies_are_those_of_requirements_txt(project):
    assert {str(Requirement(line)) for line in project["dependencies"]} == requirements(ROOT / "requirements.txt")


def test_the_test_extra_is_tests_requirements_txt(project):
    extras = project["optional-dependencies"]
    own, *rest = extras["test"]
    assert set(Requirement(own).extras) == set(extras) - {"test"}
    listed = [line for name in Requirement(own).extras for line in extras[name]] + rest
    assert {str(Requirement(line)) for line in listed} == requirements(ROOT / "tests" / "requirements.txt")


# The wheel, from an empty directory with nothing of the checkout on the path.


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "hatchling", "build", "--target", "wheel", "--directory", str(folder)]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    return next(folder.glob("*.whl"))


@pytest.fixture(scope="module")
def installed(wheel, tmp_path_factory) -> Path:
    """The folder that the wheel is installed to, without its dependencies."""
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--target", str(folder), str(wheel)]
    subprocess.run(command, check=True, capture_output=True)
    return folder


@pytest.fixture
def elsewhere(installed, tmp_path, monkeypatch) -> Path:
    """An empty directory in which Python finds the installed wheel and not this checkout."""
    monkeypatch.setenv("PYTHONPATH", str(installed))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def python(*arguments: str, **options) -> str:
    """What Python prints in the current directory."""
    return subprocess.run([sys.executable, *arguments], check=True, capture_output=True, text=True, **options).stdout


def test_the_wheel_holds_the_package_its_assets_and_nothing_else(wheel):
    held = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}
    code = {file.relative_to(ROOT).as_posix() for file in (ROOT / "fkv").rglob("*") if file.suffix in (".py", ".typed")}
    moved = [file for name in ("kernels", "analysis") for file in (ROOT / name).rglob("*.py")]
    assets = [
        file
        for name in ("board", "head_roles", "studio", "tiny", "tiny-memory")
        for file in (ROOT / "assets" / name).rglob("*")
        if file.is_file() and "node_modules" not in file.parts
    ]
    assert held == code | {f"fkv/{file.relative_to(ROOT).as_posix()}" for file in (*moved, *assets)}
    assert {"fkv/py.typed", "fkv/kernels/rope.py", "fkv/analysis/figures/xray.py"} < held


def test_the_installed_command_streams_the_frames_of_the_checkout(elsewhere, installed, capsys):
    words = ["stream", "--chunks", "2", "--json", "-"]
    command = [str(installed / "bin" / "fkv"), *words]
    report = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    assert main(words) == 0
    here = json.loads(capsys.readouterr().out)
    assert report["frames_sha256"] == here["frames_sha256"] and len(report["chunks"]) == 2
    assert python("-c", "import fkv.kernels as k, fkv; print(*k.__path__, *fkv.__path__, sep='\\n')").split() == [
        str(installed / "fkv" / "kernels"),
        str(installed / "fkv"),
    ]


def test_the_example_with_a_model_of_ones_own_runs_with_the_installed_wheel(elsewhere):
    printed = python("-", input=(ROOT / "docs" / "examples" / "own_model.py").read_text())
    assert "latents (1, 3, 16, 8, 12)" in printed


def test_a_library_that_is_called_kernels_stays_what_it_is(elsewhere, installed, monkeypatch):
    other = elsewhere / "other" / "kernels"
    other.mkdir(parents=True)
    (other / "__init__.py").write_text("theirs = True")
    script = "import kernels, fkv.kernels; print(kernels.theirs, 'theirs' in dir(fkv.kernels))"
    for place, path in ((elsewhere, installed), (ROOT, ROOT)):
        monkeypatch.setenv("PYTHONPATH", f"{path}{os.pathsep}{other.parent}")
        assert python("-c", script, cwd=place).split() == ["True", "False"]


@contextmanager
def serving(*command: str, cwd: Path) -> Iterator[str]:
    """The address of a studio that a command starts, once it answers."""
    with closing(socket.socket()) as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    log = cwd.parent / "studio.log"
    with log.open("w") as file:
        settings = os.environ | {"GRADIO_SERVER_PORT": str(port)}
        studio = subprocess.Popen(command, cwd=cwd, env=settings, stdout=file, stderr=file)
    address = f"http://127.0.0.1:{port}"
    patience = monotonic() + 120
    try:
        while True:
            assert studio.poll() is None and monotonic() < patience, log.read_text()
            try:
                urllib.request.urlopen(f"{address}/healthz")
                break
            except OSError:
                sleep(0.2)
        yield address
    finally:
        studio.terminate()
        studio.wait(30)


def page(address: str) -> str:
    return urllib.request.urlopen(address).read().decode()


def test_the_installed_studio_serves_its_page_from_an_empty_directory(elsewhere, installed):
    assert "--longest-run" in python(str(installed / "bin" / "fkv-studio"), "--help")
    empty = elsewhere / "empty"
    empty.mkdir()
    with serving(sys.executable, str(installed / "bin" / "fkv-studio"), cwd=empty) as address:
        assert "Forcing-KV Studio" in page(address)
    assert not list(empty.iterdir())


def test_the_folder_runs_as_a_space_with_nothing_installed(tmp_path, monkeypatch):
    monkeypatch.delenv("PYTHONPATH", raising=False)
    unneeded = shutil.ignore_patterns(".git", ".*_cache", "runs", "tests", "screenshots", "__pycache__", "node_modules")
    copy = shutil.copytree(ROOT, tmp_path / "space", ignore=unneeded)
    with serving(sys.executable, "app.py", cwd=copy) as address:
        assert "Forcing-KV Studio" in page(address)
