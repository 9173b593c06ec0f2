"""The plain route: Pythia decays the taus itself, with its full spin correlations.  Slow, and our reference.

One tau decays to leptons and the other to hadrons: the decay channels are opened separately for the two
charges, for one charge assignment and the other in turn, so no produced event is lost to other final states
and the branching ratios keep their proportions.  Pythia picks the channels of the two taus independently and
correlates only the directions (Ilten, arXiv:1211.6730), so this changes neither.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from sbilib.errors import check_count
from sbilib.simulation.generator import (
    GenerationSettings,
    GenerationSummary,
    hadronic_tau_lines,
    start_pythia,
    sum_momenta,
    summarize,
    tau_indices,
)
from sbilib.simulation.jets import JetFinder
from sbilib.simulation.truth import TruthEvents

__all__ = ["generate_plain"]

_MUON = 13
_BLOCK = 50


def generate_plain(
    process: str,
    n_selected: int,
    seed: int,
    settings: GenerationSettings | None = None,
    *,
    chunk: int = 1000,
) -> Iterator[tuple[TruthEvents, GenerationSummary]]:
    """Generate preselected events with full tau decays in Pythia.

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
    settings = settings or GenerationSettings()
    check_count("n_selected", n_selected)
    check_count("chunk", chunk, low=1)
    pythia = start_pythia(settings.lines(process), seed)
    find_jets = JetFinder()
    n_produced = n_done = 0
    while n_done < n_selected:
        rows: list[dict[str, Any]] = []
        while len(rows) < min(chunk, n_selected - n_done):
            hadronic = -1 if (n_produced // _BLOCK) % 2 else +1
            if n_produced % _BLOCK == 0:
                for line in hadronic_tau_lines(pythia, hadronic):
                    pythia.readString(line)
            if not pythia.next():
                continue
            n_produced += 1
            row = _read_event(pythia.event, hadronic, find_jets, settings)
            if row is not None:
                rows.append(row)
        events = TruthEvents(**{name: np.array([row[name] for row in rows]) for name in rows[0]})
        n_done += len(events)
        yield events, summarize(pythia, process, "plain", seed, n_produced=n_produced, n_selected=n_done)


def _read_event(
    event: Any, hadronic: int, find_jets: JetFinder, settings: GenerationSettings
) -> dict[str, Any] | None:
    """The row of an event whose tau of charge ``hadronic`` decayed to hadrons, None below threshold."""
    negative, positive = tau_indices(event)
    light_tau, heavy_tau = (positive, negative) if hadronic < 0 else (negative, positive)
    lepton = next(event[i] for i in event[light_tau].daughterList() if event[i].idAbs() in (11, 13))
    products = [event[i] for i in event[heavy_tau].daughterListRecursive() if event[i].isFinal()]
    tau = sum_momenta(product for product in products if product.isVisible())
    if not _passes(lepton.p(), settings) or not _passes(tau, settings):
        return None
    lepton_id, lepton_momentum = lepton.idAbs(), lepton.p()
    n_charged = sum(product.isHadron() and product.isCharged() for product in products)
    for index in (*event[light_tau].daughterListRecursive(), *event[heavy_tau].daughterListRecursive()):
        if event[index].isVisible():
            event[index].statusNeg()
    final = [event[i] for i in range(event.size()) if event[i].isFinal()]
    invisible = sum_momenta(particle for particle in final if not particle.isVisible())
    recoil = sum_momenta(particle for particle in final if particle.isVisible())
    return {
        "lepton": (lepton_momentum.pT(), lepton_momentum.eta(), lepton_momentum.phi()),
        "lepton_is_muon": lepton_id == _MUON,
        "tau": (tau.pT(), tau.eta(), tau.phi(), tau.mCalc()),
        "n_charged": n_charged,
        "invisible": (invisible.px(), invisible.py()),
        "jets": find_jets(event),
        "recoil": (recoil.px(), recoil.py()),
    }


def _passes(momentum: Any, settings: GenerationSettings) -> bool:
    """Whether a four-momentum passes the preselection."""
    in_reach: bool = abs(momentum.eta()) < settings.preselection_eta
    return in_reach and momentum.pT() > settings.preselection_pt
