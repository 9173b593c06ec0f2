r"""The fast route: Pythia produces tau pairs, a library decays them, and only selected events are hadronized.

Pythia spends most of its time on spin correlations in tau decays.  Here each produced pair gets one decay
per tau from :class:`~sbilib.simulation.tau_decays.DecayLibrary`, with helicities correlated as
:mod:`~sbilib.simulation.production` says, boosted along the flight of the tau in the rest frame of the
pair.  Pairs that fail the preselection are dropped before hadronization, which does not know how the taus
decay, so nothing selected is lost and the jets are the same as in the plain route.

What is left out: the correlation of the two spins across the flight axis.  It turns the two decay planes
around the axis relative to each other, and changes momenta by less than the tau mass, so the features of
this case do not see it; the comparison with the plain route bounds the effect.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sbilib.errors import SbilibError, check_count
from sbilib.simulation.generator import (
    GenerationSettings,
    GenerationSummary,
    start_pythia,
    sum_momenta,
    summarize,
)
from sbilib.simulation.jets import JetFinder
from sbilib.simulation.production import ProducedPairs, produce, right_handed_probability
from sbilib.simulation.tau_decays import DecayLibrary, Decays, build_library
from sbilib.simulation.truth import MAX_JETS, TruthEvents

__all__ = ["boost_decays", "decay_pairs", "generate_fast"]

_BATCH = 500
_SUSPICIOUS = 20
_NEUTRINOS = frozenset((12, 14, 16))


def generate_fast(
    process: str,
    n_selected: int,
    seed: int,
    settings: GenerationSettings | None = None,
    *,
    library: DecayLibrary | None = None,
    chunk: int = 10_000,
) -> Iterator[tuple[TruthEvents, GenerationSummary]]:
    """Generate preselected events with tau decays from a library.

    Args:
        process: ``"signal"`` or ``"background"``.
        n_selected: how many events to generate in all.
        seed: seed of the run, from 0; different seeds give independent events.
        settings: how to generate; the default settings if None.
        library: tau decays to draw from, with replacement; ``build_library()`` if None, which takes minutes.
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
    pythia = start_pythia((*settings.lines(process), "HadronLevel:all = off"), seed)
    library = library or build_library()
    generator = np.random.default_rng([seed, 0 if process == "signal" else 1])
    find_jets = JetFinder()
    n_produced = n_done = 0
    waiting = TruthEvents.empty()
    while n_done < n_selected:
        wanted = min(chunk, n_selected - n_done)
        parts = [waiting]
        while sum(map(len, parts)) < wanted:
            parts.append(_batch(pythia, process, settings, library, find_jets, generator))
            n_produced += _BATCH
        events = TruthEvents.concatenate(parts)
        waiting = events.select(slice(wanted, None))
        n_done += wanted
        yield (
            events.select(slice(wanted)),
            summarize(pythia, process, "fast", seed, n_produced=n_produced, n_selected=n_done + len(waiting)),
        )


def _batch(
    pythia: Any,
    process: str,
    settings: GenerationSettings,
    library: DecayLibrary,
    find_jets: JetFinder,
    generator: np.random.Generator,
) -> TruthEvents:
    """The preselected events among the next few produced ones."""
    pairs = produce(pythia, _BATCH)
    events = decay_pairs(pairs, process, library, generator)
    kept = np.flatnonzero(events.preselected(pt=settings.preselection_pt, eta=settings.preselection_eta))
    jets, invisible, finished = [], [], []
    for index in kept:
        pythia.event = pairs.records[index]
        if not pythia.forceHadronLevel():
            continue
        event = pythia.event
        for position in pairs.positions[index].tolist():
            event[position].statusNeg()
        # neutrinos of hadron decays can only be among what hadronization has added to the record
        added = range(pairs.records[index].size(), event.size())
        neutrinos = sum_momenta([event[i] for i in added if event[i].idAbs() in _NEUTRINOS])
        finished.append(index)
        jets.append(find_jets(event))
        invisible.append((neutrinos.px(), neutrinos.py()))
    if not finished:
        if len(kept) > _SUSPICIOUS:
            raise SbilibError(
                f"Pythia hadronized none of {len(kept)} events; correct GenerationSettings.extra"
            )
        return TruthEvents.empty()
    events = events.select(np.array(finished))
    extra = np.array(invisible, dtype=np.float32)
    return TruthEvents(
        lepton=events.lepton,
        lepton_is_muon=events.lepton_is_muon,
        tau=events.tau,
        n_charged=events.n_charged,
        invisible=events.invisible + extra,
        jets=np.stack(jets),
        recoil=events.recoil - extra,
    )


