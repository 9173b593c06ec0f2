"""The studies of the book: where they are, what they are called, and what can be set in them.

A study is the MyST-Markdown notebook ``notebooks/<study>.md`` with the parameter sets
``notebooks/params/<study>.yml``, a mapping with the keys ``smoke``, ``standard`` and ``full``, each a
mapping from parameter name to value.  What a set leaves out keeps the default of the notebook.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jupytext
import yaml

from sbilib.errors import StudyError
from sbilib.runs.parameters import (
    Parameter,
    Value,
    format_value,
    parse_parameters,
    unknown_name_message,
)

__all__ = [
    "SET_NAMES",
    "Study",
    "find_root",
    "load_studies",
    "load_study",
    "parameter_catalog_markdown",
    "published_path",
    "study_names",
]

SET_NAMES = ("smoke", "standard", "full")
_TITLE = re.compile(r"^#\s+(.+?)\s*$", re.MULTILINE)


@dataclass(frozen=True)
class Study:
    """One study: its notebook, parameters, and named parameter sets."""

    name: str
    title: str
    root: Path
    source: str
    """The text of the MyST notebook."""
    notebook: Any
    """The same as a notebook node without outputs."""
    parameters: tuple[Parameter, ...]
    sets: Mapping[str, Mapping[str, Value]]
    """For each of ``smoke``, ``standard``, ``full``: the values that differ from the defaults."""

    def parameter(self, name: str) -> Parameter:
        """The parameter called ``name``.

        Raises:
            StudyError: if there is none; the message lists close and valid names.
        """
        for parameter in self.parameters:
            if parameter.name == name:
                return parameter
        valid = [parameter.name for parameter in self.parameters]
        raise StudyError(unknown_name_message(f"parameter of study {self.name!r}:", name, valid))

    def values(self, set_name: str, overrides: Mapping[str, object] | None = None) -> dict[str, Value]:
        """Every parameter's value: the defaults, then the set, then the overrides.

        Args:
            set_name: ``smoke``, ``standard`` or ``full``.
            overrides: values for single parameters; a string for a parameter of another type is read
                as if typed on the command line.

        Raises:
            StudyError: for an unknown set or parameter.
            ParameterError: for a value of the wrong type.
        """
        if set_name not in self.sets:
            raise StudyError(unknown_name_message("parameter set", set_name, self.sets))
        values = {parameter.name: parameter.default for parameter in self.parameters}
        values.update(self.sets[set_name])
        for name, value in (overrides or {}).items():
            parameter = self.parameter(name)
            if isinstance(value, str):
                values[name] = parameter.parse(value)
            else:
                values[name] = parameter.check(value, f"{name}={value!r}")
        return values


def find_root(start: Path | None = None) -> Path:
    """The folder of the repository, known by ``pyproject.toml`` and ``notebooks/``.

    Args:
        start: look here and above; by default at and above the current folder, then where this package
            was installed from.

    Raises:
        StudyError: if there is none.
    """
    here = (start or Path.cwd()).resolve()
    installed_from = [] if start else [Path(__file__).resolve().parents[2]]
    for folder in (here, *here.parents, *installed_from):
        if (folder / "notebooks").is_dir() and (folder / "pyproject.toml").is_file():
            return folder
    raise StudyError(
        f"no studies found at or above {here}: the repository (a folder with pyproject.toml and notebooks/) "
        "is needed; change into a clone of it, or name it with sbilib --root"
    )


def study_names(root: Path) -> list[str]:
    """The names of all studies of the repository at ``root``, sorted."""
    return sorted(path.stem for path in (root / "notebooks").glob("*.md"))


def published_path(root: Path, name: str) -> Path:
    """Where the published run of a study is kept."""
    return root / "book" / "runs" / f"{name}.ipynb"


def load_study(name: str, root: Path) -> Study:
    """Read a study and check that it follows the conventions.

    Args:
        name: its name, ``notebooks/<name>.md`` without folder and ending.
        root: the folder of the repository.

    Raises:
        StudyError: if it does not exist or breaks a convention.
        ParameterError: if a value in a parameter set has the wrong type.
    """
    if name not in study_names(root):
        raise StudyError(unknown_name_message("study", name, study_names(root)))
    path = root / "notebooks" / f"{name}.md"
    source = path.read_text(encoding="utf-8")
    where = f"notebooks/{name}.md"
    try:
        notebook = jupytext.reads(source, fmt="md:myst")
    except Exception as error:  # jupytext raises parsers' own exceptions of many kinds
        raise StudyError(f"{where} is not a valid MyST notebook: {error}") from error
    for index, cell in enumerate(notebook.cells):
        cell["id"] = f"{name[:50]}-{index}"
    tagged = [cell for cell in notebook.cells if "parameters" in cell.metadata.get("tags", [])]
    if len(tagged) != 1:
        raise StudyError(f"{where} must have exactly one cell tagged 'parameters', found {len(tagged)}")
    parameters = parse_parameters(tagged[0].source, where)
    if not any(parameter.name == "seed" and parameter.type == "int" for parameter in parameters):
        raise StudyError(f"{where} must have the parameter 'seed: int' in its parameters cell")
    prose = "\n".join(cell.source for cell in notebook.cells if cell.cell_type == "markdown")
    title = _TITLE.search(prose)
    if title is None:
        raise StudyError(f"{where} must start with a title ('# Title')")
    return Study(name, title[1], root, source, notebook, parameters, _load_sets(name, root, parameters))


def load_studies(root: Path) -> list[Study]:
    """Read all studies of the repository at ``root``, sorted by name."""
    return [load_study(name, root) for name in study_names(root)]


def _load_sets(name: str, root: Path, parameters: tuple[Parameter, ...]) -> Mapping[str, Mapping[str, Value]]:
    """Read and check ``notebooks/params/<name>.yml``."""
    where = f"notebooks/params/{name}.yml"
    path = root / where
    if not path.is_file():
        raise StudyError(f"{where} is missing; it must give the parameter sets {', '.join(SET_NAMES)}")
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except yaml.YAMLError as error:
        raise StudyError(f"{where} is not valid YAML: {error}") from error
    if not isinstance(content, dict) or sorted(map(str, content)) != sorted(SET_NAMES):
        found = ", ".join(map(str, content)) if isinstance(content, dict) else repr(content)
        raise StudyError(f"{where} must have exactly the keys {', '.join(SET_NAMES)}, found {found}")
    known = {parameter.name: parameter for parameter in parameters}
    sets: dict[str, dict[str, Value]] = {}
    for set_name in SET_NAMES:
        values = content[set_name] or {}
        if not isinstance(values, dict):
            raise StudyError(f"{where}: {set_name} must map parameter names to values, found {values!r}")
        for key in values:
            if key not in known:
                raise StudyError(f"{where}: {set_name}: {unknown_name_message('parameter', str(key), known)}")
        sets[set_name] = {
            key: known[key].check(value, f"{where}: {set_name}") for key, value in values.items()
        }
    return sets


def parameter_catalog_markdown(root: Path) -> str:
    """The parameters of every study as MyST Markdown: one section and one table per study.

    The columns are name, meaning, type, unit, the value in each parameter set, and effect on cost.

    Args:
        root: the folder of the repository.

    Raises:
        StudyError: if a study breaks a convention.
    """
    return "\n\n".join(_catalog_section(study) for study in load_studies(root)) + "\n"


def _catalog_section(study: Study) -> str:
    """One study's part of the catalog."""
    header = ["parameter", "meaning", "type", "unit", "default", *SET_NAMES, "effect on cost"]
    values = {name: study.values(name) for name in SET_NAMES}
    rows = [
        [
            f"`{parameter.name}`",
            _escape(parameter.meaning),
            f"`{parameter.type}`",
            _escape(parameter.unit),
            f"`{format_value(parameter.default)}`",
            *(f"`{format_value(values[name][parameter.name])}`" for name in SET_NAMES),
            _escape(parameter.cost),
        ]
        for parameter in study.parameters
    ]
    table = [header, ["---"] * len(header), *rows]
    lines = [f"| {' | '.join(row)} |" for row in table]
    return "\n".join([f"## {study.title}", "", f"Study `{study.name}`.", "", *lines])


def _escape(text: str) -> str:
    """Keep a text from breaking out of its table cell."""
    return text.replace("|", "\\|")
