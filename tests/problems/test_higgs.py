import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import scipy.stats
import torch

from sbilib.errors import DataError, ParameterError
from sbilib.problems import (
    COMPONENTS,
    EventFolder,
    EventTable,
    EventTables,
    HiggsTauTau,
    check_nuisance_map,
    data_folder,
    make_test_set,
    make_training_set,
    published_test_sets,
    split_events,
    transform_features,
)
from sbilib.simulation import (
    FEATURES,
    MISSING,
    PRIMARY,
    SPLITS,
    Manifest,
    derived_quantities,
    round_events,
    scale_tau_energy,
    write_events,
    write_manifest,
)
from tests.simulation.fake_events import fake_events

THRESHOLD, HARDNESS = 21.0, 18.0


def tables(
    n_events: int = 40_000, *, tau_threshold: float = THRESHOLD, weighted: bool = False
) -> EventTables:
    parts = {}
    for number, component in enumerate(COMPONENTS):
        events = fake_events(n_events, number, tau_threshold=tau_threshold, hardness=HARDNESS)
        weights = events[:, PRIMARY.index("PRI_had_pt")] / 30.0 if weighted else None
        parts[component] = split_events(events, weights, seed=number)
    return EventTables(parts, tau_threshold=tau_threshold)


@pytest.fixture(scope="module")
def data() -> EventTables:
    return tables()


def seeded(seed: int = 1) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def scales(n: int, low: float = 0.8, high: float = 1.2) -> torch.Tensor:
    return torch.linspace(low, high, n, dtype=torch.float64)


@pytest.mark.parametrize("threshold", ["published", "realistic"])
def test_a_drawn_event_is_an_event_of_the_split_at_its_scale(data: EventTables, threshold: str) -> None:
    """Undoing the shift must give back rows of the table, and only rows that pass the cut of the policy."""
    names = ("PRI_lep_pt", "PRI_lep_eta", "PRI_had_pt", "PRI_had_eta", "DER_pt_h")
    problem = HiggsTauTau(features=names, threshold=threshold, data=data)
    z = scales(3000)
    x = problem.sample("signal", z, seeded())
    assert x.dtype == torch.float64
    cut = 26.0 if threshold == "published" else 26.0 / z
    assert bool((x[:, 2] / z > cut).all())
    table = data.table("signal", "train").primary.double()
    nearest = torch.cdist(
        torch.stack((x[:, 0], x[:, 1], x[:, 2] / z, x[:, 3]), dim=1), table[:, [0, 1, 3, 4]]
    )
    distance, row = nearest.min(dim=1)
    assert float(distance.max()) < 1e-5
    expected = derived_quantities(table, names=["DER_pt_h"])[row, 0]
    torch.testing.assert_close(x[:, 4], expected, rtol=1e-6, atol=1e-5)


def test_every_passing_event_is_drawn_equally_often(data: EventTables) -> None:
    """Chi-square of the counts of events by rank in pt; fixed seed, false alarm 0.1%."""
    problem = HiggsTauTau(features=("PRI_had_pt",), threshold="realistic", data=data)
    n, z = 200_000, 1.1
    drawn = problem.sample("signal", torch.full((n,), z, dtype=torch.float64), seeded(3))[:, 0]
    there = problem.all_events("signal", z).events[:, 0].sort().values
    assert len(there) == problem.count("signal", z)
    edges = there[torch.linspace(0, len(there) - 1, 51).long()]
    observed = torch.histogram(drawn, edges)[0].numpy()
    expected = torch.histogram(there, edges)[0].numpy() / len(there) * n
    assert scipy.stats.chisquare(observed, expected * observed.sum() / expected.sum()).pvalue > 1e-3


