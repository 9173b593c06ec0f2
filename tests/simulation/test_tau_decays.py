"""The library of tau decays: spin in the direction of the pion, and files of it."""

from pathlib import Path

import numpy as np
import pytest
from scipy.stats import ks_2samp

from sbilib.errors import DataError
from sbilib.simulation.tau_decays import TAU_MASS, DecayLibrary, Decays, build_library

PION_MASS = 0.13957


@pytest.fixture(scope="module")
def library() -> DecayLibrary:
    pytest.importorskip("pythia8mc")
    return build_library(3000, 1)


@pytest.fixture(scope="module")
def mirror_library() -> DecayLibrary:
    pytest.importorskip("pythia8mc")
    return build_library(3000, 2, polarization=-1)


def pion_cosines(decays: Decays) -> np.ndarray:
    momentum = np.hypot(decays.parallel, decays.transverse)
    mass = np.sqrt(np.maximum(decays.energy**2 - momentum**2, 0.0))
    pion = np.abs(mass - PION_MASS) < 1e-3
    return decays.parallel[pion] / momentum[pion]


def test_the_pion_follows_the_spin_of_the_negative_tau(library: DecayLibrary) -> None:
    """The neutrino is left-handed, so the density of the cosine is (1 + c) / 2 and its mean 1/3.

    About 500 pions: the mean has an error of 0.021, and 5 standard deviations are allowed (false alarm 6e-7).
    """
    cosines = pion_cosines(library.hadronic)
    assert len(cosines) > 300
    assert abs(cosines.mean() - 1 / 3) < 5 * np.sqrt(2 / 9 / len(cosines))


def test_a_pion_has_the_momentum_of_a_two_body_decay(library: DecayLibrary) -> None:
    decays = library.hadronic
    momentum = np.hypot(decays.parallel, decays.transverse)
    mass = np.sqrt(np.maximum(decays.energy**2 - momentum**2, 0.0))
    pion = np.abs(mass - PION_MASS) < 1e-3
    expected = (TAU_MASS**2 - PION_MASS**2) / (2 * TAU_MASS)
    np.testing.assert_allclose(momentum[pion], expected, rtol=1e-3)


def test_the_neutrinos_take_a_physical_momentum(library: DecayLibrary) -> None:
    """What the visible products leave of the tau at rest is never spacelike."""
    for decays in (library.leptonic, library.hadronic):
        momentum = np.hypot(decays.parallel, decays.transverse)
        assert (TAU_MASS - decays.energy - momentum > -1e-3).all()


def test_a_hadronic_neutrino_is_massless(library: DecayLibrary) -> None:
    decays = library.hadronic
    momentum = np.hypot(decays.parallel, decays.transverse)
    np.testing.assert_allclose(TAU_MASS - decays.energy, momentum, atol=2e-3)


def test_the_mean_energy_of_a_lepton_is_that_of_the_michel_spectrum(library: DecayLibrary) -> None:
    """Without lepton mass the spectrum x^2 (3 - 2x) has mean 7/10 of half the tau mass and width 0.187 of it;
    the muon mass moves it by 1 %, 5 standard deviations of 3000 decays are 2.5 %."""
    mean = library.leptonic.energy.mean() / (TAU_MASS / 2)
    assert mean == pytest.approx(0.70, abs=0.03)


def test_the_lepton_turns_against_the_spin(library: DecayLibrary) -> None:
    """The asymmetry of the Michel spectrum is -1/3, so the mean cosine is -1/9, with error 0.0105."""
    decays = library.leptonic
    cosine = decays.parallel / np.hypot(decays.parallel, decays.transverse)
    assert cosine.mean() == pytest.approx(-1 / 9, abs=5 * 0.0105)


def test_charged_hadrons_come_in_odd_numbers(library: DecayLibrary) -> None:
    assert set(np.unique(library.hadronic.label)) <= {1, 3, 5}
    assert 0.70 < (library.hadronic.label == 1).mean() < 0.85
    assert set(np.unique(library.leptonic.label)) == {0, 1}


def test_both_polarizations_of_pythia_make_the_same_library(
    library: DecayLibrary, mirror_library: DecayLibrary
) -> None:
    """Rotation symmetry.  Six tests at 1e-4 each: false alarm below 1e-3."""
    for kind in ("leptonic", "hadronic"):
        one, other = getattr(library, kind), getattr(mirror_library, kind)
        for name in ("energy", "parallel", "transverse"):
            assert ks_2samp(getattr(one, name), getattr(other, name)).pvalue > 1e-4


def test_the_same_seed_makes_the_same_library() -> None:
    pytest.importorskip("pythia8mc")
    one, same, other = build_library(30, 5), build_library(30, 5), build_library(30, 6)
    np.testing.assert_array_equal(one.hadronic.energy, same.hadronic.energy)
    assert not np.array_equal(one.hadronic.energy, other.hadronic.energy)


def test_a_file_gives_back_the_same_library(tmp_path: Path) -> None:
    decays = Decays(np.array([0.9]), np.array([0.3]), np.array([0.8]), np.array([1], dtype=np.int8))
    DecayLibrary(decays, decays).save(tmp_path / "library.npz")
    back = DecayLibrary.load(tmp_path / "library.npz")
    assert back.leptonic.energy[0] == 0.9
    assert back.hadronic.label[0] == 1


def test_a_damaged_library_is_refused(tmp_path: Path) -> None:
    (tmp_path / "library.npz").write_bytes(b"")
    with pytest.raises(DataError, match="build it again"):
        DecayLibrary.load(tmp_path / "library.npz")


@pytest.mark.parametrize(
    ("energy", "parallel"), [(-0.1, 0.0), (2.0, 0.0), (0.5, 0.9), (float("nan"), 0.0)], ids=str
)
def test_decays_that_are_not_physical_are_refused(energy: float, parallel: float) -> None:
    with pytest.raises(DataError, match="outside"):
        Decays(np.array([energy]), np.array([parallel]), np.array([0.0]), np.array([1], dtype=np.int8))
