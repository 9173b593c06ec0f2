"""The pair of flows as component densities."""

from __future__ import annotations

import pytest
import torch

from sbilib.errors import DataError, ParameterError
from sbilib.models import ConditionalFlow, FlowConfig, FlowPair, pair


def test_log_components_are_the_log_prob_of_every_event_at_every_nuisance(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(pair, "PAIRS", 10)
    flows = FlowPair.from_config(FlowConfig.modern(), seed=3)
    generator = torch.Generator().manual_seed(0)
    x, nuisance = torch.randn(7, 2, generator=generator), torch.rand(4, generator=generator).double()
    tables = flows.log_components(x.double(), nuisance)
    for table, flow in zip(tables, (flows.signal, flows.background), strict=True):
        assert table.dtype == torch.float64
        assert table.shape == (7, 4)
        for j, value in enumerate(nuisance):
            expected = flow.log_prob(x, torch.full((7, 1), value.item()))
            assert torch.allclose(table[:, j].float(), expected, atol=1e-5)
    assert not torch.allclose(tables.signal, tables.background)


def test_a_pair_in_float64_is_evaluated_in_float64() -> None:
    flows = FlowPair.from_config(FlowConfig.modern()).double()
    x = torch.randn(3, 2, generator=torch.Generator().manual_seed(0)).double()
    table = flows.log_components(x, torch.tensor([0.3])).signal
    assert torch.allclose(table[:, 0], flows.signal.log_prob(x, torch.full((3, 1), 0.3).double()), rtol=1e-13)


def test_samples_come_from_the_flow_asked_for() -> None:
    flows = FlowPair.from_config(FlowConfig.modern(), seed=1)
    nuisance = torch.linspace(0, 1, 5)
    for name, flow in (("signal", flows.signal), ("background", flows.background)):
        x = flows.sample(name, nuisance, torch.Generator().manual_seed(2))
        expected = flow.sample(nuisance[:, None], torch.Generator().manual_seed(2))
        assert torch.equal(x, expected)


def test_compiling_the_pair_leaves_the_numbers_alone() -> None:
    config = FlowConfig(n_transforms=1, hidden=8, n_bins=3)
    plain, compiled = (FlowPair.from_config(config) for _ in range(2))
    compiled.compile(backend="aot_eager", fullgraph=True, dynamic=False)
    x, nuisance = torch.randn(6, 2, generator=torch.Generator().manual_seed(0)), torch.linspace(0, 1, 3)
    for expected, table in zip(
        plain.log_components(x, nuisance), compiled.log_components(x, nuisance), strict=True
    ):
        assert torch.allclose(table, expected, atol=1e-5)


def test_bad_input_is_refused() -> None:
    config = FlowConfig.modern()
    flows = FlowPair.from_config(config)
    with pytest.raises(DataError, match=r"shape \(n_events, 2\)"):
        flows.log_components(torch.zeros(3, 3), torch.zeros(2))
    with pytest.raises(DataError, match="NaN or infinite"):
        flows.log_components(torch.full((3, 2), torch.nan), torch.zeros(2))
    with pytest.raises(DataError, match="nuisance has 1 of 2 events with NaN"):
        flows.log_components(torch.zeros(3, 2), torch.tensor([0.0, torch.inf]))
    with pytest.raises(DataError, match="one-dimensional nuisance"):
        flows.log_components(torch.zeros(3, 2), torch.zeros(2, 1))
    with pytest.raises(ParameterError, match="component must be one of"):
        flows.sample("noise", torch.zeros(2), torch.Generator())
    with pytest.raises(ParameterError, match="share one configuration"):
        FlowPair(ConditionalFlow(config), ConditionalFlow(FlowConfig.sluijter()))
