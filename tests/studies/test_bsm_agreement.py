"""The comparison with public events finds what differs, and nothing where nothing does."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy import stats

from sbilib.errors import DataError, ParameterError
from sbilib.problems.base import COMPONENTS
from sbilib.problems.bsm_data import BsmTables
from sbilib.simulation.bsm_schema import BSM_FEATURES, bsm_columns
from sbilib.studies import bsm_agreement
from sbilib.studies.bsm_agreement import (
    AGREEMENT_LEVELS,
    SAME,
    SEPARATION,
    UNCORRECTED_FEATURES,
    compare_with_public,
    jets_by_momentum,
    read_agreement,
    separation,
    write_agreement,
)

JET_PT = bsm_columns(f"jet_{jet}_pt" for jet in range(1, 5))
JET_TAGS = bsm_columns(f"jet_{jet}_btag" for jet in range(1, 5))
M_BB = bsm_columns(["m_bb"])[0]


def made_up(n_events: int, seed: int, *, m_bb: float = 0.0) -> np.ndarray:
    """Events of independent features that the schema allows, jets by momentum, the first two tagged."""
    rng = np.random.default_rng(seed)
    table = np.empty((n_events, len(BSM_FEATURES)))
    for column, name in enumerate(BSM_FEATURES):
        if name.endswith("_phi"):
            table[:, column] = rng.uniform(-np.pi, np.pi, n_events)
        elif name.endswith("_eta"):
            table[:, column] = rng.normal(size=n_events)
        else:
            table[:, column] = rng.gamma(9.0, 10.0, n_events)
    table[:, JET_TAGS] = [1.0, 2.0, 0.0, 0.0]
    table[:, M_BB] += m_bb
    return jets_by_momentum(table)


def pair(n_events: int, seed: int) -> dict[str, np.ndarray]:
    return {name: made_up(n_events, 10 * seed + number) for number, name in enumerate(COMPONENTS)}


def whole(events: np.ndarray) -> np.ndarray:
    """Whole numbers, so that many values are equal, with azimuths inside a turn."""
    rounded = np.ceil(events)
    azimuths = [column for column, name in enumerate(BSM_FEATURES) if name.endswith("_phi")]
    rounded[:, azimuths] = rounded[:, azimuths].clip(-3.0, 3.0)
    return rounded


def test_distances_and_moments_are_those_of_scipy_and_numpy():
    ours, public = (
        {name: whole(part) for name, part in pair(*sizes).items()} for sizes in ((900, 1), (700, 2))
    )
    rows = compare_with_public(ours, public, tag_factor=1.1).set_index(["component", "jets", "feature"])
    for column, name in enumerate(BSM_FEATURES):
        row = rows.loc[("signal", "as stored", name)]
        first, second = ours["signal"][:, column], public["signal"][:, column]
        assert row.distance == pytest.approx(stats.ks_2samp(first, second).statistic)
        assert (row.mean_ours, row.std_public) == pytest.approx((first.mean(), second.std()))
        np.testing.assert_allclose(row.quantiles_ours, np.quantile(first, AGREEMENT_LEVELS))
        assert row.counts_public.sum() <= 700
        assert len(row.edges) == len(row.counts_ours) + 1
    assert len(rows) == 2 * (2 * len(BSM_FEATURES) + len(UNCORRECTED_FEATURES))


def test_equal_densities_exceed_the_limit_in_one_of_twenty_features():
    """Of 24 features without tags, 1.2 are expected above it; six or more have a chance of 0.2%."""
    rows = compare_with_public(pair(3000, 3), pair(3000, 4), tag_factor=1.0)
    chosen = rows[(rows.component == "background") & (rows.jets == "as stored")]
    chosen = chosen[~chosen.feature.str.endswith("_btag")]
    assert (chosen.distance > chosen.limit).sum() < 6


def test_the_error_of_a_distance_is_its_scatter():
    """A shift of one standard deviation; 60 repeats know their scatter to 9%, and we allow for four."""
    rng = np.random.default_rng(5)
    found = [bsm_agreement._distance(rng.normal(size=400), rng.normal(1.0, 1.0, size=300)) for _ in range(60)]
    distances, errors = np.array(found).T
    assert errors.mean() == pytest.approx(distances.std(ddof=1), rel=0.4)


def test_the_order_of_jets_shows_as_stored_alone():
    ours = pair(2000, 6)
    public = {name: events.copy() for name, events in pair(2000, 7).items()}
    jets = bsm_columns(f"jet_{jet}_{part}" for jet in range(1, 5) for part in ("pt", "eta", "phi", "btag"))
    for events in public.values():
        events[:, jets] = events[:, jets].reshape(-1, 4, 4)[:, ::-1].reshape(len(events), -1)
    rows = compare_with_public(ours, public, tag_factor=1.0).set_index(["component", "jets", "feature"])
    for name in ("jet_1_pt", "jet_4_pt"):
        assert rows.loc[("signal", "as stored", name)].distance > 0.5
        assert rows.loc[("signal", "by momentum", name)].distance < 0.06
    assert rows.loc[("signal", "by momentum", "jet_1_btag")].distance < 0.06


def test_taking_back_the_factor_finds_the_uncorrected_events():
    public = pair(800, 8)
    ours = {}
    for name, events in public.items():
        corrected = events.copy()
        corrected[:, JET_PT] *= np.where(events[:, JET_TAGS] > 0, 1.2, 1.0)
        corrected[:, M_BB] *= 1.2
        ours[name] = jets_by_momentum(corrected)
    rows = compare_with_public(ours, public, tag_factor=1.2).set_index(["component", "jets", "feature"])
    assert rows.loc[("background", "by momentum", "m_bb")].distance > 0.1
    for name in UNCORRECTED_FEATURES:
        # Rounding may move single values past each other.
        assert rows.loc[("background", "tags uncorrected", name)].distance < 0.01


def test_jets_keep_their_properties_when_sorted():
    events = made_up(50, 9)
    shuffled = events.copy()
    jets = bsm_columns(f"jet_{jet}_{part}" for jet in range(1, 5) for part in ("pt", "eta", "phi", "btag"))
    shuffled[:, jets] = events[:, jets].reshape(-1, 4, 4)[:, [2, 0, 3, 1]].reshape(50, -1)
    np.testing.assert_array_equal(jets_by_momentum(shuffled), events)
    assert (np.diff(events[:, JET_PT], axis=1) <= 0).all()
    with pytest.raises(DataError, match="give all features"):
        jets_by_momentum(events[:, :21])


def test_an_area_is_that_of_the_one_feature_that_differs():
    """Trees reach the area of the best score, here of m_bb alone, within 0.05, and 1/2 without it."""
    signal, background = made_up(1500, 10, m_bb=60.0), made_up(1500, 11)
    sets = {"with": ("lepton_pT", "m_bb"), "without": ("lepton_pT", "lepton_eta")}
    found = separation(signal, background, seed=2, sets=sets).set_index("features")
    best = stats.mannwhitneyu(signal[:, M_BB], background[:, M_BB]).statistic / 1500**2
    assert found.area["with"] == pytest.approx(best, abs=0.05)
    assert abs(found.area["without"] - 0.5) < 0.05
    assert (found.n_events == 1500).all()
    with pytest.raises(ParameterError, match="ask for fewer"):
        separation(signal, background, seed=2, n_events=1501)


def test_results_come_back_as_written_and_not_if_altered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    few = {"masses": ("m_bb", "m_wwbb"), "lepton": ("lepton_pT",)}
    monkeypatch.setattr(bsm_agreement, "FEATURE_SETS", few)
    tables = [
        BsmTables(
            {name: {"reference": torch.from_numpy(part).float()} for name, part in pair(120, k).items()}
        )
        for k in (12, 13)
    ]
    written = write_agreement(tmp_path, *tables, seed=3)
    read = read_agreement(tmp_path)
    assert read.about == json.loads(json.dumps(written.about))
    assert read.features.distance.tolist() == written.features.distance.tolist()
    assert len(read.areas) == 4 * len(few)
    assert set(read.areas.test) == {SEPARATION, SAME}
    assert (read.areas.n_events == 120).all()
    again = write_agreement(tmp_path / "again", *tables, seed=3)
    assert again.about["sha256"] == read.about["sha256"]
    (tmp_path / "areas.parquet").write_bytes((tmp_path / "features.parquet").read_bytes())
    with pytest.raises(DataError, match="not the table that its manifest describes"):
        read_agreement(tmp_path)
    with pytest.raises(DataError, match="holds no comparison"):
        read_agreement(tmp_path / "nothing")


def test_bad_events_are_named():
    good = pair(20, 14)
    with pytest.raises(DataError, match="ours has no background"):
        compare_with_public({"signal": good["signal"]}, good, tag_factor=1.0)
    bad = {name: events.copy() for name, events in good.items()}
    bad["signal"][3, M_BB] = np.nan
    with pytest.raises(DataError, match="m_bb that are NaN"):
        compare_with_public(good, bad, tag_factor=1.0)
    with pytest.raises(ParameterError, match="tag_factor"):
        compare_with_public(good, good, tag_factor=0.0)
