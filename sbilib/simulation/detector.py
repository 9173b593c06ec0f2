r"""A fast detector response: from particle-level events to the 16 primary quantities.

Each object is measured on its own, with the numbers of :class:`DetectorResponse`:

* electrons and muons are found with an efficiency and their momentum is smeared;
* the hadronic tau and the jets are measured by the calorimeter with a smeared response,
  :math:`p_T^{raw} = r\,p_T\,(1 + \sigma g)`, then calibrated, :math:`p_T = s(p_T^{raw}, \eta)\,p_T^{raw}`;
* the missing momentum is minus the vector sum of lepton, tau, jets and soft recoil *before* calibration, so a
  calibrated tau and the missing momentum do not quite balance: in the reference sample the sum of lepton, tau
  and missing momentum points along the tau by 5 GeV in Z events without jets, which is this effect;
* an event is lost if lepton or tau are not found, are too close to each other or a jet, or fail a threshold.

Nearly all numbers are those of the ATLAS card of Delphes 3.5 (de Favereau et al., JHEP 02 (2014) 057;
``cards/delphes_card_ATLAS.tcl``); the FAIR Universe sample was made with Delphes and an ATLAS-like card.
There is no pile-up, and the particle-level events have no multiparton interactions.  Four numbers are tuned,
see :class:`DetectorResponse`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from sbilib.errors import check_range
from sbilib.simulation.schema import MISSING, PRIMARY
from sbilib.simulation.truth import TruthEvents

__all__ = [
    "DetectedEvents",
    "DetectorResponse",
    "calorimeter_resolution",
    "detector_cut_flow",
    "positive_factor",
    "simulate_detector",
    "transverse",
    "wrapped",
]

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class DetectorResponse:
    r"""The numbers of the detector response; a pair is (barrel, endcap), split at ``barrel_eta``.

    A relative resolution is :math:`\sigma/E = \sqrt{c^2 + s^2/E + n^2/E^2}`, or for electrons and muons
    :math:`\sigma/p_T = \sqrt{a^2 + b^2 p_T^2}`; pt, E and n in GeV.

    Four numbers are tuned on events of the plain Pythia route to the 336 Higgs and 634 Z events of the FAIR
    Universe reference sample, after its cuts (lepton above 20 GeV, tau above 26 GeV): ``tau_response`` to the
    medians of the visible mass (82 and 68 GeV), ``jet_offset`` to the share of events with jets, and
    ``soft_response`` and ``soft_noise`` to lepton + tau + missing momentum in events without jets.  One set
    of numbers serves both processes.

    Args:
        barrel_eta: absolute pseudorapidity where barrel numbers end.
        electron_efficiency: track finding (.95, .83) times identification (.95, .85), Delphes card.
        muon_efficiency: track finding (.99, .98) times identification (.95, .85), Delphes card.
        electron_resolution: ``(a, b)`` in |eta| < 0.5, 0.5-1.5, above 1.5, Delphes card.
        muon_resolution: the same for muons, Delphes card.
        tau_efficiency: for one and for more charged hadrons, the medium selection of ATL-PHYS-PUB-2015-045.
        tau_response: calorimeter energy over true visible energy of a hadronic tau before calibration, tuned;
            above 1 as the reference takes the tau's energy from wide jets that collect other particles.
        tau_resolution: ``(c, s, n)`` of a hadronic tau: the hadronic calorimeter of the Delphes card with s
            and n times 0.7, as part of the energy is photons, which are measured much better.
        tau_angle: resolution of its eta and phi, from towers of 0.1 by 0.17 shared by its products.
        calibration: ``(k0, k1)`` of :math:`s = \sqrt{1 + (k_0 - k_1|\eta|)^2 / p_T^{raw}}`, Delphes card.
        jet_offset: GeV added to the pt of each jet after calibration, for what the wider jets (R = 0.6) of
            the reference collect from the underlying event, which our events do not have; tuned.
        jet_resolution: ``(c, s, n)`` with pt for E, of the order of ATLAS, Eur. Phys. J. C 81 (2021) 689.
        jet_angle: resolution of eta and phi of a jet.
        jet_pt_min: smallest pt of a jet in GeV; the Delphes card asks for 20 GeV before its calibration,
            which makes 22 to 24 GeV.
        jet_eta_max: largest absolute pseudorapidity of a jet.
        soft_response: measured over true momentum of the recoil outside jets; soft particles are lost in the
            thresholds of the towers, tuned.
        soft_noise: ``(n, s)``: the resolution of each component of the missing momentum beyond what the
            objects imply is :math:`\sqrt{n^2 + s^2 \sum p_T}` in GeV, with the sum over lepton, tau and jets;
            tuned.  ATLAS has s of about 0.5 with all of the event in the sum (Eur. Phys. J. C 78 (2018) 903).
        isolation: smallest distance of lepton and tau from each other and from a jet.
        lepton_pt_min, lepton_eta_max, tau_pt_min, tau_eta_max: thresholds of the stored events, in GeV.

    Raises:
        ParameterError: if a number is outside its range.

    Example:
        >>> DetectorResponse().calibrated(20.0, 0.0).round(2)
        np.float64(24.08)
    """

    barrel_eta: float = 1.5
    electron_efficiency: tuple[float, float] = (0.95 * 0.95, 0.83 * 0.85)
    muon_efficiency: tuple[float, float] = (0.99 * 0.95, 0.98 * 0.85)
    electron_resolution: tuple[tuple[float, float], ...] = ((0.03, 1.3e-3), (0.05, 1.7e-3), (0.15, 3.1e-3))
    muon_resolution: tuple[tuple[float, float], ...] = ((0.01, 1.0e-4), (0.015, 1.5e-4), (0.025, 3.5e-4))
    tau_efficiency: tuple[float, float] = (0.70, 0.60)
    tau_response: float = 1.05
    tau_resolution: tuple[float, float, float] = (0.030, 0.36, 1.1)
    tau_angle: float = 0.02
    calibration: tuple[float, float] = (3.0, 0.2)
    jet_offset: float = 6.0
    jet_resolution: tuple[float, float, float] = (0.03, 0.70, 3.0)
    jet_angle: float = 0.03
    jet_pt_min: float = 23.0
    jet_eta_max: float = 5.0
    soft_response: float = 0.85
    soft_noise: tuple[float, float] = (3.0, 0.85)
    isolation: float = 0.5
    lepton_pt_min: float = 20.0
    lepton_eta_max: float = 2.5
    tau_pt_min: float = 21.0
    tau_eta_max: float = 2.69

    def __post_init__(self) -> None:
        for name in ("electron_efficiency", "muon_efficiency", "tau_efficiency"):
            for value in getattr(self, name):
                check_range(name, value, low=0.0, high=1.0)
        check_range("soft_response", self.soft_response, low=0.0, high=1.0)
        for name in (
            "barrel_eta",
            "tau_response",
            "jet_eta_max",
            "lepton_eta_max",
            "tau_eta_max",
        ):
            check_range(name, getattr(self, name), low=0.0, include_low=False)
        for name in (
            "tau_angle",
            "jet_angle",
            "jet_offset",
            "jet_pt_min",
            "isolation",
            "lepton_pt_min",
            "tau_pt_min",
        ):
            check_range(name, getattr(self, name), low=0.0)
        for name in ("tau_resolution", "jet_resolution", "soft_noise", "calibration"):
            for value in getattr(self, name):
                check_range(name, value, low=0.0)
        for name in ("electron_resolution", "muon_resolution"):
            for constant, slope in getattr(self, name):
                check_range(name, constant, low=0.0)
                check_range(name, slope, low=0.0)

    def calibrated(self, raw_pt: Floats | float, eta: Floats | float) -> Floats:
        r"""Calibrated pt, :math:`\sqrt{p^2 + (k_0 - k_1|\eta|)^2 p}` in GeV, of a raw one, p."""
        raw = np.asarray(raw_pt, dtype=np.float64)
        return np.sqrt(raw**2 + self._excess(eta) * raw)

    def raw(self, pt: Floats | float, eta: Floats | float) -> Floats:
        """The inverse of :meth:`calibrated`."""
        half = self._excess(eta) / 2.0
        return np.sqrt(np.asarray(pt, dtype=np.float64) ** 2 + half**2) - half

    def _excess(self, eta: Floats | float) -> Floats:
        constant, slope = self.calibration
        return np.asarray(np.maximum(constant - slope * np.abs(eta), 0.0) ** 2, dtype=np.float64)

    def lepton_efficiency(self, eta: Floats, is_muon: NDArray[np.bool_]) -> Floats:
        """``(n,)`` probability to find each lepton."""
        barrel = np.abs(eta) <= self.barrel_eta
        electron, muon = (
            np.where(barrel, *pair) for pair in (self.electron_efficiency, self.muon_efficiency)
        )
        return np.where(is_muon, muon, electron)

    @property
    def common_efficiency(self) -> float:
        """The best lepton and tau efficiencies together, a factor that every event would share.

        It thins signal and background alike, so the simulation leaves it out: found with the probability of
        its efficiency over the best one, more of the generated events can be used.
        """
        return max(*self.electron_efficiency, *self.muon_efficiency) * max(self.tau_efficiency)

    def lepton_resolution(self, pt: Floats, eta: Floats, is_muon: NDArray[np.bool_]) -> Floats:
        """``(n,)`` relative resolution of the transverse momentum of each lepton."""
        region = np.digitize(np.abs(eta), (0.5, 1.5))
        electron, muon = (
            np.array(table)[region] for table in (self.electron_resolution, self.muon_resolution)
        )
        a, b = np.where(is_muon[:, None], muon, electron).T
        return np.asarray(np.hypot(a, b * pt))


class DetectedEvents(NamedTuple):
    """Events as the detector sees them.

    Args:
        primary: ``(m, 16)`` primary quantities in the order of :data:`sbilib.simulation.schema.PRIMARY`, in
            GeV and rad, of the events that are kept.
        kept: ``(n,)`` which of the true events are kept, in their order.
    """

    primary: NDArray[np.float32]
    kept: NDArray[np.bool_]


class _Measured(NamedTuple):
    lepton: Floats
    tau: Floats
    jets: Floats
    missing: Floats


def simulate_detector(
    truth: TruthEvents, response: DetectorResponse, generator: np.random.Generator
) -> DetectedEvents:
    """Simulate the detector's response to particle-level events.

    Args:
        truth: n events at particle level.
        response: the numbers of the detector.
        generator: source of the random numbers.

    Returns:
        the m events that are reconstructed and pass the thresholds, ``(m, 16)`` in GeV and rad, and a mask
        ``(n,)``.

    Example:
        >>> events = simulate_detector(TruthEvents.empty(), DetectorResponse(), np.random.default_rng(1))
        >>> events.primary.shape, events.kept.shape
        ((0, 16), (0,))
    """
    measured = _measure(truth, response, generator)
    kept = np.ones(len(truth), dtype=np.bool_)
    for passed in _cuts(truth, measured, response, generator).values():
        kept &= passed
    return DetectedEvents(_primary(_Measured(*(part[kept] for part in measured))), kept)


def detector_cut_flow(
    truth: TruthEvents, response: DetectorResponse, generator: np.random.Generator
) -> dict[str, int]:
    """How many events are left after each requirement, in order, beginning with the number of ``truth``.

    Example:
        >>> list(detector_cut_flow(TruthEvents.empty(), DetectorResponse(), np.random.default_rng(1)))[:2]
        ['preselected', 'lepton found']
    """
    measured = _measure(truth, response, generator)
    left = np.ones(len(truth), dtype=np.bool_)
    counts = {"preselected": len(truth)}
    for name, passed in _cuts(truth, measured, response, generator).items():
        left &= passed
        counts[name] = int(left.sum())
    return counts


def _measure(truth: TruthEvents, response: DetectorResponse, generator: np.random.Generator) -> _Measured:
    """What would be measured of each event if every object were found."""
    lepton, raw_tau, tau = truth.lepton.astype(np.float64), *_measure_tau(truth, response, generator)
    resolution = response.lepton_resolution(lepton[:, 0], lepton[:, 1], truth.lepton_is_muon)
    lepton[:, 0] *= positive_factor(resolution, generator)
    raw_jets, jets = _measure_jets(truth, response, generator)
    true_jets = truth.jets.astype(np.float64)
    soft = truth.recoil.astype(np.float64) - transverse(true_jets).sum(axis=1)
    noise, stochastic = response.soft_noise
    activity = lepton[:, 0] + raw_tau[:, 0] + raw_jets[..., 0].sum(axis=1)
    spread = np.sqrt(noise**2 + stochastic**2 * activity)[:, None]
    soft = response.soft_response * soft + spread * generator.standard_normal(soft.shape)
    missing = -(transverse(lepton) + transverse(raw_tau) + transverse(raw_jets).sum(axis=1) + soft)
    return _Measured(lepton, tau, jets, missing)


def _measure_tau(
    truth: TruthEvents, response: DetectorResponse, generator: np.random.Generator
) -> tuple[Floats, Floats]:
    """The hadronic tau ``(n, 3)`` before and after calibration."""
    pt, eta, phi = truth.tau[:, :3].astype(np.float64).T
    factor = positive_factor(calorimeter_resolution(pt * np.cosh(eta), response.tau_resolution), generator)
    raw = np.column_stack([response.tau_response * pt * factor, eta, phi])
    raw[:, 1:] += response.tau_angle * generator.standard_normal((len(truth), 2))
    calibrated = raw.copy()
    calibrated[:, 0] = response.calibrated(raw[:, 0], raw[:, 1])
    return raw, calibrated


def _measure_jets(
    truth: TruthEvents, response: DetectorResponse, generator: np.random.Generator
) -> tuple[Floats, Floats]:
    """All particle jets before calibration and the found ones after it, hardest first: ``(n, 8, 3)`` each."""
    raw = truth.jets[..., :3].astype(np.float64)
    present = raw[..., 0] > 0.0
    pt = np.where(present, raw[..., 0], 1.0)
    factor = positive_factor(calorimeter_resolution(pt, response.jet_resolution), generator)
    raw[..., 0] = np.where(present, response.raw(pt, raw[..., 1]) * factor, 0.0)
    raw[..., 1:] += response.jet_angle * generator.standard_normal(raw[..., 1:].shape) * present[..., None]
    jets = raw.copy()
    jets[..., 0] = response.calibrated(raw[..., 0], raw[..., 1]) + response.jet_offset * present
    found = (jets[..., 0] > response.jet_pt_min) & (np.abs(jets[..., 1]) < response.jet_eta_max)
    jets *= found[..., None]
    order = np.argsort(-jets[..., 0], axis=1, kind="stable")
    return raw, np.take_along_axis(jets, order[..., None], axis=1)


def _cuts(
    truth: TruthEvents, measured: _Measured, response: DetectorResponse, generator: np.random.Generator
) -> dict[str, NDArray[np.bool_]]:
    """Which events pass each requirement on its own, in the order of a cut flow."""
    lepton, tau, jets, _ = measured
    found_lepton = response.lepton_efficiency(lepton[:, 1], truth.lepton_is_muon)
    found_tau = np.where(truth.n_charged == 1, *response.tau_efficiency) / max(response.tau_efficiency)
    # Together with the division for the tau this leaves out `common_efficiency`.
    found_lepton = found_lepton / max(*response.electron_efficiency, *response.muon_efficiency)
    jet_found = jets[..., 0] > 0.0
    near_jet = [(_distance(part[:, None], jets) < response.isolation) & jet_found for part in (lepton, tau)]
    apart = _distance(lepton, tau) > response.isolation
    return {
        "lepton found": generator.random(len(truth)) < found_lepton,
        "tau found": generator.random(len(truth)) < found_tau,
        "isolated": apart & ~(near_jet[0] | near_jet[1]).any(axis=1),
        "lepton pt and eta": (lepton[:, 0] > response.lepton_pt_min)
        & (np.abs(lepton[:, 1]) < response.lepton_eta_max),
        "tau pt and eta": (tau[:, 0] > response.tau_pt_min) & (np.abs(tau[:, 1]) < response.tau_eta_max),
    }


def _primary(measured: _Measured) -> NDArray[np.float32]:
    """The table of the primary quantities, ``(n, 16)``."""
    lepton, tau, jets, missing = measured
    table = np.empty((len(lepton), len(PRIMARY)), dtype=np.float64)
    table[:, 0:3], table[:, 3:6] = lepton, tau
    table[:, 6:12] = np.where(jets[:, :2, :1] > 0.0, jets[:, :2], MISSING).reshape(-1, 6)
    table[:, 12] = (jets[..., 0] > 0.0).sum(axis=1)
    table[:, 13] = jets[..., 0].sum(axis=1)
    table[:, 14] = np.hypot(missing[:, 0], missing[:, 1])
    table[:, 15] = np.arctan2(missing[:, 1], missing[:, 0])
    for phi in (2, 5, 8, 11):
        present = table[:, phi] != MISSING
        table[present, phi] = wrapped(table[present, phi])
    return table.astype(np.float32)


def calorimeter_resolution(energy: Floats, numbers: tuple[float, float, float]) -> Floats:
    r"""Relative resolution :math:`\sqrt{c^2 + s^2/E + n^2/E^2}` of energies in GeV, of any shape.

    Example:
        >>> calorimeter_resolution(np.array([100.0]), (0.03, 0.4, 0.0)).round(3)
        array([0.05])
    """
    constant, stochastic, noise = numbers
    return np.sqrt(constant**2 + stochastic**2 / energy + (noise / energy) ** 2)


def positive_factor(resolution: Floats, generator: np.random.Generator) -> Floats:
    """Log-normal factors of mean 1 and standard deviation ``resolution``: never negative.

    Example:
        >>> positive_factor(np.zeros(2), np.random.default_rng(1))
        array([1., 1.])
    """
    width = np.sqrt(np.log1p(resolution**2))
    return np.exp(width * generator.standard_normal(resolution.shape) - width**2 / 2.0)


def transverse(momentum: Floats) -> Floats:
    """``(..., 2)`` px, py in GeV of momenta ``(..., pt eta phi)``.

    Example:
        >>> transverse(np.array([20.0, 1.3, np.pi / 2])).round(6)
        array([ 0., 20.])
    """
    pt, phi = momentum[..., 0], momentum[..., 2]
    return np.stack([pt * np.cos(phi), pt * np.sin(phi)], axis=-1)


def wrapped(phi: Floats) -> Floats:
    """Azimuths in [-pi, pi) rad, of any shape.

    Example:
        >>> wrapped(np.array([3.5 * np.pi])).round(4)
        array([-1.5708])
    """
    return (phi + math.pi) % (2.0 * math.pi) - math.pi


def _distance(first: Floats, second: Floats) -> Floats:
    """Distance in eta and phi of momenta ``(..., pt eta phi)``."""
    return np.asarray(np.hypot(first[..., 1] - second[..., 1], wrapped(first[..., 2] - second[..., 2])))
