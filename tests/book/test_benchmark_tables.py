"""The tables of the benchmark page: what is read, how it is shown, and how it fails."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from sbilib_benchmarks import Column, chosen_rows, column_of, machine, table_lines, value_at

from sbilib.runs import find_root

RESULTS = {
    "environment": {"processor": "A", "threads": 2, "torch": "2.13.0", "python": "3.11.7"},
    "tables": {
        "first": {"rows": [{"task": "draw", "ms": 1.26, "limits": [3.0]}, {"task": "fit", "ms": None}]}
    },
    "by name": {"ours": {"ms": 1.0}, "theirs": {"ms": 2.0}, "note": 7},
}


def test_places_name_keys_and_positions():
    assert value_at(RESULTS, "tables/first/rows/0/limits/0") == 3.0
    assert value_at(RESULTS, "") is RESULTS
    with pytest.raises(LookupError, match="no 'second' among first"):
        value_at(RESULTS, "tables/second")
    with pytest.raises(LookupError, match="no '1' among float"):
        value_at(RESULTS, "tables/first/rows/0/ms/1")


def test_rows_are_chosen_and_mappings_keep_their_keys():
    assert [row["name"] for row in chosen_rows(RESULTS, "by name", None)] == ["ours", "theirs"]
    (row,) = chosen_rows(RESULTS, "tables/first/rows", "task = draw")
    assert row["ms"] == 1.26
    assert chosen_rows(RESULTS, "tables/first/rows", "task != fit") == [row]
    with pytest.raises(LookupError, match="where task = none"):
        chosen_rows(RESULTS, "tables/first/rows", "task = none")


def test_cells_are_formatted_and_a_gap_is_allowed_only_where_it_is_said():
    rows = RESULTS["tables"]["first"]["rows"]
    assert column_of("Time [ms] | ms? | .1f") == Column("Time [ms]", "ms?", ".1f")
    lines = table_lines(rows, [column_of("Task | task"), column_of("Time [ms] | ms? | .1f")])
    assert lines == ["| Task | Time [ms] |", "| :--- | ---: |", "| draw | 1.3 |", "| fit | – |"]
    with pytest.raises(LookupError, match="nothing at 'ms'"):
        table_lines(rows, [Column("Time", "ms", ".1f")])
    with pytest.raises(LookupError, match="no columns"):
        table_lines(rows, [])


def test_the_machine_is_named():
    assert machine("flow", RESULTS).startswith("Measured on A, 2 threads, torch 2.13.0, Python 3.11.7. To")
    one = RESULTS | {"environment": RESULTS["environment"] | {"threads": 1}, "quick": True}
    assert "1 thread, " in machine("flow", one)
    assert "(a quick run)" in machine("flow", one)


def test_every_result_is_on_the_page():
    root = find_root()
    page = (root / "book" / "benchmarks.md").read_text()
    for path in Path(root / "benchmarks" / "results").glob("*.json"):
        assert "environment" in json.loads(path.read_text())
        assert f"{{benchmark-table}} {path.stem}\n" in page, path.stem
