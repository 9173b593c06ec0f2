"""Jets of Pythia's finder against the fastjet package."""

import numpy as np
import pytest

from sbilib.simulation.generator import GenerationSettings, start_pythia
from sbilib.simulation.jets import JetFinder

pytest.importorskip("pythia8mc")
fastjet = pytest.importorskip("fastjet")


def reference_jets(event: object) -> np.ndarray:
    particles = [event[i] for i in range(event.size()) if event[i].isFinal() and event[i].isVisible()]
    particles = [p for p in particles if abs(p.eta()) < 5.0]
    inputs = [fastjet.PseudoJet(p.px(), p.py(), p.pz(), p.e()) for p in particles]
    clusters = fastjet.ClusterSequence(inputs, fastjet.JetDefinition(fastjet.antikt_algorithm, 0.4))
    jets = fastjet.sorted_by_pt(clusters.inclusive_jets(15.0))
    return np.array([(j.pt(), j.eta(), j.phi_std(), j.m()) for j in jets if abs(j.eta()) < 5.0]).reshape(
        -1, 4
    )


def test_the_jets_are_those_of_fastjet() -> None:
    pythia = start_pythia(GenerationSettings(extra=("15:mayDecay = off",)).lines("signal"), 4)
    find_jets = JetFinder()
    n_jets = 0
    for _ in range(30):
        pythia.next()
        ours, expected = find_jets(pythia.event), reference_jets(pythia.event)[:8]
        n_jets += len(expected)
        np.testing.assert_allclose(ours[: len(expected)], expected, rtol=1e-4, atol=1e-4)
        assert not ours[len(expected) :].any()
    assert n_jets > 60
