"""The likelihood: equal to pyhf's, exact derivatives, right at edges, and errors that name the bin."""

from __future__ import annotations

import math
from collections.abc import Callable

import pyhf
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor

from sbilib.errors import DataError, ParameterError
from sbilib.histfactory import (
    Channel,
    HistoSys,
    Lumi,
    Model,
    Modifier,
    NormFactor,
    NormSys,
    ParameterSettings,
    Sample,
    ShapeFactor,
    ShapeSys,
    StatError,
    correlated_background,
    uncorrelated_background,
)
from tests.histfactory.workspaces import Spec, both, random_theta, workspaces

PROPERTY = settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
CODES = st.tuples(st.sampled_from(["1", "4"]), st.sampled_from(["0", "2", "4p"]))
pytestmark = pytest.mark.filterwarnings("ignore:jsonschema.RefResolver:DeprecationWarning")


def _full_model(background: Tensor, uncertainty: Tensor, factor: Tensor, *, scale: float = 1.0) -> Model:
    """Return a model with every modifier whose templates can carry gradients."""
    modifiers: list[Modifier] = [
        HistoSys("tilt", background * 0.9, background * 1.15),
        NormSys("norm", 0.5 + factor * 0.4, 0.6 + factor * 0.5),
        ShapeSys("shape", uncertainty),
        StatError("stat", uncertainty * 0.5),
    ]
    signal = Sample(
        "signal", background * 0.1 * scale, [NormFactor("mu"), StatError("stat", uncertainty * 0.2)]
    )
    return Model([Channel("SR", [signal, Sample("background", background, modifiers)])])


def _templates() -> tuple[Tensor, Tensor, Tensor]:
    return (
        torch.tensor([20.0, 30.0, 25.0], dtype=torch.float64),
        torch.tensor([2.0, 3.0, 1.5], dtype=torch.float64),
        torch.tensor(1.0, dtype=torch.float64),
    )


@given(workspaces(), CODES, st.integers(0, 1000))
@PROPERTY
def test_logpdf_and_layout_equal_pyhf(spec: Spec, codes: tuple[str, str], seed: int) -> None:
    ours, theirs = both(spec, *codes)
    config = theirs.config
    assert list(ours.parameter_names) == config.par_names
    assert ours.initial.tolist() == config.suggested_init()
    assert ours.bounds.tolist() == [list(pair) for pair in config.suggested_bounds()]
    assert ours.fixed.tolist() == config.suggested_fixed()
    assert ours.poi_index == config.poi_index
    assert ours.auxiliary_data.tolist() == pytest.approx(list(config.auxdata), rel=1e-12)
    for name in config.par_order:
        assert ours.slice(name) == config.par_slice(name)
    theta = random_theta(ours, seed)
    expected = theirs.expected_data(theta.tolist())
    assert ours.expected_data(theta).tolist() == pytest.approx(list(expected), rel=1e-11, abs=1e-11)
    data = pyhf.Workspace(spec).data(theirs)
    reference = float(theirs.logpdf(theta.tolist(), data)[0])
    found = ours.logpdf(theta, data).item()
    if bool((ours.expected_data(theta, include_auxiliary=False) >= 0).all()):
        assert found == pytest.approx(reference, rel=1e-10)
    else:
        assert found == -math.inf


