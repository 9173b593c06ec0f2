"""Events that look like tau pairs but are made up: every value possible, none from a generator."""

import numpy as np

from sbilib.simulation.schema import MISSING, PRIMARY


def fake_events(
    n_events: int, seed: int, *, tau_threshold: float = 21.0, hardness: float = 18.0
) -> np.ndarray:
    """``(n, 16)`` events: lepton and tau back to back with exponential pt, up to six jets."""
    rng = np.random.default_rng(seed)

    def azimuth() -> np.ndarray:
        return rng.uniform(-3.14, 3.14, n_events)

    events = np.full((n_events, len(PRIMARY)), MISSING)
    columns = {name.removeprefix("PRI_"): events[:, index] for index, name in enumerate(PRIMARY)}
    columns["lep_pt"][:] = 20.0 + rng.exponential(15.0, n_events)
    columns["lep_eta"][:] = rng.normal(0.0, 1.0, n_events).clip(-2.4, 2.4)
    columns["lep_phi"][:] = azimuth()
    columns["had_pt"][:] = tau_threshold + rng.exponential(hardness, n_events)
    columns["had_eta"][:] = (columns["lep_eta"] + rng.normal(0.0, 0.9, n_events)).clip(-2.6, 2.6)
    opposite = columns["lep_phi"] + np.pi + rng.normal(0.0, 0.4, n_events)
    columns["had_phi"][:] = (opposite + np.pi) % (2 * np.pi) - np.pi
    columns["n_jets"][:] = np.minimum(rng.poisson(0.7, n_events), 6)
    softer = 30.0 + rng.exponential(20.0, n_events)
    pt = {"leading": softer + rng.exponential(20.0, n_events), "subleading": softer}
    columns["jet_all_pt"][:] = np.maximum(columns["n_jets"] - 2, 0) * 30.0
    for number, jet in enumerate(("leading", "subleading"), start=1):
        there = columns["n_jets"] >= number
        columns[f"jet_{jet}_pt"][there] = pt[jet][there]
        columns[f"jet_{jet}_eta"][there] = rng.uniform(-4.5, 4.5, n_events)[there]
        columns[f"jet_{jet}_phi"][there] = azimuth()[there]
        columns["jet_all_pt"][:] += np.where(there, pt[jet], 0.0)
    columns["met"][:] = 0.01 + rng.gamma(1.6, 13.0, n_events)
    columns["met_phi"][:] = azimuth()
    return events
