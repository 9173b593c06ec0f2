"""Publish runs: ``book/runs/<study>.ipynb``, the notebooks that the pages of the book are made of."""

from __future__ import annotations

import copy
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import nbformat

from sbilib.errors import SbilibError, StudyError
from sbilib.runs.catalog import Study, load_study, published_path, study_names
from sbilib.runs.cleaning import check_no_machine_paths, clean_notebook
from sbilib.runs.execute import execute_study
from sbilib.runs.files import check_writable, write_text_atomically
from sbilib.runs.provenance import (
    KEY,
    Provenance,
    as_metadata,
    check_current,
    code_hash,
    read_provenance,
    source_hash,
)

__all__ = ["Status", "publish_study", "published_status", "read_published", "refresh_text"]


@dataclass(frozen=True)
class Status:
    """What is known about the published run of one study."""

    study: str
    state: Literal["current", "stale", "missing"]
    reasons: tuple[str, ...] = ()
    """Why it is not current."""
    provenance: Provenance | None = None
    """The record of the published run, if it can be read."""


def publish_study(study: Study, set_name: str, *, progress: bool = True) -> Path:
    """Execute a study and put the result in ``book/runs/``, in one step at the very end.

    Args:
        study: what to execute.
        set_name: ``smoke``, ``standard`` or ``full``; a published run has no other settings.
        progress: show a bar over cells and what the cells print.

    Returns:
        The path of the published notebook.

    Raises:
        StudyError: for an unknown set, or if an output names a folder of this machine.
        RunError: if a cell fails; the earlier published run is left as it was.
    """
    path = published_path(study.root, study.name)
    study.values(set_name)
    check_writable(path.parent)
    failed_copy = study.root / "out" / f"{study.name}.failed.ipynb"
    notebook = execute_study(study, set_name, failed_copy=failed_copy, progress=progress)
    check_no_machine_paths(notebook, study)
    write_text_atomically(path, nbformat.writes(notebook) + "\n")
    failed_copy.unlink(missing_ok=True)
    return path


def read_published(root: Path, name: str) -> Any:
    """The published run of a study as a notebook node.

    Raises:
        StudyError: if it is missing or not a notebook.
    """
    path = published_path(root, name)
    if not path.is_file():
        raise StudyError(f"study {name!r} has no published run; make one with: sbilib publish {name}")
    try:
        return nbformat.read(path, as_version=4)
    except Exception as error:  # nbformat raises several unrelated kinds for a broken file
        raise StudyError(f"book/runs/{path.name} cannot be read; publish the study again") from error


def published_status(root: Path, name: str) -> Status:
    """Whether the published run of a study is current, stale (and why), or missing."""
    if not published_path(root, name).is_file():
        return Status(name, "missing", ("never published",))
    try:
        record = read_provenance(read_published(root, name), f"book/runs/{name}.ipynb")
    except StudyError as error:
        return Status(name, "stale", (str(error),))
    if name not in study_names(root):
        return Status(name, "stale", (f"notebooks/{name}.md no longer exists",), record)
    try:
        reasons = check_current(load_study(name, root), record)
    except SbilibError as error:
        return Status(name, "stale", (str(error),), record)
    return Status(name, "stale" if reasons else "current", tuple(reasons), record)


def refresh_text(study: Study) -> Path:
    """Bring the prose of a published run up to date without running it.

    Allowed only if no code cell changed: the outputs then still belong to the code above them.

    Returns:
        The path of the published notebook.

    Raises:
        StudyError: if there is no published run, or if the code changed since.
    """
    published = read_published(study.root, study.name)
    record = read_provenance(published, f"book/runs/{study.name}.ipynb")
    if code_hash(study.notebook) != record.code_sha256 or code_hash(published) != record.code_sha256:
        raise StudyError(
            f"study {study.name!r}: its code changed since it was published, so its outputs no longer belong "
            f"to it; run it anew with: sbilib publish {study.name} --set {record.set}"
        )
    done = [cell for cell in published.cells if cell.cell_type == "code"]
    cells = []
    for cell in copy.deepcopy(study.notebook.cells):
        if cell.cell_type == "code":
            ran = done.pop(0)
            cell["outputs"], cell["execution_count"] = ran.outputs, ran.execution_count
        cells.append(cell)
        if done and "injected-parameters" in done[0].metadata.get("tags", []):
            cells.append(done.pop(0))
    published.cells = cells
    clean_notebook(published, study)
    published.metadata[KEY] = as_metadata(replace(record, source_sha256=source_hash(study)))
    path = published_path(study.root, study.name)
    write_text_atomically(path, nbformat.writes(published) + "\n")
    return path
