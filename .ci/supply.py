"""List the packages that requirements.txt installs, with versions and licences; check them for vulnerabilities.

    python .ci/supply.py [--no-audit]

Vulnerabilities are checked where pip-audit is installed and can reach its database. Exit status 1 where a requirement
has no upper bound, a package is missing or states no licence, or a vulnerability is known.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from importlib.metadata import Distribution, PackageNotFoundError, distribution
from importlib.util import find_spec
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

REQUIREMENTS = Path(__file__).parents[1] / "requirements.txt"
# Licences of packages whose metadata states none: https://docs.nvidia.com/cuda/eula
ELSEWHERE = {"cuda-toolkit": "NVIDIA Proprietary Software"}
UPPER = {"<", "<=", "==", "~=", "==="}


def requirements() -> list[Requirement]:
    """Read the requirements that apply to this machine."""
    lines = (line.partition("#")[0].strip() for line in REQUIREMENTS.read_text().splitlines())
    wanted = [Requirement(line) for line in lines if line]
    return [each for each in wanted if each.marker is None or each.marker.evaluate()]


def licence(package: Distribution) -> str:
    """Return the licence that a package states, empty where it states none."""
    facts = package.metadata
    classified = [
        text.rpartition(":: ")[2] for text in facts.get_all("Classifier", []) if text.startswith("License ::")
    ]
    stated = (facts.get("License") or "").strip().splitlines()
    own = facts.get("License-Expression") or ", ".join(classified) or (stated[0][:60] if stated else "")
    return own or ELSEWHERE.get(canonicalize_name(facts["Name"]), "")


def closure(wanted: list[Requirement]) -> dict[str, Distribution | None]:
    """Return all packages that the requirements install, by name; None for one that is missing."""
    found: dict[str, Distribution | None] = {}
    rest = list(wanted)
    while rest:
        each = rest.pop()
        name = canonicalize_name(each.name)
        if name in found:
            continue
        try:
            found[name] = distribution(each.name)
        except PackageNotFoundError:
            found[name] = None
            continue
        needs = map(Requirement, found[name].requires or [])
        rest += [need for need in needs if need.marker is None or need.marker.evaluate({"extra": ""})]
    return found


def audit(packages: dict[str, Distribution | None]) -> list[str]:
    """Return known vulnerabilities of the packages; say on stderr where they could not be checked."""
    if find_spec("pip_audit") is None:
        print("not audited: pip install pip-audit", file=sys.stderr)
        return []
    pins = "\n".join(f"{name}=={package.version.partition('+')[0]}" for name, package in packages.items() if package)
    command = [
        sys.executable,
        "-m",
        "pip_audit",
        "--requirement",
        "/dev/stdin",
        "--no-deps",
        "--disable-pip",
        "--format",
        "json",
    ]
    try:
        asked = subprocess.run(
            [*command, "--progress-spinner", "off"], input=pins, capture_output=True, text=True, timeout=300
        )
        told = json.loads(asked.stdout)["dependencies"]
    except (ValueError, KeyError, subprocess.TimeoutExpired):
        print("not audited: no database of vulnerabilities can be reached", file=sys.stderr)
        return []
    if skipped := [each["name"] for each in told if "skip_reason" in each]:
        print(f"not audited: {len(skipped)} of {len(told)} packages, unknown to the database", file=sys.stderr)
    return [f"{each['name']} {each['version']}: {flaw['id']}" for each in told for flaw in each.get("vulns", [])]


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--no-audit", action="store_true", help="do not check for vulnerabilities")
    args = parser.parse_args(argv)
    wanted = requirements()
    packages = closure(wanted)
    flags = [f"{each}: no upper bound" for each in wanted if not UPPER & {one.operator for one in each.specifier}]
    for name, package in sorted(packages.items()):
        stated = licence(package) if package else ""
        print(f"{name:>28}  {package.version if package else 'missing':<16} {stated}")
        if package is None:
            flags.append(f"{name}: not installed")
        elif not stated:
            flags.append(f"{name}: states no licence")
    flags += [] if args.no_audit else audit(packages)
    for flag in flags:
        print(f"BAD  {flag}", file=sys.stderr)
    return 1 if flags else 0


if __name__ == "__main__":
    sys.exit(main())
