"""The detector response and selection of the heavy Higgs search do what their documented numbers say.

Statistical tests allow 4.5 standard deviations: a false alarm in 150 000 for each number, with fixed seeds.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from sbilib.errors import DataError, ParameterError
from sbilib.simulation.bsm_features import high_level_of_four_jets
from sbilib.simulation.bsm_response import BsmResponse, simulate_bsm_detector
from sbilib.simulation.bsm_schema import bsm_columns, check_bsm, round_bsm
from sbilib.simulation.bsm_truth import BOTTOM, CHARM, LIGHT, BsmTruth

from .toy_bsm import toy_bsm_truth

_SIGMAS = 4.5
_EXACT = BsmResponse(
    jet_resolution=(0.0, 0.0, 0.0),
    jet_angle=0.0,
    jet_offset=0.0,
    tag_factor=1.0,
    bottom_efficiency=1.0,
    charm_efficiency=0.0,
    light_efficiency=0.0,
    soft_response=1.0,
    soft_noise=(0.0, 0.0),
)


def _column(events: np.ndarray, name: str) -> np.ndarray:
    return events[:, bsm_columns([name])[0]]


def _alike(n_events: int, *, jet_pt: float = 60.0, flavors: tuple[int, ...] = (BOTTOM, BOTTOM)) -> BsmTruth:
    """Events with a central muon and four jets far apart, of 60, 59, 58 and 57 GeV unless said otherwise."""
    truth = toy_bsm_truth(n_events)
    jets, flavor = np.zeros(truth.jets.shape), np.zeros(truth.flavor.shape)
    for number in range(4):
        jets[:, number] = jet_pt - number, 0.3 * number - 0.5, 1.5 * number - 2.2
    flavor[:, : len(flavors)] = flavors
    lepton = np.tile([40.0, -2.0, 0.1], (n_events, 1))
    muons = np.ones(n_events, dtype=np.bool_)
    return replace(truth, jets=jets, flavor=flavor, lepton=lepton, lepton_is_muon=muons)


def test_a_perfect_detector_sees_the_truth() -> None:
    truth = _alike(400)
    selected = simulate_bsm_detector(truth, _EXACT, np.random.default_rng(1))
    events = selected.events
    assert 0.8 < selected.kept.mean() < 1.0
    for number in range(4):
        np.testing.assert_allclose(_column(events, f"jet_{number + 1}_pt"), 60.0 - number, atol=1e-2)
        np.testing.assert_allclose(_column(events, f"jet_{number + 1}_eta"), 0.3 * number - 0.5, atol=1e-3)
        assert ((_column(events, f"jet_{number + 1}_btag") > 0) == (number < 2)).all()
    lepton = _column(events, "lepton_pT")
    azimuth = _column(events, "missing_energy_phi")
    missing = _column(events, "missing_energy_magnitude")[:, None] * np.stack(
        [np.cos(azimuth), np.sin(azimuth)], axis=1
    )
    # Only the lepton is smeared here, and what is mismeasured of it is missing with the other sign.
    expected = truth.invisible[selected.kept].astype(np.float64)
    expected -= (lepton - 40.0)[:, None] * np.array([np.cos(0.1), np.sin(0.1)])
    scale = 1e-2 + 1e-3 * np.linalg.norm(expected, axis=1, keepdims=True)
    assert (np.abs(missing - expected) < 2.0 * scale).all()


def test_the_missing_momentum_is_that_of_jets_before_their_correction() -> None:
    truth = _alike(200)
    missing = bsm_columns(["missing_energy_magnitude", "missing_energy_phi"])
    plain, corrected = (
        simulate_bsm_detector(truth, response, np.random.default_rng(8)).events
        for response in (_EXACT, replace(_EXACT, jet_offset=9.0, tag_factor=1.3))
    )
    assert (_column(corrected, "jet_1_pt") > _column(plain, "jet_1_pt") + 20.0).all()
    np.testing.assert_array_equal(corrected[:, missing], plain[:, missing])


@pytest.mark.parametrize(
    ("flavor", "name", "efficiency"),
    [(BOTTOM, "bottom", 0.77), (CHARM, "charm", 0.16), (LIGHT, "light", 0.0075)],
)
def test_jets_are_tagged_with_the_documented_efficiencies(flavor: int, name: str, efficiency: float) -> None:
    # Only jets of one flavor are ever tagged, and an event is kept if exactly two of them are.
    n_events = 10_000
    nothing = replace(BsmResponse(), bottom_efficiency=0.0, charm_efficiency=0.0, light_efficiency=0.0)
    response = replace(nothing, **{f"{name}_efficiency": getattr(BsmResponse(), f"{name}_efficiency")})
    flavors = (flavor,) * 2
    counts = simulate_bsm_detector(
        _alike(n_events, flavors=flavors), response, np.random.default_rng(2)
    ).cut_flow
    n_four = counts["four jets"]
    n_others = 2 if name == "light" else 0
    pairs = (2 + n_others) * (1 + n_others) / 2
    expected = pairs * efficiency**2 * (1.0 - efficiency) ** n_others
    found = counts["two tags"] / n_four
    assert abs(found - expected) < _SIGMAS * np.sqrt(expected * (1 - expected) / n_four)


def test_tight_tags_have_their_share_and_reach_no_further_than_the_tracker() -> None:
    response = replace(_EXACT, tight_share=0.81)
    events = simulate_bsm_detector(_alike(5_000), response, np.random.default_rng(3)).events
    tags = events[:, bsm_columns(["jet_1_btag", "jet_2_btag"])]
    assert set(np.unique(tags)) == {1.0, 2.0}
    assert abs((tags == 2.0).mean() - 0.81) < _SIGMAS * np.sqrt(0.81 * 0.19 / tags.size)
    forward = _alike(500)
    jets = forward.jets.copy()
    jets[:, 0, 1] = 1.8
    counts = simulate_bsm_detector(replace(forward, jets=jets), _EXACT, np.random.default_rng(3)).cut_flow
    assert counts["four jets"] > 400
    assert counts["two tags"] == 0


@pytest.mark.parametrize("pt", [30.0, 120.0])
def test_jets_are_smeared_and_corrected_as_documented(pt: float) -> None:
    response = replace(BsmResponse(), bottom_efficiency=1.0, light_efficiency=0.0, jet_pt_min=0.0)
    truth = _alike(5_000, jet_pt=pt)
    # Far apart in momentum, so that smearing does not change their order.
    jets = truth.jets.copy()
    jets[:, :4, 0] = np.array([8.0, 1.0, 0.1, 0.02]) * pt
    events = simulate_bsm_detector(replace(truth, jets=jets), response, np.random.default_rng(4)).events
    raw = _column(events, "jet_2_pt") / response.tag_factor - response.jet_offset
    c, s, n = response.jet_resolution
    expected = np.sqrt(c**2 + s**2 / pt + n**2 / pt**2)
    assert abs(raw.mean() / pt - 1.0) < _SIGMAS * expected / np.sqrt(len(raw))
    # The deviation of a log-normal is known worse than that of a Gaussian.
    assert abs(raw.std() / pt / expected - 1.0) < 2.0 * _SIGMAS / np.sqrt(2 * len(raw))
    # Half the width of the middle 68%: a few events have their jets in another order.
    spread = np.subtract(*np.quantile(_column(events, "jet_2_eta"), [0.8413, 0.1587])) / 2.0
    assert abs(spread / response.jet_angle - 1.0) < 2.0 * _SIGMAS / np.sqrt(2 * len(raw))


def test_a_jet_on_the_lepton_or_a_missing_jet_costs_the_event() -> None:
    truth = _alike(200)
    near = truth.jets.copy()
    near[:, 3, 1:] = truth.lepton[:, 1:] + np.array([0.25, 0.0])
    counts = simulate_bsm_detector(replace(truth, jets=near), _EXACT, np.random.default_rng(5)).cut_flow
    assert counts["isolated"] == 0 < counts["lepton pt and eta"]
    few = truth.jets.copy()
    few[:, 3, 0] = 14.9
    counts = simulate_bsm_detector(replace(truth, jets=few), _EXACT, np.random.default_rng(5)).cut_flow
    assert counts["four jets"] == 0 < counts["isolated"]
    # The correction lifts it above the threshold.
    lifted = replace(_EXACT, jet_offset=4.0)
    assert simulate_bsm_detector(replace(truth, jets=few), lifted, np.random.default_rng(5)).kept.any()


def test_selected_events_pass_the_thresholds_and_are_stored_as_they_were_selected() -> None:
    response = BsmResponse()
    truth = toy_bsm_truth(5_000)
    selected = simulate_bsm_detector(truth, response, np.random.default_rng(6))
    events = selected.events
    assert list(selected.cut_flow.values()) == sorted(selected.cut_flow.values(), reverse=True)
    assert selected.cut_flow["preselected"] == len(truth)
    assert len(events) == selected.kept.sum() == selected.cut_flow["two tags"] > 300
    assert (_column(events, "lepton_pT") > 15.0).all()
    assert (np.abs(_column(events, "lepton_eta")) < 2.5).all()
    # Rounding to 0.01 GeV may bring a jet to the threshold.
    assert (_column(events, "jet_4_pt") >= 15.0).all()
    etas = events[:, bsm_columns(f"jet_{number}_eta" for number in range(1, 5))]
    assert 2.4 < np.abs(etas).max() <= 3.0
    tagged = events[:, bsm_columns(f"jet_{number}_btag" for number in range(1, 5))] > 0
    assert (tagged.sum(axis=1) <= 2).all()
    assert np.abs(etas[tagged]).max() <= 1.75
    stored = round_bsm(check_bsm("toys", events))
    np.testing.assert_allclose(stored[:, :21], events[:, :21], atol=4e-5)
    masses = high_level_of_four_jets(stored)
    usable = np.isfinite(masses[:, 4])
    np.testing.assert_allclose(masses[usable, 4], stored[usable, 25], atol=2e-3)


def test_the_paper_asks_for_harder_jets() -> None:
    truth = toy_bsm_truth(2000)
    ours, paper = (
        simulate_bsm_detector(truth, response, np.random.default_rng(7)).events
        for response in (BsmResponse(), BsmResponse.of_the_paper())
    )
    assert _column(ours, "jet_4_pt").min() < 19.5
    assert _column(paper, "jet_4_pt").min() >= 20.0
    assert _column(paper, "lepton_pT").min() > 20.0


def test_the_seed_fixes_everything() -> None:
    truth = toy_bsm_truth(500)
    first, again, other = (
        simulate_bsm_detector(truth, BsmResponse(), np.random.default_rng(seed)).events for seed in (1, 1, 2)
    )
    np.testing.assert_array_equal(first, again)
    assert first.shape != other.shape or not np.array_equal(first, other)


@pytest.mark.parametrize(
    "wrong",
    [
        {"bottom_efficiency": 1.2},
        {"tag_factor": 0.0},
        {"jet_resolution": (0.1, -0.5, 1.0)},
        {"soft_response": 2.0},
        {"jet_pt_min": float("nan")},
    ],
)
def test_numbers_out_of_range_are_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ParameterError, match=next(iter(wrong))):
        BsmResponse(**wrong)  # type: ignore[arg-type]


def test_truth_of_the_wrong_shape_or_with_nan_is_refused() -> None:
    truth = toy_bsm_truth(3)
    with pytest.raises(DataError, match=r"jets must have shape \(3, 12, 3\)"):
        replace(truth, jets=truth.jets[:, :4])
    bad = truth.invisible.copy()
    bad[1] = np.nan
    with pytest.raises(DataError, match="invisible has NaN"):
        replace(truth, invisible=bad)
