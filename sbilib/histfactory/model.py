"""The HistFactory model: expected data, likelihood and closed-form derivatives, differentiable in its
templates.

The probability of main counts n_b and auxiliary data a_p at parameters theta is

    L(theta) = prod_b Poisson(n_b | sum_s rate_sb(theta)) * prod_p c_p(a_p | theta_p),

with Gaussian constraints Normal(a | theta, sigma) (normsys, histosys, lumi, staterror) and Poisson
constraints Poisson(a | tau theta) (shapesys).  Parameters and data are ordered as in pyhf.

Source: K. Cranmer et al., HistFactory, CERN-OPEN-2012-016 (2012).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Self

import torch
from torch import Tensor

from sbilib.errors import DataError, ParameterError
from sbilib.histfactory.derivatives import Codes, expected_auxiliary, expected_bins, nll, nll_derivatives
from sbilib.histfactory.plan import Plan, make_plan
from sbilib.histfactory.specification import Channel, ParameterSettings
from sbilib.histfactory.structure import Structure, compile_structure
from sbilib.histfactory.templates import Terms, detached, layout_of, make_terms, pack

__all__ = ["Model"]


class Model:
    """A binned likelihood built from channels.

    Building is cheap: what depends on names alone is kept from the last model of the same structure, so a
    training loop builds a new model from its templates at every step.

    Args:
        channels: the histograms with their samples and modifiers; all numbers may carry gradients and
            leading batch dimensions, which broadcast.
        poi: name of the parameter of interest, or ``None``.
        settings: start values, bounds, fixed flags and auxiliary measurements that differ from the defaults.
        normsys_code: ``"4"`` (pyhf's default) or ``"1"``.
        histosys_code: ``"4p"`` (pyhf's default), ``"0"`` or ``"2"``.

    Raises:
        ParameterError: for names that clash, a POI that does not exist, or settings that do not fit.
        DataError: for templates that are NaN, negative, or of unequal length.

    >>> from sbilib.histfactory import NormFactor, Sample
    >>> signal = Sample("signal", [1.0, 2.0], [NormFactor("mu")])
    >>> model = Model([Channel("SR", [signal, Sample("background", [5.0, 5.0])])])
    >>> model.parameter_names, model.expected_data([2.0]).tolist()
    (('mu',), [7.0, 9.0])
    """

    def __init__(
        self,
        channels: Sequence[Channel],
        *,
        poi: str | None = "mu",
        settings: Sequence[ParameterSettings] = (),
        normsys_code: str = "4",
        histosys_code: str = "4p",
    ) -> None:
        if not channels:
            raise ParameterError("a model needs at least one channel, got none; pass Channel objects")
        packed = pack(channels)
        structure = compile_structure(layout_of(channels), poi, tuple(settings), normsys_code, histosys_code)
        self._set(structure, packed, make_terms(make_plan(structure, packed.device), packed, normsys_code))

    def _set(self, structure: Structure, packed: Tensor, terms: Terms) -> None:
        self._structure, self._packed, self._terms = structure, packed, terms
        self._plan: Plan = make_plan(structure, packed.device)
        self._codes: Codes = (structure.normsys_code, structure.histosys_code)
        self._names: tuple[str, ...] | None = None

    def _with(self, packed: Tensor, terms: Terms | None = None) -> Self:
        other = object.__new__(type(self))
        if terms is None:
            terms = make_terms(self._plan, packed, self._structure.normsys_code)
        other._set(self._structure, packed, terms)
        return other

    @property
    def channels(self) -> tuple[tuple[str, int], ...]:
        """Name and number of bins of each channel, in the order of the data."""
        return self._structure.channels

    @property
    def samples(self) -> tuple[str, ...]:
        """Names of the samples, in alphabetical order."""
        return self._structure.samples

    @property
    def parameter_names(self) -> tuple[str, ...]:
        """One name per scalar parameter, ``name`` or ``name[i]``."""
        if self._names is None:
            self._names = tuple(
                each.name if each.is_scalar else f"{each.name}[{i}]"
                for each in self._structure.sets
                for i in range(each.size)
            )
        return self._names

    @property
    def n_parameters(self) -> int:
        """Number P of scalar parameters."""
        return self._structure.n_parameters

    @property
    def n_bins(self) -> int:
        """Number of main bins of all channels."""
        return self._plan.shape[0]

    @property
    def n_auxiliary(self) -> int:
        """Number of auxiliary data."""
        return self._plan.auxiliary.shape[0]

    @property
    def batch_shape(self) -> torch.Size:
        """Leading batch dimensions of the templates."""
        return self._packed.shape[:-1]

    @property
    def device(self) -> torch.device:
        """Where the templates live."""
        return self._packed.device

    @property
    def requires_grad(self) -> bool:
        """Whether results carry gradients to the templates."""
        return self._packed.requires_grad

    def slice(self, name: str) -> slice:
        """Return the places of the parameters of one name, ``theta[..., model.slice(name)]``.

        Raises:
            ParameterError: if the model has no parameter of that name.

        >>> from sbilib.histfactory import uncorrelated_background
        >>> uncorrelated_background([1.0, 1.0], [5.0, 5.0], [1.0, 1.0]).slice("uncorr_bkguncrt")
        slice(1, 3, None)
        """
        for each in self._structure.sets:
            if each.name == name:
                return slice(each.start, each.start + each.size)
        known = ", ".join(repr(each.name) for each in self._structure.sets)
        raise ParameterError(f"the model has no parameter {name!r}; it has {known}")

    @property
    def poi_index(self) -> int | None:
        """Place of the parameter of interest, or ``None``."""
        return self._structure.poi_index

    @property
    def initial(self) -> Tensor:
        """Start values, ``(P,)``."""
        return self._plan.initial

    @property
    def bounds(self) -> Tensor:
        """Lower and upper bounds, ``(P, 2)``."""
        return self._plan.bounds

    @property
    def fixed(self) -> Tensor:
        """Parameters that fits hold: by settings, or because their bin has no yield or no uncertainty.

        Returns:
            ``(P,)`` bool; ``(*batch_shape, P)`` if members of a batch of templates differ in their empty
            bins.
        """
        if not self._plan.fixed_by_templates.numel():
            return self._plan.fixed
        held = self._terms.held & self._plan.decided_by_templates
        fixed = self._plan.fixed.expand(*held.shape[:-1], -1).clone()
        fixed[..., self._plan.fixed_by_templates] |= held
        flat = fixed.reshape(-1, fixed.shape[-1])
        return flat[0] if bool((flat == flat[:1]).all()) else fixed

    @property
    def sigmas(self) -> Tensor:
        """Constraint width of each parameter before the fit, ``(*batch_shape, P)``; infinite without
        constraint.

        A Poisson constraint of rate tau has the width 1 / sqrt(tau).
        """
        widths = torch.cat([self._terms.sigma, self._terms.tau.rsqrt()], dim=-1)
        places = torch.cat([self._plan.gaussian[0], self._plan.poisson[0]])
        free = torch.full(
            (*widths.shape[:-1], self.n_parameters), torch.inf, dtype=widths.dtype, device=self.device
        )
        return free.index_copy(-1, places, widths)

    @property
    def auxiliary_data(self) -> Tensor:
        """The measured auxiliary data, ``(*batch_shape, n_auxiliary)``; without shapesys no batch."""
        return self._terms.auxiliary

    def _parameters(self, theta: Tensor | Sequence[float]) -> Tensor:
        theta = torch.as_tensor(theta, dtype=torch.float64, device=self.device)
        if theta.dim() == 0 or theta.shape[-1] != self._plan.initial.shape[0]:
            raise DataError(
                f"theta must have shape (..., {self.n_parameters}), got {tuple(theta.shape)}; "
                f"give one value for each of {', '.join(self.parameter_names)}"
            )
        return theta

    def _data(self, data: Tensor | Sequence[float]) -> Tensor:
        data = torch.as_tensor(data, dtype=torch.float64, device=self.device)
        expected = self.n_bins + self.n_auxiliary
        if data.dim() == 0 or data.shape[-1] != expected:
            raise DataError(
                f"data must have shape (..., {expected}), {self.n_bins} main bins and "
                f"{self.n_auxiliary} auxiliary data, got {tuple(data.shape)}; "
                "append model.auxiliary_data to the main bins"
            )
        return data

    def check_data(self, data: Tensor | Sequence[float], *, background_only: bool = True) -> Tensor:
        """Check observed data before a fit and return them as a float64 tensor.

        A bin with data needs a non-zero expectation, or its likelihood is zero wherever a fit begins.  This
        is checked at the start values and, because tests visit a POI of zero, for the background alone.

        Args:
            data: ``(*batch, n_bins + n_auxiliary)``, main bins then auxiliary data.
            background_only: also ask for a non-zero expectation with the POI at zero, where its bounds allow
                zero.

        Raises:
            DataError: for data of the wrong length, NaN, infinite or negative main data, or data in a bin
                where nothing is expected.

        >>> from sbilib.histfactory import uncorrelated_background
        >>> model = uncorrelated_background([1.0], [5.0], [1.0])
        >>> model.check_data([6.0, 25.0]).tolist()
        [6.0, 25.0]
        """
        data = self._data(data)
        for index, bad in enumerate((~data.isfinite()).reshape(-1, data.shape[-1]).any(0).tolist()):
            if bad:
                place = self._structure.bin_name(index) if index < self.n_bins else f"auxiliary datum {index}"
                raise DataError(f"{place}: the data are NaN or infinite; correct them")
        main = data[..., : self.n_bins]
        self._refuse(main < 0, "the data are negative; counts must be zero or more, so correct them")
        remedy = "merge the bin with its neighbor, or give the sample a yield there"
        with torch.no_grad():
            empty = self.expected_data(self.initial, include_auxiliary=False) == 0
            self._refuse(empty & (main > 0), f"there are data, but no events are expected; {remedy}")
            poi = self.poi_index
            if poi is not None and background_only and self.bounds[poi, 0] <= 0:
                start = self.initial.clone()
                start[poi] = 0.0
                empty = self.expected_data(start, include_auxiliary=False) == 0
                message = f"there are data, but the background (POI at zero) expects no events; {remedy}"
                self._refuse(empty & (main > 0), message)
        return data

    def _refuse(self, bad: Tensor, message: str) -> None:
        bins = bad.reshape(-1, self.n_bins).any(0)
        if bool(bins.any()):
            raise DataError(f"{self._structure.bin_name(int(bins.nonzero()[0, 0]))}: {message}")

    def expected_data(self, theta: Tensor | Sequence[float], include_auxiliary: bool = True) -> Tensor:
        """Return the expected main data, followed by the expected auxiliary data: the Asimov data of theta.

        Args:
            theta: ``(*batch, P)``; batch dimensions broadcast with those of the templates.
            include_auxiliary: append the expected auxiliary data.

        Returns:
            ``(*batch, n_bins + n_auxiliary)`` or ``(*batch, n_bins)``, events; differentiable in theta and
            templates.

        Raises:
            DataError: if theta has the wrong length.

        >>> from sbilib.histfactory import uncorrelated_background
        >>> model = uncorrelated_background([12.0, 11.0], [50.0, 52.0], [5.0, 4.0])
        >>> model.expected_data([1.0, 1.0, 1.0]).tolist()
        [62.0, 63.0, 100.0, 169.0]
        """
        theta = self._parameters(theta)
        main = expected_bins(self._plan, self._terms, theta, self._codes)
        if not include_auxiliary or not self.n_auxiliary:
            return main
        auxiliary = expected_auxiliary(self._plan, self._terms, theta)
        return torch.cat([main, auxiliary.expand(*main.shape[:-1], -1)], dim=-1)

    def logpdf(self, theta: Tensor | Sequence[float], data: Tensor | Sequence[float]) -> Tensor:
        """Return ln L(theta), with all constants (the number that pyhf's ``logpdf`` returns).

        Args:
            theta: ``(*batch, P)``.
            data: ``(*batch, n_bins + n_auxiliary)``, main bins then auxiliary data.

        Returns:
            ``(*batch,)``; minus infinity where a bin with data expects none or a rate is negative.

        Raises:
            DataError: if theta or data have the wrong length.

        >>> from sbilib.histfactory import uncorrelated_background
        >>> model = uncorrelated_background([12.0, 11.0], [50.0, 52.0], [3.0, 7.0])
        >>> data = torch.cat([torch.tensor([51.0, 48.0]), model.auxiliary_data])
        >>> round(model.logpdf([1.0, 1.0, 1.0], data).item(), 4)
        -15.3876
        """
        return -nll(self._plan, self._terms, self._parameters(theta), self._data(data), self._codes)

    def nll_derivatives(
        self, theta: Tensor | Sequence[float], data: Tensor | Sequence[float]
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Return -ln L, its gradient and its Hessian in theta, in closed form and without automatic
        differentiation.

        Args:
            theta: ``(*batch, P)``.
            data: ``(*batch, n_bins + n_auxiliary)``.

        Returns:
            ``(*batch,)``, ``(*batch, P)`` and ``(*batch, P, P)``; each stays differentiable in templates and
            data.

        Raises:
            DataError: if theta or data have the wrong length.

        >>> from sbilib.histfactory import uncorrelated_background
        >>> model = uncorrelated_background([12.0], [50.0], [5.0])
        >>> value, gradient, hessian = model.nll_derivatives([1.0, 1.0], [62.0, 100.0])
        >>> gradient.tolist(), hessian.shape
        ([0.0, 0.0], torch.Size([2, 2]))
        """
        return nll_derivatives(
            self._plan, self._terms, self._parameters(theta), self._data(data), self._codes
        )

    def detached(self) -> Self:
        """Return the same model without gradients to its templates.

        >>> from sbilib.histfactory import uncorrelated_background
        >>> signal = torch.tensor([12.0], requires_grad=True)
        >>> uncorrelated_background(signal, [50.0], [5.0]).detached().expected_data([1.0, 1.0]).requires_grad
        False
        """
        return self._with(self._packed.detach(), detached(self._terms))

    def with_templates(self, channels: Sequence[Channel]) -> Self:
        """Return a model of the same structure and settings with other numbers in its templates.

        Raises:
            ParameterError: if names, modifiers or bin counts differ from those of this model.
            DataError: for templates that are NaN or negative.

        >>> from sbilib.histfactory import NormFactor, Sample
        >>> def channel(yields):
        ...     return Channel("SR", [Sample("signal", yields, [NormFactor("mu")])])
        >>> Model([channel([1.0])]).with_templates([channel([3.0])]).expected_data([2.0]).tolist()
        [6.0]
        """
        if layout_of(channels) != self._structure.layout:
            raise ParameterError(
                "with_templates needs channels with the names, modifiers and bin counts of this model, "
                "got others; build a new Model instead"
            )
        return self._with(pack(channels).to(self.device))

    def rows(self, batch_shape: Sequence[int], index: Tensor) -> Self:
        """Return the model of some members of a batch, for solvers that drop finished fits.

        Args:
            batch_shape: a shape to which the batch dimensions of the templates broadcast.
            index: ``(n,)`` places in the flattened batch.

        Returns:
            A model of batch shape ``(n,)``; the model itself if its templates have no batch dimensions.

        >>> from sbilib.histfactory import uncorrelated_background
        >>> model = uncorrelated_background(torch.tensor([[1.0], [2.0], [3.0]]), [5.0], [1.0])
        >>> model.rows((3,), torch.tensor([2])).expected_data([1.0, 1.0], include_auxiliary=False).tolist()
        [[8.0]]
        """
        if not self.batch_shape:
            return self
        packed = self._packed.expand(*batch_shape, -1)
        return self._with(packed.reshape(-1, packed.shape[-1])[index])
