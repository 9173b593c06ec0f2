"""Pythia 8 as both routes use it: settings, set-up, and the tau pair in the event record."""

from __future__ import annotations

import importlib
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from sbilib.errors import DependencyError, SbilibError, check_choice, check_count, check_range

__all__ = [
    "PROCESSES",
    "GenerationSettings",
    "GenerationSummary",
    "hadronic_tau_lines",
    "import_pythia",
    "lepton_hadron_fraction",
    "start_pythia",
    "sum_momenta",
    "summarize",
    "tau_indices",
]

PROCESSES = ("signal", "background")
_TAU, _LEPTONS = 15, (11, 13)
_MAX_SEED = 900_000_000
_MB_TO_PB = 1e9


def import_pythia() -> Any:
    """The module ``pythia8mc``.

    Raises:
        DependencyError: if it is not installed.
    """
    try:
        return importlib.import_module("pythia8mc")
    except ImportError as error:
        raise DependencyError(
            "event generation needs Pythia 8, which is not installed; run pip install 'sbilib[simulate]'"
        ) from error


@dataclass(frozen=True)
class GenerationSettings:
    r"""How the events are made: proton-proton collisions without multiparton interactions.

    Signal is :math:`gg \to H \to \tau\tau`, background :math:`q\bar q \to Z/\gamma^* \to \tau\tau`, both at
    leading order with Pythia's parton showers and hadronization.  Multiparton interactions and pile-up are
    off.  Taus radiate photons in the shower; their decay products do not, which is Pythia's default.

    Args:
        beam_energy: center-of-mass energy in GeV.
        higgs_mass: mass of the Higgs boson in GeV.
        z_mass_range: smallest and largest mass of the Z/gamma* in GeV.
        preselection_pt: lepton and visible tau have more transverse momentum than this, in GeV.
        preselection_eta: largest absolute pseudorapidity of lepton and visible tau.
        extra: further Pythia settings, one text line each, read last.

    Raises:
        ParameterError: if an energy is not positive or the mass range is not increasing.

    Example:
        >>> GenerationSettings().lines("signal")[-1]
        '25:onIfMatch = 15 -15'
    """

    beam_energy: float = 13_000.0
    higgs_mass: float = 125.0
    z_mass_range: tuple[float, float] = (50.0, 1000.0)
    preselection_pt: float = 15.0
    preselection_eta: float = 2.7
    extra: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        check_range("beam_energy", self.beam_energy, low=0.0, include_low=False)
        check_range("higgs_mass", self.higgs_mass, low=10.0)
        low, high = self.z_mass_range
        check_range("z_mass_range", high, low=check_range("z_mass_range", low, low=10.0), include_low=False)
        check_range("preselection_pt", self.preselection_pt, low=0.0)
        check_range("preselection_eta", self.preselection_eta, low=0.0, include_low=False)

    def lines(self, process: str) -> tuple[str, ...]:
        """The Pythia settings of ``process``, one text line each.

        Raises:
            ParameterError: if ``process`` is neither ``"signal"`` nor ``"background"``.
        """
        common = ("Print:quiet = on", f"Beams:eCM = {self.beam_energy}", "PartonLevel:MPI = off")
        if check_choice("process", process, PROCESSES) == "signal":
            hard: tuple[str, ...] = (
                "HiggsSM:gg2H = on",
                f"25:m0 = {self.higgs_mass}",
                "25:onMode = off",
                "25:onIfMatch = 15 -15",
            )
        else:
            hard = (
                "WeakSingleBoson:ffbar2gmZ = on",
                f"PhaseSpace:mHatMin = {self.z_mass_range[0]}",
                f"PhaseSpace:mHatMax = {self.z_mass_range[1]}",
                "23:onMode = off",
                "23:onIfAny = 15",
            )
        return (*common, *hard, *self.extra)


@dataclass(frozen=True)
class GenerationSummary:
    """What one run of the generator did.

    Args:
        process: ``"signal"`` or ``"background"``.
        route: ``"fast"`` or ``"plain"``.
        seed: the seed of the run.
        n_produced: produced tau pairs, each decayed once to one lepton and one hadronic tau.
        n_selected: how many of them passed the preselection.
        cross_section: of the process times the branching ratio to tau pairs, in pb, Pythia's estimate.
        cross_section_error: its statistical error in pb.
        lepton_hadron_fraction: share of tau pairs with one leptonic and one hadronic decay.
        pythia_version: version of Pythia.
    """

    process: str
    route: str
    seed: int
    n_produced: int
    n_selected: int
    cross_section: float
    cross_section_error: float
    lepton_hadron_fraction: float
    pythia_version: str

    @property
    def efficiency(self) -> float:
        """Selected over produced events with one leptonic and one hadronic tau."""
        return self.n_selected / self.n_produced if self.n_produced else 0.0

    @property
    def selected_cross_section(self) -> float:
        """Cross section in pb of the selected events."""
        return self.cross_section * self.lepton_hadron_fraction * self.efficiency


