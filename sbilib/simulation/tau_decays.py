r"""A library of decays of a polarized tau at rest, as Pythia makes them.

The spin of the negative tau points along an axis :math:`n`.  By rotation symmetry a decay is fixed, up to
the azimuth around :math:`n`, by the energy of the visible products and their momentum along and across the
axis; the neutrinos carry the rest.  One library serves both helicities: a spin against the axis is the same
decay turned around, :math:`p_\parallel \to -p_\parallel`.  It serves both charges as well, because CP
symmetry makes a positive tau with its spin against the axis decay like a negative one with its spin along
the axis (Tsai, Phys.  Rev.  D 4 (1971) 2821; the decay models are those of Ilten, arXiv:1211.6730).

Pythia adds no photon radiation in tau decays by default, so the library has none either.
"""

from __future__ import annotations

import io
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sbilib.atomic import write_atomically
from sbilib.errors import DataError, check_count
from sbilib.simulation.generator import hadronic_tau_lines, start_pythia, sum_momenta

__all__ = ["TAU_MASS", "DecayLibrary", "Decays", "build_library"]

TAU_MASS = 1.77682
_GUN_MOMENTUM = 5.0
_MUON = 13


@dataclass(frozen=True, eq=False)
class Decays:
    """Visible products of decays at rest of negative taus with their spin along the axis.

    Args:
        energy: ``(n,)`` energy of the visible products in GeV.
        parallel: ``(n,)`` their momentum along the axis in GeV.
        transverse: ``(n,)`` their momentum across the axis in GeV, from 0.
        label: ``(n,)`` the number of charged hadrons, or for leptonic decays 1 for a muon and 0 for an
            electron.

    Raises:
        DataError: if the arrays are empty, differ in length, or hold a decay that is not physical.
    """

    energy: NDArray[np.float64]
    parallel: NDArray[np.float64]
    transverse: NDArray[np.float64]
    label: NDArray[np.int8]

    def __post_init__(self) -> None:
        shapes = {getattr(self, field.name).shape for field in fields(self)}
        if len(shapes) != 1 or self.energy.ndim != 1 or len(self.energy) == 0:
            raise DataError(
                f"decays need four equally long arrays, got shapes {shapes}; build the library again"
            )
        physical = (self.energy > 0) & (self.energy < TAU_MASS) & (self.transverse >= 0)
        momentum = np.hypot(self.parallel, self.transverse)
        physical &= momentum <= self.energy * (1 + 1e-9)
        if not physical.all():
            raise DataError(
                f"{int((~physical).sum())} decays have an energy outside (0, {TAU_MASS}) GeV or below their "
                "momentum; build the library again"
            )

    def __len__(self) -> int:
        return len(self.energy)


@dataclass(frozen=True, eq=False)
class DecayLibrary:
    """Leptonic and hadronic decays to draw from.

    Args:
        leptonic: decays to an electron or a muon.
        hadronic: all other decays.

    Example:
        >>> import numpy as np
        >>> pion = Decays(np.array([0.8938]), np.array([0.3]), np.array([0.83]), np.array([1], dtype=np.int8))
        >>> len(DecayLibrary(leptonic=pion, hadronic=pion).hadronic)
        1
    """

    leptonic: Decays
    hadronic: Decays

    def save(self, path: Path) -> None:
        """Write the library to ``path`` as a NumPy archive without pickled objects."""
        arrays = {
            f"{kind}_{field.name}": getattr(getattr(self, kind), field.name)
            for kind in ("leptonic", "hadronic")
            for field in fields(Decays)
        }
        buffer = io.BytesIO()
        np.savez(buffer, **arrays)
        write_atomically(path, buffer.getvalue())

    @classmethod
    def load(cls, path: Path) -> DecayLibrary:
        """Read a library that :meth:`save` wrote.

        Raises:
            DataError: if the file is missing, damaged, or holds something else.
        """
        names = [field.name for field in fields(Decays)]
        try:
            with np.load(path, allow_pickle=False) as archive:
                kinds = [
                    Decays(*(archive[f"{kind}_{n}"] for n in names)) for kind in ("leptonic", "hadronic")
                ]
        except (OSError, EOFError, KeyError, ValueError, zipfile.BadZipFile) as error:
            raise DataError(
                f"{path} must be a library of tau decays, and cannot be read as one ({error}); build it again"
            ) from error
        return cls(*kinds)


def build_library(n_decays: int = 100_000, seed: int = 0, *, polarization: int = 1) -> DecayLibrary:
    """Let Pythia decay ``n_decays`` taus of either kind.

    Args:
        n_decays: leptonic decays, and as many hadronic ones.
        seed: seed of the decays.
        polarization: +1, or -1 to make the mirror library, whose axis is turned around; both describe the
            same decays, which a test uses.

    Raises:
        DependencyError: if Pythia is not installed.
        ParameterError: if a count is not valid.
    """
    check_count("n_decays", n_decays, low=1)
    parts = []
    for kind, hadronic in enumerate((+1, -1)):
        pythia = start_pythia(
            (
                "Print:quiet = on",
                "ProcessLevel:all = off",
                "TauDecays:mode = 3",
                f"TauDecays:tauPolarization = {polarization}",
            ),
            2 * seed + kind,
        )
        for line in hadronic_tau_lines(pythia, hadronic):
            pythia.readString(line)
        table = np.array(list(_shoot(pythia, n_decays)))
        energy, parallel, transverse, n_charged, muon = table.T
        label = (n_charged if hadronic < 0 else muon).astype(np.int8)
        parts.append(Decays(energy, polarization * parallel, transverse, label))
    return DecayLibrary(leptonic=parts[0], hadronic=parts[1])


def _shoot(pythia: Any, n_decays: int) -> Iterator[tuple[float, float, float, int, bool]]:
    """Energy, momentum along and across the flight, charged hadrons, muon or not, of negative taus."""
    mass = pythia.particleData.m0(15)
    flight_energy = float(np.hypot(_GUN_MOMENTUM, mass))
    gamma, beta_gamma = flight_energy / mass, _GUN_MOMENTUM / mass
    n_made = 0
    while n_made < n_decays:
        event = pythia.event
        event.reset()
        event.append(15, 1, 0, 0, 0.0, 0.0, _GUN_MOMENTUM, flight_energy, mass)
        if not pythia.next():
            continue
        products = [event[i] for i in range(1, event.size()) if event[i].isFinal() and event[i].isVisible()]
        total = sum_momenta(products)
        yield (
            gamma * total.e() - beta_gamma * total.pz(),
            gamma * total.pz() - beta_gamma * total.e(),
            total.pT(),
            sum(product.isHadron() and product.isCharged() for product in products),
            any(product.idAbs() == _MUON for product in products),
        )
        n_made += 1
