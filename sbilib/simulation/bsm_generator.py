r"""Pythia 8 for the search for a heavy Higgs boson: signal, background, and reading their event records.

Signal is a cascade of Higgs bosons, background a pair of top quarks, both to the same final state,

.. math::

    gg \to H^0 \to W^\mp H^\pm \to W^\mp W^\pm h^0 \to W^\mp W^\pm b\bar b, \qquad
    gg,\,q\bar q \to t\bar t \to W^+W^- b\bar b,

where one W decays to an electron or muon and its neutrino and the other to quarks (Baldi, Sadowski, Whiteson,
Nature Commun. 5 (2014) 4308).  Both are at leading order in proton-proton collisions at 8 TeV with Pythia's
parton showers and hadronization, without multiparton interactions and pile-up.

Three settings of the signal are easily missed.  Without ``Higgs:useBSM`` nothing is on.  The coupling
``HiggsH2:coup2HchgW`` is 0 by default, so the heavy boson would not decay to the charged one.  With their
natural widths many of the events would have masses at which the cascade is closed, so both have 1 GeV.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sbilib.errors import SbilibError, check_choice, check_count, check_range
from sbilib.simulation.bsm_truth import BOTTOM, CHARM, LIGHT, MAX_BSM_JETS, BsmTruth
from sbilib.simulation.generator import PROCESSES, import_pythia, start_pythia
from sbilib.simulation.jets import JetFinder

__all__ = ["BsmGeneration", "BsmSummary", "generate_bsm"]

_W, _MUON, _LEPTONS, _NEUTRINOS, _TAU = 24, 13, (11, 13), (12, 14, 16), 15
_BLOCK = 50
_MB_TO_PB = 1e9


@dataclass(frozen=True)
class BsmGeneration:
    """How the events are made.

    Args:
        beam_energy: center-of-mass energy in GeV.
        heavy_mass: mass of the heavy neutral Higgs boson in GeV.
        charged_mass: mass of the charged Higgs boson in GeV.
        light_mass: mass of the light Higgs boson in GeV.
        width: width of the heavy and of the charged boson in GeV.
        top_mass: mass of the top quark in GeV.
        jet_radius: parameter R of the anti-kt jets.
        jet_pt: smallest transverse momentum of a particle jet in GeV.
        jet_eta: largest absolute pseudorapidity of clustered particles and of jets.
        flavor_distance: a jet has the flavor of a hadron at most this far away in eta and phi.
        flavor_pt: smallest transverse momentum of such a hadron in GeV.
        preselection_pt: the lepton has more transverse momentum than this, in GeV.
        preselection_eta: largest absolute pseudorapidity of the lepton.
        extra: further Pythia settings, one text line each, read last.

    Raises:
        ParameterError: if a number is out of range, or a boson is too light for its decay.

    Example:
        >>> BsmGeneration().lines("background")[-1]
        'Top:qqbar2ttbar = on'
    """

    beam_energy: float = 8_000.0
    heavy_mass: float = 425.0
    charged_mass: float = 325.0
    light_mass: float = 125.0
    width: float = 1.0
    top_mass: float = 173.0
    jet_radius: float = 0.4
    jet_pt: float = 6.0
    jet_eta: float = 3.5
    flavor_distance: float = 0.4
    flavor_pt: float = 5.0
    preselection_pt: float = 12.0
    preselection_eta: float = 2.6
    extra: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        w_mass = 80.4
        for name in (
            "beam_energy",
            "width",
            "top_mass",
            "jet_radius",
            "jet_pt",
            "jet_eta",
            "flavor_distance",
        ):
            check_range(name, getattr(self, name), low=0.0, include_low=False)
        for name in ("flavor_pt", "preselection_pt", "preselection_eta"):
            check_range(name, getattr(self, name), low=0.0)
        light = check_range("light_mass", self.light_mass, low=20.0)
        charged = check_range("charged_mass", self.charged_mass, low=light + w_mass)
        check_range("heavy_mass", self.heavy_mass, low=charged + w_mass + 15.0 * self.width)

    def lines(self, process: str) -> tuple[str, ...]:
        """The Pythia settings of ``process``, one text line each.

        Raises:
            ParameterError: if ``process`` is neither ``"signal"`` nor ``"background"``.
        """
        common = (
            "Print:quiet = on",
            f"Beams:eCM = {self.beam_energy}",
            "PartonLevel:MPI = off",
            f"6:m0 = {self.top_mass}",
        )
        if check_choice("process", process, PROCESSES) == "signal":
            return (*common, *self._cascade(), *self.extra)
        return (*common, "Top:gg2ttbar = on", "Top:qqbar2ttbar = on", *self.extra)

    def _cascade(self) -> tuple[str, ...]:
        reach = 15.0 * self.width
        return (
            "Higgs:useBSM = on",
            "HiggsBSM:gg2H2 = on",
            "HiggsH2:coup2HchgW = 1.",
            f"35:m0 = {self.heavy_mass}",
            f"35:mWidth = {self.width}",
            "35:doForceWidth = on",
            f"35:mMin = {self.heavy_mass - reach}",
            f"35:mMax = {self.heavy_mass + reach}",
            f"37:m0 = {self.charged_mass}",
            f"37:mWidth = {self.width}",
            "37:doForceWidth = on",
            f"25:m0 = {self.light_mass}",
            "35:onMode = off",
            "35:onIfAny = 37",
            "37:onMode = off",
            "37:onIfMatch = 24 25",
            "25:onMode = off",
            "25:onIfMatch = 5 -5",
        )


@dataclass(frozen=True)
class BsmSummary:
    """What one run of the generator did.

    Args:
        n_produced: produced events, each with one leptonic and one hadronic W.
        n_selected: how many of them passed the preselection.
        cross_section: of the process with one W to an electron or muon and one to quarks, in pb, Pythia's
            estimate at leading order; that of the signal follows from couplings set by hand.
        pythia_version: version of Pythia.
    """

    n_produced: int
    n_selected: int
    cross_section: float
    pythia_version: str


def generate_bsm(
    process: str, n_selected: int, seed: int, settings: BsmGeneration | None = None, *, chunk: int = 1000
) -> Iterator[tuple[BsmTruth, BsmSummary]]:
    """Generate preselected events.

    The positive W decays to leptons in one block of events and the negative one in the next, by opening the
    decay channels for the two charges separately, so that no event is lost to other decays.

    Args:
        process: ``"signal"`` or ``"background"``.
        n_selected: how many events to generate in all.
        seed: seed of the run, from 0.
        settings: how to generate; the default settings if None.
        chunk: events in each yielded part, except the last.

    Yields:
        the next events, and the summary of the run so far.

    Raises:
        DependencyError: if Pythia is not installed.
        ParameterError: if the process or a count is not valid.
    """
    settings = settings or BsmGeneration()
    check_count("n_selected", n_selected)
    check_count("chunk", chunk, low=1)
    pythia = _start(settings.lines(process), seed)
    find_jets = JetFinder(
        radius=settings.jet_radius, pt=settings.jet_pt, eta=settings.jet_eta, n_jets=MAX_BSM_JETS
    )
    n_produced = n_done = 0
    while n_done < n_selected:
        rows: list[dict[str, Any]] = []
        while len(rows) < min(chunk, n_selected - n_done):
            if n_produced % _BLOCK == 0:
                _open_channels(pythia, (n_produced // _BLOCK) % 2 == 0)
            if not pythia.next():
                continue
            n_produced += 1
            row = _read_event(pythia.event, find_jets, settings)
            if row is not None:
                rows.append(row)
        events = BsmTruth(**{name: np.array([row[name] for row in rows]) for name in rows[0]})
        n_done += len(events)
        yield events, _summarize(pythia, n_produced, n_done)


def _start(lines: tuple[str, ...], seed: int) -> Any:
    """Pythia with the positive W to leptons, so that its cross section holds the fractions of both decays."""
    bare = import_pythia().Pythia("", False)
    return start_pythia((*lines, *_w_lines(bare, True)), seed)


def _w_lines(pythia: Any, positive_leptonic: bool) -> tuple[str, ...]:
    """Settings by which the W of one charge decays to electron or muon and that of the other to quarks.

    Pythia's mode 2 opens a channel for the particle (the positive W) alone and 3 for the antiparticle alone.
    """
    leptonic, hadronic = (2, 3) if positive_leptonic else (3, 2)
    entry = pythia.particleData.particleDataEntryPtr(_W)
    lines = []
    for index in range(entry.sizeChannels()):
        products = {abs(entry.channel(index).product(i)) for i in range(entry.channel(index).multiplicity())}
        mode = leptonic if products & set(_LEPTONS) else 0 if _TAU in products else hadronic
        lines.append(f"{_W}:{index}:onMode = {mode}")
    return tuple(lines)


def _open_channels(pythia: Any, positive_leptonic: bool) -> None:
    for line in _w_lines(pythia, positive_leptonic):
        pythia.readString(line)


def _summarize(pythia: Any, n_produced: int, n_selected: int) -> BsmSummary:
    return BsmSummary(
        n_produced=n_produced,
        n_selected=n_selected,
        # Pythia knows one of the two charge assignments.
        cross_section=2.0 * pythia.infoPython().sigmaGen() * _MB_TO_PB,
        pythia_version=f"{pythia.settings.parm('Pythia:versionNumber'):.3f}",
    )


def _read_event(event: Any, find_jets: JetFinder, settings: BsmGeneration) -> dict[str, Any] | None:
    """The row of an event, None if its lepton is below threshold."""
    particles = [event[i] for i in range(event.size())]
    # Looked up once: a call for each particle is what reading an event costs.
    codes = [particle.idAbs() for particle in particles]
    lepton = _prompt_lepton(particles, codes)
    if lepton.pT() <= settings.preselection_pt or abs(lepton.eta()) >= settings.preselection_eta:
        return None
    neutrinos = [
        particles[i] for i, code in enumerate(codes) if code in _NEUTRINOS and particles[i].isFinal()
    ]
    lepton.statusNeg()
    jets = find_jets(event)[:, :3]
    return {
        "lepton": (lepton.pT(), lepton.eta(), lepton.phi()),
        "lepton_is_muon": lepton.idAbs() == _MUON,
        "invisible": (sum(one.px() for one in neutrinos), sum(one.py() for one in neutrinos)),
        "jets": jets,
        "flavor": _flavors(jets, particles, codes, settings),
    }


def _prompt_lepton(particles: list[Any], codes: list[int]) -> Any:
    """The electron or muon of the W that decays to leptons, after it has radiated."""
    for index, code in enumerate(codes):
        if code == _W and particles[index].iBotCopyId() == index:
            for daughter in (particles[index].daughter1(), particles[index].daughter2()):
                if codes[daughter] in _LEPTONS:
                    return particles[particles[daughter].iBotCopyId()]
    raise SbilibError("the event has no W that decays to an electron or muon; check the process settings")


def _flavors(
    jets: NDArray[np.float32], particles: list[Any], codes: list[int], settings: BsmGeneration
) -> NDArray[np.int8]:
    """``(12,)`` flavor of each jet: that of the heaviest weakly decaying hadron close to it."""
    flavor = np.full(MAX_BSM_JETS, LIGHT, dtype=np.int8)
    for quark in (CHARM, BOTTOM):
        for index in (i for i, code in enumerate(codes) if _holds(code, quark)):
            hadron = particles[index]
            first, last = hadron.daughter1(), hadron.daughter2()
            decays = not any(_holds(code, quark) for code in codes[first : max(first, last) + 1])
            if decays and hadron.pT() > settings.flavor_pt:
                turn = np.abs(jets[:, 2] - hadron.phi())
                distance = np.hypot(jets[:, 1] - hadron.eta(), np.minimum(turn, 2.0 * np.pi - turn))
                distance[jets[:, 0] <= 0.0] = np.inf
                nearest = int(distance.argmin())
                if distance[nearest] < settings.flavor_distance:
                    flavor[nearest] = quark
    return flavor


@cache
def _holds(code: int, quark: int) -> bool:
    """Whether a PDG code is that of a hadron whose heaviest quark is ``quark``."""
    # A zero before the last digit is that of a pair of quarks inside a string.
    if not 100 < code < 1_000_000 or code // 10 % 10 == 0:
        return False
    return code // 100 % 10 == quark or code // 1000 % 10 == quark
