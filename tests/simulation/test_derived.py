import math
import os
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sbilib.errors import DataError, ParameterError
from sbilib.simulation import (
    DERIVED,
    FEATURES,
    MISSING,
    PRIMARY,
    UNITS,
    check_primary,
    derived_quantities,
    feature_columns,
    scale_tau_energy,
)
from tests.simulation.fake_events import fake_events

REFERENCE = os.environ.get("SBILIB_FAIR_UNIVERSE_FILE")


def event(**values: float) -> torch.Tensor:
    """One event in float64: the given quantities, without PRI_; everything else as without jets."""
    start = {"lep_pt": 30.0, "had_pt": 40.0, "n_jets": 0.0, "jet_all_pt": 0.0, "met": 10.0}
    zeros = dict.fromkeys(("lep_eta", "lep_phi", "had_eta", "had_phi", "met_phi"), 0.0)
    known = zeros | start | values
    return torch.tensor(
        [[known.get(name.removeprefix("PRI_"), MISSING) for name in PRIMARY]], dtype=torch.float64
    )


def derive(primary: torch.Tensor) -> dict[str, float]:
    return dict(zip(DERIVED, derived_quantities(primary)[0].tolist(), strict=True))


TWO_JETS = {
    "n_jets": 2.0,
    "jet_leading_pt": 80.0,
    "jet_leading_eta": 1.5,
    "jet_leading_phi": 0.0,
    "jet_subleading_pt": 50.0,
    "jet_subleading_eta": -0.5,
    "jet_subleading_phi": math.pi / 2,
    "jet_all_pt": 130.0,
}


def test_an_event_computed_by_hand() -> None:
    """Lepton along x, tau along y, both at rapidity 0; missing momentum of 10 GeV on the bisector."""
    values = derive(event(had_phi=math.pi / 2, met_phi=math.pi / 4, **TWO_JETS))
    component = 10.0 / math.sqrt(2.0)
    expected = {
        "DER_mass_transverse_met_lep": math.sqrt(2 * 30 * 10 * (1 - math.cos(math.pi / 4))),
        "DER_mass_vis": math.sqrt(2 * 30 * 40),
        "DER_pt_h": math.hypot(30 + component, 40 + component),
        "DER_deltaeta_jet_jet": 2.0,
        "DER_mass_jet_jet": math.sqrt(2 * 80 * 50 * math.cosh(2.0)),
        "DER_prodeta_jet_jet": -0.75,
        "DER_deltar_had_lep": math.pi / 2,
        "DER_pt_tot": math.hypot(30 + component + 80, 40 + component + 50),
        "DER_sum_pt": 200.0,
        "DER_pt_ratio_lep_had": 0.75,
        "DER_met_phi_centrality": math.sqrt(2.0),
        "DER_lep_eta_centrality": math.exp(-4.0 * (0.5 / 2.0) ** 2),
    }
    assert values == pytest.approx(expected, rel=1e-12)


def test_without_jets_their_quantities_are_missing_and_the_rest_is_not() -> None:
    of_two_jets = {
        "DER_deltaeta_jet_jet",
        "DER_mass_jet_jet",
        "DER_prodeta_jet_jet",
        "DER_lep_eta_centrality",
    }
    none = derive(event(had_phi=2.0))
    one = derive(
        event(
            had_phi=2.0,
            n_jets=1.0,
            jet_leading_pt=60.0,
            jet_leading_eta=1.0,
            jet_leading_phi=math.pi,
            jet_all_pt=60.0,
        )
    )
    assert {name for name, value in none.items() if value == MISSING} == of_two_jets
    assert {name for name, value in one.items() if value == MISSING} == of_two_jets
    assert none["DER_pt_tot"] == none["DER_pt_h"]
    # One jet of 60 GeV at azimuth pi takes 60 GeV off the x component.
    x, y = 30 + 40 * math.cos(2.0) + 10, 40 * math.sin(2.0)
    assert one["DER_pt_tot"] == pytest.approx(math.hypot(x - 60, y), rel=1e-12)


def test_the_angle_between_lepton_and_tau_goes_the_short_way_round() -> None:
    values = derive(event(lep_phi=3.0, had_phi=-3.0, lep_eta=0.3, had_eta=-0.1))
    assert values["DER_deltar_had_lep"] == pytest.approx(math.hypot(0.4, 2 * math.pi - 6.0), rel=1e-12)


