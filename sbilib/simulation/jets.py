r"""Particle jets: the anti-kt algorithm with :math:`R = 0.4` on the visible final state without the two taus.

The clustering runs inside Pythia, which contains the core of FastJet and prints its banner once; this saves
copying every particle to Python.  A test checks it against the fastjet package.  Algorithm: Cacciari, Salam,
Soyez, JHEP 04 (2008) 063.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from sbilib.simulation.generator import import_pythia
from sbilib.simulation.truth import MAX_JETS

__all__ = ["JetFinder"]


class JetFinder:
    """Finds the jets of one Pythia event after another.

    Args:
        radius: the parameter R of the algorithm.
        pt: smallest transverse momentum in GeV.
        eta: largest absolute pseudorapidity of the particles that are clustered and of the jets.
        n_jets: how many jets are kept of an event, the hardest ones.

    Particles whose status is negative are not in the final state, so marking the products of the taus so
    keeps them out of the jets.
    """

    def __init__(
        self, *, radius: float = 0.4, pt: float = 15.0, eta: float = 5.0, n_jets: int = MAX_JETS
    ) -> None:
        visible_only, true_masses = 2, 2
        self._eta, self._n_jets = eta, n_jets
        self._finder = import_pythia().SlowJet(-1, radius, pt, eta, visible_only, true_masses)

    def __call__(self, event: Any) -> NDArray[np.float32]:
        """``(n_jets, 4)`` pt, eta, phi, mass of the jets, hardest first, zero where there is none."""
        jets = np.zeros((self._n_jets, 4), dtype=np.float32)
        self._finder.analyze(event)
        n_kept = 0
        for index in range(self._finder.sizeJet()):
            momentum = self._finder.p(index)
            if abs(momentum.eta()) < self._eta and n_kept < self._n_jets:
                jets[n_kept] = momentum.pT(), momentum.eta(), momentum.phi(), momentum.mCalc()
                n_kept += 1
        return jets
