r"""The seven high-level features of the heavy Higgs search: masses of what may have decayed.

Objects are massless, so two of them have :math:`m^2 = 2 p_T p_T' (\cosh\Delta\eta - \cos\Delta\phi)`.

- ``m_bb``: the two tagged jets; the light Higgs boson of the signal.
- ``m_jj``: two jets without tag, those whose mass is closest to 80.4 GeV; the W that decays to quarks.
- ``m_lv``: lepton and neutrino.  The neutrino has the missing transverse momentum and the pseudorapidity,
  among -3, -2.95, ..., 3, that brings the mass closest to 80.4 GeV.  If the transverse mass is larger than
  that, no rapidity reaches it, and ``m_lv`` is about the transverse mass.
- ``m_jjj``: that pair and one tagged jet, the one that brings the mass closest to 175 GeV; a top quark.
- ``m_jlv``: lepton, neutrino and the other tagged jet; the other top quark.
- ``m_wbb``: the two tagged jets and a W, the one with which the mass is larger; the charged Higgs boson.
- ``m_wwbb``: the two tagged jets and both W; the heavy Higgs boson.

All jets of an event take part, not only the four hardest.

The definitions are those of the public HIGGS file.  Its paper (Baldi, Sadowski, Whiteson, Nature Commun. 5
(2014) 4308) gives the meaning of each mass; the choice of jets, the 175 GeV and the grid of rapidities we
read off the file itself, where they reproduce its columns from its momenta.
"""

from __future__ import annotations

import itertools

import numpy as np
from numpy.typing import NDArray

from sbilib.errors import DataError
from sbilib.simulation.bsm_schema import BSM_HIGH_LEVEL, BSM_LOW_LEVEL, bsm_columns
from sbilib.simulation.schema import Rows

__all__ = ["NEUTRINO_RAPIDITIES", "TOP_MASS", "W_MASS", "high_level", "high_level_of_four_jets"]

W_MASS = 80.4
"""In GeV, of both W bosons."""

TOP_MASS = 175.0
"""In GeV, to choose the jet that goes with the hadronic W."""

NEUTRINO_RAPIDITIES = np.arange(-60, 61) * 0.05
"""Pseudorapidities among which that of the neutrino is chosen."""

Floats = NDArray[np.float64]


def high_level(lepton: Rows, missing: Rows, jets: Rows) -> Floats:
    """The masses of `BSM_HIGH_LEVEL` in GeV.

    Args:
        lepton: ``(n, 3)`` pt in GeV, eta, phi in rad.
        missing: ``(n, 2)`` missing transverse momentum in GeV and its azimuth.
        jets: ``(n, k, 4)`` pt in GeV, eta, phi and tag of the jets, pt 0 where there is none; exactly two are
            tagged, which means a tag above 0, and at least two are not.

    Returns:
        ``(n, 7)`` masses in the order of `BSM_HIGH_LEVEL`.

    Raises:
        DataError: if a shape is wrong or an event has other numbers of jets.

    Example:
        Two tagged jets back to back in azimuth with 60 GeV each have a mass of 120 GeV:

        >>> jets = np.array([[[60, 0, 0, 2], [60, 0, np.pi, 1], [40.2, 0, 1, 0], [40.2, 0, 1 - np.pi, 0]]])
        >>> masses = high_level(np.array([[40.2, 0, 0]]), np.array([[40.2, np.pi]]), jets)
        >>> dict(zip(BSM_HIGH_LEVEL, masses[0].round(1).tolist()))["m_bb"]
        120.0
    """
    lepton, missing, jets = (np.asarray(part, dtype=np.float64) for part in (lepton, missing, jets))
    _check(lepton, missing, jets)
    first_b, second_b = _tagged(jets)
    hadronic = _hadronic_w(jets)
    leptonic = _four_momentum(lepton) + _neutrino(lepton, missing)
    first, second = _mass(hadronic + first_b), _mass(hadronic + second_b)
    first_closer = np.abs(first - TOP_MASS) < np.abs(second - TOP_MASS)
    pair = first_b + second_b
    masses = {
        "m_jj": _mass(hadronic),
        "m_jjj": np.where(first_closer, first, second),
        "m_lv": _mass(leptonic),
        "m_jlv": _mass(leptonic + np.where(first_closer[:, None], second_b, first_b)),
        "m_bb": _mass(pair),
        "m_wbb": np.maximum(_mass(pair + hadronic), _mass(pair + leptonic)),
        "m_wwbb": _mass(pair + hadronic + leptonic),
    }
    return np.stack([masses[name] for name in BSM_HIGH_LEVEL], axis=1)


