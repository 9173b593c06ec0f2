"""Where a run came from, and whether what is published still matches its sources.

The record lies in the notebook metadata under the key ``sbilib``: study, parameter set, every
parameter, seed, sha256 of the notebook source, of ``sbilib/`` and of the lock, git commit, device,
start and wall time, versions of the libraries.  It never holds a path or the name of a machine.

Besides the library as a whole, every module that the study imports, directly or through others, is hashed as
its Python code without comments and docstrings, because only code can change a number.  A run is stale if one
of these modules changed, or the pinned version of a library that computes; modules and packages that
the study does not use leave it current, and so does ``errors.py``: a run that is published raised no error.
"""

from __future__ import annotations

import ast
import hashlib
import io
import json
import os
import platform
import subprocess
import tokenize
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, fields
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

from sbilib.errors import StudyError
from sbilib.runs.catalog import Study
from sbilib.runs.imports import notebook_code, used_modules
from sbilib.runs.parameters import Value, format_value

__all__ = [
    "KEY",
    "Provenance",
    "as_metadata",
    "check_current",
    "code_hash",
    "collect_provenance",
    "device_name",
    "library_hash",
    "module_hashes",
    "pinned_versions",
    "processor_name",
    "read_provenance",
    "source_hash",
]

KEY = "sbilib"
_LIBRARIES = ("torch", "nflows", "numpy", "scipy", "matplotlib")
_CHECKS_ONLY = {"errors.py"}
_NAMED_CHANGES = 4
_RESULT_PATHS = ("notebooks", "sbilib", "requirements.lock", "data", "results")


@dataclass(frozen=True)
class Provenance:
    """The record that a run carries."""

    study: str
    set: str
    """Name of the parameter set: smoke, standard or full."""
    parameters: dict[str, Value]
    """Every parameter with the value it had."""
    overrides: list[str]
    """Names of the parameters set by hand, beyond the set."""
    seed: int
    source_sha256: str
    """Of the MyST notebook, prose included."""
    code_sha256: str
    """Of its code cells alone."""
    library_sha256: str
    """Of all modules of sbilib together."""
    modules_sha256: dict[str, str]
    """Of each module of sbilib that the study uses, by its path in the package."""
    lock_sha256: str | None
    pins: dict[str, str]
    """Versions of the libraries that compute, as the lock pins them."""
    git_commit: str | None
    git_dirty: bool | None
    """Whether notebooks, library, lock, data or results differed from the commit."""
    device: str
    started_at: str
    """UTC, ISO 8601."""
    wall_time_s: float
    versions: dict[str, str] = field(default_factory=dict)


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8")).hexdigest()


def code_hash(notebook: Any) -> str:
    """sha256 of the code cells of a notebook, without cells that papermill injected."""
    sources = [
        cell.source
        for cell in notebook.cells
        if cell.cell_type == "code" and "injected-parameters" not in cell.metadata.get("tags", [])
    ]
    return _sha256(json.dumps(sources))


def source_hash(study: Study) -> str:
    """sha256 of the source of a study, prose included."""
    return _sha256(study.source)


def _bare_code(source: str) -> str:
    """Python source without comments, docstrings and blank lines.

    >>> print(_bare_code('def f():  # why' + chr(10) + '    "What."' + chr(10) + '    return 1'))
    def f():
        return 1
    """
    lines = source.splitlines()
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.COMMENT:
            row, column = token.start
            lines[row - 1] = lines[row - 1][:column]
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
            for row in range(node.lineno, (node.end_lineno or node.lineno) + 1):
                lines[row - 1] = ""
    return "\n".join(line.rstrip() for line in lines if line.strip())


def _hashes(paths: Iterable[Path], package: Path) -> dict[str, str]:
    return {
        path.relative_to(package).as_posix(): _sha256(_bare_code(path.read_text(encoding="utf-8")))
        for path in sorted(paths)
    }


def library_hash(package: Path) -> str:
    """sha256 of the code of all modules in the folder ``sbilib`` together."""
    return _sha256(json.dumps(_hashes(package.rglob("*.py"), package)))


def module_hashes(notebook: Any, package: Path) -> dict[str, str]:
    """sha256 of the code of each module that a notebook uses.

    Args:
        notebook: with code cells that import from the library.
        package: the folder ``sbilib``.

    Returns:
        One entry per module, by its path in the package, sorted.
    """
    return _hashes(used_modules(notebook_code(notebook), package), package)


def pinned_versions(root: Path) -> dict[str, str]:
    """Versions of the libraries that compute, as the lock of a repository pins them."""
    lock = root / "requirements.lock"
    if not lock.is_file():
        return {}
    lines = (line.split("==") for line in lock.read_text(encoding="utf-8").splitlines() if "==" in line)
    pins = {name.strip().lower(): version.split(";")[0].strip() for name, version, *_ in lines}
    return {name: pins[name] for name in _LIBRARIES if name in pins}


def _package_folder(root: Path) -> Path:
    """The library that runs: the one of the repository, else the installed one."""
    return root / "sbilib" if (root / "sbilib").is_dir() else Path(__file__).resolve().parents[1]


def _lock_hash(root: Path) -> str | None:
    lock = root / "requirements.lock"
    return _sha256(lock.read_text(encoding="utf-8")) if lock.is_file() else None


