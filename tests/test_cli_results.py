from pathlib import Path

import pandas as pd
import pytest
from typer.testing import CliRunner

from sbilib import cli_results
from sbilib.cli import app
from sbilib.errors import StudyError
from sbilib.runs import load_study
from sbilib.studies.unit_results import UnitStudy, read_units

ROOT = Path(__file__).parents[1]


@pytest.mark.parametrize("name", ["neos", "inferno-benchmark"])
def test_the_command_line_and_the_page_mean_the_same_trainings(name, monkeypatch):
    values = load_study(name, ROOT).values("standard")
    for suffix, study in cli_results.tables_of(name, values).items():
        table = read_units(ROOT / "results" / name / f"standard{suffix}", study)
        assert table is not None
        assert set(table.unit) == set(study.units)


def test_tables_are_made_and_accepted(tmp_path, monkeypatch):
    made = []

    def make(unit):
        made.append(unit)
        return pd.DataFrame({"value": [1.0]})

    study = UnitStudy("toy", {"a": 1}, ("one", "two"), ("errors.py",), make)
    monkeypatch.setenv("SBILIB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(cli_results, "_tables", lambda *_: iter([(tmp_path / "standard", study)]))
    runner = CliRunner()
    assert runner.invoke(app, ["results", "make", "toy"]).exit_code == 0
    assert made == ["one", "two"]
    assert list(read_units(tmp_path / "standard", study).unit) == ["one", "two"]
    assert "already" in runner.invoke(app, ["results", "accept", "toy"]).output


def test_a_page_without_tables_is_refused():
    with pytest.raises(StudyError, match="neos"):
        cli_results.tables_of("gaussian-toys", {})