def test_weighted_events_are_drawn_in_proportion_and_those_of_weight_zero_never() -> None:
    data = tables(20_000, weighted=True)
    problem = HiggsTauTau(features=("PRI_had_pt", "PRI_lep_pt"), data=data)
    everything = problem.all_events("signal")
    drawn = problem.sample("signal", torch.ones(100_000, dtype=torch.float64), seeded(4))[:, 0]
    mean = (everything.weights * everything.events[:, 0]).sum() / everything.weights.sum()
    # Five standard errors: false alarm 6e-7.
    assert abs(float(drawn.mean() - mean)) < 5 * float(drawn.std()) / math.sqrt(len(drawn))
    one = torch.from_numpy(fake_events(3, 1, tau_threshold=30.0))
    table = EventTable(one, torch.tensor([0.0, 2.0, 0.0]))
    only = replace(problem, data=EventTables({c: {"train": table} for c in COMPONENTS}, tau_threshold=21.0))
    assert set(only.sample("signal", torch.ones(500), seeded())[:, 1].tolist()) == {one[1, 0].float().item()}


@pytest.mark.parametrize("weights", [[-1.0, 1.0], [0.0, 0.0], [1.0], [math.nan, 1.0]])
def test_weights_that_mean_no_chance_are_refused(weights: list[float]) -> None:
    with pytest.raises(DataError, match="weights must"):
        EventTable(torch.from_numpy(fake_events(2, 1)), torch.tensor(weights))


def test_the_shift_is_an_exact_map_of_the_published_pair(data: EventTables) -> None:
    problem = HiggsTauTau(data=data)
    z = scales(500)
    x = problem.sample("background", z, seeded())
    check_nuisance_map(problem.nuisance_map, x, z)
    at_one = problem.sample("background", torch.ones_like(z), seeded())
    torch.testing.assert_close(problem.nuisance_map.to_reference(x, z).events, at_one, rtol=1e-9, atol=0)


def test_the_map_holds_for_every_set_of_features_that_offers_it(data: EventTables) -> None:
    z, possible = scales(200), []
    for name in FEATURES:
        problem = HiggsTauTau(features=(name,), data=data)
        x, at_one = (problem.sample("signal", scale, seeded()) for scale in (z, torch.ones_like(z)))
        try:
            moved = problem.nuisance_map.to_reference(x, z).events
        except ParameterError:
            assert not torch.allclose(x, at_one)
            continue
        possible.append(name)
        torch.testing.assert_close(moved, at_one, rtol=1e-8, atol=1e-8)
    assert len(possible) == 23
    with pytest.raises(ParameterError, match="known map"):
        _ = HiggsTauTau(data=data, threshold="realistic").nuisance_map


def test_the_efficiency_is_that_of_an_exponential_spectrum(data: EventTables) -> None:
    """P(pt > 26 / z) / P(pt > 26) of 21 GeV plus an exponential of 18 GeV; within 5 errors at 9 scales."""
    problem = HiggsTauTau(threshold="realistic", data=data)
    z = scales(9)
    expected = ((26.0 - 26.0 / z) / HARDNESS).exp()
    value, error = problem.efficiency("signal", z)
    assert bool(((value - expected).abs() < 5 * error + 1e-4).all())
    assert value[4].item() == 1.0
    assert error[4].item() == 0.0
    counted = torch.tensor([problem.count("signal", float(at)) for at in z]) / problem.count("signal")
    assert bool(((value - counted).abs() < 3 * error + 1e-12).all())


def test_the_error_of_the_efficiency_is_the_spread_over_samples() -> None:
    """Over 60 samples, the standard deviation is known to 9%: 4 of these, false alarm 6e-5 for each scale."""
    z = torch.tensor([0.85, 1.15], dtype=torch.float64)
    values, errors = [], []
    for seed in range(60):
        events = EventTable(torch.from_numpy(fake_events(2000, 100 + seed)).float())
        data = EventTables({c: {"train": events} for c in COMPONENTS}, tau_threshold=THRESHOLD)
        problem = HiggsTauTau(threshold="realistic", data=data)
        values.append([problem.count("signal", float(at)) / problem.count("signal") for at in z])
        errors.append(problem.efficiency("signal", z).error)
    ratio = torch.tensor(values).std(dim=0) / torch.stack(errors).mean(dim=0)
    assert bool(((ratio - 1).abs() < 4 / math.sqrt(2 * 59)).all())