def start_pythia(lines: tuple[str, ...], seed: int) -> Any:
    """A Pythia generator with the settings ``lines`` and the seed ``1 + seed mod 9e8`` (Pythia reserves 0).

    Raises:
        DependencyError: if Pythia is not installed.
        SbilibError: if Pythia refuses a setting or cannot start.
    """
    check_count("seed", seed)
    pythia = import_pythia().Pythia("", False)
    for line in (*lines, "Random:setSeed = on", f"Random:seed = {1 + seed % _MAX_SEED}"):
        if not pythia.readString(line):
            raise SbilibError(f"Pythia refuses the setting {line!r}; correct it in GenerationSettings.extra")
    if not pythia.init():
        raise SbilibError("Pythia cannot start with these settings; set 'Print:quiet = off' to see why")
    return pythia


def _tau_channels(pythia: Any) -> list[tuple[bool, float]]:
    """For each decay channel of the tau whether it is leptonic, and its branching ratio."""
    entry = pythia.particleData.particleDataEntryPtr(_TAU)
    channels = [entry.channel(index) for index in range(entry.sizeChannels())]
    products = [{abs(c.product(i)) for i in range(c.multiplicity())} for c in channels]
    return [(bool(p & set(_LEPTONS)), c.bRatio()) for p, c in zip(products, channels, strict=True)]


def hadronic_tau_lines(pythia: Any, hadronic: int) -> tuple[str, ...]:
    """Settings that let the tau of charge ``hadronic`` decay to hadrons only and the other to leptons only.

    Pythia's mode 2 opens a channel for the particle (the negative tau) alone and 3 for the antiparticle
    alone; the branching ratios of the channels that stay open keep their proportions.
    """
    hadron_mode, lepton_mode = (2, 3) if hadronic < 0 else (3, 2)
    return tuple(
        f"{_TAU}:{index}:onMode = {lepton_mode if leptonic else hadron_mode}"
        for index, (leptonic, _) in enumerate(_tau_channels(pythia))
    )


def lepton_hadron_fraction(pythia: Any) -> float:
    """Share of tau pairs with one leptonic and one hadronic decay, from Pythia's branching ratios."""
    channels = _tau_channels(pythia)
    leptonic = sum(ratio for is_leptonic, ratio in channels if is_leptonic)
    leptonic /= sum(ratio for _, ratio in channels)
    return 2.0 * leptonic * (1.0 - leptonic)


def summarize(
    pythia: Any, process: str, route: str, seed: int, *, n_produced: int, n_selected: int
) -> GenerationSummary:
    """The summary of a run, with the cross section that Pythia has estimated so far."""
    return GenerationSummary(
        process=process,
        route=route,
        seed=seed,
        n_produced=n_produced,
        n_selected=n_selected,
        cross_section=pythia.infoPython().sigmaGen() * _MB_TO_PB,
        cross_section_error=pythia.infoPython().sigmaErr() * _MB_TO_PB,
        lepton_hadron_fraction=lepton_hadron_fraction(pythia),
        pythia_version=f"{pythia.settings.parm('Pythia:versionNumber'):.3f}",
    )


def tau_indices(event: Any) -> tuple[int, int]:
    """Positions in the record of the last copies of the negative and the positive tau of the hard process."""
    boson = event[5].iBotCopyId()
    first, second = event[boson].daughter1(), event[boson].daughter2()
    if event[first].id() < 0:
        first, second = second, first
    if (event[first].id(), event[second].id()) != (_TAU, -_TAU):
        raise SbilibError("the event has no tau pair from the hard boson; check the process settings")
    return event[first].iBotCopyId(), event[second].iBotCopyId()


def sum_momenta(particles: Iterable[Any]) -> Any:
    """The sum of the four-momenta of ``particles``."""
    total = import_pythia().Vec4(0.0, 0.0, 0.0, 0.0)
    for particle in particles:
        total += particle.p()
    return total
