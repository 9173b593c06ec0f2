"""Fitted maps: exact quantiles, exact Jacobians, physical bounds, and no second fit."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor

from sbilib.errors import DataError, ParameterError
from sbilib.models import (
    FeatureTransform,
    LogitStandardize,
    QuantileToNormal,
    TransformConfig,
    load_model,
    save_model,
)

NAMES = ("pt", "eta", "mass")
BOUNDS = {"pt": (20.0, None), "eta": (-2.4, 2.4), "mass": (None, None)}
FITS: dict[str, Callable[..., FeatureTransform]] = {
    "quantile": QuantileToNormal.fit,
    "logit": LogitStandardize.fit,
}


def events(n: int = 20_000, seed: int = 0) -> Tensor:
    """A cut-off exponential, a feature that fills its bounds, and one with a sharp peak; float64."""
    generator = torch.Generator().manual_seed(seed)
    uniform = torch.rand(n, 3, generator=generator, dtype=torch.float64)
    pt = 20 - 40 * uniform[:, 0].log()
    eta = 4.8 * uniform[:, 1] - 2.4
    mass = torch.where(uniform[:, 2] < 0.5, 80 + 0.1 * torch.tan(6 * (uniform[:, 2] - 0.25)), pt + 50)
    return torch.stack([pt, eta, mass], dim=1).float().double()


@pytest.fixture(params=FITS.values(), ids=FITS.keys())
def fit(request: pytest.FixtureRequest) -> Callable[..., FeatureTransform]:
    value: Callable[..., FeatureTransform] = request.param
    return value


def test_inverse_undoes_the_map(fit: Callable[..., FeatureTransform]) -> None:
    x = events()
    transform = fit(x, names=NAMES, bounds=BOUNDS)
    other = events(seed=1).clamp(x.amin(dim=0), x.amax(dim=0))
    for values in (x, other):
        u, _ = transform(values)
        back = transform.inverse(u)
        assert ((back - values).abs() <= 1e-9 * (1 + values.abs())).all()
    single, _ = transform(other.float())
    assert single.dtype == torch.float32
    assert torch.allclose(transform.inverse(single), other.float(), rtol=1e-4, atol=1e-3)


def test_log_determinant_is_that_of_the_jacobian(fit: Callable[..., FeatureTransform]) -> None:
    x = events()
    transform = fit(x, names=NAMES, bounds=BOUNDS)
    low, high = x.amin(dim=0), x.amax(dim=0)
    points = events(200, seed=2).clamp(low, high)
    points[0] = torch.tensor([(low[0] + 20) / 2, 2.3999, high[2] + 1])  # in the tails, inside all bounds
    points = points.requires_grad_()
    u, log_det = transform(points)
    (slopes,) = torch.autograd.grad(u.sum(), points)
    assert torch.allclose(log_det, slopes.log().sum(dim=1), rtol=1e-10, atol=1e-10)


def test_quantiles_become_standard_normal() -> None:
    """At every knot the map is the exact quantile; in between the error is far below the statistical one."""
    x = events()
    transform = QuantileToNormal.fit(x, names=NAMES, bounds=BOUNDS)
    u, _ = transform(x)
    ranks = (torch.arange(len(x), dtype=torch.float64) + 0.5) / len(x)
    for column in u.T:
        distance = (torch.special.ndtr(column.sort().values) - ranks).abs().max()
        assert distance < 0.3 * len(x) ** -0.5
    ordered = x[:, 0].sort().values
    lowest, highest = transform(x)[0][:, 0].aminmax()
    assert torch.allclose(torch.special.ndtr(torch.stack([lowest, highest])), ranks[[0, -1]], rtol=1e-3)
    assert ordered[0] == transform.values[0, 0]


def test_other_events_become_normal_too_because_nothing_is_refitted() -> None:
    """A transform refitted on new events would hide that they differ (a fault of public code)."""
    x = events()
    transform = QuantileToNormal.fit(x, names=NAMES, bounds=BOUNDS)
    before = {name: value.clone() for name, value in transform.state_dict().items()}
    shifted = events(seed=1)
    shifted[:, 0] = 1.3 * shifted[:, 0]
    u, _ = transform(shifted)
    own, _ = QuantileToNormal.fit(shifted, names=NAMES)(shifted)
    assert own[:, 0].mean().abs() < 0.01
    assert u[:, 0].mean() > 0.3
    assert all(torch.equal(before[name], value) for name, value in transform.state_dict().items())


def test_logits_are_standardized_and_bounded() -> None:
    x = events()
    transform = LogitStandardize.fit(x, names=NAMES, bounds=BOUNDS)
    u, _ = transform(x)
    assert (u.mean(dim=0).abs() < 1e-5).all()
    assert ((u.std(dim=0) - 1).abs() < 1e-5).all()
    share = torch.tensor([0.25], dtype=torch.float64)
    value = transform(torch.tensor([[30.0, -1.2, 60.0]], dtype=torch.float64))[0][0, 1]
    expected = (share.logit() - transform.shift[1]) / transform.scale[1]
    assert abs(value - expected[0]) < 1e-5


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_noise_of_any_size_comes_back_inside_the_bounds_and_in_order(
    fit: Callable[..., FeatureTransform], dtype: torch.dtype
) -> None:
    transform = fit(events(), names=NAMES, bounds=BOUNDS)
    u = torch.linspace(-60, 60, 4001, dtype=dtype)[:, None].expand(-1, 3)
    x = transform.inverse(u, outside="clamp")
    assert x.dtype == dtype
    assert (x.diff(dim=0) >= 0).all()
    assert (x[:, 0].double() >= 20).all()
    assert (x[:, 1].double().abs() <= 2.4).all()  # float32(2.4) is larger than 2.4
    assert x.isfinite().all()


def test_tails_beyond_the_training_events_are_smooth() -> None:
    x = events()
    transform = QuantileToNormal.fit(x, names=NAMES, bounds=BOUNDS)
    for column, end in ((0, 0), (0, 1), (2, 1), (1, 1)):
        edge = x[:, column].aminmax()[end]
        step = 1e-7
        points = x[:1].repeat(2, 1)
        points[:, column] = torch.stack([edge - step, edge + step])
        u, log_det = transform(points)
        assert abs(u[1, column] - u[0, column]) < 1e-3
        assert abs(log_det[1] - log_det[0]) < 1e-2


def test_a_value_on_a_bound_has_a_finite_density(fit: Callable[..., FeatureTransform]) -> None:
    transform = fit(events(), names=NAMES, bounds=BOUNDS)
    u, log_det = transform(torch.tensor([[20.0, 2.4, 80.0]], dtype=torch.float64))
    assert u.isfinite().all()
    assert log_det.isfinite().all()


def test_many_equal_values_are_one_knot_and_keep_the_order() -> None:
    x = events()
    x[:6000, 0] = 20.0  # at its bound
    x[5000:9000, 2] = 91.0
    transform = QuantileToNormal.fit(x, names=NAMES, bounds=BOUNDS)
    assert torch.allclose(transform.largest_ties[[0, 2]], torch.tensor([0.3, 0.2]), atol=0.02)
    u, log_det = transform(x)
    assert log_det.isfinite().all()
    assert torch.allclose(transform.inverse(u), x, rtol=1e-6)
    ordered = u[x[:, 2].argsort(), 2]
    assert (ordered.diff() >= 0).all()
    below = (x[:, 0] == 20).double().mean()
    assert torch.allclose(u[0, 0], torch.special.ndtri(below / 2), atol=1e-6)
    low = torch.full((1, 3), -4.0, dtype=torch.float64)
    assert transform.inverse(low)[0, 0] == 20


@pytest.mark.parametrize("value", [0.0, 1.0])
def test_two_values_are_enough(value: float) -> None:
    x = torch.cat([torch.zeros(500, 1), torch.ones(500, 1)])
    transform = QuantileToNormal.fit(x, n_knots=100)
    point = torch.full((1, 1), value)
    assert torch.allclose(transform.inverse(transform(point)[0]), point, atol=1e-6)


def test_a_saved_map_comes_back(fit: Callable[..., FeatureTransform], tmp_path: Path) -> None:
    transform = fit(events(), names=NAMES, bounds=BOUNDS)
    save_model(tmp_path / "map.safetensors", transform)
    loaded = load_model(tmp_path / "map.safetensors").model
    assert loaded.config == transform.config
    x = events(100, seed=3)
    for mine, theirs in zip(transform(x, outside="clamp"), loaded(x, outside="clamp"), strict=True):
        assert torch.equal(mine, theirs)


def test_values_outside_the_range_are_named_or_clamped(fit: Callable[..., FeatureTransform]) -> None:
    transform = fit(events(), names=NAMES, bounds=BOUNDS)
    x = torch.tensor([[30.0, 0.0, 80.0], [30.0, 2.5, 80.0]], dtype=torch.float64)
    with pytest.raises(DataError, match=r"event 1 has eta = 2.5, outside the range \[-2.4, 2.4\].*clamp"):
        transform(x)
    clamped, _ = transform(x, outside="clamp")
    x[1, 1] = 2.4
    assert torch.equal(clamped, transform(x)[0])
    u = torch.zeros(3, 3)
    u[2, 0] = 40.0
    with pytest.raises(DataError, match="coordinate 2 has pt = 40, outside the range"):
        transform.inverse(u)
    u[2, 0] = float("nan")
    with pytest.raises(DataError, match=r"1 of 3 events are NaN or infinite.*event 2 with pt = nan"):
        transform.inverse(u)
    with pytest.raises(ParameterError, match="outside must be one of 'error', 'clamp'"):
        transform.inverse(torch.zeros(1, 3), outside="ignore")


def test_a_logit_without_bounds_ends_a_margin_beyond_the_training_events() -> None:
    x = torch.linspace(0, 10, 101)[:, None]
    transform = LogitStandardize.fit(x, names=("mass",), margin=0.1)
    assert transform(torch.tensor([[10.9]]))[0].isfinite().all()
    with pytest.raises(DataError, match=r"event 0 has mass = 11\.1, outside the range"):
        transform(torch.tensor([[11.1]]))


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda x: x[:, :0], "must have shape"),
        (lambda x: x[:0], "at least one row|at least 10 events, got 0"),
        (lambda x: x.index_fill(1, torch.tensor([1]), 1.5), "eta has the same value in all 20000 events"),
        (lambda x: torch.where(x > 200, torch.nan, x), "are NaN or infinite"),
        (lambda x: torch.where(x > 200, torch.inf, x), "are NaN or infinite"),
        (lambda x: x - 1, "have pt outside its bounds"),
        (lambda x: x.long(), "floats"),
    ],
)
def test_events_that_cannot_be_fitted_are_refused(
    fit: Callable[..., FeatureTransform], damage: Callable[[Tensor], Tensor], message: str
) -> None:
    x = damage(events())
    names = NAMES if x.shape[1] == 3 else None
    with pytest.raises(DataError, match=message):
        fit(x, names=names, bounds=BOUNDS if names else None)


def test_very_few_events_are_refused() -> None:
    with pytest.raises(DataError, match="at least 10 events, got 9"):
        QuantileToNormal.fit(events(9))


def test_the_slope_of_a_tail_is_not_that_between_two_neighbors() -> None:
    """The last two events may lie close to each other by chance; noise then came back near them, or far."""
    x = torch.linspace(0, 100, 1001)[:, None]
    close = x.clone()
    close[-2] = close[-1] - 1e-4
    far = torch.full((1, 1), 4.5)
    plain, changed = (QuantileToNormal.fit(each).inverse(far).item() for each in (x, close))
    assert plain > 100.3
    assert changed == pytest.approx(plain, abs=1e-3)


ORDERED = ("jet_1", "jet_2", "jet_3", "pair", "all")
FLOORS = {
    "jet_1": (("jet_2",),),
    "jet_2": (("jet_3",),),
    "all": (("jet_1", "pair"), ("jet_3", "pair")),
}
LOWEST = {"jet_3": (15.0, None), "jet_1": (15.0, None), "pair": (0.0, None)}


def ordered_events(n: int = 5000, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    steps = -torch.rand(n, 5, generator=generator, dtype=torch.float64).log()
    jet_3 = 15 + 10 * steps[:, 0]
    jet_2 = jet_3 + 10 * steps[:, 1]
    jet_1 = jet_2 + 10 * steps[:, 2]
    pair = 50 * steps[:, 3]
    return torch.stack([jet_1, jet_2, jet_3, pair, jet_1 + pair + steps[:, 4]], dim=1).float().double()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_whatever_comes_back_keeps_its_floors(
    fit: Callable[..., FeatureTransform], dtype: torch.dtype
) -> None:
    transform = fit(ordered_events(), names=ORDERED, bounds=LOWEST, floors=FLOORS)
    noise = 3 * torch.randn(20_000, 5, generator=torch.Generator().manual_seed(1), dtype=dtype)
    x = transform.inverse(noise, outside="clamp").double()
    assert (x[:, 0] >= x[:, 1]).all()
    assert (x[:, 1] >= x[:, 2]).all()
    assert (x[:, 2] >= 15).all()
    assert (x[:, 4] >= x[:, 0] + x[:, 3]).all()
    plain = fit(ordered_events(), names=ORDERED, bounds=LOWEST).inverse(noise, outside="clamp")
    assert (plain[:, 0] < plain[:, 1]).double().mean() > 0.1  # without floors it would not


def test_floors_leave_the_jacobian_and_the_inverse_exact(fit: Callable[..., FeatureTransform]) -> None:
    x = ordered_events()
    transform = fit(x, names=ORDERED, bounds=LOWEST, floors=FLOORS)
    points = ordered_events(20, seed=1).clamp(max=x.amin(dim=0) + 150)
    points[:, 4] = points[:, 0] + points[:, 3] + 0.5
    u, log_det = transform(points)
    jacobian = torch.autograd.functional.jacobian(lambda each: transform(each)[0].sum(dim=0), points)
    expected = jacobian.transpose(0, 1).slogdet().logabsdet
    assert torch.allclose(log_det, expected, atol=1e-8)
    assert torch.allclose(transform.inverse(u), points, rtol=1e-9)


def test_a_part_outside_its_bounds_does_not_lift_what_stands_on_it() -> None:
    transform = QuantileToNormal.fit(ordered_events(), names=ORDERED, bounds=LOWEST, floors=FLOORS)
    x = torch.tensor([[40.0, 30.0, 10.0, 20.0, 70.0]])
    back = transform.inverse(transform(x, outside="clamp")[0])
    assert torch.allclose(back, torch.tensor([[40.0, 30.0, 15.0, 20.0, 70.0]]), rtol=1e-4)


def test_a_bound_above_the_floor_counts() -> None:
    x = ordered_events()
    x[:, 0] = x[:, 0].clamp_min(30.0)
    bounds = {"jet_1": (30.0, None), "jet_3": (15.0, None)}
    transform = QuantileToNormal.fit(x, names=ORDERED, bounds=bounds, floors={"jet_1": (("jet_2",),)})
    noise = 3 * torch.randn(2000, 5, generator=torch.Generator().manual_seed(1))
    assert bool((transform.inverse(noise, outside="clamp")[:, 0] >= 30).all())
    with pytest.raises(DataError, match="jet_1 above its floor = -4"):
        transform(torch.tensor([[26.0, 20.0, 18.0, 20.0, 70.0]]))


def test_the_order_of_floors_is_that_of_the_configuration() -> None:
    """A set would give another order in another process, and another name to a stored training."""
    floors = (("z", (("q", "p"),)), ("a", (("p",),)), ("b", (("q",),)), ("q", (("p",),)))
    config = TransformConfig(names=tuple("abzqp"), bounds=((None, None),) * 5, floors=floors)
    assert [name for name, _ in config.floors] == ["a", "q", "z", "b"]
    assert TransformConfig.from_dict(config.to_dict()) == config


def test_floors_are_saved_with_the_map(tmp_path: Path) -> None:
    x = ordered_events()
    transform = QuantileToNormal.fit(x, names=ORDERED, bounds=LOWEST, floors=FLOORS)
    save_model(tmp_path / "map.safetensors", transform)
    loaded = load_model(tmp_path / "map.safetensors").model
    assert loaded.config == transform.config
    assert torch.equal(loaded(x)[0], transform(x)[0])


def test_events_below_a_floor_are_named_or_lifted(fit: Callable[..., FeatureTransform]) -> None:
    x = ordered_events()
    transform = fit(x, names=ORDERED, bounds=LOWEST, floors=FLOORS)
    x[3, 0] = x[3, 1] * (1 - 1e-5)
    x[3, 4] = x[3, 1] + x[3, 3] + 0.5
    assert transform(x)[0].isfinite().all()  # rounded in a file
    x[3, 0] = x[3, 1] - 2
    with pytest.raises(DataError, match="event 3 has jet_1 above its floor = -2, outside the range"):
        transform(x)
    back = transform.inverse(transform(x, outside="clamp")[0], outside="clamp")
    x[3, 0] = x[3, 1]  # lifted to its floor, and all else stays
    assert torch.allclose(back[:10], x[:10], rtol=1e-6)
    x[3, 0] = x[3, 1] - 2
    with pytest.raises(DataError, match="1 of 5000 events have jet_1 below its floor"):
        fit(x, names=ORDERED, bounds=LOWEST, floors=FLOORS)


@pytest.mark.parametrize(
    ("floors", "message"),
    [
        ({"jet_4": (("jet_1",),)}, r"floors name features \['jet_4'\]"),
        ({"jet_1": (("jet_4",),)}, r"floors name features \['jet_4'\]"),
        ({"jet_1": ()}, "at least one group"),
        ({"jet_1": ((),)}, "at least one group"),
        ({"jet_1": (("jet_2",),), "jet_2": (("jet_1",),)}, "in a circle: jet_"),
        ({"jet_1": (("jet_1",),)}, "in a circle"),
    ],
)
def test_impossible_floors_are_refused(floors: dict[str, tuple[tuple[str, ...], ...]], message: str) -> None:
    with pytest.raises(ParameterError, match=message):
        QuantileToNormal.fit(ordered_events(100), names=ORDERED, floors=floors)


def test_a_floor_with_an_upper_bound_is_refused() -> None:
    with pytest.raises(ParameterError, match="jet_1 has a floor and an upper bound"):
        QuantileToNormal.fit(ordered_events(100), names=ORDERED, bounds={"jet_1": (None, 1e6)}, floors=FLOORS)


@pytest.mark.parametrize(
    ("names", "bounds", "message"),
    [
        (("a", "a", "b"), None, "repeat none"),
        (("a", "b"), None, "one pair for each|one column for each"),
        (NAMES, {"phi": (0.0, 1.0)}, r"bounds name features \['phi'\]"),
        (NAMES, {"eta": (2.4, -2.4)}, "bounds of eta must be"),
        (NAMES, {"eta": (float("nan"), 2.0)}, "bound of eta must be a finite number"),
    ],
)
def test_impossible_names_and_bounds_are_refused(
    fit: Callable[..., FeatureTransform],
    names: tuple[str, ...],
    bounds: dict[str, tuple[float | None, float | None]] | None,
    message: str,
) -> None:
    with pytest.raises((ParameterError, DataError), match=message):
        fit(events(300), names=names, bounds=bounds)


def test_bounds_are_rounded_inwards() -> None:
    config = TransformConfig(names=("eta",), bounds=((-2.4, 2.4),))
    low, high = config.limits(torch.float32)
    assert (low.double() >= -2.4).all()
    assert (high.double() <= 2.4).all()
    assert high.item() == pytest.approx(2.4, rel=1e-6)
