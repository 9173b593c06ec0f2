"""Limits equal pyhf's and those of single models, and stop improving where the model is the limit."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from sbilib.errors import ParameterError
from sbilib.histfactory import upper_limit
from sbilib.studies.amplified_limits import (
    compare_with_pyhf,
    limit_differences,
    limit_table,
    logarithmic_counts,
)
from sbilib.studies.amplified_search import search_templates
from sbilib.studies.amplified_templates import BinnedSample, Binning
from sbilib.studies.model_error import ShapeModes, shape_modes
from tests.studies.amplified_examples import BINNING, SIGNAL, TRUTH, exact, parts, trainings

COUNTS = [10_000, 100_000, 1_000_000]
WIDE = Binning("x", BINNING.edges[::2])


def growing(fractions: np.ndarray, counts: list[int], name: str) -> BinnedSample:
    """The histograms expected of growing numbers of events."""
    content = np.array(counts)[:, None] * fractions
    return BinnedSample(BINNING, content, content, counts, name)  # type: ignore[arg-type]


GENERATED, SIMULATED = growing(parts(0.02, 1.01), COUNTS, "generated"), growing(parts(), COUNTS, "simulated")


@pytest.fixture(scope="module")
def table() -> pd.DataFrame:
    backgrounds = {"generated": GENERATED, "simulated": SIMULATED}
    return limit_table(backgrounds, TRUTH, SIGNAL, [10.0, 1000.0], betas=[0.05, 0.2])


def test_every_limit_of_the_batch_is_that_of_its_model(table: pd.DataFrame):
    assert len(table) == 2 * 3 * 2 * 2
    assert table.converged.all()
    for _, row in table.iloc[::5].iterrows():
        fractions = parts(0.02, 1.01) if row.background == "generated" else parts()
        background = exact(fractions, "alone", row.n_events)
        templates = search_templates(background, TRUTH, SIGNAL, [row.luminosity])
        model = templates.model(row.beta)
        alone = upper_limit(templates.data(model), model)
        assert row.observed == pytest.approx(alone.observed.item(), rel=1e-6)
        assert row.expected == pytest.approx(alone.expected[0, 2].item(), rel=1e-6)


def test_limits_improve_with_events_and_luminosity_and_suffer_from_beta(table: pd.DataFrame):
    expected = table[table.background == "simulated"].pivot_table(
        index=["beta", "luminosity"], columns="n_events", values="expected"
    )
    assert (np.diff(expected.to_numpy(), axis=1) < 0).all()
    assert (expected.loc[(0.05, 1000.0)] < expected.loc[(0.05, 10.0)]).all()
    assert (expected.loc[(0.2, 10.0)] > expected.loc[(0.05, 10.0)]).all()


def test_differences_are_of_the_same_limits(table: pd.DataFrame):
    rows = limit_differences(table, "generated", "simulated")
    assert len(rows) == 12
    one = rows.iloc[4]
    same = (table.n_events == one.n_events) & (table.luminosity == one.luminosity) & (table.beta == one.beta)
    theirs = table[same & (table.background == "simulated")].observed.item()
    assert one.difference == pytest.approx(theirs - one.observed)
    # A background that is too high hides signal, so its limit is lower.
    assert (rows.difference > 0).all()
    single = table[(table.background == "generated") | (table.n_events == 1_000_000)]
    against_one = limit_differences(single, "generated", "simulated")
    largest = against_one[against_one.n_events == 1_000_000].difference.to_numpy()
    assert largest == pytest.approx(rows[rows.n_events == 1_000_000].difference.to_numpy())
    with pytest.raises(ParameterError, match="asked: generated, nobody"):
        limit_differences(table, "generated", "nobody")
    keep = (table.background == "generated") | (table.n_events < 1_000_000)
    with pytest.raises(ParameterError, match="has limits for 8 of 12 rows"):
        limit_differences(table[keep], "generated", "simulated")


def test_a_subset_equals_pyhf_with_and_without_modes():
    background, truth, signal = (each.rebinned(WIDE) for each in (GENERATED, TRUTH, SIGNAL))
    replicas = trainings(1, 500, 8, np.random.default_rng(2))[1][0]
    modes = shape_modes(exact(replicas, "replicas").rebinned(WIDE).fractions)
    for each, members in ((None, [(0, 0), (2, 1)]), (modes, [(1, 0)])):
        templates = search_templates(background, truth, signal, [10.0, 1000.0], modes=each)
        found = compare_with_pyhf(templates, members)
        assert found.table.quantity.tolist() == ["strength", "observed", "expected"] * len(members)
        assert found.largest < 1e-4


def expected_limits(counts: list[int], modes: ShapeModes | None) -> np.ndarray:
    generated = {"generated": growing(parts(), counts, "generated")}
    given = {} if modes is None else {"generated": modes}
    return limit_table(generated, TRUTH, SIGNAL, [1000.0], betas=[0.0], modes=given).expected.to_numpy()


def test_limits_stop_improving_where_the_error_of_the_model_looks_like_signal():
    counts = [1_000_000, 100_000_000]
    # A shift of the background by a third of the signal, and nothing else for infinitely many events.
    signal = 0.05 * TRUTH.efficiency * SIGNAL.fractions / SIGNAL.efficiency
    modes = ShapeModes(signal[None] / 3, np.zeros(8), 10, np.ones(()))
    published, ours = expected_limits(counts, None), expected_limits(counts, modes)
    assert published[1] < 0.6 * published[0]
    # A median limit is 1.96 standard deviations.
    assert ours[1] == pytest.approx(np.hypot(1.96 / 3, published[1]), rel=0.01)
    assert ours[1] > 0.99 * ours[0]


def test_only_more_training_events_help_a_trained_model():
    random = np.random.default_rng(5)
    small, large = (shape_modes(trainings(1, n, 20, random)[1][0]) for n in (1000, 100_000))
    limits = [expected_limits([100_000_000], modes).item() for modes in (small, large, None)]
    assert limits[0] > 1.1 * limits[1] > 1.2 * limits[2]


def test_numbers_of_events_are_the_published_ones():
    counts = logarithmic_counts()
    assert (len(counts), counts[0], counts[-1]) == (30, 10_000, 1_000_000)
    assert np.diff(np.log(counts)) == pytest.approx(np.log(100) / 29, rel=1e-3)
    with pytest.raises(ParameterError, match="ask for fewer"):
        logarithmic_counts(1, 5, 9)
    with pytest.raises(ParameterError, match="modes are for"):
        limit_table(
            {"generated": GENERATED}, TRUTH, SIGNAL, [10.0],
            modes={"flow": ShapeModes(np.zeros((1, 8)), np.zeros(8), 4, np.ones(()))},
        )  # fmt: skip
