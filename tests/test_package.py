"""The package from outside: its public names, its dependencies, and the wheel."""

from __future__ import annotations

import inspect
import subprocess
import sys
from pathlib import Path

import pytest

import fkv

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


@pytest.mark.parametrize("name", [name for name in fkv.__all__ if not name.startswith("_")])
def test_every_public_name_can_be_used_first_and_is_documented(name):
    documented = output_of(f"import fkv; print(bool(fkv.{name}.__doc__), {name!r} in dir(fkv))")
    assert documented == "True True" and f"`{name}`" in fkv.__doc__


def test_a_public_name_stays_what_it_is_after_its_module_was_imported():
    script = (
        "import fkv; from fkv import comparison, stream; print(callable(fkv.compare), isinstance(fkv.Stream, type))"
    )
    assert output_of(script) == "True True"
    assert fkv.compare is fkv.compare and inspect.ismodule(fkv.policies) and inspect.ismodule(fkv.roles)


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="module 'fkv' has no attribute 'paint'"):
        getattr(fkv, "paint")  # noqa: B009
