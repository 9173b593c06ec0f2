"""Subsets hold the events they should, and summaries average as they say."""

from __future__ import annotations

import math

import pandas as pd
import pytest
import torch

from sbilib.errors import DataError, ParameterError
from sbilib.problems import COMPONENTS, HiggsTauTau
from sbilib.problems.higgs_data import EventTable, EventTables
from sbilib.studies.higgs_known_map import MapJob, summarize_map, training_subset


def problem(n: int = 600) -> HiggsTauTau:
    """Events whose lepton pt numbers them; a sixth lies below the threshold of the tau."""
    event = torch.tensor([[30.0, 0, 0, 40.0, 0, 1.0] + 6 * [-25.0] + [0, 0, 10.0, 1.0]]).repeat(n, 1)
    event[:, 0] = 30 + torch.arange(n) / 10
    event[: n // 6, 3] = 24.0
    tables = {name: {"train": EventTable(event)} for name in COMPONENTS}
    return HiggsTauTau(data=EventTables(tables, tau_threshold=21.0))


def numbers(subset: HiggsTauTau, split: str = "train") -> set[float]:
    assert subset.data is not None
    return {round(float(value), 1) for value in subset.data.table("signal", split).primary[:, 0]}


def test_subsets_are_disjoint_as_far_as_the_sample_goes() -> None:
    parts = [numbers(training_subset(problem(), 200, number=number)) for number in range(3)]
    assert [len(part) for part in parts] == [200, 200, 200]
    assert not parts[0] & parts[1]
    # The third is drawn anew, from events that pass the threshold.
    assert min(set().union(*parts)) >= 40.0


def test_held_out_events_are_not_trained_on() -> None:
    subset = training_subset(problem(), 200, number=1, hold_out=0.2)
    train, validation = numbers(subset), numbers(subset, "validation")
    assert (len(train), len(validation)) == (160, 40)
    assert not train & validation
    assert train | validation == numbers(training_subset(problem(), 200, number=1))


def test_more_events_than_the_sample_has_are_refused() -> None:
    with pytest.raises(DataError, match="only 500 are there"):
        training_subset(problem(), 501, number=0)
    with pytest.raises(ParameterError):
        MapJob("flow", "guessed", 1000, 0)


def test_summary_averages_points_and_models() -> None:
    rows = [
        {"method": "flow", "knowledge": "map", "n_events": 1000, "parameter": "z", "number": number,
         "coverage": 0.6 + 0.1 * number, "width": 0.01, "pull": pull, "n_toys": 100, "k": 100.0}
        for number in (0, 1)
        for pull in (0.3, -0.4)
    ]  # fmt: skip
    (row,) = summarize_map(pd.DataFrame(rows)).to_dict("records")
    assert row["bias"] == pytest.approx(math.sqrt((0.09 + 0.16) / 2))
    assert row["coverage"] == pytest.approx(0.65)
    # Two models that differ by 0.1: the standard error of their mean is half of that.
    assert row["coverage_error"] == pytest.approx(0.05)
    assert row["floor"] == pytest.approx(math.sqrt(0.02))
    assert row["n_models"] == 2
