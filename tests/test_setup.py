"""pyproject.toml, requirements.lock, environment.yml, the Makefile and the README agree with each other."""

from __future__ import annotations

import re
import subprocess
import tomllib
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name
from packaging.version import Version

from sbilib import __version__

ROOT = Path(__file__).resolve().parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]


def _requirements(path: Path) -> list[Requirement]:
    lines = [line.partition("#")[0].strip() for line in path.read_text(encoding="utf-8").splitlines()]
    return [Requirement(line) for line in lines if line]


def _pin(requirement: Requirement) -> Version:
    """The one version a requirement allows."""
    specifiers = list(requirement.specifier)
    if len(specifiers) != 1 or specifiers[0].operator != "==" or "*" in specifiers[0].version:
        raise LookupError(f"{requirement} is not pinned")
    return Version(specifiers[0].version)


LOCK = _requirements(ROOT / "requirements.lock")
EXTRAS = PROJECT["optional-dependencies"]
DIRECT = [Requirement(text) for text in [*PROJECT["dependencies"], *EXTRAS["book"], *EXTRAS["test"]]]


def test_lock_pins_every_package_to_one_version() -> None:
    assert len(LOCK) > len(DIRECT)
    for requirement in LOCK:
        _pin(requirement)


@pytest.mark.parametrize("requirement", DIRECT, ids=lambda requirement: requirement.name)
def test_lock_has_every_direct_dependency_in_its_range(requirement: Requirement) -> None:
    name = canonicalize_name(requirement.name)
    pins = [_pin(locked) for locked in LOCK if canonicalize_name(locked.name) == name]
    assert pins
    assert [pin for pin in pins if not requirement.specifier.contains(pin, prereleases=True)] == []


def test_lock_leaves_the_build_of_torch_to_pip() -> None:
    assert [r.name for r in LOCK if r.name.startswith(("nvidia", "cuda", "triton"))] == []
    assert [str(r) for r in LOCK if r.name == "torch" and _pin(r).local] == []


def test_environment_file_installs_the_lock_and_the_package() -> None:
    environment = yaml.safe_load((ROOT / "environment.yml").read_text(encoding="utf-8"))
    plain = [entry for entry in environment["dependencies"] if isinstance(entry, str)]
    python = next(entry for entry in plain if entry.startswith("python="))
    assert SpecifierSet(PROJECT["requires-python"]).contains(f"{python.removeprefix('python=')}.0")
    pip = next(entry["pip"] for entry in environment["dependencies"] if isinstance(entry, dict))
    assert pip == ["--requirement requirements.lock", "--editable ."]
    assert set(plain) - {python} == {"pip"}, "everything but Python and pip comes from the lock"


def test_benchmark_peers_are_pinned_and_not_part_of_the_package() -> None:
    path = ROOT / "benchmarks" / "requirements.txt"
    peers = _requirements(path) if path.is_file() else []
    locked = {canonicalize_name(requirement.name) for requirement in LOCK}
    for peer in peers:
        _pin(peer)
    assert {canonicalize_name(peer.name) for peer in peers} & locked == set()


def test_version_is_the_same_everywhere() -> None:
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert str(citation["version"]) == PROJECT["version"] == __version__
    assert citation["license"] == PROJECT["license"]


def test_readme_and_continuous_integration_use_the_same_test_command() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    blocks = "".join(re.findall(r"```(?:sh|bash|console)\n(.*?)```", readme, flags=re.DOTALL))
    ci = (ROOT / ".ci" / "run").read_text(encoding="utf-8").splitlines()
    for command in ("make test", "make book"):
        assert re.search(rf"^{command}\b", blocks, flags=re.MULTILINE)
    assert "make test" in ci
    assert "make lint" in ci


def test_make_help_lists_every_promised_target() -> None:
    shown = subprocess.run(
        ["make", "--no-print-directory", "help"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout
    targets = {line.split()[0] for line in shown.splitlines()[1:]}
    assert {"help", "book", "rerun", "test", "unit", "bench", "lint", "lock", "clean"} <= targets


def test_old_python_gives_a_clear_message(tmp_path: Path) -> None:
    old = tmp_path / "python3"
    old.write_text('#!/bin/sh\n[ "$1" = --version ] && echo "Python 3.8.10"\nexit 1\n', encoding="utf-8")
    old.chmod(0o755)
    for name in ("Makefile", "requirements.lock", "pyproject.toml"):
        (tmp_path / name).write_bytes((ROOT / name).read_bytes())
    answer = subprocess.run(["make", "book", f"PYTHON={old}"], cwd=tmp_path, capture_output=True, text=True)
    assert answer.returncode != 0
    assert f"Python 3.11 or newer is needed, but '{old}' is Python 3.8.10" in answer.stderr
    assert not (tmp_path / ".venv").exists()