@given(workspaces(), CODES, st.integers(0, 1000), st.booleans())
@PROPERTY
def test_derivatives_equal_automatic_ones(
    spec: Spec, codes: tuple[str, str], seed: int, at_zero: bool
) -> None:
    model, _ = both(spec, *codes)
    theta = random_theta(model, seed)
    if at_zero:  # a vanishing scale, where quotients of factors would be 0 / 0
        theta[model.poi_index or 0] = 0.0
    main = torch.full((model.n_bins,), 31.0, dtype=torch.float64)
    rates = model.expected_data(theta, include_auxiliary=False)
    data = torch.cat([torch.where(rates > 0, main, 0.0), model.auxiliary_data])

    def nll(point: Tensor) -> Tensor:
        return -model.logpdf(point, data)

    value, gradient, hessian = model.nll_derivatives(theta, data)
    if bool((rates < 0).any()):
        assert value.item() == math.inf
        return
    torch.testing.assert_close(value, nll(theta), rtol=1e-12, atol=1e-12)
    expected = torch.func.jacrev(nll)(theta)
    torch.testing.assert_close(
        gradient, expected, rtol=1e-9, atol=1e-9 * max(1.0, float(expected.abs().max()))
    )
    expected = torch.func.hessian(nll)(theta)
    torch.testing.assert_close(
        hessian, expected, rtol=1e-9, atol=1e-9 * max(1.0, float(expected.abs().max()))
    )


@pytest.mark.parametrize("n_bins", [1, 4])
def test_simple_models_equal_pyhf(n_bins: int) -> None:
    signal, background = [3.0 + i for i in range(n_bins)], [40.0 - 3 * i for i in range(n_bins)]
    errors, down = [2.0 + i for i in range(n_bins)], [38.0 - i for i in range(n_bins)]
    up = [43.0 + i for i in range(n_bins)]
    pairs = (
        (
            uncorrelated_background(signal, background, errors),
            pyhf.simplemodels.uncorrelated_background(signal, background, errors),
        ),
        (
            correlated_background(signal, background, up, down),
            pyhf.simplemodels.correlated_background(signal, background, up, down),
        ),
    )
    for ours, theirs in pairs:
        theta = random_theta(ours, n_bins)
        data = [41.0] * n_bins + theirs.config.auxdata
        assert list(ours.parameter_names) == theirs.config.par_names
        reference = float(theirs.logpdf(theta.tolist(), data)[0])
        assert ours.logpdf(theta, data).item() == pytest.approx(reference, rel=1e-12)


def test_templates_data_and_parameters_pass_gradcheck() -> None:
    theta0 = torch.tensor([0.4, 0.7, -1.2, 0.9, 1.1, 1.0, 1.2, 0.9, 0.8], dtype=torch.float64)

    def logpdf(
        background: Tensor, uncertainty: Tensor, factor: Tensor, theta: Tensor, main: Tensor
    ) -> Tensor:
        model = _full_model(background, uncertainty, factor)
        return model.logpdf(theta, torch.cat([main, model.auxiliary_data]))

    def gradient(
        background: Tensor, uncertainty: Tensor, factor: Tensor, theta: Tensor, main: Tensor
    ) -> Tensor:
        model = _full_model(background, uncertainty, factor)
        return torch.cat(
            [part.flatten() for part in model.nll_derivatives(theta, torch.cat([main, model.auxiliary_data]))]
        )

    inputs = [*_templates(), theta0, torch.tensor([24.0, 33.0, 21.0], dtype=torch.float64)]
    for each in inputs:
        each.requires_grad_()
    assert torch.autograd.gradcheck(logpdf, inputs)
    assert torch.autograd.gradcheck(gradient, inputs)


