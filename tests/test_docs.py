"""What the documents say is true: names, links, commands and code blocks."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from shlex import split
from types import ModuleType

import pytest
import yaml

import fkv
from docs import batch as batch_page
from docs import board as board_page
from docs import debate as debate_page
from docs import models as models_page
from docs import policies as policies_page
from docs import recall as recall_page
from docs import sources as sources_page
from docs.expectations import EXPECTED, SURPRISING
from fkv.batch.jobs import read as read_jobs
from fkv.commands.common import CHUNKS
from fkv.commands.main import COMMANDS, _parser
from fkv.policies import POLICIES
from fkv.storyboard import ANY_ROLES, parse

ROOT = Path(__file__).parents[1]
DOCUMENTS = sorted(
    [*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), *ROOT.glob(".github/**/*.md")], key=lambda file: file.as_posix()
)


def text(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


def blocks(document: str, language: str = "") -> list[str]:
    """The fenced blocks of a document."""
    fences = re.findall(r"^```(\w*)\n(.*?)^```$", document, re.MULTILINE | re.DOTALL)
    return [body for named, body in fences if named == language]


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda file: file.relative_to(ROOT).as_posix())
def test_links_lead_somewhere(document):
    links = re.findall(r"\]\(([^)#\s]+)", document.read_text(encoding="utf-8"))
    missing = [link for link in links if "://" not in link and not (document.parent / link).exists()]
    assert not missing


@pytest.mark.parametrize("name", ["CONTRIBUTING.md", "README.md", "docs/operations.md", "docs/benchmarks.md"])
def test_the_files_that_a_document_names_exist(name):
    named = re.findall(r"`((?:fkv|kernels|analysis|assets|tests|docs|\.ci)/[\w./-]*)`", text(name))
    assert [path for path in named if "NAME" not in path and not (ROOT / path).exists()] == []


def test_readme_is_short_and_holds_the_two_commands():
    readme = text("README.md")
    assert len(readme.splitlines()) < 150
    assert {"pip install -r requirements.txt && python app.py\n"} <= set(blocks(readme))
    assert {"pip install -r tests/requirements.txt && python -m pytest -n 2 --dist loadfile\n"} <= set(blocks(readme))


def test_every_command_of_the_readme_can_be_parsed():
    [block] = [block for block in blocks(text("README.md")) if "python -m fkv stream" in block]
    lines = [part.strip() for line in block.splitlines() for part in line.partition(" #")[0].split("&&")]
    for line in lines:
        python, option, module, command, *arguments = split(line)
        assert (python, option, module) == ("python", "-m", "fkv") and command in COMMANDS
        assert _parser([command]).parse_args([command, *arguments]).command == command
    assert {split(line)[3] for line in lines} == set(COMMANDS)


def test_the_first_library_example_of_the_readme_runs(capsys):
    first, _ = blocks(text("README.md"), "python")
    exec(compile(first, "README.md", "exec"), {})
    assert capsys.readouterr().out.splitlines()[-1].startswith("2 (12, 96, 160, 3)")


def test_the_own_model_example_of_the_readme_runs(tmp_path, monkeypatch):
    from diffusers import WanPipeline
    from small_wan import wan_pipeline

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(WanPipeline, "from_pretrained", lambda folder: wan_pipeline())
    fkv.roles.save(fkv.roles.HeadRoles(4, ((0, 1), (1, 2), (0,))), "roles.json")
    own = blocks(text("README.md"), "python")[1].replace("roles=", "resolution=(64, 96), roles=", 1)
    scope = {"fkv": fkv}
    exec(compile(own, "README.md", "exec"), scope)
    assert scope["chunk"].video.shape == (9, 64, 96, 3)


def test_the_files_of_the_readme_s_commands_can_be_read():
    assert len(parse(text("docs/examples/story.txt"), ANY_ROLES, CHUNKS).cues) == 4
    assert [job.name for job in read_jobs(text("docs/examples/jobs.jsonl"))] == ["dusk", "dawn"]


def test_the_policy_of_contributing_streams(small):
    [block] = blocks(text("CONTRIBUTING.md"), "python")
    example = ModuleType("every_other")
    example.__package__ = "fkv.policies"
    sys.modules[example.__name__] = example
    exec(compile(block, "CONTRIBUTING.md", "exec"), example.__dict__)
    stream = fkv.Stream(small, example.EveryOther(), "a red ball")
    chunks = [stream.step() for _ in range(3)]
    assert set(chunks[-1].pages["all"].frame.tolist()) == {0, 2, 4, 6, 7, 8}
    assert example.EveryOther.reading, "lists of policies show it"


def test_the_storyboards_of_the_page_about_them_can_be_read():
    lines, scenes = blocks(text("docs/storyboard.md"))
    lines = "".join(re.sub(r"   .*", "", line) for line in lines.splitlines(keepends=True))
    assert len(parse(lines, ANY_ROLES).cues) == 9
    _, scene = parse(scenes, chunk_seconds=0.75).cues
    assert (scene.chunk, scene.change.prompt, scene.change.cut) == (14, "the same ball at night", True)


@pytest.mark.parametrize(
    "name",
    [
        "fkv.models.releases.RELEASES",
        "fkv.models.release.BASES",
        "fkv.models.release.Base",
        "fkv.policies.POLICIES",
        "fkv.policies.base.Policy.past_kind",
        "fkv.policies.base.Policy.groups",
        "fkv.analysis.figures.View._plotly",
        "fkv.analysis.figures.View._draw",
        "fkv.analysis.export.views_of_profile",
        "fkv.analysis.export.views_of_run",
    ],
)
def test_the_names_in_contributing_exist(name):
    module, attributes = name, []
    while True:
        try:
            found = __import__(module, fromlist=["_"])
            break
        except ModuleNotFoundError:
            module, _, attribute = module.rpartition(".")
            attributes.insert(0, attribute)
    for attribute in attributes:
        found = getattr(found, attribute)
        assert f"`{attribute}`" in text("CONTRIBUTING.md") or attribute in ("Policy", "View")


def test_every_recipe_of_contributing_has_at_most_ten_lines_of_text():
    for recipe in ("Add a policy", "Add a model", "Add a figure"):
        section = text("CONTRIBUTING.md").partition(f"## {recipe}\n")[2].partition("\n## ")[0]
        prose = re.sub(r"^```.*?^```$", "", section, flags=re.MULTILINE | re.DOTALL)
        assert 0 < len([line for line in prose.splitlines() if line]) <= 10, recipe


def test_the_page_of_policies_is_current():
    assert policies_page.PAGE.read_text(encoding="utf-8") == policies_page.page(), "run python -m docs.policies"
    assert all(f"## {name}\n" in policies_page.page() for name in POLICIES)


def test_every_policy_is_measured_beside_what_was_expected(tmp_path, monkeypatch):
    assert set(EXPECTED) == set(POLICIES) - {"recompute"} and set(SURPRISING) <= set(EXPECTED)
    words = split(policies_page.COMMAND)
    assert _parser(["eval"]).parse_args(words[3:]).json == policies_page.RECORD.relative_to(ROOT).as_posix()
    monkeypatch.setattr(policies_page, "RECORD", tmp_path / "none.json")
    assert f"| `memflow` | S3 + M3 + R6 + C3 | {EXPECTED['memflow']} |" in policies_page.measured()
    where = {"model": "tiny", "checkpoint": "abc", "precision": "bf16", "device": "a CPU"}
    figures = {"discontinuity": 1.0, "drift": {"colours": 0.1}, "flicker": 0.1, "kv_bytes_peak": 2_000_000}
    read = {"adherence": {"60": {"colour": 0.5}}, "switch": {"success": 1.0}, "psnr_to_full": None}
    records = [{"policy": "full", "prompt": 0, "seed": 0, "seconds": 60.0} | where | figures | read]
    records.insert(0, records[0] | {"policy": "longlive", "device": "another CPU"})
    (tmp_path / "policies.json").write_text(json.dumps({"records": records}))
    monkeypatch.setattr(policies_page, "RECORD", tmp_path / "policies.json")
    shown = policies_page.measured()
    assert f"| 0.500 | 0.100 | 1.00 | 0.1000 | 1.00 | - | 2.0 | {EXPECTED['full']} | {SURPRISING['full']} |" in shown
    assert "bf16, `full` on a CPU; `longlive` on another CPU; PSNR to full is to `full` of the same machine." in shown
    assert shown.index("| `full` |") < shown.index("| `longlive` |")


def test_figures_by_steps_come_from_their_record(tmp_path, monkeypatch):
    words = split(policies_page.STEPS_COMMAND)
    assert _parser(["eval"]).parse_args(words[3:]).json == policies_page.STEPS_RECORD.relative_to(ROOT).as_posix()
    monkeypatch.setattr(policies_page, "STEPS_RECORD", tmp_path / "steps.json")
    assert policies_page.STEPS_COMMAND in policies_page.by_steps()
    where = {"model": "tiny", "checkpoint": "abc", "precision": "bf16", "device": "a CPU", "prompt": 0, "seed": 0}
    figures = {"discontinuity": 1.0, "drift": {"colours": 0.1}, "flicker": 0.1, "kv_bytes_peak": 2_000_000}
    read = {"adherence": {"60": {"colour": 0.5}}, "switch": {"success": 1.0}, "psnr_to_full": None, "seconds": 60.0}
    made = [("forcing-kv, 2 steps", 2), ("full, 2 steps", 2), ("full, 1 step", 1)]
    records = [{"policy": policy, "steps": steps} | where | figures | read for policy, steps in made]
    policies_page.STEPS_RECORD.write_text(json.dumps({"records": records}))
    shown = policies_page.by_steps()
    rows = [shown.index(f"| `{policy}` |") for policy, _ in made]
    assert rows == sorted(rows, reverse=True) and "tiny (abc), bf16, a CPU." in shown


def test_the_page_of_models_is_current():
    page = models_page.PAGE.read_text(encoding="utf-8")
    assert page.startswith(models_page.INTRODUCTION), "run python -m docs.models"
    sections = dict(zip(*(re.split(r"^## (.*)$", page, flags=re.MULTILINE)[i::2] for i in (1, 2)), strict=True))
    assert list(sections) == [one.name for one in models_page.RELEASES], "run python -m docs.models"
    for one in models_page.RELEASES:
        rows = [f"| {name} | {value} |" for name, value in models_page.facts(one).items()]
        assert all(row in sections[one.name] for row in (*rows, one.unverified)), "run python -m docs.models"
    assert models_page.section(models_page.RELEASES[0]) in page


def test_the_page_of_debates_is_current():
    assert debate_page.PAGE.read_text(encoding="utf-8") == debate_page.page(), "run python -m docs.debate"


def test_the_page_of_the_board_is_current():
    assert board_page.PAGE.read_text(encoding="utf-8") == board_page.page(), "run python -m docs.board"
    for line in blocks(board_page.page())[0].splitlines():
        for command in line.partition(" #")[0].split("&&"):
            words = split(command)
            assert words[:3] == ["python", "-m", "fkv"] and _parser([words[3]]).parse_args(words[3:])


def test_the_page_of_the_sources_is_current():
    assert sources_page.PAGE.read_text(encoding="utf-8") == sources_page.page(), "run python -m docs.sources"
    for name, command in sources_page.COMMANDS.items():
        words = split(command)
        if words[2] == "fkv":
            _parser([words[3]]).parse_args(words[3:])
        assert command in sources_page.page(), name


def test_the_page_of_recall_is_current():
    assert recall_page.PAGE.read_text(encoding="utf-8") == recall_page.page(), "run python -m docs.recall"
    words = split(recall_page.COMMAND)
    assert words[:3] == ["python", "-m", "fkv"] and _parser([words[3]]).parse_args(words[3:])


def test_the_drawings_of_policies_are_current():
    drawings = json.loads(policies_page.DRAWINGS.read_text(encoding="utf-8"))
    assert list(drawings) == list(POLICIES), "run python -m docs.policies"
    assert drawings["infinity-rope"] == policies_page.drawing(POLICIES["infinity-rope"]())


def test_the_limits_of_the_operations_page_are_those_of_the_studio():
    from fkv.studio import launch

    rows = re.findall(r"`--([\w-]+)` \| ([\d.]+|half)", text("docs/operations.md"))
    stated = {name: "0" if value == "half" else value for name, value in rows}
    assert stated == {
        name: str(vars(launch.arguments([]))[name.replace("-", "_")]).removesuffix(".0") for name in stated
    }
    assert len(stated) == 8


def test_the_version_is_the_same_everywhere():
    citation = yaml.safe_load(text("CITATION.cff"))
    assert str(citation["version"]) == fkv.__version__
    assert f"## {fkv.__version__}" in text("CHANGELOG.md")


def test_the_checks_of_ci_exist():
    assert {"check", "test", "lint"} <= set(yaml.safe_load(text("tests/page/package.json"))["scripts"])
    for step in re.findall(r"step (\.ci/\w+)", text(".ci/run")):
        assert (ROOT / step).stat().st_mode & 0o111, step
    subprocess.run(["bash", "-n", ROOT / ".ci" / "run"], check=True)
    hooks = yaml.safe_load(text(".pre-commit-config.yaml"))["repos"][0]["hooks"]
    assert {hook["id"] for hook in hooks} == {"ruff-check", "ruff-format", "types", "eslint"}


def test_the_page_on_batches_is_written_from_prefix_trees_and_the_newest_record(shipped):
    assert batch_page.PAGE.read_text(encoding="utf-8") == batch_page.page(shipped), "run `python -m docs.batch`"


def test_records_of_batches_become_tables(tmp_path):
    def lines(name, found):
        file = tmp_path / f"{name}.json"
        report = {"model": "wan-1.3b", "layers": 2, "precision": "fp32", "hardware": {"device": "a CPU"}}
        report |= {"repeats": 1, "load_before": 2.5, name: found}
        file.write_text(json.dumps(report))
        return batch_page.tables(file)

    held = [{"policy": "full", "past": past, "bytes": [4e6, most]} for past, most in (("copied", 8e6), ("shared", 2e6))]
    speed = [{"policy": "full", "rows": 2, "together": 3.0, "alone": 2.0, "ratio": 1.5}]
    shown = lines("branches", {"branches": 8, "context": 42, "bytes": held, "together": speed})
    assert "| policy | past | 1 | 2 | times less |" in shown and "| full | shared | 4.0 | 2.0 | 4.0 |" in shown
    assert "| full | 2 | 3.00 | 2.00 | 1.50 |" in shown
    shown = lines("rows", {"context": 6, "together": speed})
    assert shown[0].startswith("wan-1.3b, 2 layers in fp32 on a CPU, 1 round, load before 2.5 ([record](")
    row = {"streams": "eight", "way": "once", "asked": 112, "chunks": 63, "per_second": 2.5, "kv_bytes_peak": 4e6}
    assert "| eight | the past once | 63 of 112 | 2.5 | 4.0 |" in lines("pasts", {"rows": [row]})