def test_the_efficiency_can_be_differentiated_and_is_one_as_published(data: EventTables) -> None:
    z = torch.tensor([0.95], dtype=torch.float64, requires_grad=True)
    HiggsTauTau(threshold="realistic", data=data).efficiency("signal", z).value.sum().backward()
    assert z.grad is not None
    # d/dz exp((26 - 26/z) / 18), to 10%.
    exact = math.exp((26 - 26 / 0.95) / HARDNESS) * 26 / 0.95**2 / HARDNESS
    assert z.grad.item() == pytest.approx(exact, rel=0.1)
    published = HiggsTauTau(data=data).efficiency("signal", scales(3))
    assert published.value.tolist() == [1, 1, 1]
    assert published.error.tolist() == [0, 0, 0]


def test_taking_never_repeats_an_event_and_refuses_more_than_there_are(data: EventTables) -> None:
    problem = HiggsTauTau(features=("PRI_lep_pt", "PRI_had_pt", "DER_mass_vis"), data=data).with_split(
        "test-1"
    )
    available = problem.count("signal")
    x = problem.take("signal", available, 1.07, seeded())
    assert len(torch.unique(x, dim=0)) == available
    with pytest.raises(
        DataError, match=f"{available + 1} signal events were asked for, 'test-1' has {available}"
    ):
        problem.take("signal", available + 1, 1.07, seeded())
    realistic = replace(problem, threshold="realistic")
    assert realistic.count("signal", 0.93) < available
    with pytest.raises(DataError, match="asked for"):
        realistic.take("signal", available, 0.93, seeded())
    with pytest.raises(ParameterError, match="one scale"):
        replace(realistic, replacement=False).sample("signal", scales(10), seeded())


def test_splits_are_disjoint_and_share_all_events() -> None:
    """Lepton pt tells events apart; 40 000 of them in float64 never agree."""
    events = fake_events(5000, 1)
    parts = split_events(events, seed=3)
    assert set(parts) == set(SPLITS)
    drawn = np.concatenate([part.primary[:, 0].numpy() for part in parts.values()])
    assert np.array_equal(np.sort(drawn), np.sort(events[:, 0].astype("f4")))
    assert torch.equal(parts["train"].primary, split_events(events, seed=3)["train"].primary)
    with pytest.raises(ParameterError, match="at most 1"):
        split_events(events, seed=1, fractions={"train": 0.9, "test-1": 0.2})
    with pytest.raises(DataError, match="too few"):
        split_events(events[:3], seed=1)


def test_training_and_test_sets_are_made_as_for_any_problem(data: EventTables) -> None:
    problem = HiggsTauTau(data=data)
    training = make_training_set(problem, 1000, seeded())
    assert training.signal.shape == (500, 2)
    assert training.signal.dtype == torch.float32
    sets = published_test_sets(problem.with_split("test-2"), seeded(), n_events=100)
    assert [(s.signal_ratio, s.nuisance) for s in sets][::4] == [(0.1, 0.93), (0.2, 1.0), (0.3, 1.07)]
    distinct = replace(problem.with_split("test-1"), replacement=False)
    events = make_test_set(distinct, signal_ratio=0.2, nuisance=1.0, generator=seeded(), n_events=1500).events
    assert len(torch.unique(events, dim=0)) == 1500
    with pytest.raises(DataError, match="asked for"):
        make_test_set(distinct, signal_ratio=0.2, nuisance=1.0, generator=seeded(), n_events=9000)


@pytest.mark.parametrize("z", [0.79, 1.21, math.nan])
def test_scales_outside_the_trained_range_are_refused(data: EventTables, z: float) -> None:
    problem = HiggsTauTau(data=data)
    for call in (
        lambda: problem.sample("signal", torch.tensor([1.0, z]), seeded()),
        lambda: problem.count("signal", z),
        lambda: problem.efficiency("signal", torch.tensor([z])),
        lambda: problem.take("signal", 3, z, seeded()),
    ):
        with pytest.raises(ParameterError, match="tau energy scales in"):
            call()


