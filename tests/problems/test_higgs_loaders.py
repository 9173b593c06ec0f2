import os
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from sbilib.errors import DataError, ParameterError
from sbilib.problems import HiggsTauTau, load_fair_universe, load_higgsml
from sbilib.simulation import DERIVED, MISSING, PRIMARY, derived_quantities
from tests.simulation.fake_events import fake_events

REFERENCE = os.environ.get("SBILIB_FAIR_UNIVERSE_FILE")


def as_fair_universe(n_events: int = 400) -> pd.DataFrame:
    events = fake_events(n_events, 1)
    table = pd.DataFrame(events.astype("f4"), columns=list(PRIMARY))
    labels = np.array(["htautau", "ztautau", "ztautau", "ttbar"])[np.arange(n_events) % 4]
    table["weights"] = np.where(labels == "htautau", 3.0, 1500.0).astype("f4")
    table["detailed_labels"] = labels
    table["labels"] = (labels == "htautau").astype("f4")
    table[list(DERIVED)] = derived_quantities(torch.from_numpy(events)).numpy().astype("f4")
    return table


def as_higgsml(n_events: int = 400) -> pd.DataFrame:
    """The columns of 2014: other names, sentinel -999, labels s and b, weights that differ."""
    new = as_fair_universe(n_events)
    table = new[[*PRIMARY, "DER_mass_vis"]].replace(MISSING, -999.0)
    table.columns = [
        "PRI_jet_num" if name == "PRI_n_jets" else name.replace("PRI_had", "PRI_tau")
        for name in table.columns
    ]
    table.insert(0, "EventId", np.arange(n_events))
    table.insert(1, "DER_mass_MMC", -999.0)
    table["Weight"] = np.linspace(0.1, 2.0, n_events)
    table["Label"] = np.where(np.arange(n_events) % 4 == 0, "s", "b")
    table["KaggleSet"] = np.array(list("tbvu"))[np.arange(n_events) // 2 % 4]
    return table.round(3)


FRACTIONS = {"train": 0.5, "test-1": 0.5}


def test_fair_universe_events_keep_values_labels_and_weights(tmp_path: Path) -> None:
    path, table = tmp_path / "fair.parquet", as_fair_universe()
    table.to_parquet(path)
    data = load_fair_universe(path, fractions=FRACTIONS)
    signal = torch.cat([data.table("signal", split).primary for split in FRACTIONS])
    stored = table[table.labels == 1][list(PRIMARY)].to_numpy()
    assert np.array_equal(np.sort(signal[:, 0].numpy()), np.sort(stored[:, 0]))
    assert data.table("signal", "train").weights is None
    both = load_fair_universe(path, backgrounds=["ztautau", "ttbar"], fractions=FRACTIONS)
    assert len(both.table("background", "train")) == 150
    assert len(data.table("background", "train")) == 100
    assert len(load_fair_universe(path, max_rows=40, fractions=FRACTIONS).table("signal", "train")) == 5
    x = HiggsTauTau(data=data).sample("signal", torch.ones(10), torch.Generator().manual_seed(1))
    assert bool(x.isfinite().all())


def test_higgsml_events_are_renamed_and_their_sentinel_replaced(tmp_path: Path) -> None:
    path, table = tmp_path / "higgsml.csv.gz", as_higgsml()
    table.to_csv(path, index=False)
    data = load_higgsml(path, fractions=FRACTIONS)
    used = table[table.KaggleSet != "u"]
    background = [data.table("background", split) for split in FRACTIONS]
    primary = torch.cat([part.primary for part in background])
    weights = torch.cat([part.weights for part in background if part.weights is not None])
    order = primary[:, 0].argsort()
    expected = used[used.Label == "b"].sort_values("PRI_lep_pt")
    np.testing.assert_allclose(primary[order, 3].numpy(), expected.PRI_tau_pt, rtol=1e-6)
    np.testing.assert_allclose(weights[order].numpy(), expected.Weight, rtol=1e-6)
    jets = primary[order, PRIMARY.index("PRI_jet_leading_pt")].numpy()
    assert np.array_equal(jets == MISSING, (expected.PRI_jet_num == 0).to_numpy())
    assert not (primary == -999.0).any()


def test_a_missing_file_says_where_to_get_it(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"opendata\.cern\.ch/record/328"):
        load_higgsml(tmp_path / "none.csv")
    with pytest.raises(DataError, match=r"zenodo\.org/records/15131565"):
        load_fair_universe(tmp_path / "none.parquet")


def test_other_files_are_refused(tmp_path: Path) -> None:
    csv, parquet = tmp_path / "a.csv", tmp_path / "a.parquet"
    as_higgsml().drop(columns="PRI_tau_pt").to_csv(csv, index=False)
    with pytest.raises(DataError, match=r"lacks the columns \['PRI_tau_pt'\]"):
        load_higgsml(csv)
    as_fair_universe().drop(columns="weights").to_parquet(parquet)
    with pytest.raises(DataError, match=r"lacks the columns \['weights'\]"):
        load_fair_universe(parquet)
    parquet.write_bytes(parquet.read_bytes()[:200])
    with pytest.raises(DataError, match="not a whole Parquet file"):
        load_fair_universe(parquet)
    csv.write_bytes(b"")
    with pytest.raises(DataError, match="CSV"):
        load_higgsml(csv)


@pytest.mark.parametrize("change", ["MeV", "degrees", "swapped"])
def test_other_units_are_refused(tmp_path: Path, change: str) -> None:
    table, path = as_fair_universe(), tmp_path / "a.parquet"
    if change == "MeV":
        of_energy = [name for name in table.columns if "_pt" in name or "mass" in name or name == "PRI_met"]
        table[of_energy] *= 1000.0
    elif change == "degrees":
        table["PRI_lep_phi"] *= 180.0 / np.pi
    else:
        table["PRI_had_eta"], table["PRI_had_phi"] = table["PRI_had_phi"], table["PRI_had_eta"].copy()
    table.to_parquet(path)
    with pytest.raises(DataError, match="GeV and rad"):
        load_fair_universe(path)


def test_negative_weights_and_unknown_processes_are_refused(tmp_path: Path) -> None:
    path, table = tmp_path / "a.parquet", as_fair_universe()
    table.to_parquet(path)
    with pytest.raises(DataError, match=r"no events of \['diboson'\]"):
        load_fair_universe(path, backgrounds=["diboson"])
    with pytest.raises(ParameterError, match="backgrounds"):
        load_fair_universe(path, backgrounds=[])
    table.loc[table.labels == 1, "weights"] = np.where(np.arange((table.labels == 1).sum()) % 2, -1.0, 1.0)
    table.to_parquet(path)
    with pytest.raises(DataError, match="negative"):
        load_fair_universe(path)


@pytest.mark.skipif(REFERENCE is None, reason="SBILIB_FAIR_UNIVERSE_FILE names no file")
def test_the_reference_file_is_read() -> None:
    data = load_fair_universe(str(REFERENCE), max_rows=1000, fractions={"train": 1.0})
    assert len(data.table("signal", "train")) + len(data.table("background", "train")) > 900
    mass = {
        c: float(HiggsTauTau(data=data).all_events(c).events[:, 0].mean()) for c in ("signal", "background")
    }
    # A thousand events know these means to about 1 GeV.
    assert mass["signal"] == pytest.approx(82.0, abs=4.0)
    assert mass["background"] == pytest.approx(69.0, abs=4.0)