@pytest.mark.parametrize(
    ("met_phi", "expected"), [(0.5, 1.0), (1.5, 1.0), (1.0, math.sqrt(2.0)), (-2.0, 0.0)]
)
def test_centrality_of_missing_momentum(met_phi: float, expected: float) -> None:
    """One along lepton or tau, root 2 halfway, below 1 elsewhere; the same with lepton and tau exchanged."""
    values = [
        derive(event(lep_phi=lepton, had_phi=tau, met_phi=met_phi))["DER_met_phi_centrality"]
        for lepton, tau in ((0.5, 1.5), (1.5, 0.5))
    ]
    assert values[0] == pytest.approx(values[1], abs=1e-12)
    if met_phi > 0:
        assert values[0] == pytest.approx(expected, abs=1e-9)
    else:
        assert values[0] < 1.0


def test_degenerate_events_give_finite_values() -> None:
    """Lepton, tau and missing momentum at one azimuth, and two jets at one rapidity."""
    aligned = derive(event(met_phi=0.0, **(TWO_JETS | {"jet_subleading_eta": 1.5})))
    assert all(math.isfinite(value) for value in aligned.values())
    assert aligned["DER_lep_eta_centrality"] == 0.0
    assert aligned["DER_mass_transverse_met_lep"] == 0.0


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 10**6), angle=st.floats(-3, 3))
def test_turning_the_event_about_the_beam_changes_nothing(seed: int, angle: float) -> None:
    primary = torch.from_numpy(fake_events(50, seed))
    turned = primary.clone()
    for index, name in enumerate(PRIMARY):
        if name.endswith("_phi"):
            wrapped = (primary[:, index] + angle + math.pi) % (2 * math.pi) - math.pi
            turned[:, index] = torch.where(primary[:, index] == MISSING, MISSING, wrapped)
    torch.testing.assert_close(derived_quantities(turned), derived_quantities(primary), rtol=1e-7, atol=1e-7)


def test_masses_of_collinear_objects_do_not_cancel_in_float32() -> None:
    """Four-vectors in float32 lose all digits here; 2 pt sinh(x/2) does not."""
    close = event(lep_pt=100.0, had_pt=100.0, lep_eta=2.0, had_eta=2.0 + 2.0**-12).float()
    assert derive(close)["DER_mass_vis"] == pytest.approx(200.0 * math.sinh(2.0**-13), rel=1e-5)


def test_feature_columns_come_in_the_order_asked_for() -> None:
    primary = torch.from_numpy(fake_events(20, 1))
    columns = feature_columns(primary, ["DER_mass_vis", "PRI_met"])
    assert torch.equal(columns[:, 1], primary[:, PRIMARY.index("PRI_met")])
    assert torch.equal(columns[:, 0], derived_quantities(primary)[:, DERIVED.index("DER_mass_vis")])
    assert set(UNITS) == set(FEATURES)
    with pytest.raises(ParameterError, match="unknown"):
        feature_columns(primary, ["DER_mass"])
    with pytest.raises(DataError, match="shape"):
        feature_columns(primary[:, :5], ["DER_mass_vis"])


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 10**6), z=st.floats(0.8, 1.2), other=st.floats(0.8, 1.2))
def test_energy_scales_are_a_group_and_keep_the_higgs_momentum(seed: int, z: float, other: float) -> None:
    primary = torch.from_numpy(fake_events(50, seed))
    first = scale_tau_energy(primary, torch.tensor(z, dtype=torch.float64))
    both = scale_tau_energy(first, torch.full((50,), other, dtype=torch.float64))
    at_once = scale_tau_energy(primary, torch.tensor(z * other, dtype=torch.float64))
    before, after = derived_quantities(primary), derived_quantities(both)
    torch.testing.assert_close(after, derived_quantities(at_once), rtol=1e-7, atol=1e-6)
    kept = [
        DERIVED.index(name) for name in ("DER_pt_h", "DER_pt_tot", "DER_deltar_had_lep", "DER_mass_jet_jet")
    ]
    torch.testing.assert_close(after[:, kept], before[:, kept], rtol=1e-9, atol=1e-8)
    mass, ratio = DERIVED.index("DER_mass_vis"), DERIVED.index("DER_pt_ratio_lep_had")
    torch.testing.assert_close(after[:, mass], before[:, mass] * math.sqrt(z * other), rtol=1e-9, atol=0)
    torch.testing.assert_close(after[:, ratio], before[:, ratio] / (z * other), rtol=1e-9, atol=0)


