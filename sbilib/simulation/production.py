r"""Production of tau pairs with stable taus, and the spin state in which each pair is made.

A Higgs boson has no spin, so its two taus have equal helicities, either one with probability one half.  The
vector couplings of Z and photon give opposite helicities, and the negative tau is left- or right-handed
according to the amplitudes of quark :math:`i` and tau :math:`j`, each left or right,

.. math::

    A_{ij} = Q_q Q_\tau + \frac{g^q_i\,g^\tau_j}{s_W^2 c_W^2}\,
    \frac{\hat s}{\hat s - M_Z^2 + i\hat s\,\Gamma_Z/M_Z},
    \qquad g_L = T_3 - Q s_W^2,\quad g_R = -Q s_W^2,

.. math::

    p(\tau^-_L) \propto |A_{LL}|^2 (1+c)^2 + |A_{RL}|^2 (1-c)^2, \qquad
    p(\tau^-_R) \propto |A_{RR}|^2 (1+c)^2 + |A_{LR}|^2 (1-c)^2,

where :math:`c` is the cosine of the angle between the quark and the negative tau in the rest frame of the
pair (ALEPH, DELPHI, L3, OPAL, SLD, Phys.  Rept. 427 (2006) 257, section 1.4).
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from sbilib.simulation.generator import import_pythia, tau_indices

__all__ = ["ProducedPairs", "produce", "right_handed_probability"]

_Z_MASS, _Z_WIDTH = 91.1876, 2.4952
_SIN2_WEINBERG = 0.2312
_MUON = 13


class ProducedPairs(NamedTuple):
    """A batch of tau pairs with the event around them.

    Args:
        negative: ``(n, 4)`` E, px, py, pz of the negative taus in GeV.
        positive: ``(n, 4)`` of the positive taus.
        quark: ``(n,)`` PDG code of the incoming quark (not the antiquark), or 21 for gluons.
        mass_squared: ``(n,)`` squared mass of the boson in GeV^2.
        cosine: ``(n,)`` cosine between quark and negative tau in the rest frame of the boson.
        records: the ``n`` event records, not yet hadronized, with a muon of the same momentum in place of
            each tau, so that Pythia hadronizes them without decaying the taus.
        positions: ``(n, 2)`` where these two muons are in the record.
    """

    negative: NDArray[np.float64]
    positive: NDArray[np.float64]
    quark: NDArray[np.int64]
    mass_squared: NDArray[np.float64]
    cosine: NDArray[np.float64]
    records: list[Any]
    positions: NDArray[np.int64]


def produce(pythia: Any, n_events: int) -> ProducedPairs:
    """Produce ``n_events`` tau pairs with a generator that stops before hadronization."""
    copy = import_pythia().Event
    rows: list[tuple[float, ...]] = []
    records: list[Any] = []
    positions: list[tuple[int, int]] = []
    while len(records) < n_events:
        if not pythia.next():
            continue
        record = copy(pythia.event)
        negative, positive = tau_indices(record)
        record[negative].id(_MUON)
        record[positive].id(-_MUON)
        positions.append((negative, positive))
        rows.append((*_momentum(record[negative]), *_momentum(record[positive]), *_hard(pythia.process)))
        records.append(record)
    table = np.array(rows)
    return ProducedPairs(
        negative=table[:, :4],
        positive=table[:, 4:8],
        quark=table[:, 8].astype(np.int64),
        mass_squared=table[:, 9],
        cosine=table[:, 10],
        records=records,
        positions=np.array(positions),
    )


def _momentum(particle: Any) -> tuple[float, float, float, float]:
    """E, px, py, pz of a particle."""
    return particle.e(), particle.px(), particle.py(), particle.pz()


def _hard(process: Any) -> tuple[float, float, float]:
    """Quark code, squared mass and cosine of the hard process, whose partons move along the z axis."""
    first = process[3]
    negative = process[6] if process[6].id() > 0 else process[7]
    boson = process[5]
    gamma, beta_gamma = boson.e() / boson.m(), boson.pz() / boson.m()
    along = gamma * negative.pz() - beta_gamma * negative.e()
    across = negative.pT()
    cosine = along / float(np.hypot(along, across))
    return first.idAbs(), boson.m() ** 2, cosine if first.id() > 0 else -cosine


def right_handed_probability(
    quark: ArrayLike, mass_squared: ArrayLike, cosine: ArrayLike
) -> NDArray[np.float64]:
    """Probability that the negative tau from quark and antiquark through Z/gamma* is right-handed.

    Args:
        quark: PDG codes 1 to 6 of the incoming quark.
        mass_squared: squared mass of the pair in GeV^2.
        cosine: cosine between quark and negative tau in the rest frame of the pair.

    Example:
        At low mass the photon dominates, and it has no preferred handedness.

        >>> float(right_handed_probability(2, 10.0**2, 0.0).round(2))
        0.5
        >>> float(right_handed_probability(2, 91.19**2, 0.0).round(2))
        0.43
    """
    up_type = np.asarray(quark) % 2 == 0
    s, c = np.asarray(mass_squared, dtype=np.float64), np.asarray(cosine, dtype=np.float64)
    charge = np.where(up_type, 2 / 3, -1 / 3)
    isospin = np.where(up_type, 0.5, -0.5)
    coupling = 1.0 / (_SIN2_WEINBERG * (1.0 - _SIN2_WEINBERG))
    propagator = coupling * s / (s - _Z_MASS**2 + 1j * s * _Z_WIDTH / _Z_MASS)

    def squared(quark_coupling: NDArray[np.float64], tau_coupling: float) -> NDArray[np.float64]:
        amplitude = -charge + quark_coupling * tau_coupling * propagator
        return np.asarray(np.abs(amplitude) ** 2)

    quark_left, quark_right = isospin - charge * _SIN2_WEINBERG, -charge * _SIN2_WEINBERG
    tau_left, tau_right = -0.5 + _SIN2_WEINBERG, _SIN2_WEINBERG
    forward, backward = (1.0 + c) ** 2, (1.0 - c) ** 2
    left = squared(quark_left, tau_left) * forward + squared(quark_right, tau_left) * backward
    right = squared(quark_right, tau_right) * forward + squared(quark_left, tau_right) * backward
    return np.asarray(right / (left + right))
