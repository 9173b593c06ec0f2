r"""Does the interval of the signal strength cover, with and without the error of the generative model?

Each pseudo-experiment takes one training (with its own training set, seeds, bootstrapped models and
generated events), draws

.. math:: n_i \sim \operatorname{Poisson}(\mu S s_i + B\, p_i), \qquad
          a_i \sim \operatorname{Poisson}(1 / \beta^2)

from the true background shape :math:`p` and for the auxiliary measurements of :math:`\beta`, and asks
whether :math:`t_\mu = -2 \ln L(\mu, \hat{\hat\theta}) / L(\hat\mu, \hat\theta) \le 1`.

What this coverage is conditional on: nothing but the physics.  A training error is a single number for an
analysis but a random one for the procedure, just like the auxiliary measurement of a calibration: the
template *is* the measurement of the background shape, the modes are its uncertainty.  So trainings must
be repeated on new training sets.  Given one training the error is a bias, and the coverage of that
training alone is anything from 0 to 100%; the spread among trainings is reported.  Pseudo-experiments of
one training share its error, so the error of the coverage is computed from the means of the trainings.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pandas as pd
import torch
from torch import Tensor

from sbilib.errors import DataError, check_count
from sbilib.histfactory import Model
from sbilib.histfactory.statistics import evaluate_statistic
from sbilib.studies.amplified_search import SearchSettings, SearchTemplates, search_templates
from sbilib.studies.amplified_templates import BinnedSample
from sbilib.studies.model_error import ShapeModes

__all__ = ["strength_coverage"]


def strength_coverage(
    background: BinnedSample,
    reference: BinnedSample,
    signal: BinnedSample,
    luminosities: Sequence[float],
    *,
    generator: torch.Generator,
    modes: ShapeModes | None = None,
    beta: float = 0.10,
    strength: float = 1.0,
    n_repeats: int = 1,
    settings: SearchSettings | None = None,
) -> pd.DataFrame:
    """Coverage of the 68.3% profile-likelihood interval of the signal strength.

    Args:
        background: generated templates of trainings on different training sets, ``(n_trainings, n_bins)``.
        reference: the truth, from a density or from simulated events that no training has seen.  Its own
            noise acts like an error that all trainings share, so ``reference_share`` should be small.
        signal: simulated signal.
        luminosities: in /fb.
        generator: of the pseudo-experiments.
        modes: error of the model for each training, ``(n_trainings, n_modes, n_bins)``, or one for all,
            ``(n_modes, n_bins)``, where models are too expensive; None leaves it out.
        beta: relative uncertainty of each bin of the background; zero for none.
        strength: true signal strength.
        n_repeats: pseudo-experiments of each training and luminosity.
        settings: of the search; by default the strength may be negative, so that no boundary distorts the
            coverage.

    Returns:
        A row for each luminosity: ``coverage`` and its standard ``error``, ``between`` (standard deviation
        of the coverage of single trainings beyond that of their few pseudo-experiments; NaN with one
        repeat), ``bias`` and ``spread`` of the fitted strength, ``reference_share`` (mean over bins of the
        variance of the reference over that of the templates among trainings), and ``failed`` fits.

    Raises:
        DataError: if there are fewer than two trainings, or as
            :func:`~sbilib.studies.amplified_search.search_templates`.
        ParameterError: if ``n_repeats`` is not positive.

    Example:
        >>> import numpy as np
        >>> from sbilib.studies.amplified_templates import Binning
        >>> binning, random = Binning("score", (0.0, 0.5, 1.0)), np.random.default_rng(1)
        >>> counts = random.binomial(1000, [0.3, 0.1], size=(200, 2))
        >>> few = BinnedSample(binning, counts, counts, np.full(200, 1000.0))
        >>> many = BinnedSample(binning, [3e8, 1e8], [3e8, 1e8], 1e9)
        >>> signal = BinnedSample(binning, [1.0, 5.0], [1.0, 5.0], 10.0)
        >>> generator = torch.Generator().manual_seed(1)
        >>> found = strength_coverage(few, many, signal, [10.0], beta=0.0, generator=generator)
        >>> 0.58 < found.coverage.item() < 0.78
        True
    """
    check_count("n_repeats", n_repeats, low=1)
    if background.totals.ndim != 1 or len(background.totals) < 2:
        raise DataError(
            f"coverage needs templates of at least two trainings, (n_trainings, n_bins), got "
            f"{background.counts.shape}; train again on another training set"
        )
    if settings is None:
        settings = replace(SearchSettings(), strength_bounds=(-10.0, 10.0))
    templates = search_templates(background, reference, signal, luminosities, settings, modes=modes)
    model = templates.model(beta)
    data = _pseudo_data(templates, model, strength, n_repeats, generator)
    statistic = "t" if settings.strength_bounds[0] < 0 else "ttilde"
    # One repeat at a time: a batch of fits lasts as long as its slowest one, and takes memory.
    each = [evaluate_statistic(statistic, strength, part, model) for part in data]
    covered = torch.stack([(found.value <= 1.0).double() for found in each])
    fitted = torch.stack([found.poi for found in each])
    converged = torch.stack([found.converged for found in each])
    share = float((reference.errors**2 / background.fractions.var(0, ddof=1)).mean())
    rows = []
    for place, luminosity in enumerate(luminosities):
        rows.append(
            {
                "luminosity": float(luminosity),
                **_coverage(covered[..., place]),
                "bias": float(fitted[..., place].mean() - strength),
                "spread": float(fitted[..., place].std()),
                "reference_share": share,
                "failed": int((~converged[..., place]).sum()),
            }
        )
    return pd.DataFrame(rows)


def _pseudo_data(
    templates: SearchTemplates, model: Model, strength: float, n_repeats: int, generator: torch.Generator
) -> Tensor:
    """Data of shape (n_repeats, n_trainings, n_luminosities, bins + auxiliary)."""
    truth = templates.reference + strength * templates.signal
    shape = (n_repeats, *templates.background.shape)
    main = torch.poisson(truth.expand(shape), generator=generator)
    auxiliary = model.auxiliary_data.expand(*shape[:-1], -1).clone()
    # The auxiliary data of statistics and modes stay: what they measure fluctuates through the templates.
    names = [name for name in model.parameter_names if name != "mu"]
    counted = torch.tensor([name.startswith("beta[") for name in names])
    auxiliary[..., counted] = torch.poisson(auxiliary[..., counted], generator=generator)
    return torch.cat([main, auxiliary], dim=-1)


def _coverage(covered: Tensor) -> dict[str, float]:
    """Coverage of (n_repeats, n_trainings), with the error from the means of the trainings."""
    n_repeats, n_trainings = covered.shape
    means = covered.mean(0)
    coverage = float(means.mean())
    variance = float(means.var())
    between = float("nan")
    if n_repeats > 1:
        within = float((means * (1 - means)).mean()) / (n_repeats - 1)
        between = max(variance - within, 0.0) ** 0.5
    return {"coverage": coverage, "error": (variance / n_trainings) ** 0.5, "between": between}
