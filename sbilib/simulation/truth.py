"""Events at particle level: what reaches the detector, before any response.

A truth event is one tau pair with one leptonic and one hadronic decay.  It keeps the light lepton, the
visible part of the hadronic tau, the neutrinos, the jets, and the recoil, in GeV and rad.
"""

from __future__ import annotations

import zipfile
from dataclasses import dataclass, fields
from pathlib import Path
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from sbilib.errors import DataError
from sbilib.simulation.event_arrays import EventArrays

__all__ = ["MAX_JETS", "TruthEvents"]

MAX_JETS = 8


@dataclass(frozen=True, eq=False)
class TruthEvents(EventArrays):
    r"""Particle-level events :math:`pp \to \tau_\ell\,\tau_h + X`, one row per event.

    Momentum is balanced in the transverse plane: lepton, tau, invisible and recoil add up to zero.

    Args:
        lepton: ``(n, 3)`` pt in GeV, eta, phi in rad of the electron or muon, which is taken as massless.
        lepton_is_muon: ``(n,)`` true for a muon, false for an electron.
        tau: ``(n, 4)`` pt, eta, phi, mass of all products of the hadronic tau except its neutrino.
        n_charged: ``(n,)`` number of charged hadrons among these products.
        invisible: ``(n, 2)`` px, py in GeV of the sum of all neutrinos.
        jets: ``(n, 8, 4)`` pt, eta, phi, mass of the hardest jets, hardest first; zero where there is none.
        recoil: ``(n, 2)`` px, py in GeV of everything visible apart from lepton and tau.

    Raises:
        DataError: if a shape is wrong or a number is not finite.

    Example:
        >>> events = TruthEvents.empty()
        >>> len(events), events.jets.shape
        (0, (0, 8, 4))
    """

    SHAPES: ClassVar = {
        "lepton": (3,),
        "lepton_is_muon": (),
        "tau": (4,),
        "n_charged": (),
        "invisible": (2,),
        "jets": (MAX_JETS, 4),
        "recoil": (2,),
    }
    DTYPES: ClassVar = {"lepton_is_muon": np.dtype(np.bool_), "n_charged": np.dtype(np.int8)}

    lepton: NDArray[np.float32]
    lepton_is_muon: NDArray[np.bool_]
    tau: NDArray[np.float32]
    n_charged: NDArray[np.int8]
    invisible: NDArray[np.float32]
    jets: NDArray[np.float32]
    recoil: NDArray[np.float32]

    def preselected(self, *, pt: float = 15.0, eta: float = 2.7) -> NDArray[np.bool_]:
        """``(n,)`` true where lepton and visible tau both have more than ``pt`` GeV and less than ``eta``."""
        keep = np.ones(len(self), dtype=np.bool_)
        for momentum in (self.lepton, self.tau):
            keep &= (momentum[:, 0] > pt) & (np.abs(momentum[:, 1]) < eta)
        return keep

    def save(self, path: Path) -> None:
        """Write the events to ``path`` as a compressed NumPy archive without pickled objects."""
        with path.open("wb") as file:
            np.savez_compressed(file, **{field.name: getattr(self, field.name) for field in fields(self)})

    @classmethod
    def load(cls, path: Path) -> TruthEvents:
        """Read events that :meth:`save` wrote.

        Raises:
            DataError: if the file is missing, damaged, or holds other arrays.
        """
        try:
            with np.load(path, allow_pickle=False) as archive:
                return cls(**{name: archive[name] for name in cls.SHAPES})
        except (OSError, EOFError, KeyError, ValueError, zipfile.BadZipFile) as error:
            raise DataError(
                f"{path} must be a NumPy archive of truth events, and cannot be read as one ({error}); "
                "generate it again"
            ) from error
