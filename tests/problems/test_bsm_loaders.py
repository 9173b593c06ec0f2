import os
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from sbilib.errors import DataError, ParameterError
from sbilib.problems import BsmTables, load_labeled_csv, load_uci_higgs
from sbilib.simulation import (
    BSM_FEATURES,
    BSM_HIGH_LEVEL,
    BSM_LOW_LEVEL,
    high_level_of_four_jets,
    to_public_scale,
)
from tests.simulation.toy_bsm import toy_bsm_events

REFERENCE = os.environ.get("SBILIB_HIGGS_BSM_FILE")
"""A table with a header and the label last, of events of the public file."""

FRACTIONS = {"train": 0.5, "reference": 0.5}


def as_public(n_events: int = 80) -> pd.DataFrame:
    """Made-up events in the units of the public file, label first, every third signal."""
    table = pd.DataFrame(to_public_scale(toy_bsm_events(n_events)), columns=list(BSM_FEATURES))
    table.insert(0, "label", (np.arange(n_events) % 3 == 0).astype(float))
    return table


def write_public(table: pd.DataFrame, path: Path) -> None:
    table.to_csv(path, index=False, header=False, float_format="%.9e")


def together(data: BsmTables, component: str) -> np.ndarray:
    parts = [data.events(component, split, BSM_FEATURES) for split in FRACTIONS]
    return torch.cat(parts).numpy()


