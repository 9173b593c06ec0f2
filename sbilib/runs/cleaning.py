"""Take out of an executed notebook what belongs to one machine or one moment.

What goes: timestamps, papermill's and Jupyter's bookkeeping, progress bars and everything else on
standard error, widget state, addresses of objects.  What stays: sources, results, figures, tables.
"""

from __future__ import annotations

import re
import sys
import tempfile
from pathlib import Path
from typing import Any

from sbilib.errors import StudyError
from sbilib.runs.catalog import Study

__all__ = ["check_no_machine_paths", "clean_notebook"]

_ADDRESS = re.compile(r" at 0x[0-9a-f]{6,}")
_WIDGET = "application/vnd.jupyter.widget-view+json"


def clean_notebook(notebook: Any, study: Study) -> None:
    """Clean an executed notebook in place and give its cells lasting identifiers.

    Args:
        notebook: the executed notebook.
        study: the study it came from.
    """
    notebook.metadata.pop("papermill", None)
    notebook.metadata.pop("widgets", None)
    notebook.metadata["kernelspec"] = {"display_name": "Python 3", "language": "python", "name": "python3"}
    notebook.metadata["language_info"] = {"name": "python", "file_extension": ".py"}
    number = 0
    for cell in notebook.cells:
        for key in ("papermill", "execution"):
            cell.metadata.pop(key, None)
        if "injected-parameters" in cell.metadata.get("tags", []):
            cell["id"] = f"{study.name[:50]}-injected"
        else:
            cell["id"] = f"{study.name[:50]}-{number}"
            number += 1
        if cell.cell_type == "code":
            cell["outputs"] = [output for output in cell.outputs if not _is_passing(output)]
            for output in cell.outputs:
                _drop_bare_object(output)


def _is_passing(output: Any) -> bool:
    """Whether an output is of the moment: standard error or a live widget."""
    if output.output_type == "stream":
        return bool(output.name == "stderr")
    return _WIDGET in output.get("data", {})


def _drop_bare_object(output: Any) -> None:
    """Drop a text like ``<Styler at 0x7f...>``, which differs in every run, beside a real representation."""
    data = output.get("data", {})
    if len(data) > 1 and _ADDRESS.search("".join(data.get("text/plain", ""))):
        del data["text/plain"]


def check_no_machine_paths(notebook: Any, study: Study) -> None:
    """See that no text in the notebook names a folder of this machine.

    Raises:
        StudyError: if one does; the message names the cell and the folder.
    """
    prefixes = {sys.prefix, sys.base_prefix} - {"/usr", "/usr/local"}
    folders = {str(study.root), f"{tempfile.gettempdir()}/", f"{Path.home()}/", *prefixes}
    for index, cell in enumerate(notebook.cells):
        text = "\n".join(_texts(cell))
        for folder in sorted(folders - {"/", "//"}):
            if folder in text:
                raise StudyError(
                    f"study {study.name!r}: the output of cell {index} names {folder}, a folder of this "
                    "machine; print names relative to the repository instead"
                )


def _texts(cell: Any) -> list[str]:
    """Everything textual that a cell put out."""
    texts: list[str] = []
    for output in cell.get("outputs", []):
        texts.append(str(output.get("text", "")))
        for kind, data in output.get("data", {}).items():
            if not kind.startswith("image/") or kind == "image/svg+xml":
                texts.append(str(data))
    return texts
