"""Particle-level events of the heavy Higgs search that are made up, and a source of them."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from sbilib.simulation.bsm_generator import BsmSummary
from sbilib.simulation.bsm_response import BsmResponse, simulate_bsm_detector
from sbilib.simulation.bsm_schema import round_bsm
from sbilib.simulation.bsm_truth import BOTTOM, CHARM, MAX_BSM_JETS, BsmTruth


def toy_bsm_truth(n_events: int, seed: int = 1, *, hardness: float = 40.0) -> BsmTruth:
    """A lepton, neutrinos, and five to nine jets, up to two of them bottom, all in random directions."""
    rng = np.random.default_rng(seed)
    jets = np.zeros((n_events, MAX_BSM_JETS, 3))
    there = np.arange(MAX_BSM_JETS) < rng.integers(5, 10, n_events)[:, None]
    jets[..., 0] = np.sort(np.where(there, 12.0 + rng.exponential(hardness, there.shape), 0.0))[:, ::-1]
    jets[..., 1] = rng.uniform(-2.5, 2.5, there.shape) * (jets[..., 0] > 0.0)
    jets[..., 2] = rng.uniform(-np.pi, np.pi, there.shape) * (jets[..., 0] > 0.0)
    flavor = np.zeros((n_events, MAX_BSM_JETS))
    flavor[:, :2] = BOTTOM
    flavor[::3, 2] = CHARM
    flavor[:, :6] = rng.permuted(flavor[:, :6], axis=1)
    lepton = np.column_stack(
        [
            15.0 + rng.exponential(30.0, n_events),
            rng.uniform(-2.4, 2.4, n_events),
            rng.uniform(-np.pi, np.pi, n_events),
        ]
    )
    invisible = rng.normal(0.0, 40.0, (n_events, 2))
    return BsmTruth(lepton, rng.random(n_events) < 0.5, invisible, jets, flavor)


def toy_bsm_events(n_events: int, seed: int = 1) -> np.ndarray:
    """``(n_events, 28)`` selected events as they are stored."""
    truth = toy_bsm_truth(40 * n_events + 200, seed)
    selected = simulate_bsm_detector(truth, BsmResponse(), np.random.default_rng(seed))
    events = round_bsm(selected.events)[:n_events]
    assert len(events) == n_events
    return events


@dataclass(frozen=True)
class ToyBsmSource:
    """A source of toy events, which can be slow."""

    seconds: float = 0.0

    def must_prepare(self) -> bool:
        return False

    def prepare(self) -> None:
        pass

    def events(self, component: str, n_events: int, seed: int) -> Iterator[tuple[BsmTruth, BsmSummary]]:
        time.sleep(self.seconds)
        hardness = 60.0 if component == "signal" else 40.0
        summary = BsmSummary(2 * n_events, n_events, 10.0, "0")
        yield toy_bsm_truth(n_events, seed, hardness=hardness), summary
