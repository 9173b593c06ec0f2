r"""Binary cross-entropy, the baseline that knows of no systematic uncertainty, and its augmented form.

With logits :math:`\ell(x)` and :math:`\sigma(\ell) = 1/(1 + e^{-\ell})`, both classes weigh the same,

.. math:: L = \tfrac12 \left\langle -\ln \sigma(\ell) \right\rangle_{\mathrm{signal}}
            + \tfrac12 \left\langle -\ln[1 - \sigma(\ell)] \right\rangle_{\mathrm{background}} .

Augmented, the background class holds the varied backgrounds too, under one label (Simpson 2023, section
7.4.1).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.functional import softplus

from sbilib.errors import DataError

__all__ = ["augmented_cross_entropy", "binary_cross_entropy"]


def binary_cross_entropy(signal: Tensor, background: Tensor) -> Tensor:
    """Class-balanced binary cross-entropy of logits, in nats.

    Args:
        signal: logits of signal events, ``(*batch, n_signal)``.
        background: logits of background events, ``(*batch, n_background)``.

    Returns:
        ``(*batch,)``, of the dtype of the logits.

    Raises:
        DataError: if either class has no events.

    Example:
        >>> binary_cross_entropy(torch.zeros(3), torch.zeros(5))
        tensor(0.6931)
    """
    return augmented_cross_entropy(signal, [background])


def augmented_cross_entropy(signal: Tensor, backgrounds: Sequence[Tensor]) -> Tensor:
    """Class-balanced binary cross-entropy with several background samples under one label, in nats.

    Args:
        signal: logits of signal events, ``(*batch, n_signal)``.
        backgrounds: logits of each background sample, ``(*batch, n)``; every event counts the same.

    Returns:
        ``(*batch,)``, of the dtype of the logits.

    Raises:
        DataError: if either class has no events.

    Source:
        Simpson 2023, section 7.4.1.

    Example:
        >>> augmented_cross_entropy(torch.zeros(3), [torch.zeros(5), torch.zeros(5)])
        tensor(0.6931)
    """
    n_background = sum(each.shape[-1] for each in backgrounds)
    for name, n in (("signal", signal.shape[-1]), ("background", n_background)):
        if n == 0:
            raise DataError(
                f"the {name} class has no events; binary cross-entropy needs some of both classes"
            )
    other = torch.cat(list(backgrounds), dim=-1) if len(backgrounds) > 1 else backgrounds[0]
    return 0.5 * (softplus(-signal).mean(-1) + softplus(other).mean(-1))