def decay_pairs(
    pairs: ProducedPairs, process: str, library: DecayLibrary, generator: np.random.Generator
) -> TruthEvents:
    """Decay one tau of each pair to a lepton and the other to hadrons.

    Args:
        pairs: the produced pairs.
        process: ``"signal"`` or ``"background"``, which decides how the two spins are correlated.
        library: decays to draw from.
        generator: source of randomness.

    Returns:
        one event per pair, without jets and without the neutrinos of hadron decays.
    """
    n_pairs = len(pairs.negative)
    right_handed = np.full(n_pairs, 0.5)
    if process == "background":
        right_handed = right_handed_probability(pairs.quark, pairs.mass_squared, pairs.cosine)
    spin = np.where(generator.random(n_pairs) < right_handed, 1.0, -1.0)
    # CP turns the helicity of the positive tau around in terms of the library, which is of negative taus:
    # equal helicities (Higgs) are opposite entries, opposite helicities (Z) are equal ones.
    other_spin = -spin if process == "signal" else spin
    swap = generator.random(n_pairs) < 0.5
    lepton_tau = np.where(swap[:, None], pairs.positive, pairs.negative)
    hadron_tau = np.where(swap[:, None], pairs.negative, pairs.positive)
    lepton_spin, hadron_spin = np.where(swap, other_spin, spin), np.where(swap, spin, other_spin)
    lepton, is_muon = _draw(library.leptonic, lepton_tau, hadron_tau, lepton_spin, generator)
    tau, n_charged = _draw(library.hadronic, hadron_tau, lepton_tau, hadron_spin, generator)
    total = pairs.negative[:, 1:3] + pairs.positive[:, 1:3]
    return TruthEvents(
        lepton=_spherical(lepton)[:, :3].astype(np.float32),
        lepton_is_muon=is_muon.astype(np.bool_),
        tau=_spherical(tau).astype(np.float32),
        n_charged=n_charged,
        invisible=(total - lepton[:, 1:3] - tau[:, 1:3]).astype(np.float32),
        jets=np.zeros((n_pairs, MAX_JETS, 4), dtype=np.float32),
        recoil=-total.astype(np.float32),
    )


def _draw(
    decays: Decays,
    tau: NDArray[np.float64],
    partner: NDArray[np.float64],
    spin: NDArray[np.float64],
    generator: np.random.Generator,
) -> tuple[NDArray[np.float64], NDArray[np.int8]]:
    """Draw one decay for each tau and boost its visible products to the laboratory."""
    index = generator.integers(len(decays), size=len(tau))
    azimuth = generator.uniform(0.0, 2.0 * np.pi, size=len(tau))
    at_rest = np.stack(
        [
            decays.energy[index],
            decays.transverse[index] * np.cos(azimuth),
            decays.transverse[index] * np.sin(azimuth),
            spin * decays.parallel[index],
        ],
        axis=1,
    )
    return boost_decays(at_rest, tau, partner), decays.label[index]


def boost_decays(
    at_rest: NDArray[np.float64], tau: NDArray[np.float64], partner: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Turn and boost momenta from the rest frames of taus to the laboratory.

    Args:
        at_rest: ``(n, 4)`` E, px, py, pz in GeV in the rest frame of the tau whose third axis is the flight
            of the tau as seen from the rest frame of the pair, that is, away from the partner.
        tau: ``(n, 4)`` E, px, py, pz in GeV of the taus in the laboratory.
        partner: ``(n, 4)`` of the other taus of the pairs.

    Returns:
        ``(n, 4)`` E, px, py, pz in GeV in the laboratory.

    Example:
        >>> import numpy as np
        >>> tau, partner = np.array([[5.0, 0.0, 0.0, 4.0]]), np.array([[5.0, 0.0, 0.0, -4.0]])
        >>> boost_decays(np.array([[1.5, 0.0, 0.0, 1.5]]), tau, partner)
        array([[4.5, 0. , 0. , 4.5]])
    """
    away = -_boost(partner, tau, direction=-1.0)[:, 1:]
    axis = away / np.linalg.norm(away, axis=1, keepdims=True)
    # any vector that is not parallel to the axis spans the transverse plane with it
    helper = np.where(np.abs(axis[:, :1]) < 0.9, [[1.0, 0.0, 0.0]], [[0.0, 1.0, 0.0]])
    first = np.cross(helper, axis)
    first /= np.linalg.norm(first, axis=1, keepdims=True)
    second = np.cross(axis, first)
    turned = at_rest[:, 1:2] * first + at_rest[:, 2:3] * second + at_rest[:, 3:4] * axis
    return _boost(np.concatenate([at_rest[:, :1], turned], axis=1), tau, direction=1.0)


def _boost(
    momenta: NDArray[np.float64], frame: NDArray[np.float64], *, direction: float
) -> NDArray[np.float64]:
    """Boost from the rest frame of ``frame`` to the laboratory (direction +1) or back (-1)."""
    mass = np.sqrt(frame[:, 0] ** 2 - (frame[:, 1:] ** 2).sum(axis=1))[:, None]
    velocity = direction * frame[:, 1:] / mass
    gamma = frame[:, :1] / mass
    along = (velocity * momenta[:, 1:]).sum(axis=1, keepdims=True)
    energy = gamma * momenta[:, :1] + along
    space = momenta[:, 1:] + velocity * (momenta[:, :1] + along / (gamma + 1.0))
    return np.concatenate([energy, space], axis=1)


def _spherical(momenta: NDArray[np.float64]) -> NDArray[np.float64]:
    """``(n, 4)`` pt, eta, phi, mass of the momenta E, px, py, pz."""
    energy, x, y, z = momenta.T
    pt = np.hypot(x, y)
    mass = np.sqrt(np.maximum(energy**2 - x**2 - y**2 - z**2, 0.0))
    return np.stack([pt, np.arcsinh(z / pt), np.arctan2(y, x), mass], axis=1)
