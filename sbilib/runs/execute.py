"""Execute a study with papermill: from the MyST notebook and parameters to a notebook with outputs.

The kernel runs in the environment of this process and in the folder of the repository.  It inherits
the environment variables; ``SBILIB_CACHE`` names the folder where long trainings keep their
checkpoints (``.cache/sbilib`` by default), so a run that was stopped goes on where it was.
"""

from __future__ import annotations

import contextlib
import os
import re
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import jupytext
import nbformat
import papermill
from jupyter_client.kernelspec import KernelSpecManager, NoSuchKernel
from nbclient.exceptions import DeadKernelError
from papermill.exceptions import PapermillExecutionError

from sbilib.errors import StudyError
from sbilib.runs.catalog import Study
from sbilib.runs.cleaning import clean_notebook
from sbilib.runs.files import check_writable, write_text_atomically
from sbilib.runs.provenance import KEY, as_metadata, collect_provenance

__all__ = ["KERNEL", "RunError", "convert_study", "execute_study", "run_study"]

KERNEL = "python3"
_MAX_THREADS = 8
_ESCAPES = re.compile(r"\x1b\[[0-9;]*m")


class RunError(StudyError):
    """A study was started and did not come to its end."""


@contextlib.contextmanager
def _environment() -> Iterator[None]:
    """Settings the kernel inherits: this environment's kernel first, and a bound on threads.

    The networks of the studies are small: beyond a few threads they only get slower.
    """
    settings = {"JUPYTER_PREFER_ENV_PATH": "1"}
    if "OMP_NUM_THREADS" not in os.environ:
        available = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        settings["OMP_NUM_THREADS"] = str(min(available, _MAX_THREADS))
    before = {name: os.environ.get(name) for name in settings}
    os.environ.update(settings)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


def _check_kernel() -> None:
    """See that the kernel is of this very environment.

    Raises:
        StudyError: if there is no such kernel or it starts another Python.
    """
    try:
        command = KernelSpecManager().get_kernel_spec(KERNEL).argv[0]
    except NoSuchKernel as error:
        raise StudyError(
            f"there is no Jupyter kernel {KERNEL!r}; install ipykernel into this environment"
        ) from error
    own = {sys.executable, "python", "python3", f"python3.{sys.version_info.minor}"}
    if command not in own and not Path(command).resolve().is_relative_to(Path(sys.prefix).resolve()):
        raise StudyError(
            f"the Jupyter kernel {KERNEL!r} starts {command}, not the Python of this environment; "
            "unset JUPYTER_PATH or remove that kernel"
        )


def convert_study(study: Study, path: Path) -> None:
    """Write a study as a plain notebook without outputs, for Jupyter or papermill.

    Raises:
        StudyError: if the file cannot be written.
    """
    write_text_atomically(path, jupytext.writes(study.notebook, fmt="ipynb"))


def execute_study(
    study: Study,
    set_name: str,
    overrides: Mapping[str, object] | None = None,
    *,
    failed_copy: Path,
    progress: bool = True,
) -> Any:
    """Execute a study and return the notebook with outputs, cleaned and with its provenance.

    Args:
        study: what to execute.
        set_name: ``smoke``, ``standard`` or ``full``.
        overrides: values for single parameters beyond the set.
        failed_copy: where the notebook is kept if a cell fails.
        progress: show a bar over cells and what the cells print.

    Raises:
        StudyError: for an unknown set or parameter.
        ParameterError: for a value of the wrong type.
        RunError: if a cell fails or the kernel dies.
    """
    parameters = study.values(set_name, overrides)
    changed = {p.name: parameters[p.name] for p in study.parameters if parameters[p.name] != p.default}
    started_at, clock = datetime.now(UTC), time.perf_counter()
    with tempfile.TemporaryDirectory(prefix="sbilib-run-") as folder, _environment():
        _check_kernel()
        record = collect_provenance(study, set_name, parameters, sorted(overrides or {}), started_at)
        source, result = Path(folder, "source.ipynb"), Path(folder, "result.ipynb")
        convert_study(study, source)
        try:
            notebook = papermill.execute_notebook(
                source,
                result,
                parameters=changed,
                kernel_name=KERNEL,
                cwd=study.root,
                extra_arguments=["--log-level=CRITICAL"],
                progress_bar={"desc": study.name} if progress else False,
                stdout_file=sys.stdout if progress else None,
                stderr_file=sys.stderr if progress else None,
            )
        except PapermillExecutionError as error:
            raise RunError(_failure_message(study, error, result, failed_copy)) from error
        except DeadKernelError as error:
            raise RunError(
                f"study {study.name!r}: the kernel died, most often because memory ran out; "
                "close other programs or use a smaller parameter set (--set smoke)"
            ) from error
        except OSError as error:
            raise RunError(
                f"study {study.name!r} stopped: {error.strerror or error} (working folder {folder}); "
                "free some space or set TMPDIR to a folder with more, then run it again"
            ) from error
    clean_notebook(notebook, study)
    wall_time_s = round(time.perf_counter() - clock, 1)
    notebook.metadata[KEY] = as_metadata(replace(record, wall_time_s=wall_time_s))
    return notebook


def _failure_message(study: Study, error: PapermillExecutionError, result: Path, copy: Path) -> str:
    """One line for a failed cell; keeps the notebook as it was when it failed."""
    failed = nbformat.read(result, as_version=4)
    # papermill puts a note at the top and another in front of the failed cell
    marks = [i for i, cell in enumerate(failed.cells) if "papermill-error-cell-tag" in _tags(cell)]
    index = error.cell_index - sum(mark <= error.cell_index for mark in marks)
    kept = f"; the notebook up to there is in {copy}"
    try:
        write_text_atomically(copy, nbformat.writes(failed))
    except StudyError as second:
        kept = f"; its notebook could not be kept ({second})"
    lines = _ESCAPES.sub("", str(error.evalue)).strip().splitlines()
    last = lines[-1] if lines else ""
    code = next((line for line in error.source.splitlines() if line.strip()), "").strip()
    return f"study {study.name!r} failed in cell {index} ({code!r}): {error.ename}: {last}{kept}"


def _tags(cell: Any) -> list[str]:
    return list(cell.metadata.get("tags", []))


def run_study(
    study: Study,
    set_name: str,
    overrides: Mapping[str, object] | None = None,
    *,
    out_dir: Path,
    progress: bool = True,
) -> Path:
    """Execute a study and write ``<out_dir>/<study>.ipynb``, in one step at the very end.

    Args:
        study: what to execute.
        set_name: ``smoke``, ``standard`` or ``full``.
        overrides: values for single parameters beyond the set.
        out_dir: folder for the notebook, made if missing.
        progress: show a bar over cells and what the cells print.

    Returns:
        The path of the notebook.

    Raises:
        StudyError: for an unknown set or parameter, or if the folder cannot be written.
        ParameterError: for a value of the wrong type.
        RunError: if a cell fails; a notebook of an earlier run in the same place is left as it was.
    """
    study.values(set_name, overrides)
    folder = out_dir.resolve()
    check_writable(folder)
    notebook = execute_study(
        study, set_name, overrides, failed_copy=folder / f"{study.name}.failed.ipynb", progress=progress
    )
    path = folder / f"{study.name}.ipynb"
    write_text_atomically(path, nbformat.writes(notebook))
    (folder / f"{study.name}.failed.ipynb").unlink(missing_ok=True)
    return path