def test_batches_of_templates_parameters_and_data_broadcast() -> None:
    background, uncertainty, factor = _templates()
    scales = torch.tensor([[0.8], [1.0], [1.3]], dtype=torch.float64)
    batch = _full_model(background * scales, uncertainty, factor)
    theta = random_theta(batch, 0) + 0.01 * torch.arange(2, dtype=torch.float64).reshape(2, 1, 1)
    assert batch.batch_shape == (3,)
    data = batch.expected_data(batch.initial)
    found = batch.nll_derivatives(theta, data)
    assert [tuple(part.shape) for part in found] == [(2, 3), (2, 3, 9), (2, 3, 9, 9)]
    for i in range(3):
        single = _full_model(background * scales[i], uncertainty, factor)
        for j in range(2):
            expected = single.nll_derivatives(theta[j, 0], data[i])
            for part, reference in zip(found, expected, strict=True):
                torch.testing.assert_close(part[j, i], reference, rtol=1e-12, atol=1e-12)
    column = _full_model(background * scales.unsqueeze(1), uncertainty, factor)
    assert column.batch_shape == (3, 1)
    crossed = column.nll_derivatives(theta[:, 0], data[0])
    for part, reference in zip(crossed, batch.nll_derivatives(theta, data[0]), strict=True):
        torch.testing.assert_close(part, reference.transpose(0, 1), rtol=1e-12, atol=1e-12)
    assert column.expected_data(theta[:, 0]).shape == (3, 2, 11)
    rows = batch.rows((3,), torch.tensor([2, 0]))
    torch.testing.assert_close(rows.expected_data(batch.initial), data[[2, 0]])
    torch.testing.assert_close(
        batch.nll_derivatives(batch.initial, data)[0], -batch.logpdf(batch.initial, data)
    )


def test_with_templates_and_detached_keep_the_model() -> None:
    background, uncertainty, factor = _templates()
    model = _full_model(background.requires_grad_(), uncertainty, factor)
    detached = model.detached()
    assert model.expected_data(model.initial).requires_grad
    assert not detached.expected_data(model.initial).requires_grad
    torch.testing.assert_close(detached.expected_data(model.initial), model.expected_data(model.initial))
    channel = Channel("SR", [Sample("signal", [1.0, 2.0], [NormFactor("mu")])])
    with pytest.raises(ParameterError, match="build a new Model instead"):
        model.with_templates([channel])


def test_empty_bins_have_finite_gradients() -> None:
    """A bin that expects and has nothing adds nothing, and its slope is that of the rate alone."""
    signal = torch.tensor([0.0, 2.0], dtype=torch.float64, requires_grad=True)
    model = uncorrelated_background(signal, [0.0, 9.0], [0.0, 1.0])
    assert model.fixed.tolist() == [False, True, False]
    theta = torch.tensor([1.0, 1.0, 1.0], dtype=torch.float64)
    data = torch.cat([torch.tensor([0.0, 11.0], dtype=torch.float64), model.auxiliary_data])
    for value in (model.nll_derivatives(theta, data)[0], -model.logpdf(theta, data)):
        (gradient,) = torch.autograd.grad(value, signal, retain_graph=True)
        assert gradient.tolist() == pytest.approx([1.0, 0.0])
    assert all(bool(part.isfinite().all()) for part in model.nll_derivatives(theta, data))
    assert model.logpdf(theta, [3.0, 11.0, 1.0, 81.0]).item() == -math.inf


def test_negative_rates_are_impossible() -> None:
    """Far outside its range a shape uncertainty can drive a bin below zero, with or without data there."""
    model = correlated_background([1.0, 1.0], [10.0, 10.0], [4.0, 11.0], [16.0, 9.0])
    theta = torch.tensor([4.0, 0.0], dtype=torch.float64)
    assert model.expected_data(theta)[0].item() == pytest.approx(10.0 - 4 * 6.0)
    for count in (0.0, 3.0):
        assert model.logpdf(theta, [count, 10.0, 0.0]).item() == -math.inf
        assert model.nll_derivatives(theta, [count, 10.0, 0.0])[0].item() == math.inf


def test_fixed_follows_the_members_of_a_batch() -> None:
    errors = torch.tensor([[1.0, 0.0], [1.0, 1.0]], dtype=torch.float64)
    model = uncorrelated_background([1.0, 1.0], [5.0, 5.0], errors)
    assert model.fixed.tolist() == [[False, False, True], [False, False, False]]


def test_sigmas_are_the_constraint_widths() -> None:
    background, uncertainty, factor = _templates()
    model = _full_model(background, uncertainty, factor)
    sigmas = dict(zip(model.parameter_names, model.sigmas.tolist(), strict=True))
    assert sigmas["tilt"] == sigmas["norm"] == 1.0
    assert sigmas["mu"] == math.inf
    assert sigmas["shape[1]"] == pytest.approx(3.0 / 30.0)
    assert sigmas["stat[0]"] == pytest.approx(math.hypot(0.5 * 2.0, 0.2 * 2.0) / (20.0 + 2.0))