def _git(root: Path, *arguments: str) -> str | None:
    try:
        answer = subprocess.run(
            ["git", "-C", str(root), *arguments], capture_output=True, text=True, check=True, timeout=30
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return answer.stdout.strip()


def device_name(parameters: Mapping[str, Value]) -> str:
    """What the run computed on, in words, such as ``CPU: <model>, 2 threads``.

    Args:
        parameters: the study's parameters; ``device`` decides if there is one (``cpu``, ``cuda...``,
            or ``auto``), otherwise a GPU is named if this machine has one.
    """
    asked = str(parameters.get("device", "auto"))
    try:
        import torch
    except ImportError:
        return f"CPU: {processor_name()}, {os.cpu_count()} threads"
    if asked != "cpu" and torch.cuda.is_available():
        return f"CUDA: {torch.cuda.get_device_name(asked if asked.startswith('cuda') else None)}"
    return f"CPU: {processor_name()}, {torch.get_num_threads()} threads"


def processor_name() -> str:
    """The model name of the processor."""
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def _versions() -> dict[str, str]:
    versions = {"python": platform.python_version()}
    for name in _LIBRARIES:
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return versions


def collect_provenance(
    study: Study,
    set_name: str,
    parameters: Mapping[str, Value],
    overrides: list[str],
    started_at: datetime,
) -> Provenance:
    """Put together the record of a run that is about to start; its wall time is still 0.

    Args:
        study: the study as it was read before the run.
        set_name: name of the parameter set.
        parameters: every parameter with its value.
        overrides: names of the parameters set by hand.
        started_at: when the run started.
    """
    package = _package_folder(study.root)
    commit = _git(study.root, "rev-parse", "HEAD")
    changes = _git(study.root, "status", "--porcelain", "--", *_RESULT_PATHS) if commit else None
    seed = parameters["seed"]
    return Provenance(
        study=study.name,
        set=set_name,
        parameters=dict(parameters),
        overrides=overrides,
        seed=seed if isinstance(seed, int) else 0,
        source_sha256=source_hash(study),
        code_sha256=code_hash(study.notebook),
        library_sha256=library_hash(package),
        modules_sha256=module_hashes(study.notebook, package),
        lock_sha256=_lock_hash(study.root),
        pins=pinned_versions(study.root),
        git_commit=commit,
        git_dirty=None if changes is None else bool(changes),
        device=device_name(parameters),
        started_at=started_at.astimezone(UTC).isoformat(timespec="seconds"),
        wall_time_s=0.0,
        versions=_versions(),
    )


def read_provenance(notebook: Any, where: str) -> Provenance:
    """The record of a published run.

    Raises:
        StudyError: if the notebook has none or it is not complete.
    """
    record = notebook.metadata.get(KEY)
    names = {entry.name for entry in fields(Provenance)}
    if record is None or set(record) != names:
        raise StudyError(f"{where} carries no complete record of its run; publish the study again")
    return Provenance(**json.loads(json.dumps(record)))


def as_metadata(provenance: Provenance) -> dict[str, Any]:
    """The record as it is stored in the metadata of a notebook."""
    return asdict(provenance)


def check_current(study: Study, record: Provenance) -> list[str]:
    """Why a published run no longer matches its sources; empty if it does.

    Args:
        study: the study as it is now.
        record: what its published run says.

    Returns:
        One short reason per difference.
    """
    reasons = []
    if record.code_sha256 != code_hash(study.notebook):
        reasons.append("code of the notebook changed")
    elif record.source_sha256 != source_hash(study):
        reasons.append("text of the notebook changed")
    reasons.extend(_module_changes(study, record))
    now = pinned_versions(study.root)
    for name in sorted({*now, *record.pins}):
        if now.get(name) != record.pins.get(name):
            reasons.append(f"{name} {record.pins.get(name, 'unpinned')} -> {now.get(name, 'unpinned')}")
    reasons.extend(_parameter_changes(study, record))
    return reasons


def _module_changes(study: Study, record: Provenance) -> list[str]:
    """The modules used then or now whose code differs."""
    then, now = record.modules_sha256, module_hashes(study.notebook, _package_folder(study.root))
    changed = [n for n in sorted({*now, *then} - _CHECKS_ONLY) if now.get(n) != then.get(n)]
    if len(changed) <= _NAMED_CHANGES:
        return [f"sbilib/{name} changed" for name in changed]
    first = ", ".join(f"sbilib/{name}" for name in changed[:_NAMED_CHANGES])
    return [f"{len(changed)} modules changed ({first}, ...)"]


def _parameter_changes(study: Study, record: Provenance) -> list[str]:
    """How the published parameters differ from what the parameter set says now."""
    if record.set not in study.sets:
        return [f"parameter set `{record.set}` no longer exists"]
    now = study.values(record.set)
    changes = []
    for name in [*now, *(old for old in record.parameters if old not in now)]:
        old, new = record.parameters.get(name), now.get(name)
        if old != new:
            texts = ["absent" if value is None else format_value(value) for value in (old, new)]
            changes.append(f"{name}: {texts[0]} -> {texts[1]}")
    return [f"parameters of set `{record.set}` changed ({'; '.join(changes)})"] if changes else []
