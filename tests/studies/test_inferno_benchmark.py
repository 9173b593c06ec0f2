from dataclasses import replace

import pandas as pd
import pytest

from sbilib.errors import ParameterError
from sbilib.problems.inferno import InfernoBenchmark
from sbilib.studies.inferno_benchmark import (
    BenchmarkPlan,
    benchmark_limits,
    published_inferno_table,
    summarize_benchmark,
)

SMALL = BenchmarkPlan(
    n_initializations=3, group=2, hidden=(10,), n_events=4000, n_steps=3, batch_size=500, n_test=20_000
)


def test_limits_are_the_published_ones_for_the_signal_of_the_public_code():
    published = published_inferno_table().loc["analytic likelihood"]
    assert (benchmark_limits() - published).abs().max() < 0.02
    assert (benchmark_limits(InfernoBenchmark.as_written()) - published).abs().max() > 1


def test_a_unit_has_every_seed_case_and_test_set_and_none_beats_the_limit():
    rows = SMALL.make_unit("B2-0000-0001")
    assert len(rows) == 2 * 2 * 5
    assert set(rows.initialization) == {0, 1}
    limits = benchmark_limits()
    assert (rows.sigma > 0.99 * rows.measured.map(limits)).all()
    # A parameter more can only make it worse, a constraint only better.
    wide = rows[rows.test_set == 0].pivot_table(index="initialization", columns="measured", values="sigma")
    assert (wide.B0 < wide.B1).all()
    assert (wide.B1 < wide.B2).all()
    assert (wide.B3 < wide.B2).all()
    assert (wide.B3 < wide.B4).all()


def test_units_cover_all_seeds_once():
    assert SMALL.units[0] == "B0-0000-0001"
    assert SMALL.units[5] == "B0-0002-0002"
    assert len(SMALL.units) == 10
    assert "n_initializations" not in SMALL.facts
    assert BenchmarkPlan.from_parameters({"hidden": [7], "unknown": 1}).hidden == (7,)
    with pytest.raises(ParameterError, match="group"):
        replace(SMALL, group=0)


def test_summary_takes_medians_of_networks_in_their_own_case():
    rows = [
        {
            "case": "B0",
            "initialization": i,
            "test_set": t,
            "measured": m,
            "sigma": value + (100 if m == "B1" else 0),
        }
        for i, value in enumerate((14.0, 15.0, 19.0))
        for t in (0, 1)
        for m in ("B0", "B1")
    ]
    summary = summarize_benchmark(pd.DataFrame(rows))
    assert summary.loc["B0", ["median", "best", "worst", "n"]].tolist() == [15.0, 14.0, 19.0, 3]
    assert summary.loc["B0", "error"] == pytest.approx(1.2533 * 7**0.5 / 3**0.5)


def test_second_plan_takes_the_parameters_for_more_bins():
    more = {"more_bins": 16, "more_steps": 7, "more_batch": 300, "more_initializations": 1}
    plan = BenchmarkPlan.with_more_bins({"seed": 4, "n_bins": 10, **more})
    assert (plan.n_bins, plan.n_steps, plan.batch_size, plan.n_initializations) == (16, 7, 300, 1)
    assert (plan.group, plan.seed) == (1, 4)
