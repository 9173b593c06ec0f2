"""The detector response: it does to each object what its documented numbers say, and balances momentum.

Statistical tests allow 4.5 standard deviations: a false alarm in 150 000 for each number, with fixed seeds.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sbilib.errors import ParameterError
from sbilib.simulation.detector import DetectorResponse, detector_cut_flow, simulate_detector
from sbilib.simulation.schema import MISSING, PRIMARY
from sbilib.simulation.truth import TruthEvents

from .toy_truth import toy_truth, transverse

_SIGMAS = 4.5
_PERFECT = DetectorResponse(
    electron_efficiency=(1.0, 1.0),
    muon_efficiency=(1.0, 1.0),
    electron_resolution=((0.0, 0.0),) * 3,
    muon_resolution=((0.0, 0.0),) * 3,
    tau_efficiency=(1.0, 1.0),
    tau_response=1.0,
    tau_resolution=(0.0, 0.0, 0.0),
    tau_angle=0.0,
    calibration=(0.0, 0.0),
    jet_offset=0.0,
    jet_resolution=(0.0, 0.0, 0.0),
    jet_angle=0.0,
    soft_response=1.0,
    soft_noise=(0.0, 0.0),
    isolation=0.0,
)
_LOOSE = replace(_PERFECT, lepton_pt_min=0.0, tau_pt_min=0.0, lepton_eta_max=9.0, tau_eta_max=9.0)


def _column(primary: np.ndarray, name: str) -> np.ndarray:
    return primary[:, PRIMARY.index(f"PRI_{name}")].astype(np.float64)


def _missing(primary: np.ndarray) -> np.ndarray:
    met, phi = _column(primary, "met"), _column(primary, "met_phi")
    return np.stack([met * np.cos(phi), met * np.sin(phi)], axis=1)


def _alike(n_events: int, *, muon: bool, pt: float, eta: float, n_charged: int = 1) -> TruthEvents:
    """Events whose leptons and taus are all alike, back to back, without jets."""
    truth = toy_truth(n_events, n_jets=0)
    ones = np.ones(n_events)
    return replace(
        truth,
        lepton=np.column_stack([pt * ones, eta * ones, 0.0 * ones]),
        tau=np.column_stack([pt * ones, eta * ones, 3.0 * ones, 0.8 * ones]),
        lepton_is_muon=np.full(n_events, muon),
        n_charged=np.full(n_events, n_charged),
    )


def test_a_perfect_detector_sees_the_truth_and_the_neutrinos_are_missing() -> None:
    truth = toy_truth(2000)
    primary, kept = simulate_detector(truth, _LOOSE, np.random.default_rng(1))
    assert kept.all()
    np.testing.assert_allclose(primary[:, :3], truth.lepton, atol=1e-5)
    np.testing.assert_allclose(primary[:, 3:6], truth.tau[:, :3], atol=1e-5)
    np.testing.assert_allclose(_missing(primary), truth.invisible, atol=2e-4)


@pytest.mark.parametrize("response", [DetectorResponse(), _PERFECT])
def test_missing_momentum_balances_all_raw_objects(response: DetectorResponse) -> None:
    # Without soft terms and jets: minus the lepton and the tau before its calibration.
    response = replace(response, soft_response=0.0, soft_noise=(0.0, 0.0))
    primary, _ = simulate_detector(toy_truth(5000, n_jets=0), response, np.random.default_rng(2))
    tau = primary[:, 3:6].astype(np.float64)
    tau[:, 0] = response.raw(tau[:, 0], tau[:, 1])
    total = _missing(primary) + transverse(primary[:, :3].astype(np.float64)) + transverse(tau)
    np.testing.assert_allclose(total, 0.0, atol=1e-3)


@pytest.mark.parametrize(
    ("muon", "eta", "efficiency"),
    [(False, 0.7, 0.9025), (False, 2.0, 0.7055), (True, -0.7, 0.9405), (True, -2.0, 0.833)],
)
def test_leptons_are_found_with_the_documented_efficiency(muon: bool, eta: float, efficiency: float) -> None:
    n_events = 40_000
    truth = _alike(n_events, muon=muon, pt=40.0, eta=eta)
    found = detector_cut_flow(truth, DetectorResponse(), np.random.default_rng(3))["lepton found"]
    efficiency /= 0.9405  # relative to the best one
    sigma = np.sqrt(efficiency * abs(1 - efficiency) / n_events)
    assert abs(found / n_events - efficiency) <= _SIGMAS * sigma + 1e-9


def test_the_factor_left_out_is_the_product_of_the_best_efficiencies() -> None:
    assert DetectorResponse().common_efficiency == pytest.approx(0.9405 * 0.7)


@pytest.mark.parametrize(("n_charged", "efficiency"), [(1, 0.7), (2, 0.6), (3, 0.6)])
def test_taus_are_found_with_the_documented_efficiency(n_charged: int, efficiency: float) -> None:
    n_events = 40_000
    truth = _alike(n_events, muon=True, pt=40.0, eta=0.5, n_charged=n_charged)
    response = replace(DetectorResponse(), muon_efficiency=(1.0, 1.0))
    found = detector_cut_flow(truth, response, np.random.default_rng(4))["tau found"]
    efficiency /= 0.7  # relative to the best one
    sigma = np.sqrt(efficiency * abs(1 - efficiency) / n_events)
    assert abs(found / n_events - efficiency) <= _SIGMAS * sigma + 1e-9


@pytest.mark.parametrize(
    ("muon", "eta", "constant", "slope"),
    [
        (True, 0.2, 0.01, 1e-4),
        (True, -1.2, 0.015, 1.5e-4),
        (False, 0.2, 0.03, 1.3e-3),
        (False, 2.2, 0.15, 3.1e-3),
    ],
)
def test_leptons_are_smeared_without_bias_by_the_documented_resolution(
    muon: bool, eta: float, constant: float, slope: float
) -> None:
    pt, n_events = 60.0, 40_000
    response = replace(DetectorResponse(), lepton_pt_min=0.0)
    primary, kept = simulate_detector(
        _alike(n_events, muon=muon, pt=pt, eta=eta), response, np.random.default_rng(5)
    )
    ratio, expected = _column(primary, "lep_pt") / pt, np.hypot(constant, slope * pt)
    n_kept = int(kept.sum())
    assert abs(ratio.mean() - 1.0) < _SIGMAS * expected / np.sqrt(n_kept)
    assert abs(ratio.std() / expected - 1.0) < 1.5 * _SIGMAS / np.sqrt(2 * n_kept)


@pytest.mark.parametrize(("pt", "eta"), [(30.0, 0.1), (60.0, 1.5), (45.0, 2.4)])
def test_the_raw_tau_has_the_documented_response_and_resolution(pt: float, eta: float) -> None:
    response = replace(DetectorResponse(), tau_pt_min=0.0, tau_angle=0.0)
    primary, kept = simulate_detector(
        _alike(40_000, muon=True, pt=pt, eta=eta), response, np.random.default_rng(6)
    )
    ratio = response.raw(_column(primary, "had_pt"), eta) / (response.tau_response * pt)
    energy, (c, s, n) = pt * np.cosh(eta), response.tau_resolution
    expected = np.sqrt(c**2 + s**2 / energy + n**2 / energy**2)
    n_kept = int(kept.sum())
    assert abs(ratio.mean() - 1.0) < _SIGMAS * expected / np.sqrt(n_kept)
    assert abs(ratio.std() / expected - 1.0) < 1.5 * _SIGMAS / np.sqrt(2 * n_kept)


def test_the_soft_term_grows_with_the_activity_as_documented() -> None:
    for pt in (30.0, 120.0):
        response = replace(_LOOSE, soft_response=0.0, soft_noise=(3.0, 0.8))
        truth = _alike(20_000, muon=True, pt=pt, eta=0.0)
        primary, _ = simulate_detector(truth, response, np.random.default_rng(7))
        noise = _missing(primary) + transverse(truth.lepton) + transverse(truth.tau)
        expected = np.sqrt(3.0**2 + 0.8**2 * 2 * pt)
        assert abs(noise.std() / expected - 1.0) < _SIGMAS / np.sqrt(2 * noise.size)


@given(st.floats(1.0, 2000.0), st.floats(-5.0, 5.0))
def test_raw_inverts_the_calibration(pt: float, eta: float) -> None:
    response = DetectorResponse()
    assert response.raw(response.calibrated(pt, eta), eta) == pytest.approx(pt, rel=1e-9)
    assert response.calibrated(pt, eta) >= pt


def test_stored_events_pass_the_thresholds_and_their_jets_are_in_order() -> None:
    response = DetectorResponse()
    truth = TruthEvents.concatenate([toy_truth(4000, n_jets=number) for number in range(6)])
    primary, kept = simulate_detector(truth, response, np.random.default_rng(8))
    assert primary.shape == (kept.sum(), 16)
    assert primary.dtype == np.float32
    assert (_column(primary, "lep_pt") > 20.0).all()
    assert (np.abs(_column(primary, "lep_eta")) < 2.5).all()
    assert (_column(primary, "had_pt") > 21.0).all()
    n_jets, first, second = (
        _column(primary, name) for name in ("n_jets", "jet_leading_pt", "jet_subleading_pt")
    )
    total = _column(primary, "jet_all_pt")
    assert {0, 1, 2, 3, 4, 5} <= set(n_jets.tolist())
    np.testing.assert_array_equal(first == MISSING, n_jets == 0)
    np.testing.assert_array_equal(second == MISSING, n_jets < 2)
    assert (first[n_jets > 0] > response.jet_pt_min).all()
    assert (first >= second).all()
    assert (total[n_jets == 0] == 0.0).all()
    np.testing.assert_allclose(total[n_jets == 1], first[n_jets == 1], rtol=1e-6)
    np.testing.assert_allclose(total[n_jets == 2], (first + second)[n_jets == 2], rtol=1e-6)
    assert (total[n_jets > 2] > (first + second)[n_jets > 2] + response.jet_pt_min).all()
    for name in ("lep_phi", "had_phi", "met_phi"):
        assert (np.abs(_column(primary, name)) <= np.float32(np.pi)).all()


@pytest.mark.parametrize("crowded", ["lepton", "tau"])
def test_an_event_with_a_jet_on_the_lepton_or_the_tau_is_lost(crowded: str) -> None:
    truth = _alike(100, muon=True, pt=40.0, eta=0.3)
    jets = np.zeros((100, 8, 4))
    jets[:, 0, :3] = getattr(truth, crowded)[:, :3] + np.array([20.0, 0.2, 0.0])
    response = replace(_PERFECT, isolation=0.4)
    assert simulate_detector(truth, response, np.random.default_rng(9)).kept.all()
    assert not simulate_detector(replace(truth, jets=jets), response, np.random.default_rng(9)).kept.any()
    far = jets + np.array([0.0, 0.3, 0.0, 0.0])
    assert simulate_detector(replace(truth, jets=far), response, np.random.default_rng(9)).kept.all()


def test_the_cut_flow_falls_to_the_kept_events() -> None:
    truth = toy_truth(3000)
    kept = simulate_detector(truth, DetectorResponse(), np.random.default_rng(10)).kept
    counts = list(detector_cut_flow(truth, DetectorResponse(), np.random.default_rng(10)).values())
    assert counts[0] == len(truth)
    assert counts == sorted(counts, reverse=True)
    assert counts[-1] == kept.sum() < counts[0]


def test_the_seed_fixes_everything() -> None:
    truth = toy_truth(500)
    first, again, other = (
        simulate_detector(truth, DetectorResponse(), np.random.default_rng(seed)).primary
        for seed in (1, 1, 2)
    )
    np.testing.assert_array_equal(first, again)
    assert first.shape != other.shape or not np.array_equal(first, other)


@pytest.mark.parametrize(
    "wrong",
    [
        {"electron_efficiency": (1.2, 0.5)},
        {"tau_response": 0.0},
        {"jet_resolution": (0.1, -0.5, 1.0)},
        {"muon_resolution": ((0.01, -1.0),) * 3},
        {"soft_response": 2.0},
        {"tau_pt_min": float("nan")},
    ],
)
def test_numbers_out_of_range_are_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ParameterError, match=next(iter(wrong))):
        DetectorResponse(**wrong)  # type: ignore[arg-type]