def test_data_with_harder_taus_narrow_the_range_of_a_realistic_cut() -> None:
    """From 23 GeV on, scales up to 26/23 lose nothing that a cut at 26 GeV would keep."""
    problem = HiggsTauTau(threshold="realistic", data=tables(2000, tau_threshold=23.0))
    assert problem.nuisance_range == (0.8, pytest.approx(26 / 23))
    assert problem.scan_range == (0.9, 1.1)
    assert replace(problem, threshold="published").nuisance_range == (0.8, 1.2)
    with pytest.raises(DataError, match="lower threshold"):
        HiggsTauTau(data=tables(2000, tau_threshold=27.0))


def test_names_that_do_not_exist_are_refused(data: EventTables) -> None:
    for wrong in ({"features": ("mass",)}, {"threshold": "none"}, {"split": "test"}, {"features": ()}):
        with pytest.raises(ParameterError, match=next(iter(wrong))):
            HiggsTauTau(data=data, **wrong)
    with pytest.raises(ParameterError, match="component"):
        HiggsTauTau(data=data).sample("higgs", torch.ones(1), seeded())
    few = EventTables({c: {"train": data.table(c, "train")} for c in COMPONENTS})
    with pytest.raises(DataError, match="no split 'test-1'"):
        HiggsTauTau(data=few, split="test-1").count("signal")


def test_all_28_features_can_be_drawn_and_seen_by_a_network(data: EventTables) -> None:
    problem = HiggsTauTau(features=FEATURES, data=data)
    x = problem.sample("signal", scales(2000), seeded())
    seen = transform_features(x, FEATURES)
    assert bool(seen.isfinite().all())
    assert float(seen.abs().max()) < 13.0
    for index, transform in enumerate(problem.transforms):
        absent = x[:, index] == MISSING
        assert bool(absent.any()) == (transform.absent is not None)
        if transform.absent is not None:
            assert seen[absent, index].unique().tolist() == [transform.absent]
            assert float(seen[~absent, index].min()) > transform.absent
    with pytest.raises(DataError, match="positive"):
        transform_features(torch.tensor([[-1.0]]), ("DER_mass_vis",))


def test_a_folder_of_files_serves_as_data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "higgs-tau-tau"
    monkeypatch.setenv("SBILIB_DATA", str(tmp_path))
    with pytest.raises(DataError, match=r"no events of the Higgs case found.*simulate higgs"):
        HiggsTauTau()
    files = [
        write_events(folder, f"{c}-{split}.parquet", fake_events(80, seed), component=c, split=split)
        for seed, (c, split) in enumerate((c, s) for c in COMPONENTS for s in ("train", "test-1"))
    ]
    write_manifest(folder, Manifest(files=tuple(files), tau_threshold=21.0))
    assert data_folder() == folder
    problem = HiggsTauTau(features=("PRI_lep_pt",), split="test-1")
    assert isinstance(problem.data, EventFolder)
    pts = set(round_events(fake_events(80, 3))[:, 0].tolist())
    assert set(problem.sample("background", torch.ones(200), seeded())[:, 0].tolist()) <= pts
    assert problem == HiggsTauTau(features=("PRI_lep_pt",), split="test-1")
    assert str(tmp_path) not in repr(problem)
    before = repr(problem)
    changed = write_events(folder, files[0].name, fake_events(80, 9), component="signal", split="train")
    write_manifest(folder, Manifest(files=(changed, *files[1:]), tau_threshold=21.0))
    assert repr(HiggsTauTau(features=("PRI_lep_pt",), split="test-1")) != before


def test_a_shift_draws_the_same_base_events_at_every_scale(data: EventTables) -> None:
    """With one seed, only the shift differs: what `scale_tau_energy` makes of one draw is the other."""
    problem = HiggsTauTau(features=FEATURES[:16], data=data)
    base = problem.sample("signal", torch.ones(100, dtype=torch.float64), seeded(8))
    moved = problem.sample("signal", torch.full((100,), 1.1, dtype=torch.float64), seeded(8))
    torch.testing.assert_close(
        moved, scale_tau_energy(base, torch.tensor(1.1, dtype=torch.float64)), rtol=1e-9, atol=1e-6
    )