@pytest.mark.parametrize("name", ["HIGGS.csv", "HIGGS.csv.gz"])
def test_the_public_file_comes_back_in_gev(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    write_public(as_public(), path)
    data = load_uci_higgs(path, fractions=FRACTIONS)
    events = toy_bsm_events(80)
    expected = {"signal": events[::3], "background": events[np.arange(80) % 3 > 0]}
    for component, part in expected.items():
        found = together(data, component)
        order, expected_order = found[:, 27].argsort(), part[:, 27].argsort()
        np.testing.assert_allclose(found[order], part[expected_order], atol=1e-4)
    assert data.source == name


def test_rows_are_read_in_chunks_and_no_more_than_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "HIGGS.csv"
    write_public(as_public(), path)
    whole = load_uci_higgs(path, fractions=FRACTIONS)
    monkeypatch.setattr("sbilib.problems.bsm_loaders._ROWS_AT_ONCE", 7)
    assert load_uci_higgs(path, fractions=FRACTIONS).digest == whole.digest
    few = load_uci_higgs(path, n_rows=30, fractions=FRACTIONS)
    assert (len(together(few, "signal")), len(together(few, "background"))) == (10, 20)
    assert load_uci_higgs(path, fractions=FRACTIONS, seed=2).digest != whole.digest
    with pytest.raises(ParameterError, match="n_rows"):
        load_uci_higgs(path, n_rows=0)


def test_a_header_may_name_the_columns_in_any_order(tmp_path: Path) -> None:
    public, labeled = tmp_path / "a.csv", tmp_path / "b.csv"
    table = as_public()
    write_public(table, public)
    table["label"] = table["label"].astype(int)
    table[[*BSM_FEATURES, "label"]].to_csv(labeled, index=False, float_format="%.9e")
    assert load_labeled_csv(labeled).digest == load_uci_higgs(public).digest
    table[[*reversed(BSM_FEATURES), "label"]].to_csv(labeled, index=False, float_format="%.9e")
    assert load_labeled_csv(labeled).digest == load_uci_higgs(public).digest
    # Other columns are left alone.
    table.assign(weight=1.0).to_csv(labeled, index=False, float_format="%.9e")
    assert load_labeled_csv(labeled).digest == load_uci_higgs(public).digest


def test_a_missing_file_says_where_to_get_it(tmp_path: Path) -> None:
    for load in (load_uci_higgs, load_labeled_csv):
        with pytest.raises(DataError, match=r"archive\.ics\.uci\.edu/dataset/280/higgs"):
            load(tmp_path / "HIGGS.csv.gz")


def test_a_truncated_or_empty_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "HIGGS.csv.gz"
    write_public(as_public(), path)
    path.write_bytes(path.read_bytes()[:-200])
    with pytest.raises(DataError, match="cannot be read as CSV"):
        load_uci_higgs(path)
    empty = tmp_path / "HIGGS.csv"
    empty.write_bytes(b"")
    with pytest.raises(DataError, match="holds no events"):
        load_uci_higgs(empty)


@pytest.mark.parametrize(
    ("column", "value", "message"),
    [
        ("m_bb", np.nan, r"1 of 80 events have values of m_bb that are NaN or infinite \(first: event 5"),
        ("jet_1_pt", np.inf, "NaN or infinite"),
        ("label", 2.0, "label must be 1 for signal or 0 for background, got 2"),
        ("m_jj", -1.0, "m_jj that are zero or negative"),
        ("lepton_phi", 2.0, r"lepton_phi that lie outside \[-pi, pi\]"),
        ("jet_2_btag", 4.0, "jet_2_btag that are not 0, 1 or 2"),
    ],
)
def test_impossible_values_are_refused(tmp_path: Path, column: str, value: float, message: str) -> None:
    path, table = tmp_path / "HIGGS.csv", as_public()
    table.loc[5, column] = value
    write_public(table, path)
    with pytest.raises(DataError, match=message):
        load_uci_higgs(path, fractions={"train": 1.0})


@pytest.mark.parametrize("change", ["GeV", "swapped", "label last"])
def test_other_units_and_orders_are_refused(tmp_path: Path, change: str) -> None:
    path, table = tmp_path / "HIGGS.csv", as_public()
    if change == "GeV":
        table[["jet_1_pt", "jet_2_pt", "jet_3_pt", "jet_4_pt"]] *= 50.0
        message = "two tagged jets must have the mass m_bb"
    elif change == "swapped":
        table["m_bb"], table["m_jj"] = table["m_jj"], table["m_bb"].copy()
        message = "two tagged jets must have the mass m_bb"
    else:
        table = table[[*BSM_FEATURES, "label"]]
        message = "has it in its first column"
    write_public(table, path)
    with pytest.raises(DataError, match=message):
        load_uci_higgs(path)


def test_each_loader_names_the_other(tmp_path: Path) -> None:
    path, table = tmp_path / "a.csv", as_public()
    write_public(table, path)
    with pytest.raises(DataError, match=r"lacks the columns .*load_uci_higgs"):
        load_labeled_csv(path)
    table.to_csv(path, index=False)
    with pytest.raises(DataError, match=r"not numbers.*load_labeled_csv"):
        load_uci_higgs(path)
    table.drop(columns="m_wbb").to_csv(path, index=False)
    with pytest.raises(DataError, match=r"lacks the columns \['m_wbb'\]"):
        load_labeled_csv(path)


def test_a_file_with_one_component_is_refused(tmp_path: Path) -> None:
    path, table = tmp_path / "HIGGS.csv", as_public()
    write_public(table[table["label"] == 1.0], path)
    with pytest.raises(DataError, match="no background events among its first 27 rows"):
        load_uci_higgs(path)


@pytest.mark.skipif(REFERENCE is None, reason="SBILIB_HIGGS_BSM_FILE names no file")
def test_our_masses_are_those_of_the_public_file() -> None:
    data = load_labeled_csv(str(REFERENCE), fractions=FRACTIONS)
    events = np.concatenate([together(data, component) for component in ("signal", "background")])
    found = high_level_of_four_jets(events)
    stored = events[:, len(BSM_LOW_LEVEL) :]
    agree = dict(zip(BSM_HIGH_LEVEL, (np.abs(found / stored - 1.0) < 1e-3).T, strict=True))
    usable = np.isfinite(found[:, 0])
    assert 0.75 < usable.mean() < 0.85
    assert agree["m_bb"][usable].mean() > 0.995
    # No jet beyond the fourth makes a better W in two of three events; the rounding of angles to 0.001 moves
    # the neutrino to the next rapidity of the grid in one of twenty.
    alone = usable & agree["m_jj"]
    assert alone.sum() / usable.sum() > 0.6
    assert agree["m_jjj"][alone].mean() > 0.999
    assert agree["m_lv"][usable].mean() > 0.9
    for name in ("m_jlv", "m_wbb", "m_wwbb"):
        assert agree[name][alone].mean() > 0.93
