r"""The error of a generative model as nuisance parameters of a template.

From :math:`K` models (trainings on bootstrapped training sets, with their own seeds) come templates
:math:`t_k`.  Their covariance, in units of the statistical error of data of the same shape,

.. math:: C = \frac{1}{K - 1} \sum_k (t_k - \bar t)(t_k - \bar t)^\top - \operatorname{diag} v, \qquad
          W^{-1} C\, W^{-1} = \sum_j \lambda_j u_j u_j^\top, \qquad W = \operatorname{diag} \sqrt{\bar t},

without the noise :math:`v` of the finite generated samples, gives modes
:math:`m_j = \sqrt{f \lambda_j}\, W u_j`, each a correlated histosys with a unit Gaussian constraint.
What the modes leave of the variance of each bin joins the statistical uncertainty.

The factor :math:`f` allows for finite :math:`K`.  A fit gives weight to the directions in which the
estimated covariance of the :math:`p` modes happens to be small, and the inverse of a covariance from
:math:`K` models is too large by :math:`(K - 1) / (K - p - 2)` on average (Hartlap, Simon and Schneider, A&A
464, 399 (2007), arXiv:astro-ph/0608064).  With many modes the weights themselves are noisy, which makes the
variance of the one fitted strength larger than its estimate by

.. math:: m = \frac{1 + b (p - 1)}{1 + a + 2 b}, \qquad
          a = \frac{2}{(K - p - 1)(K - p - 4)}, \qquad b = \frac{K - p - 2}{(K - p - 1)(K - p - 4)}

(Percival et al., MNRAS 439, 2531 (2014), arXiv:1312.4841, equation 18), taken where it is above one and
:math:`K > p + 4`.  So

.. math:: f = m\, \frac{K - 1}{K - p - 2} \times
          \begin{cases} 1 & \text{template of one training on the original training set} \\
                        1 + 1/K & \text{mean of the K templates.} \end{cases}

The second case is an upper bound: the mean repeats the fluctuation of the training set, which all
bootstrapped sets share, and adds a :math:`K`-th of the variance among them.  There are at most
:math:`K - 3` modes.  What is left joins the bins as if it were uncorrelated, which is too kind to an error
that is not, so look at ``explained``: if it is far below what was asked for, train more models.
The factors are those of normal errors and of the mean; with many modes train several models for each of them,
and measure the coverage (:mod:`sbilib.studies.amplified_coverage`).

What this does not hold is an error that all models share: a network too small or stopped too soon is wrong
in the same way in each bootstrap.  Only a comparison with simulation shows it
(:mod:`sbilib.studies.amplification`).  An ensemble of seeds on one training set misses even the fluctuation
of that set, and its modes are too small.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from sbilib.errors import DataError, ParameterError, check_count, check_range

__all__ = ["ShapeModes", "finite_ensemble_factor", "shape_modes"]

_Array = NDArray[np.float64]
# Eigenvalues below this part of the largest are rounding.
_RELATIVE_ROUNDING = 1e-12


@dataclass(frozen=True, eq=False)
class ShapeModes:
    """Correlated shifts of a template by one standard deviation each, and the rest.

    Args:
        shifts: ``(*batch, n_modes, n_bins)`` in the unit of the templates.
        residual: ``(*batch, n_bins)`` standard deviation of each bin that the modes leave out.
        n_models: models behind it.
        explained: ``(*batch,)`` part of the variance, in statistical units, that the modes hold.

    Raises:
        DataError: if the shapes do not agree.
    """

    shifts: _Array
    residual: _Array
    n_models: int
    explained: _Array

    def __post_init__(self) -> None:
        if (*self.shifts.shape[:-2], self.shifts.shape[-1]) != self.residual.shape:
            raise DataError(
                f"modes of shape {self.shifts.shape} do not fit a residual of shape {self.residual.shape}; "
                "pass (*batch, n_modes, n_bins) and (*batch, n_bins)"
            )

    @property
    def n_modes(self) -> int:
        """Number of modes."""
        return int(self.shifts.shape[-2])

    @property
    def covariance(self) -> _Array:
        """Covariance of the template by the error of the model, ``(*batch, n_bins, n_bins)``."""
        size = self.shifts.shape[-1]
        rest = self.residual[..., None] ** 2 * np.eye(size)
        result: _Array = np.swapaxes(self.shifts, -1, -2) @ self.shifts + rest
        return result

    def member(self, index: int | slice | NDArray[np.int64]) -> ShapeModes:
        """Some members along the first batch dimension."""
        return ShapeModes(self.shifts[index], self.residual[index], self.n_models, self.explained[index])


def finite_ensemble_factor(n_models: int, n_modes: int, *, of_mean: bool = False) -> float:
    """Factor of the covariance that allows for the number of models.

    Args:
        n_models: K.
        n_modes: p, at most K - 3.
        of_mean: whether the template is the mean of the K models.

    Raises:
        ParameterError: if there are too few models for the modes.

    Example:
        >>> [round(finite_ensemble_factor(k, 2), 2) for k in (5, 10, 50)]
        [4.0, 1.5, 1.07]
        >>> round(finite_ensemble_factor(40, 10), 2)
        1.73
    """
    check_count("n_modes", n_modes)
    check_count("n_models", n_models, low=n_modes + 3)
    factor = (n_models - 1) / (n_models - n_modes - 2) * _noise_of_weights(n_models, n_modes)
    return factor * (1 + 1 / n_models) if of_mean else factor


def _noise_of_weights(n_models: int, n_modes: int) -> float:
    """The factor m of the text above."""
    rest = n_models - n_modes
    if rest <= 4:
        return 1.0
    product = (rest - 1) * (rest - 4)
    first, second = 2 / product, (rest - 2) / product
    return max(1.0, (1 + second * (n_modes - 1)) / (1 + first + 2 * second))


def shape_modes(
    replicas: ArrayLike,
    *,
    noise: ArrayLike | None = None,
    of_mean: bool = False,
    explained: float = 0.99,
    n_modes: int | None = None,
    inflate: bool = True,
) -> ShapeModes:
    """Principal components of the templates of several models.

    Args:
        replicas: templates of the K models, ``(*batch, K, n_bins)``, not negative.
        noise: variance of each of these by the finite number of generated events (``errors ** 2`` of a
            :class:`~sbilib.studies.amplified_templates.BinnedSample`), likewise; by default none.
        of_mean: whether the template in use is the mean of the replicas, else that of a separate training on
            the original training set.
        explained: part of the variance that the modes must hold, in every member of the batch.
        n_modes: number of modes instead, at most K - 3.
        inflate: apply :func:`finite_ensemble_factor`.

    Raises:
        DataError: if there are fewer than four models, templates are negative or not finite, or a bin is
            empty in all of them.
        ParameterError: if ``explained`` or ``n_modes`` is out of range.

    Example:
        >>> modes = shape_modes([[0.4, 0.6], [0.5, 0.5], [0.5, 0.5], [0.6, 0.4]], inflate=False)
        >>> modes.n_modes, abs(modes.shifts[0]).round(4).tolist()
        (1, [0.0816, 0.0816])
    """
    values = np.asarray(replicas, dtype=np.float64)
    if values.ndim < 2 or values.shape[-2] < 4 or not (np.isfinite(values) & (values >= 0)).all():
        raise DataError(
            "replicas must be finite templates (*batch, K, n_bins) of at least four models, got shape "
            f"{values.shape}; train more models, or remove those that failed"
        )
    check_range("explained", explained, low=0.0, high=1.0, include_low=False)
    size, n_models = values.shape[-1], values.shape[-2]
    covariance, scale = _scaled_covariance(values, noise)
    eigenvalues, vectors = np.linalg.eigh(covariance)
    eigenvalues, vectors = eigenvalues[..., ::-1].clip(0.0), vectors[..., ::-1]
    parts = eigenvalues / eigenvalues.sum(-1, keepdims=True).clip(np.finfo(float).tiny)
    kept = _n_modes(parts, min(n_models - 3, size), explained, n_modes)
    factor = finite_ensemble_factor(n_models, kept, of_mean=of_mean) if inflate else 1.0
    shifts = np.swapaxes(vectors * np.sqrt(factor * eigenvalues)[..., None, :], -1, -2)[..., :kept, :]
    left = factor * np.diagonal(covariance, axis1=-2, axis2=-1) - np.square(shifts).sum(-2)
    residual = np.sqrt(left.clip(0.0)) * scale
    return ShapeModes(shifts * scale[..., None, :], residual, n_models, parts[..., :kept].sum(-1))


def _scaled_covariance(values: _Array, noise: ArrayLike | None) -> tuple[_Array, _Array]:
    """Covariance of templates in units of the square root of their mean, and that unit."""
    mean = values.mean(-2)
    if not (mean > 0).all():
        raise DataError("a bin is empty in all models; merge bins (merged_binning) first")
    spread = (values - mean[..., None, :]) / np.sqrt(mean)[..., None, :]
    covariance: _Array = np.swapaxes(spread, -1, -2) @ spread / (values.shape[-2] - 1)
    if noise is not None:
        excess = np.asarray(noise, dtype=np.float64).mean(-2) / mean
        covariance = covariance - excess[..., None] * np.eye(values.shape[-1])
    return covariance, np.sqrt(mean)


def _n_modes(parts: _Array, most: int, explained: float, asked: int | None) -> int:
    """How many modes every member of the batch needs."""
    if asked is not None:
        if check_count("n_modes", asked) > most:
            raise ParameterError(f"n_modes must be at most {most} here, got {asked}; train more models")
        return asked
    missing = parts.cumsum(-1) < explained * parts.sum(-1, keepdims=True) - _RELATIVE_ROUNDING
    return min(int(missing.sum(-1).max()) + 1, most)