def test_missing_momentum_takes_what_the_tau_gains() -> None:
    """Tau of 40 GeV along y, 5 GeV missing along x, scale 1.1: 4 GeV more tau, (5, -4) missing."""
    moved = scale_tau_energy(event(had_phi=math.pi / 2, met=5.0), torch.tensor([1.1], dtype=torch.float64))[0]
    values = dict(zip(PRIMARY, moved.tolist(), strict=True))
    assert values["PRI_had_pt"] == pytest.approx(44.0)
    assert values["PRI_met"] == pytest.approx(math.hypot(5, 4))
    assert values["PRI_met_phi"] == pytest.approx(math.atan2(-4, 5))


@pytest.mark.parametrize("scale", [torch.tensor(0.0), torch.tensor([1.0, 1.0]), torch.tensor(math.nan)])
def test_impossible_scales_are_refused(scale: torch.Tensor) -> None:
    with pytest.raises(ParameterError, match="scale"):
        scale_tau_energy(event(), scale)


@pytest.mark.parametrize(
    ("column", "value", "message"),
    [
        ("PRI_lep_pt", math.nan, "NaN"),
        ("PRI_had_pt", 0.0, "zero or negative"),
        ("PRI_met", -1.0, "zero or negative"),
        ("PRI_jet_leading_pt", -3.0, "zero or negative"),
        ("PRI_lep_phi", 180.0, "outside"),
        ("PRI_n_jets", 1.0, "number of jets"),
        ("PRI_n_jets", 1.5, "number of jets"),
    ],
)
def test_impossible_events_are_named(column: str, value: float, message: str) -> None:
    primary = np.repeat(event(**TWO_JETS).numpy(), 3, axis=0)
    check_primary("table", primary)
    primary[1, PRIMARY.index(column)] = value
    with pytest.raises(DataError, match=rf"table: 1 of 3 .*{message}.*event 1"):
        check_primary("table", primary)


@pytest.mark.skipif(REFERENCE is None, reason="SBILIB_FAIR_UNIVERSE_FILE names no file")
def test_the_reference_file_is_reproduced_to_its_rounding() -> None:
    """Its masses come from E^2 - p^2 in float32, so squared they carry the rounding of 8 E^2; sums of momenta
    carry that of their terms, and everything else that of float32."""
    table = pq.ParquetFile(Path(str(REFERENCE))).read_row_group(0).slice(0, 100_000).to_pandas()
    primary = torch.tensor(table[list(PRIMARY)].to_numpy(np.float64))
    ours, theirs = derived_quantities(primary).numpy(), table[list(DERIVED)].to_numpy(np.float64)
    epsilon = 2.0**-23
    at = {name.removeprefix("PRI_"): primary[:, index].numpy() for index, name in enumerate(PRIMARY)}

    def energy(name: str) -> np.ndarray:
        return at[f"{name}_pt"] * np.cosh(at[f"{name}_eta"])

    jets = np.where(at["n_jets"] >= 2, np.abs(energy("jet_leading")) + np.abs(energy("jet_subleading")), 0.0)
    squared = {
        "DER_mass_vis": energy("lep") + energy("had"),
        "DER_mass_transverse_met_lep": at["met"] + at["lep_pt"],
        "DER_mass_jet_jet": jets,
    }
    terms = theirs[:, DERIVED.index("DER_sum_pt")] + at["met"]
    for index, name in enumerate(DERIVED):
        if name in squared:
            difference, allowed = np.abs(ours[:, index] ** 2 - theirs[:, index] ** 2), 8 * squared[name] ** 2
        else:
            size = terms if name in ("DER_pt_h", "DER_pt_tot") else 10.0 + np.abs(theirs[:, index])
            difference, allowed = np.abs(ours[:, index] - theirs[:, index]), 4 * size
        assert (difference <= epsilon * allowed + 1e-9).all(), name
