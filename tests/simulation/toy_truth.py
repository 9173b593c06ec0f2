"""Particle-level events without Pythia: random, balanced, and quick."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from sbilib.simulation.generator import GenerationSummary
from sbilib.simulation.truth import MAX_JETS, TruthEvents


def toy_truth(n_events: int, seed: int = 1, *, n_jets: int = 2) -> TruthEvents:
    """Events with falling spectra, ``n_jets`` jets each, and balanced transverse momentum."""
    rng = np.random.default_rng(seed)

    def momentum(n: int) -> np.ndarray:
        pt, eta = 15.0 + rng.exponential(20.0, n), rng.uniform(-2.6, 2.6, n)
        return np.column_stack([pt, eta, rng.uniform(-np.pi, np.pi, n)])

    lepton, tau = momentum(n_events), momentum(n_events)
    jets = np.zeros((n_events, MAX_JETS, 4))
    hardest_first = np.sort(15.0 + rng.exponential(30.0, (n_events, n_jets)), axis=1)[:, ::-1]
    jets[:, :n_jets, 0] = hardest_first
    jets[:, :n_jets, 1] = rng.uniform(-4.9, 4.9, (n_events, n_jets))
    jets[:, :n_jets, 2] = rng.uniform(-np.pi, np.pi, (n_events, n_jets))
    recoil = transverse(jets).sum(axis=1) + rng.normal(0.0, 5.0, (n_events, 2))
    return TruthEvents(
        lepton=lepton.astype(np.float32),
        lepton_is_muon=rng.random(n_events) < 0.5,
        tau=np.column_stack([tau, np.full(n_events, 0.8)]).astype(np.float32),
        n_charged=np.where(rng.random(n_events) < 0.8, 1, 3).astype(np.int8),
        invisible=(-recoil - transverse(lepton) - transverse(tau)).astype(np.float32),
        jets=jets.astype(np.float32),
        recoil=recoil.astype(np.float32),
    )


def transverse(momentum: np.ndarray) -> np.ndarray:
    """px, py of ``(..., pt eta phi ...)``."""
    pt, phi = momentum[..., 0], momentum[..., 2]
    return np.stack([pt * np.cos(phi), pt * np.sin(phi)], axis=-1)


@dataclass(frozen=True)
class ToySource:
    """A source of toy events; it can be slow, or end its process like a crash."""

    seconds: float = 0.0
    dies: bool = False

    def must_prepare(self) -> bool:
        return False

    def prepare(self) -> None:
        pass

    def events(
        self, component: str, n_events: int, seed: int
    ) -> Iterator[tuple[TruthEvents, GenerationSummary]]:
        if self.dies:
            os._exit(9)
        time.sleep(self.seconds)
        summary = GenerationSummary(component, "toy", seed, 2 * n_events, n_events, 10.0, 0.1, 0.5, "0")
        yield toy_truth(n_events, seed, n_jets=1 if component == "signal" else 0), summary
