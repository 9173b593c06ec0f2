import json

import pandas as pd
import pytest

from sbilib.errors import CheckpointError, ParameterError
from sbilib.studies import unit_results
from sbilib.studies.unit_results import (
    UnitStudy,
    accept_unit_code,
    finished_or_made,
    make_units,
    read_units,
    write_units,
)


@pytest.fixture
def made(tmp_path, monkeypatch):
    """Names of the units that were made, in a cache of its own."""
    monkeypatch.setenv("SBILIB_CACHE", str(tmp_path / "cache"))
    return []


def study(made, units=("a", "b"), **facts):
    def make(unit):
        if unit == "broken":
            raise RuntimeError("stopped")
        made.append(unit)
        return pd.DataFrame({"value": [ord(unit), 2 * ord(unit)]})

    return UnitStudy("test", {"steps": 3, "hidden": [4, 4], **facts}, units, ("errors.py",), make)


def test_a_stopped_run_goes_on_with_the_next_unit(made):
    with pytest.raises(RuntimeError):
        make_units(study(made, ("a", "broken", "b")))
    table = make_units(study(made))
    assert made == ["a", "b"]
    assert table.value.tolist() == [97, 194, 98, 196]
    assert table.unit.tolist() == ["a", "a", "b", "b"]


def test_other_settings_are_made_anew_and_damaged_units_too(made):
    make_units(study(made))
    make_units(study(made, steps=4))
    assert made == ["a", "b", "a", "b"]
    next(study(made).work_folder.glob("a.*")).write_bytes(b"damaged")
    make_units(study(made))
    assert made[4:] == ["a"]


def test_finished_results_are_read_and_nothing_is_made(made, tmp_path):
    asked = study(made)
    write_units(tmp_path / "results" / "standard", asked, make_units(asked))
    made.clear()
    assert finished_or_made(study(made, ("b",)), tmp_path / "results").value.tolist() == [98, 196]
    assert not made
    # A unit that the results lack, or other settings, are made.
    finished_or_made(study(made, ("b", "c"), steps=5), tmp_path / "results")
    assert made == ["b", "c"]


def test_a_difference_is_named_and_damage_is_seen(made, tmp_path):
    asked = study(made)
    write_units(tmp_path, asked, make_units(asked))
    with pytest.raises(CheckpointError, match="steps is 3 there and 9 here"):
        read_units(tmp_path, study(made, steps=9))
    with pytest.raises(CheckpointError, match="1 units are missing, the first 'z'"):
        read_units(tmp_path, study(made, ("a", "z")))
    make_units(study(made, ("a",))).to_parquet(tmp_path / "table.parquet")
    assert read_units(tmp_path, asked) is None
    assert read_units(tmp_path / "nowhere", asked) is None


def test_changed_code_is_refused_until_accepted(made, tmp_path, monkeypatch):
    asked = study(made)
    write_units(tmp_path, asked, make_units(asked))
    monkeypatch.setattr(unit_results, "code_digest", lambda pattern: "changed")
    with pytest.raises(CheckpointError, match=r"the code errors\.py changed"):
        read_units(tmp_path, asked)
    assert accept_unit_code(tmp_path, asked)
    assert len(read_units(tmp_path, asked)) == 4
    assert not accept_unit_code(tmp_path, asked)
    assert len(json.loads((tmp_path / "manifest.json").read_text())["earlier_code"]) == 1
    with pytest.raises(CheckpointError, match="no results"):
        accept_unit_code(tmp_path / "nowhere", asked)


def test_units_must_be_there_and_differ(made):
    for units in ((), ("a", "a")):
        with pytest.raises(ParameterError, match="at least one unit"):
            study(made, units)
