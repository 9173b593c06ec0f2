"""The notebooks of the book and their published runs keep the conventions."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

from sbilib.runs import (
    find_root,
    load_study,
    parameter_catalog_markdown,
    published_path,
    read_provenance,
    read_published,
    study_names,
)
from sbilib.runs.cleaning import check_no_machine_paths

ROOT = find_root(Path(__file__).parent)
STUDIES = study_names(ROOT)
PUBLISHED = [name for name in STUDIES if published_path(ROOT, name).is_file()]
MAX_CELL_LINES = 40


@pytest.mark.parametrize("name", STUDIES)
def test_notebook_parameters_and_sets_follow_the_form(name: str) -> None:
    study = load_study(name, ROOT)
    assert study.parameters
    assert re.fullmatch(r"[a-z]+(-[a-z]+)*", name), "a study is named by its concept, in lower case"


@pytest.mark.parametrize("name", STUDIES)
def test_every_parameter_is_used(name: str) -> None:
    study = load_study(name, ROOT)
    cells = [
        cell.source
        for cell in study.notebook.cells
        if cell.cell_type == "code" and "parameters" not in cell.metadata.get("tags", [])
    ]
    used = {
        node.id for cell in cells for node in ast.walk(ast.parse(_plain(cell))) if isinstance(node, ast.Name)
    }
    assert {parameter.name for parameter in study.parameters} - used == set()


def _plain(source: str) -> str:
    """Python without the lines that only IPython knows."""
    return "\n".join(line for line in source.splitlines() if not line.lstrip().startswith(("%", "!")))


@pytest.mark.parametrize("name", STUDIES)
def test_cells_are_short_enough_to_read(name: str) -> None:
    cells = [cell for cell in load_study(name, ROOT).notebook.cells if cell.cell_type == "code"]
    long = [len(cell.source.splitlines()) for cell in cells if len(cell.source.splitlines()) > MAX_CELL_LINES]
    assert long == []


@pytest.mark.parametrize("name", STUDIES)
def test_parameter_sets_hold_only_what_exists(name: str) -> None:
    sets = {path.stem for path in (ROOT / "notebooks" / "params").glob("*.yml")}
    assert sets == set(STUDIES)


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_run_has_outputs_and_its_origin(name: str) -> None:
    notebook = read_published(ROOT, name)
    record = read_provenance(notebook, name)
    assert record.study == name
    assert record.overrides == []
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    assert outputs
    assert not [output for output in outputs if output.output_type == "error"]
    assert not [output for output in outputs if output.get("name") == "stderr"]


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_run_shows_no_bare_objects_and_no_folders_of_a_machine(name: str) -> None:
    notebook = read_published(ROOT, name)
    check_no_machine_paths(notebook, load_study(name, ROOT))
    texts = [
        str(output.get("text", "")) + str(output.get("data", {}).get("text/plain", ""))
        for cell in notebook.cells
        for output in cell.get("outputs", [])
    ]
    assert [text for text in texts if re.search(r" at 0x[0-9a-f]{6,}", text)] == []


def test_catalog_covers_every_study() -> None:
    text = parameter_catalog_markdown(ROOT)
    assert text.count("\n## ") + text.startswith("## ") == len(STUDIES)
