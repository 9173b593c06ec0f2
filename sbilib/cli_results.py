"""The ``sbilib results`` commands: make the tables of trainings that are too long for a page.

A table is named by its study: its settings are the parameters of the page in one of its parameter sets, so
that the page and the command line always mean the same trainings.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from sbilib.errors import StudyError

if TYPE_CHECKING:
    from sbilib.studies.unit_results import UnitStudy

__all__ = ["app", "tables_of"]

# Modules are imported only when asked for: they are slow to import.
_MODULES = {
    "generated-background-search": "search_study",
    "generative-models": "generative_training",
    "higgs-coverage": "higgs_coverage",
    "higgs-more-features": "higgs_features",
    "inferno-benchmark": "inferno_benchmark",
    "neos": "neos_study",
    "worth-of-a-generated-event": "search_worth",
}

app = typer.Typer(no_args_is_help=True, help="Make the tables of trainings that are too long for a page.")

Name = Annotated[str, typer.Argument(metavar="NAME", help="Name of the page; see: sbilib results list")]
SetName = Annotated[str, typer.Option("--set", help="Parameter set: smoke, standard or full.")]


def tables_of(name: str, values: Mapping[str, Any]) -> Mapping[str, UnitStudy]:
    """The trainings of a page: suffix of the folder of each table, and what is made.

    Args:
        name: of the page.
        values: its parameters.

    Raises:
        StudyError: if the page has no such tables.
    """
    if name not in _MODULES:
        raise StudyError(f"no tables of trainings belong to {name!r}; choose from {', '.join(_MODULES)}")
    module = import_module(f"sbilib.studies.{_MODULES[name]}")
    tables: Mapping[str, UnitStudy] = module.unit_studies(values)
    return tables


def _tables(name: str, set_name: str) -> Iterator[tuple[Path, UnitStudy]]:
    from sbilib.runs import load_study

    root = Path.cwd()
    for suffix, study in tables_of(name, load_study(name, root).values(set_name)).items():
        yield root / "results" / name / f"{set_name}{suffix}", study


@app.command("list")
def list_tables() -> None:
    """List the pages that read tables of trainings."""
    for name in sorted(_MODULES):
        print(name)


@app.command()
def make(name: Name, set_name: SetName = "standard") -> None:
    """Make the tables of a page; a run that was stopped goes on with the next unit."""
    from sbilib.studies.unit_results import make_units, write_units

    for folder, study in _tables(name, set_name):
        write_units(folder, study, make_units(study, say=print))
        print(folder)


@app.command()
def accept(name: Name, set_name: SetName = "standard") -> None:
    """Take tables as if made by the code of today, after a change that cannot move a number."""
    from sbilib.studies.unit_results import accept_unit_code

    for folder, study in _tables(name, set_name):
        print(folder if accept_unit_code(folder, study) else f"{folder}: made by this code already")
