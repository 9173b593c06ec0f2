"""The masses: exact decays give the masses of what decayed, and a slow oracle agrees with every choice."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from sbilib.errors import DataError
from sbilib.simulation.bsm_features import (
    NEUTRINO_RAPIDITIES,
    TOP_MASS,
    W_MASS,
    high_level,
    high_level_of_four_jets,
)
from sbilib.simulation.bsm_schema import BSM_HIGH_LEVEL, BSM_LOW_LEVEL

from .toy_bsm import toy_bsm_events

_LIGHT, _CHARGED, _HEAVY = 125.0, 325.0, 425.0


def _boosted(momentum: np.ndarray, parent: np.ndarray) -> np.ndarray:
    """Momenta E, px, py, pz given in the rest frame of ``parent``, in the frame of its momentum."""
    mass = np.sqrt(parent[:, 0] ** 2 - (parent[:, 1:] ** 2).sum(axis=1))
    along = (momentum[:, 1:] * parent[:, 1:]).sum(axis=1)
    energy = (momentum[:, 0] * parent[:, 0] + along) / mass
    shift = (along / (mass * (parent[:, 0] + mass)) + momentum[:, 0] / mass)[:, None]
    return np.column_stack([energy, momentum[:, 1:] + shift * parent[:, 1:]])


def _decay(
    parent: np.ndarray, first_mass: float, second_mass: float, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """An isotropic decay to two bodies."""
    mass = np.sqrt(parent[:, 0] ** 2 - (parent[:, 1:] ** 2).sum(axis=1))
    energy = (mass**2 + first_mass**2 - second_mass**2) / (2.0 * mass)
    size = np.sqrt(energy**2 - first_mass**2)
    direction = rng.normal(size=(len(parent), 3))
    direction *= (size / np.linalg.norm(direction, axis=1))[:, None]
    first = _boosted(np.column_stack([energy, direction]), parent)
    return first, parent - first


def _at_rest(mass: float, n_events: int, rng: np.random.Generator) -> np.ndarray:
    """A parent of the given mass that moves a little."""
    momentum = rng.normal(0.0, 60.0, (n_events, 3))
    return np.column_stack([np.sqrt(mass**2 + (momentum**2).sum(axis=1)), momentum])


def _polar(momentum: np.ndarray) -> np.ndarray:
    pt = np.hypot(momentum[:, 1], momentum[:, 2])
    return np.column_stack([pt, np.arcsinh(momentum[:, 3] / pt), np.arctan2(momentum[:, 2], momentum[:, 1])])


def _masses(
    lepton: np.ndarray, neutrino: np.ndarray, tagged: list[np.ndarray], others: list[np.ndarray]
) -> dict[str, np.ndarray]:
    jets = [
        np.column_stack([_polar(jet), np.full(len(jet), tag)])
        for tag, jet in [*((2.0, jet) for jet in tagged), *((0.0, jet) for jet in others)]
    ]
    values = high_level(_polar(lepton), _polar(neutrino)[:, [0, 2]], np.stack(jets, axis=1))
    return dict(zip(BSM_HIGH_LEVEL, values.T, strict=True))


def test_top_quarks_that_decay_exactly_have_their_masses() -> None:
    rng = np.random.default_rng(1)
    tops = [_at_rest(TOP_MASS, 400, rng) for _ in range(2)]
    (bosons, bottoms) = zip(*(_decay(top, W_MASS, 0.0, rng) for top in tops), strict=True)
    lepton, neutrino = _decay(bosons[0], 0.0, 0.0, rng)
    masses = _masses(lepton, neutrino, list(bottoms), list(_decay(bosons[1], 0.0, 0.0, rng)))
    np.testing.assert_allclose(masses["m_jj"], W_MASS, rtol=1e-9)
    # The other bottom quark is closer to 175 GeV only where both are, so one of them gives it exactly.
    np.testing.assert_allclose(masses["m_jjj"], TOP_MASS, rtol=1e-9)
    # The rapidity of the neutrino has two solutions and a grid: within 1 GeV of the W where one is on it.
    within = np.abs(_polar(neutrino)[:, 1]) < 2.9
    assert np.quantile(np.abs(masses["m_lv"][within] - W_MASS), 0.95) < 1.0
    assert 0.35 < np.mean(np.abs(masses["m_jlv"] - TOP_MASS) < 5.0) < 0.95


def test_the_cascade_of_higgs_bosons_has_its_masses() -> None:
    rng = np.random.default_rng(2)
    first_w, charged = _decay(_at_rest(_HEAVY, 400, rng), W_MASS, _CHARGED, rng)
    second_w, light = _decay(charged, W_MASS, _LIGHT, rng)
    tagged = list(_decay(light, 0.0, 0.0, rng))
    # The hadronic W comes from the charged boson: with the leptonic one m_wbb would be another.
    lepton, neutrino = _decay(first_w, 0.0, 0.0, rng)
    masses = _masses(lepton, neutrino, tagged, list(_decay(second_w, 0.0, 0.0, rng)))
    np.testing.assert_allclose(masses["m_bb"], _LIGHT, rtol=1e-9)
    np.testing.assert_allclose(masses["m_jj"], W_MASS, rtol=1e-9)
    # The larger of two masses is at least that of the charged boson, and that in most events.
    assert (masses["m_wbb"] > _CHARGED - 1e-6).all()
    assert np.mean(masses["m_wbb"] < _CHARGED + 1e-6) > 0.4
    assert abs(np.median(masses["m_wwbb"]) - _HEAVY) < 15.0


def _pair(first: np.ndarray, second: np.ndarray) -> float:
    """Squared mass of two massless momenta pt, eta, phi."""
    return float(2.0 * first[0] * second[0] * (np.cosh(first[1] - second[1]) - np.cos(first[2] - second[2])))


def _mass(*momenta: np.ndarray) -> float:
    """Of massless momenta: the squared masses of all pairs add up."""
    return float(np.sqrt(sum(_pair(*pair) for pair in itertools.combinations(momenta, 2))))


def _slow(lepton: np.ndarray, missing: np.ndarray, jets: np.ndarray) -> list[float]:
    """The masses of one event, by trying everything in turn."""
    tagged = [jet[:3] for jet in jets if jet[0] > 0 and jet[3] > 0]
    others = [jet[:3] for jet in jets if jet[0] > 0 and jet[3] == 0]
    boson = min(itertools.combinations(others, 2), key=lambda pair: abs(_mass(*pair) - W_MASS))
    neutrinos = [np.array([missing[0], eta, missing[1]]) for eta in NEUTRINO_RAPIDITIES]
    neutrino = min(neutrinos, key=lambda one: abs(_mass(lepton, one) - W_MASS))
    near, far = sorted(tagged, key=lambda jet: abs(_mass(*boson, jet) - TOP_MASS))
    return [
        _mass(*boson),
        _mass(*boson, near),
        _mass(lepton, neutrino),
        _mass(lepton, neutrino, far),
        _mass(*tagged),
        max(_mass(*boson, *tagged), _mass(lepton, neutrino, *tagged)),
        _mass(*boson, lepton, neutrino, *tagged),
    ]


def _random(n_events: int, n_jets: int, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    momenta = np.stack(
        [
            15.0 + rng.exponential(40.0, (n_events, n_jets + 2)),
            rng.uniform(-2.5, 2.5, (n_events, n_jets + 2)),
            rng.uniform(-np.pi, np.pi, (n_events, n_jets + 2)),
        ],
        axis=-1,
    )
    tags = np.zeros((n_events, n_jets))
    tags[:, :2] = [2.0, 1.0]
    jets = np.concatenate([momenta[:, 2:], rng.permuted(tags, axis=1)[..., None]], axis=-1)
    # Some events have a jet less, and its place is empty.
    jets[::3, -1] *= jets[::3, -1, 3:] > 0.0
    return momenta[:, 0], momenta[:, 1, [0, 2]], jets


def test_every_choice_agrees_with_a_slow_oracle() -> None:
    lepton, missing, jets = _random(200, 6, 3)
    found = high_level(lepton, missing, jets)
    expected = [_slow(*event) for event in zip(lepton, missing, jets, strict=True)]
    np.testing.assert_allclose(found, expected, rtol=1e-9)


def test_masses_do_not_depend_on_order_rotation_or_mirror() -> None:
    lepton, missing, jets = _random(300, 6, 4)
    expected = high_level(lepton, missing, jets)
    np.testing.assert_allclose(high_level(lepton, missing, jets[:, ::-1]), expected, rtol=1e-9)
    turn = np.array([0.0, 0.0, 1.7])
    turned = high_level(lepton + turn, missing + turn[1:], jets + np.append(turn, 0.0))
    np.testing.assert_allclose(turned, expected, rtol=1e-9)
    flip = np.array([1.0, -1.0, 1.0])
    mirrored = high_level(lepton * flip, missing, jets * np.append(flip, 1.0))
    np.testing.assert_allclose(mirrored, expected, rtol=1e-9)


def test_the_mass_of_lepton_and_neutrino_is_at_least_the_transverse_mass() -> None:
    lepton, missing, jets = _random(2000, 5, 5)
    found = high_level(lepton, missing, jets)[:, BSM_HIGH_LEVEL.index("m_lv")]
    transverse = np.sqrt(2 * lepton[:, 0] * missing[:, 0] * (1 - np.cos(lepton[:, 2] - missing[:, 1])))
    assert (found >= transverse - 1e-9).all()
    # No mass below the transverse one can be reached, so there the closest is the transverse mass itself,
    # up to half a step in rapidity.
    beyond = transverse > W_MASS
    slack = np.sqrt(2 * lepton[:, 0] * missing[:, 0] * (np.cosh(0.025) - 1.0))
    assert beyond.mean() > 0.1
    assert (found[beyond] <= np.hypot(transverse, slack)[beyond] + 1e-9).all()


def test_four_jets_give_the_masses_of_the_table_where_no_other_jet_matters() -> None:
    events = toy_bsm_events(300)
    masses = high_level_of_four_jets(events)
    stored = events[:, len(BSM_LOW_LEVEL) :]
    tags = events[:, [8, 12, 16, 20]] > 0
    np.testing.assert_array_equal(np.isfinite(masses).all(axis=1), tags.sum(axis=1) == 2)
    assert 0.2 < np.isfinite(masses[:, 0]).mean() < 0.9
    usable = np.isfinite(masses[:, 0])
    bottom, boson = BSM_HIGH_LEVEL.index("m_bb"), BSM_HIGH_LEVEL.index("m_jj")
    np.testing.assert_allclose(masses[usable, bottom], stored[usable, bottom], atol=2e-3)
    # A further jet can only make a better W.
    assert (np.abs(stored[usable, boson] - W_MASS) <= np.abs(masses[usable, boson] - W_MASS) + 2e-3).all()


@pytest.mark.parametrize(
    ("tags", "present"),
    [((0, 0, 0, 1, 0), 5), ((1, 1, 1, 0, 0), 5), ((1, 1, 0, 0, 0), 3), ((0, 0, 0, 1, 1), 4)],
)
def test_events_with_other_jets_are_refused(tags: tuple[int, ...], present: int) -> None:
    lepton, missing, jets = _random(3, 5, 6)
    jets[..., 0] = 30.0
    jets[..., 3] = 0.0
    jets[:, :2, 3] = 1.0
    jets[1, :, 3] = tags
    jets[1, present:, 0] = 0.0
    with pytest.raises(DataError, match=r"1 of 3 events .*first: event 1"):
        high_level(lepton, missing, jets)


def test_wrong_shapes_are_refused() -> None:
    lepton, missing, jets = _random(3, 5, 7)
    with pytest.raises(DataError, match=r"lepton and missing must have shapes"):
        high_level(lepton[:, :2], missing, jets)
    with pytest.raises(DataError, match=r"jets must have shape \(3, 4 or more, 4\)"):
        high_level(lepton, missing, jets[:, :3])
    with pytest.raises(DataError, match="21"):
        high_level_of_four_jets(np.ones((2, 20)))
