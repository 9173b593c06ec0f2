"""Studies, their parameters and parameter sets are read as written, and mistakes in them are named."""

from __future__ import annotations

from pathlib import Path

import pytest

from sbilib.errors import ParameterError, StudyError
from sbilib.runs import find_root, load_study, parameter_catalog_markdown, parse_parameters, study_names

from ..tiny_study import NOTEBOOK, SETS, make_repository


def test_study_is_read_with_title_parameters_and_sets(repository: Path) -> None:
    study = load_study("coin", repository)
    assert study.title == "A biased coin"
    throws = study.parameter("n_throws")
    assert (throws.type, throws.default, throws.unit) == ("int", 100, "throws")
    assert throws.meaning == "how often the coin is thrown, in one experiment"
    assert throws.cost == "run time is proportional"
    assert study.parameter("side").choices == ("heads", "tails")
    assert study.values("smoke")["n_throws"] == 10
    assert study.values("standard")["n_throws"] == 100


def test_whole_number_for_a_float_becomes_a_float(repository: Path) -> None:
    assert repr(load_study("coin", repository).values("full")["bias"]) == "1.0"


def test_overrides_win_over_the_set_and_are_read_as_typed(repository: Path) -> None:
    typed = {"n_throws": "1e3", "verbose": "true", "kinds": "['a', 'b']", "bias": "0", "side": "tails"}
    values = load_study("coin", repository).values("smoke", typed)
    assert values == {
        "seed": 1,
        "n_throws": 1000,
        "verbose": True,
        "kinds": ["a", "b"],
        "bias": 0.0,
        "side": "tails",
    }


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({"seed": "abc"}, r"-p seed=abc: parameter 'seed' must be int \(like 1\), got 'abc'"),
        ({"seed": "1.5"}, "must be int"),
        ({"seed": True}, "must be int"),
        ({"bias": "nan"}, "must be float"),
        ({"bias": float("inf")}, "must be float"),
        ({"verbose": "maybe"}, "must be bool"),
        ({"verbose": 1}, "must be bool"),
        ({"kinds": "fair"}, r"must be list\[str\]"),
        ({"kinds": [1]}, r"must be list\[str\]"),
        ({"side": "edge"}, "must be one of heads, tails, got 'edge'"),
    ],
)
def test_wrong_type_names_value_and_expected_type(
    repository: Path, overrides: dict[str, object], message: str
) -> None:
    with pytest.raises(ParameterError, match=message):
        load_study("coin", repository).values("smoke", overrides)


def test_unknown_names_list_close_and_valid_ones(repository: Path) -> None:
    with pytest.raises(StudyError, match=r"unknown study 'con'; did you mean 'coin'\? Valid: coin"):
        load_study("con", repository)
    study = load_study("coin", repository)
    with pytest.raises(StudyError, match=r"'n_throw'; did you mean 'n_throws'\? Valid: seed, n_throws"):
        study.values("smoke", {"n_throw": "3"})
    with pytest.raises(StudyError, match=r"set 'smok'; did you mean 'smoke'\? Valid: smoke, standard, full"):
        study.values("smok")


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("n = 1  # count [1] (cost: none)", "must have the form"),
        ("n: int = 2 * 3  # count [1] (cost: none)", "plain literal"),
        ("n: int = 1  # count (cost: none)", "must have a comment"),
        ("n: int = 1  # count [1]", "must have a comment"),
        ("n: int = 1", "must have a comment"),
        ("n: int = 1.5  # count [1] (cost: none)", "must be int"),
        ("n: dict = {}  # count [1] (cost: none)", "has type 'dict'"),
        ("import os", "must have the form"),
        ("n: int = ", "not valid Python"),
        ("seed: int = 1  # again [1] (cost: none)", "set twice"),
    ],
)
def test_parameters_cell_that_breaks_the_form_is_refused(line: str, message: str) -> None:
    good = "seed: int = 1  # random seed [1] (cost: none)\n"
    with pytest.raises((StudyError, ParameterError), match=message):
        parse_parameters(good + line, "demo")


@pytest.mark.parametrize(
    ("sets", "message"),
    [
        ("smoke: {}\nstandard: {}\n", "exactly the keys smoke, standard, full, found smoke, standard"),
        (SETS + "huge: {}\n", "exactly the keys"),
        ("smoke: {n_throw: 1}\nstandard: {}\nfull: {}\n", "did you mean 'n_throws'"),
        (
            "smoke: {n_throws: 1.5}\nstandard: {}\nfull: {}\n",
            "coin.yml: smoke: parameter 'n_throws' must be int",
        ),
        ("smoke: [1]\nstandard: {}\nfull: {}\n", "must map"),
        ("smoke: {", "not valid YAML"),
    ],
)
def test_parameter_sets_that_break_the_form_are_refused(tmp_path: Path, sets: str, message: str) -> None:
    root = make_repository(tmp_path / "repository", sets=sets)
    with pytest.raises((StudyError, ParameterError), match=message):
        load_study("coin", root)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (":tags: [parameters]", ":tags: [other]", "exactly one cell tagged 'parameters', found 0"),
        (":tags: [last]", ":tags: [parameters]", "found 2"),
        ("seed: int = 1  # random seed [1] (cost: none)\n", "", "must have the parameter 'seed: int'"),
        ("# A biased coin", "A biased coin", "must start with a title"),
    ],
)
def test_notebook_that_breaks_the_form_is_refused(tmp_path: Path, old: str, new: str, message: str) -> None:
    root = make_repository(tmp_path / "repository", notebook=NOTEBOOK.replace(old, new))
    with pytest.raises(StudyError, match=message):
        load_study("coin", root)


def test_missing_parameter_sets_are_named(repository: Path) -> None:
    (repository / "notebooks" / "params" / "coin.yml").unlink()
    with pytest.raises(StudyError, match=r"notebooks/params/coin\.yml is missing"):
        load_study("coin", repository)


def test_root_is_found_from_a_folder_below(repository: Path) -> None:
    assert find_root(repository / "notebooks" / "params") == repository.resolve()
    assert study_names(repository) == ["coin"]


def test_catalog_has_a_row_for_every_parameter(repository: Path) -> None:
    text = parameter_catalog_markdown(repository)
    assert "## A biased coin" in text
    row = next(line for line in text.splitlines() if "`n_throws`" in line)
    cells = [cell.strip() for cell in row.strip("|").split("|")]
    assert cells == [
        "`n_throws`",
        "how often the coin is thrown, in one experiment",
        "`int`",
        "throws",
        "`100`",
        "`10`",
        "`100`",
        "`1000`",
        "run time is proportional",
    ]
    assert sum(line.startswith("| `") for line in text.splitlines()) == 6
