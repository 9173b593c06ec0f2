r"""A fast detector response for the heavy Higgs search, and its selection: particle level to 28 features.

Each object is measured on its own, with the numbers of :class:`BsmResponse`:

* electrons and muons are found with an efficiency and their momentum is smeared;
* the momentum of a jet is smeared, then corrected for what leaves its cone, :math:`p_T = p_T^{raw} + o`; a
  tagged jet gets a further factor, as some of its momentum is that of neutrinos;
* a jet is tagged with an efficiency that depends on its flavor; some of the tagged jets pass a tight
  requirement, too;
* the missing momentum is minus the vector sum of lepton, raw jets and what is left, the soft recoil.

An event is kept if there is one lepton, far from every jet, at least four jets, and exactly two of them are
tagged.

The thresholds are those of the public HIGGS file.  Its paper (Baldi, Sadowski, Whiteson, Nature Commun. 5
(2014) 4308) gives 20 GeV and pseudorapidities up to 2.5 for lepton and jets, with at least two tags.  In the
file itself the softest lepton and jets have 15 GeV, jets reach a pseudorapidity of 3 and tagged jets 1.75, no
jet is closer than 0.4 to the lepton, and no event has more than two tags.  :meth:`BsmResponse.of_the_paper`
has the numbers of the paper.

There is no pile-up, and the particle-level events have no multiparton interactions.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from sbilib.errors import check_range
from sbilib.simulation.bsm_features import high_level
from sbilib.simulation.bsm_schema import ANGLE_STEP, BSM_FEATURES, BSM_LOW_LEVEL, MOMENTUM_STEP
from sbilib.simulation.bsm_truth import BOTTOM, CHARM, BsmTruth
from sbilib.simulation.detector import (
    DetectorResponse,
    calorimeter_resolution,
    positive_factor,
    transverse,
    wrapped,
)

__all__ = ["BsmResponse", "BsmSelected", "simulate_bsm_detector"]

Floats = NDArray[np.float64]
_LEPTONS = DetectorResponse()


@dataclass(frozen=True)
class BsmResponse:
    r"""The numbers of the detector response and the selection; momenta in GeV.

    Leptons are found and smeared with the numbers of `sbilib.simulation.detector.DetectorResponse`, relative
    to the best efficiency.  A relative resolution of jets is :math:`\sqrt{c^2 + s^2/p_T + n^2/p_T^2}`.

    ``jet_offset`` and ``tag_factor`` are derived from 15,000 events each of signal and background of
    `sbilib.simulation.bsm_generator`.  The offset: quarks of W bosons that are alone have, in the median, 4.0
    GeV more than the jet closest to them, within 0.4 GeV from 20 to 250 GeV.  The factor: it brings the peak
    of m_bb of the signal from 114 to 125 GeV; a bottom jet lacks neutrinos and what the quark radiated far.

    Args:
        jet_resolution: ``(c, s, n)``, of the order of ATLAS, Eur. Phys. J. C 81 (2021) 689, with less noise,
            as there is no pile-up.
        jet_angle: resolution of eta and phi of a jet.
        jet_offset: added to the raw momentum of each jet.
        tag_factor: by which the corrected momentum of a tagged jet is multiplied.
        bottom_efficiency: of the loose tag for jets with a bottom hadron; the three efficiencies are those of
            the 77% working point of ATLAS, ATL-PHYS-PUB-2016-012, at all momenta.
        charm_efficiency: for jets with a charmed hadron and none of bottom.
        light_efficiency: for all other jets.
        tight_share: share of tagged jets that pass the tight requirement; 0.81 in the public file.
        tag_eta_max: largest absolute pseudorapidity of a tagged jet.
        soft_response: measured over true momentum of the recoil outside jets.
        soft_noise: ``(n, s)``: the resolution of each component of the missing momentum beyond what lepton
            and jets imply is :math:`\sqrt{n^2 + s^2 \sum p_T}`; s as in ATLAS, Eur. Phys. J. C 78 (2018) 903.
        lepton_pt_min, lepton_eta_max, jet_pt_min, jet_eta_max: thresholds.
        isolation: smallest distance of the lepton from a jet.

    Raises:
        ParameterError: if a number is outside its range.

    Example:
        >>> BsmResponse().corrected(np.array([20.0]), np.array([False]))
        array([24.])
    """

    jet_resolution: tuple[float, float, float] = (0.03, 0.70, 1.5)
    jet_angle: float = 0.03
    jet_offset: float = 4.0
    tag_factor: float = 1.095
    bottom_efficiency: float = 0.77
    charm_efficiency: float = 0.16
    light_efficiency: float = 0.0075
    tight_share: float = 0.81
    tag_eta_max: float = 1.75
    soft_response: float = 0.85
    soft_noise: tuple[float, float] = (3.0, 0.5)
    lepton_pt_min: float = 15.0
    lepton_eta_max: float = 2.5
    jet_pt_min: float = 15.0
    jet_eta_max: float = 3.0
    isolation: float = 0.4

    def __post_init__(self) -> None:
        for name in ("bottom_efficiency", "charm_efficiency", "light_efficiency", "tight_share"):
            check_range(name, getattr(self, name), low=0.0, high=1.0)
        check_range("soft_response", self.soft_response, low=0.0, high=1.0)
        for name in ("tag_factor", "tag_eta_max", "lepton_eta_max", "jet_eta_max"):
            check_range(name, getattr(self, name), low=0.0, include_low=False)
        for name in ("jet_angle", "jet_offset", "lepton_pt_min", "jet_pt_min", "isolation"):
            check_range(name, getattr(self, name), low=0.0)
        for name in ("jet_resolution", "soft_noise"):
            for value in getattr(self, name):
                check_range(name, value, low=0.0)

    @classmethod
    def of_the_paper(cls) -> BsmResponse:
        """The thresholds that the paper of the public file gives, instead of those found in the file."""
        return cls(lepton_pt_min=20.0, jet_pt_min=20.0, jet_eta_max=2.5, tag_eta_max=2.5)

    @property
    def best_lepton_efficiency(self) -> float:
        """The largest efficiency to find a lepton; the simulation finds each with its own over this one."""
        return max(*_LEPTONS.electron_efficiency, *_LEPTONS.muon_efficiency)

    def corrected(self, raw_pt: Floats, tagged: NDArray[np.bool_]) -> Floats:
        """Corrected momenta of jets with momenta ``raw_pt`` in GeV, of any shape."""
        return (raw_pt + self.jet_offset) * np.where(tagged, self.tag_factor, 1.0)


class BsmSelected(NamedTuple):
    """Events as the detector sees them.

    Args:
        events: ``(m, 28)`` in the order of `BSM_FEATURES`, in GeV and rad, of the events that are kept.
        kept: ``(n,)`` which of the true events are kept, in their order.
        cut_flow: events left after each requirement, beginning with the number of true events.
    """

    events: NDArray[np.float64]
    kept: NDArray[np.bool_]
    cut_flow: dict[str, int]


class _Measured(NamedTuple):
    lepton: Floats
    missing: Floats
    """``(n, 2)`` magnitude and azimuth."""
    jets: Floats
    """``(n, 12, 4)`` pt, eta, phi and tag of the jets that are found, hardest first, 0 where none is."""


def simulate_bsm_detector(
    truth: BsmTruth, response: BsmResponse, generator: np.random.Generator
) -> BsmSelected:
    """Simulate the detector's response to particle-level events, and select.

    Args:
        truth: n events at particle level.
        response: the numbers of the detector.
        generator: source of the random numbers.

    Returns:
        the m events that are reconstructed and selected.

    Example:
        >>> selected = simulate_bsm_detector(BsmTruth.empty(), BsmResponse(), np.random.default_rng(1))
        >>> selected.events.shape, selected.kept.shape
        ((0, 28), (0,))
    """
    measured = _measure(truth, response, generator)
    kept = np.ones(len(truth), dtype=np.bool_)
    counts = {"preselected": len(truth)}
    for name, passed in _cuts(truth, measured, response, generator).items():
        kept &= passed
        counts[name] = int(kept.sum())
    return BsmSelected(_features(_Measured(*(part[kept] for part in measured))), kept, counts)


def _measure(truth: BsmTruth, response: BsmResponse, generator: np.random.Generator) -> _Measured:
    """What would be measured of each event if the lepton were found."""
    lepton = truth.lepton.astype(np.float64)
    resolution = _LEPTONS.lepton_resolution(lepton[:, 0], lepton[:, 1], truth.lepton_is_muon)
    lepton[:, 0] *= positive_factor(resolution, generator)
    lepton[:, 2] = wrapped(lepton[:, 2])
    raw, jets = _measure_jets(truth, response, generator)
    visible = -(transverse(truth.lepton.astype(np.float64)) + truth.invisible)
    soft = visible - transverse(truth.jets.astype(np.float64)).sum(axis=1)
    noise, stochastic = response.soft_noise
    spread = np.sqrt(noise**2 + stochastic**2 * (lepton[:, 0] + raw[..., 0].sum(axis=1)))[:, None]
    soft = response.soft_response * soft + spread * generator.standard_normal(soft.shape)
    missing = -(transverse(lepton) + transverse(raw).sum(axis=1) + soft)
    polar = np.column_stack(
        [np.hypot(missing[:, 0], missing[:, 1]), np.arctan2(missing[:, 1], missing[:, 0])]
    )
    # Rounded before cuts and masses, so that both can be repeated with what is stored.
    return _Measured(*(_rounded(part) for part in (lepton, polar, jets)))


def _rounded(momenta: Floats) -> Floats:
    """``(..., pt eta phi ...)`` or ``(..., pt phi)`` in the steps of the schema."""
    steps = np.full(momenta.shape[-1], ANGLE_STEP)
    steps[0] = MOMENTUM_STEP
    rounded: Floats = np.round(momenta / steps) * steps
    return rounded


def _measure_jets(
    truth: BsmTruth, response: BsmResponse, generator: np.random.Generator
) -> tuple[Floats, Floats]:
    """All particle jets ``(n, 12, 3)`` before correction, and the found ones ``(n, 12, 4)`` after it."""
    raw = truth.jets.astype(np.float64)
    present = raw[..., 0] > 0.0
    pt = np.where(present, raw[..., 0], 1.0)
    raw[..., 0] *= positive_factor(calorimeter_resolution(pt, response.jet_resolution), generator)
    raw[..., 1:] += response.jet_angle * generator.standard_normal(raw[..., 1:].shape) * present[..., None]
    raw[..., 2] = wrapped(raw[..., 2])
    found = present & (response.corrected(raw[..., 0], np.zeros_like(present)) > response.jet_pt_min)
    found &= np.abs(raw[..., 1]) < response.jet_eta_max
    tag = _tags(truth, raw, response, generator)
    jets = np.concatenate([raw, tag[..., None]], axis=-1)
    jets[..., 0] = response.corrected(raw[..., 0], tag > 0.0)
    jets *= found[..., None]
    order = np.argsort(-jets[..., 0], axis=1, kind="stable")
    return raw, np.take_along_axis(jets, order[..., None], axis=1)


def _tags(truth: BsmTruth, raw: Floats, response: BsmResponse, generator: np.random.Generator) -> Floats:
    """``(n, 12)`` 0 without tag, 1 for a loose and 2 for a tight one."""
    efficiency = np.full(truth.flavor.shape, response.light_efficiency)
    efficiency[truth.flavor == CHARM] = response.charm_efficiency
    efficiency[truth.flavor == BOTTOM] = response.bottom_efficiency
    loose = generator.random(efficiency.shape) < efficiency
    loose &= np.abs(raw[..., 1]) < response.tag_eta_max
    tight = generator.random(efficiency.shape) < response.tight_share
    return np.where(loose, np.where(tight, 2.0, 1.0), 0.0)


def _cuts(
    truth: BsmTruth, measured: _Measured, response: BsmResponse, generator: np.random.Generator
) -> dict[str, NDArray[np.bool_]]:
    """Which events pass each requirement on its own, in the order of a cut flow."""
    lepton, _, jets = measured
    found_lepton = _LEPTONS.lepton_efficiency(lepton[:, 1], truth.lepton_is_muon)
    found_lepton = found_lepton / response.best_lepton_efficiency
    present = jets[..., 0] > 0.0
    turn = wrapped(jets[..., 2] - lepton[:, 2:3])
    near = (np.hypot(jets[..., 1] - lepton[:, 1:2], turn) < response.isolation) & present
    return {
        "lepton found": generator.random(len(truth)) < found_lepton,
        "lepton pt and eta": (lepton[:, 0] > response.lepton_pt_min)
        & (np.abs(lepton[:, 1]) < response.lepton_eta_max),
        "isolated": ~near.any(axis=1),
        "four jets": present.sum(axis=1) >= 4,
        "two tags": (jets[..., 3] > 0.0).sum(axis=1) == 2,
    }


def _features(measured: _Measured) -> Floats:
    """The table of all features, ``(n, 28)``."""
    lepton, missing, jets = measured
    n_events, n_low = len(lepton), len(BSM_LOW_LEVEL)
    table = np.empty((n_events, len(BSM_FEATURES)), dtype=np.float64)
    table[:, :3], table[:, 3:5] = lepton, missing
    table[:, 5:n_low] = jets[:, :4].reshape(n_events, n_low - 5)
    table[:, n_low:] = high_level(lepton, missing, jets)
    return table
