"""Units of the search: histograms of exactly what was simulated or drawn."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from sbilib.errors import ParameterError
from sbilib.runs import find_root, load_study
from sbilib.studies.search_study import SearchPlan, observable_binning, unit_studies
from sbilib.studies.search_worth import WorthPlan
from sbilib.studies.unit_results import make_units, read_units, write_units
from tests.studies.search_examples import MASS, ToySearch

DATA = ToySearch(3000)
PLAN = SearchPlan(
    score_steps=40, recipe="small", n_train=400, n_epochs=2, n_models=4, n_generated=4000, n_points=3,
    data=DATA,
)  # fmt: skip
UNIT = "small-400-000-nominal"


@pytest.fixture(autouse=True, scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SBILIB_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="module")
def nominal(cache) -> pd.DataFrame:
    return PLAN.make_unit(UNIT)


def test_simulation_is_binned_above_the_cut(cache):
    table = PLAN.make_unit("score").set_index(["kind", "observable"])
    events = DATA.events("background", "reference")[500:].numpy()
    score = PLAN._score(events)
    for name, values in (("score", score), ("m_bb", events[:, MASS])):
        edges = observable_binning(name, PLAN.cut).edges
        expected = np.histogram(values[score > PLAN.cut], edges)[0]
        np.testing.assert_array_equal(table.loc[("reference", name), "counts"], expected)
        assert table.loc[("reference", name), "total"] == len(events)
    # Signal is shifted by 1.5 widths: the best area under the curve is 85.6%.
    assert 0.7 < table.auc.iloc[0] < 0.87


def test_histograms_grow_with_the_number_of_events(nominal: pd.DataFrame):
    rows = nominal[(nominal.kind == "generated") & (nominal.observable == "score")]
    assert rows.n_events.tolist() == PLAN.counts == [40, 400, 4000]
    counts = np.stack(rows.counts.to_list())
    assert (np.diff(counts, axis=0) >= 0).all()
    np.testing.assert_array_equal(rows.total, rows.n_events)


def test_a_nominal_training_keeps_its_training_events_and_weights(nominal: pd.DataFrame):
    kinds = nominal[nominal.observable == "score"].set_index("kind")
    assert kinds.loc["training", "n_events"] == 400
    weighted = kinds.loc["reweighted"]
    assert weighted.total == pytest.approx(4000)
    assert 0 < weighted.n_effective <= 4000
    assert (np.array(weighted.squares) != np.array(weighted.counts)).any()


def test_a_unit_depends_on_its_name_alone_and_a_bootstrap_is_another_training(nominal: pd.DataFrame):
    pd.testing.assert_frame_equal(
        nominal.drop(columns="training_seconds"), PLAN.make_unit(UNIT).drop(columns="training_seconds")
    )
    boot = PLAN.make_unit("small-400-000-boot00")
    assert set(boot.kind) == {"generated"}
    assert boot.validation_loss.iloc[0] != nominal.validation_loss.iloc[0]


def test_a_bootstrap_trains_on_resampled_events_of_the_same_set(monkeypatch: pytest.MonkeyPatch):
    class Enough(Exception):
        pass

    seen = []

    def catch(events, *_, **__):
        seen.append({tuple(event) for event in events.tolist()})
        raise Enough

    monkeypatch.setattr("sbilib.studies.search_study.train_generator", catch)
    for unit in (UNIT, "small-400-000-boot00", "small-400-000-boot01"):
        with pytest.raises(Enough):
            PLAN.make_unit(unit)
    assert len(seen[0]) == 400
    assert seen[1] < seen[0]
    assert seen[1] != seen[2]
    # A part 1 - 1/e of the events, with a standard deviation of 1.6%.
    assert len(seen[1]) / 400 == pytest.approx(0.632, abs=0.07)


def test_tables_survive_their_file(tmp_path, nominal: pd.DataFrame):
    study = replace(PLAN.study(), units=("score", UNIT))
    table = make_units(study)
    write_units(tmp_path, study, table)
    back = read_units(tmp_path, study)
    assert back is not None
    for column in ("counts", "squares"):
        np.testing.assert_array_equal(np.stack(back[column]), np.stack(table[column]))


def test_plans_name_their_units_and_refuse_what_cannot_be():
    assert PLAN.units[1] == UNIT
    assert len(PLAN.units) == 6
    assert SearchPlan.from_parameters({"n_models": 5, "title": "x"}).n_models == 5
    facts = PLAN.study().facts
    assert "n_models" not in facts
    assert facts["data"] == DATA.digest
    for wrong in ({"n_models": 3}, {"recipe": "gan"}, {"cut": 1.0}, {"n_points": 1}):
        with pytest.raises(ParameterError, match=next(iter(wrong))):
            replace(PLAN, **wrong)
    with pytest.raises(ParameterError, match="observable"):
        observable_binning("mass", 0.5)


def test_worth_plan_uses_disjoint_sets_and_the_same_units_once():
    plan = WorthPlan(PLAN, sizes=(400, 1500), recipes=("small",), n_sets=3, n_available=3000, n_drawn=500,
                     coverage_size=400, n_trainings=5, n_boot_sets=2, n_boots=4)  # fmt: skip
    assert [unit for unit in plan.amplification_units if "-1500-" in unit] == [
        "small-1500-000-nominal",
        "small-1500-001-nominal",
    ]
    assert len(plan.coverage_units) == 5 + 2 * 4
    assert len(plan.units) == len(set(plan.units)) == 1 + 13 + 2
    table = plan.make_unit("small-400-001-boot01")
    assert set(table.n_events) == {500}
    wrongs = ({"sizes": (400, 300)}, {"n_available": 1000}, {"n_boots": 3}, {"n_boot_sets": 0})
    for wrong in (*wrongs, {"coverage_size": 4000}):
        with pytest.raises(ParameterError):
            replace(plan, **wrong)


@pytest.mark.parametrize("name", ["smoke", "standard", "full"])
def test_the_pages_on_bias_and_on_limits_mean_the_same_trainings(name: str):
    root = find_root(Path(__file__).parent)
    pages = ("generated-background-search", "limits-and-luminosity")
    one, other = (SearchPlan.from_parameters(load_study(page, root).values(name)) for page in pages)
    assert one == other


def test_parameters_of_the_pages_make_these_studies(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(SearchPlan, "events", property(lambda plan: DATA))
    from sbilib.studies import search_worth

    assert unit_studies({"n_models": 4})[""].units[-1] == "modern-200000-000-boot03"
    worth = search_worth.unit_studies({"n_sets": 1, "n_trainings": 2, "n_boots": 4})[""]
    assert worth.name == "worth-of-a-generated-event"
    assert worth.facts["n_drawn"] == 400_000