def high_level_of_four_jets(events: Rows) -> Floats:
    """The masses ``(n, 7)`` in GeV of events ``(n, 21 or 28)`` of `BSM_LOW_LEVEL`, from four jets alone.

    They are those of the table wherever an event has no further jet that was tagged or makes a better W.
    Rows of events with other than two tags among the four jets are NaN.

    Raises:
        DataError: if the shape is wrong.
    """
    events = np.asarray(events, dtype=np.float64)
    if events.ndim != 2 or events.shape[1] < len(BSM_LOW_LEVEL):
        raise DataError(
            f"events must have shape (n_events, {len(BSM_LOW_LEVEL)}) or more columns, got {events.shape}; "
            "give the columns of BSM_LOW_LEVEL first"
        )
    places = bsm_columns(f"jet_{jet}_{part}" for jet in range(1, 5) for part in ("pt", "eta", "phi", "btag"))
    jets = events[:, places].reshape(-1, 4, 4)
    usable = (jets[..., 3] > 0.0).sum(axis=1) == 2
    masses = np.full((len(events), len(BSM_HIGH_LEVEL)), np.nan)
    masses[usable] = high_level(events[usable, :3], events[usable, 3:5], jets[usable])
    return masses


def _check(lepton: Floats, missing: Floats, jets: Floats) -> None:
    n_events = len(lepton)
    if lepton.shape != (n_events, 3) or missing.shape != (n_events, 2):
        raise DataError(
            f"lepton and missing must have shapes (n, 3) and (n, 2), got {lepton.shape} and {missing.shape}; "
            "give pt, eta, phi and magnitude, phi"
        )
    if jets.ndim != 3 or jets.shape[0] != n_events or jets.shape[1] < 4 or jets.shape[2] != 4:
        raise DataError(
            f"jets must have shape ({n_events}, 4 or more, 4), got {jets.shape}; give pt, eta, phi and tag"
        )
    present, tagged = jets[..., 0] > 0.0, jets[..., 3] > 0.0
    wrong = ((tagged & present).sum(axis=1) != 2) | ((present & ~tagged).sum(axis=1) < 2)
    if wrong.any():
        raise DataError(
            f"{int(wrong.sum())} of {n_events} events do not have exactly two tagged jets and at least two "
            f"others (first: event {int(np.flatnonzero(wrong)[0])}); select events before computing masses"
        )


def _four_momentum(momentum: Floats) -> Floats:
    """``(..., 4)`` E, px, py, pz of massless ``(..., pt eta phi ...)``."""
    pt, eta, phi = momentum[..., 0], momentum[..., 1], momentum[..., 2]
    return np.stack([pt * np.cosh(eta), pt * np.cos(phi), pt * np.sin(phi), pt * np.sinh(eta)], axis=-1)


def _mass(momentum: Floats) -> Floats:
    squared = momentum[..., 0] ** 2 - (momentum[..., 1:] ** 2).sum(axis=-1)
    mass: Floats = np.sqrt(np.maximum(squared, 0.0))
    return mass


def _tagged(jets: Floats) -> tuple[Floats, Floats]:
    """Four-momenta ``(n, 4)`` of the two tagged jets."""
    first = np.argsort(~(jets[..., 3] > 0.0), axis=1, kind="stable")[:, :2]
    momenta = _four_momentum(np.take_along_axis(jets, first[..., None], axis=1))
    return momenta[:, 0], momenta[:, 1]


def _hadronic_w(jets: Floats) -> Floats:
    """Four-momentum ``(n, 4)`` of the pair of jets without tag that is closest in mass to the W."""
    momenta = _four_momentum(jets)
    usable = (jets[..., 0] > 0.0) & ~(jets[..., 3] > 0.0)
    pairs = np.array(list(itertools.combinations(range(jets.shape[1]), 2)))
    sums = momenta[:, pairs[:, 0]] + momenta[:, pairs[:, 1]]
    distance = np.abs(_mass(sums) - W_MASS)
    distance[~(usable[:, pairs[:, 0]] & usable[:, pairs[:, 1]])] = np.inf
    best: Floats = np.take_along_axis(sums, distance.argmin(axis=1)[:, None, None], axis=1)[:, 0]
    return best


def _neutrino(lepton: Floats, missing: Floats) -> Floats:
    """Four-momentum ``(n, 4)`` of the neutrino."""
    turn = np.cos(lepton[:, 2] - missing[:, 1])[:, None]
    spread = np.cosh(lepton[:, 1:2] - NEUTRINO_RAPIDITIES)
    mass = np.sqrt(np.maximum(2.0 * (lepton[:, 0] * missing[:, 0])[:, None] * (spread - turn), 0.0))
    rapidity = NEUTRINO_RAPIDITIES[np.abs(mass - W_MASS).argmin(axis=1)]
    return _four_momentum(np.column_stack([missing[:, 0], rapidity, missing[:, 1]]))