def test_model_without_poi() -> None:
    channel = Channel("SR", [Sample("b", [5.0], [NormSys("norm", 0.9, 1.1)])])
    assert Model([channel], poi=None).poi_index is None


def _channel(*modifiers: Modifier, yields: object = (5.0, 6.0), name: str = "SR") -> Channel:
    return Channel(name, [Sample("background", yields, [NormFactor("mu"), *modifiers])])  # type: ignore[arg-type]


BAD: dict[str, tuple[Callable[[], object], type[Exception], str]] = {
    "negative": (
        lambda: Model([_channel(yields=[5.0, -1.0])]),
        DataError,
        r"channel 'SR', sample 'background', yields, bin 1: .*non-negative.* got -1; correct",
    ),
    "nan": (
        lambda: Model([_channel(yields=[math.nan, 1.0])]),
        DataError,
        r"channel 'SR', sample 'background', yields, bin 0: .* got nan; correct",
    ),
    "nan in a member of a batch": (
        lambda: Model([_channel(yields=torch.tensor([[1.0, 1.0], [1.0, math.inf]]))]),
        DataError,
        r"yields, bin 1: .* got inf",
    ),
    "negative uncertainty": (
        lambda: Model([_channel(StatError("stat", [1.0, -2.0]))]),
        DataError,
        r"staterror 'stat', uncertainties, bin 1: .* got -2",
    ),
    "nan variation": (
        lambda: Model([_channel(HistoSys("tilt", [1.0, math.nan], [1.0, 1.0]))]),
        DataError,
        r"histosys 'tilt', low, bin 1: .* got nan",
    ),
    "normsys of zero": (
        lambda: Model([_channel(NormSys("norm", 0.0, 1.1))]),
        DataError,
        r"normsys 'norm', low: expected a positive factor",
    ),
    "bins": (
        lambda: Model([_channel(ShapeSys("shape", [1.0, 1.0, 1.0]))]),
        DataError,
        r"shapesys 'shape', uncertainties: expected 2 bins .* got 3; give one value per bin",
    ),
    "batches": (
        lambda: Model([_channel(StatError("stat", torch.ones(3, 2)), yields=torch.ones(2, 2))]),
        DataError,
        r"do not broadcast: .*'background', yields \(2,\).*\(3,\); make them equal",
    ),
    "poi": (
        lambda: Model([_channel()], poi="nu"),
        ParameterError,
        r"POI 'nu' is no parameter of the model \(it has 'mu'\)",
    ),
    "poi with components": (
        lambda: Model([_channel(ShapeFactor("free"))], poi="free"),
        ParameterError,
        r"POI 'free' has 2 components",
    ),
    "kinds": (
        lambda: Model([_channel(NormSys("mu", 0.9, 1.1))]),
        ParameterError,
        r"'mu' is used with incompatible kinds .*'SR', sample 'background'.* rename",
    ),
    "shapesys twice": (
        lambda: Model([_channel(ShapeSys("s", [1.0, 1.0])), _channel(ShapeSys("s", [1.0, 1.0]), name="CR")]),
        ParameterError,
        r"shapesys 's' is used in channel 'CR'.*channel 'SR'.* rename",
    ),
    "modifier twice": (
        lambda: Model([_channel(NormFactor("mu"))]),
        ParameterError,
        r"modifiers of sample 'background' in channel 'SR'.*appears 2 times",
    ),
    "channel twice": (
        lambda: Model([_channel(), _channel()]),
        ParameterError,
        r"channels.*'SR' appears 2 times",
    ),
    "lumi": (lambda: Model([_channel(Lumi())]), ParameterError, r"lumi 'lumi' needs its measured value"),
    "settings length": (
        lambda: Model([_channel()], settings=[ParameterSettings("mu", inits=[1.0, 2.0])]),
        ParameterError,
        r"'mu' needs 1 inits, got 2",
    ),
    "settings kind": (
        lambda: Model([_channel()], settings=[ParameterSettings("mu", sigmas=[1.0])]),
        ParameterError,
        r"'mu' \(normfactor\) has no sigmas; remove",
    ),
    "settings sigma": (
        lambda: Model([_channel(Lumi())], settings=[ParameterSettings("lumi", auxdata=[1.0], sigmas=[0.0])]),
        ParameterError,
        r"'lumi' has sigmas \(0.0,\), expected positive",
    ),
    "settings bounds": (
        lambda: Model([_channel()], settings=[ParameterSettings("mu", bounds=[(2.0, 1.0)])]),
        ParameterError,
        r"'mu' has bounds \(2.0, 1.0\), expected low < high",
    ),
    "code": (
        lambda: Model([_channel()], histosys_code="4"),
        ParameterError,
        r"histosys interpolation has the codes",
    ),
    "no parameters": (
        lambda: Model([Channel("SR", [Sample("b", [1.0])])], poi=None),
        ParameterError,
        "no parameters; add a modifier",
    ),
    "no channels": (lambda: Model([]), ParameterError, "at least one channel"),
    "no samples": (lambda: Channel("SR", []), ParameterError, "'SR' has no samples"),
    "no modifier": (
        lambda: Sample("b", [1.0], ["mu"]),  # type: ignore[list-item]
        ParameterError,
        "sample 'b' has the modifier 'mu'",
    ),
    "slice": (lambda: Model([_channel()]).slice("nu"), ParameterError, r"no parameter 'nu'; it has 'mu'"),
    "theta": (
        lambda: Model([_channel()]).expected_data([1.0, 2.0]),
        DataError,
        r"\(\.\.\., 1\), got \(2,\).* mu",
    ),
    "data": (
        lambda: Model([_channel()]).logpdf([1.0], [1.0, 2.0, 3.0]),
        DataError,
        r"\(\.\.\., 2\), 2 main bins and 0 auxiliary data, got \(3,\)",
    ),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_input_is_named(name: str) -> None:
    act, error, message = BAD[name]
    with pytest.raises(error, match=message):
        act()


def test_data_in_a_bin_without_expectation_are_named() -> None:
    channels = [
        Channel("CR", [Sample("b", [1.0, 3.0], [NormSys("n", 0.9, 1.1)])]),
        _channel(yields=[4.0, 0.0]),
    ]
    model = Model(channels)
    with pytest.raises(
        DataError, match=r"channel 'SR', bin 1: there are data, but no events are expected; merge"
    ):
        model.check_data([1.0, 2.0, 3.0, 1.0, 0.0])
    assert model.check_data([1.0, 2.0, 0.0, 0.0, 0.0]).tolist() == [1.0, 2.0, 0.0, 0.0, 0.0]
    with pytest.raises(
        DataError, match=r"channel 'SR', bin 0: .*background \(POI at zero\) expects no events"
    ):
        model.check_data([1.0, 2.0, 3.0, 0.0, 0.0])
    assert model.check_data([1.0, 2.0, 3.0, 0.0, 0.0], background_only=False)[2] == 3.0


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ([math.nan, 1.0, 1.0], r"channel 'SR', bin 0: the data are NaN"),
        ([1.0, -1.0, 1.0], r"channel 'SR', bin 1: the data are negative"),
        ([1.0, 1.0, math.inf], r"auxiliary datum 0?2?: the data are NaN or infinite"),
        ([1.0, 1.0], r"data must have shape \(\.\.\., 3\)"),
    ],
)
def test_bad_data_are_named(data: list[float], message: str) -> None:
    model = Model([_channel(NormSys("n", 0.9, 1.1))])
    with pytest.raises(DataError, match=message):
        model.check_data(data, background_only=False)
