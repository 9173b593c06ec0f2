"""Events of the heavy Higgs boson search at particle level: what reaches the detector.

A truth event is one pair of W bosons with a bottom pair, where one W decays to an electron or muon and the
other to quarks.  It keeps the lepton, the sum of all neutrinos, and the jets with the flavor of their
heaviest hadron, in GeV and rad.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from sbilib.simulation.event_arrays import EventArrays

__all__ = ["BOTTOM", "CHARM", "LIGHT", "MAX_BSM_JETS", "BsmTruth"]

MAX_BSM_JETS = 12
"""Jets kept of an event, the hardest ones."""

LIGHT, CHARM, BOTTOM = 0, 4, 5
"""Flavors of a jet."""


@dataclass(frozen=True, eq=False)
class BsmTruth(EventArrays):
    r"""Particle-level events :math:`pp \to W^+W^-b\bar b + X \to \ell\nu\,q\bar q'\,b\bar b + X`, one a row.

    Momentum is balanced in the transverse plane: what is visible apart from the lepton is minus the sum of
    lepton and neutrinos.

    Args:
        lepton: ``(n, 3)`` pt in GeV, eta, phi in rad of the electron or muon from a W, taken as massless.
        lepton_is_muon: ``(n,)`` true for a muon, false for an electron.
        invisible: ``(n, 2)`` px, py in GeV of the sum of all neutrinos.
        jets: ``(n, 12, 3)`` pt, eta, phi of the hardest jets, hardest first; zero where there is none.
        flavor: ``(n, 12)`` `BOTTOM`, `CHARM` or `LIGHT`, the heaviest hadron in each jet.

    Raises:
        DataError: if a shape is wrong or a number is not finite.

    Example:
        >>> events = BsmTruth.empty()
        >>> len(events), events.jets.shape
        (0, (0, 12, 3))
    """

    SHAPES: ClassVar = {
        "lepton": (3,),
        "lepton_is_muon": (),
        "invisible": (2,),
        "jets": (MAX_BSM_JETS, 3),
        "flavor": (MAX_BSM_JETS,),
    }
    DTYPES: ClassVar = {"lepton_is_muon": np.dtype(np.bool_), "flavor": np.dtype(np.int8)}

    lepton: NDArray[np.float32]
    lepton_is_muon: NDArray[np.bool_]
    invisible: NDArray[np.float32]
    jets: NDArray[np.float32]
    flavor: NDArray[np.int8]
