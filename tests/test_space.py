"""The repository as a Space: its front matter and Spaces.md against what is installed and what app.py reads."""

from __future__ import annotations

import re
import sys
import tomllib
from importlib.metadata import version
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.version import Version

import app
from fkv import runtime
from fkv.studio import launch

ROOT = Path(__file__).parents[1]
FIELDS = {
    "title",
    "emoji",
    "colorFrom",
    "colorTo",
    "sdk",
    "sdk_version",
    "python_version",
    "app_file",
    "pinned",
    "license",
    "short_description",
    "models",
    "tags",
    "suggested_hardware",
    "preload_from_hub",
    "startup_duration_timeout",
}


@pytest.fixture(scope="module")
def front() -> dict:
    """The front matter of README.md."""
    return yaml.safe_load((ROOT / "README.md").read_text(encoding="utf-8").split("---\n")[1])


def requirement(name: str) -> SpecifierSet:
    lines = (ROOT / "requirements.txt").read_text().splitlines()
    return next(each.specifier for each in map(Requirement, lines) if each.name == name)


def test_the_front_matter_is_one_that_spaces_read(front):
    assert front["sdk"] == "gradio" and set(front) <= FIELDS and len(front["short_description"]) <= 60
    colours = {"red", "yellow", "green", "blue", "indigo", "purple", "pink", "gray"}
    assert {front["colorFrom"], front["colorTo"]} <= colours


def test_the_sdk_is_the_gradio_that_is_required_and_no_newer_than_the_one_that_is_tested(front):
    asked, installed = Version(front["sdk_version"]), Version(version("gradio"))
    assert asked in requirement("gradio") and asked.major == installed.major and asked <= installed


def test_the_python_is_one_that_the_project_supports(front):
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    supported = SpecifierSet(project["requires-python"])
    assert (
        isinstance(front["python_version"], str) and front["python_version"] in supported
    )  # a bare 3.10 would be read as 3.1
    assert f"{sys.version_info.major}.{sys.version_info.minor}" in supported


def test_the_app_file_starts_the_studio(front):
    assert (ROOT / front["app_file"]).resolve() == Path(app.__file__).resolve() and app.studio is runtime.studio
    assert front["license"] == "apache-2.0" and "Apache License" in (ROOT / "LICENSE").read_text()


def test_torch_allows_what_zerogpu_has():
    assert all(each in requirement("torch") for each in ("2.8.0", "2.9.1", "2.11.0"))


def test_the_settings_are_those_that_the_app_reads(monkeypatch):
    read = set()

    def get(name: str, default: object = None) -> object:
        read.add(name)
        return default

    monkeypatch.setattr(launch.os, "environ", type("Environment", (dict,), {"get": staticmethod(get)})())
    launch.arguments([])
    section = (ROOT / "Spaces.md").read_text(encoding="utf-8").split("## Settings")[1].split("\n## ")[0]
    documented = set(re.findall(r"`([A-Z]+_[A-Z_]+)`", section))
    elsewhere = {"HF_HOME", "FKV_TRITON", "FKV_LLM_URL", "FKV_LLM_MODEL", "FKV_LLM_KEY"}
    assert {name for name in read if name.startswith(("FKV_", "GRADIO_"))} == documented - elsewhere


def test_a_setting_chooses_the_model_and_its_setup(monkeypatch):
    for name, value in {"FKV_MODEL": "longlive", "FKV_PRECISION": "fp8", "FKV_LONGEST_RUN": "60"}.items():
        monkeypatch.setenv(name, value)
    chosen = launch.arguments([])
    assert (chosen.model, chosen.precision, chosen.longest_run) == ("longlive", "fp8", 60.0)
    assert launch.arguments(["--model", "tiny"]).model == "tiny"
