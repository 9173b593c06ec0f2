import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sbilib.differentiable import AnalysisSettings, Templates, asimov_information, asimov_q, make_loss
from sbilib.differentiable.shape_model import shape_information, shape_q
from sbilib.errors import DataError

NO_FLOOR = AnalysisSettings(floor=0.0)
TESTED, TRUE = (1.0, 0.0, 0.5), (0.0, 1.0, 2.0)
yields = st.floats(0.5, 100)


@given(st.lists(st.tuples(yields, yields, yields, yields), min_size=2, max_size=5))
@settings(deadline=None, max_examples=40)
def test_it_is_the_statistic_of_the_general_model_with_its_gradient(rows):
    columns = [torch.tensor(c, dtype=torch.float64, requires_grad=True) for c in zip(*rows, strict=True)]
    templates = Templates(*columns)
    fit = templates.conditional_fit(NO_FLOOR)
    general = asimov_q(templates.model(NO_FLOOR), tested=TESTED, true=TRUE, conditional_fit=fit)
    closed = shape_q(*columns, tested=TESTED, true=TRUE)
    torch.testing.assert_close(closed, general, rtol=1e-9, atol=1e-9)
    for mine, theirs in zip(
        torch.autograd.grad(closed.sum(), columns), torch.autograd.grad(general.sum(), columns), strict=True
    ):
        torch.testing.assert_close(mine, theirs, rtol=1e-7, atol=1e-8)


@given(st.lists(st.tuples(yields, yields, yields, yields), min_size=2, max_size=5))
@settings(deadline=None, max_examples=40)
def test_the_information_is_that_of_the_general_model(rows):
    columns = [torch.tensor(c, dtype=torch.float64) for c in zip(*rows, strict=True)]
    model = Templates(*columns).model(NO_FLOOR)
    general = asimov_information(model, poi_value=0.7)
    torch.testing.assert_close(shape_information(*columns, poi_value=0.7), general, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("name", ["cls", "log_p0", "sigma_mu", "generalized_variance", "constraint"])
def test_losses_do_not_depend_on_the_path(name):
    columns = [torch.rand(2, 4, dtype=torch.float64).add(c) for c in (1.0, 20.0, 21.0, 18.0)]
    fast = make_loss(name)(templates=Templates(*columns))
    # A staterror of nothing takes the general path.
    nothing = Templates(*columns, uncertainty=torch.full_like(columns[0], 1e-7))
    general = make_loss(name, settings=AnalysisSettings(statistical=True))(templates=nothing)
    if name == "generalized_variance":  # each extra parameter brings its own tiny variance
        general = general / (1e-7 / (columns[1] + 1e-3)).square().prod(-1)
    torch.testing.assert_close(fast, general, rtol=1e-5, atol=1e-9)


def test_a_stack_of_networks_is_a_batch():
    rows = [torch.rand(3, 4, dtype=torch.float64).add(1.0) for _ in range(4)]
    together = shape_q(*rows, tested=TESTED, true=TRUE)
    assert together.shape == (3, 3)
    for member in range(3):
        alone = shape_q(*(row[member] for row in rows), tested=TESTED, true=TRUE)
        torch.testing.assert_close(together[:, member], alone, rtol=1e-12, atol=1e-12)


def test_an_empty_bin_adds_only_its_rate():
    signal, background = torch.tensor([3.0, 0.0]).double(), torch.tensor([0.0, 40.0]).double()
    q = shape_q(signal, background, background, background, tested=[1.0], true=[0.0])
    assert q.item() == pytest.approx(6.0, rel=1e-12)


@pytest.mark.parametrize("bad", [-1.0, float("nan"), float("inf")])
@pytest.mark.parametrize("place", range(4))
def test_bad_templates_are_named(bad, place):
    columns = [torch.full((3,), 5.0, dtype=torch.float64) for _ in range(4)]
    columns[place][1] = bad
    with pytest.raises(DataError, match=("signal", "background", "up", "down")[place]):
        make_loss("cls")(templates=Templates(*columns))
