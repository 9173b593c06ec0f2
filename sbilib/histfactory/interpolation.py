r"""Interpolation between templates at alpha = -1, 0, +1: the codes 0, 1, 2, 4 and 4p.

With half the difference ``S`` and the bend ``D`` of a template triple (low, nominal, high),

    additive:        S = (high - low) / 2,            D = (high + low) / 2 - nominal,
    multiplicative:  S = (ln high - ln low) / 2,      D = (ln high + ln low) / 2     (nominal = 1),

every code is a combination of one odd and one even function of alpha that do not depend on the template:

    codes 0, 2, 4p:  delta(alpha) = S odd(alpha) + D even(alpha)
    code 1:          ln f(alpha)  = S alpha + D |alpha|
    code 4:          as code 1 for |alpha| >= 1, inside the sixth-degree polynomial that continues it with
                     two continuous derivatives.

So the first and second derivatives in alpha are closed forms too.  Definitions as computed by pyhf 0.7.6.
Its code 2 outside |alpha| <= 1 is (b + 2a)(alpha - 1) above and (b - 2a) alpha below, with a = D and b = S,
which jumps at +-1; it is kept for equality with pyhf, and code 4p is the smooth choice.

Source: K. Cranmer et al., CERN-OPEN-2012-016 (2012), sec. 4.1; pyhf documentation, interpolators.
"""

from __future__ import annotations

import torch
from torch import Tensor

from sbilib.errors import ParameterError

__all__ = [
    "ADDITIVE_CODES",
    "MULTIPLICATIVE_CODES",
    "additive_basis",
    "additive_coefficients",
    "factor",
    "factor_coefficients",
    "interpolate",
]

ADDITIVE_CODES = ("0", "2", "4p")
MULTIPLICATIVE_CODES = ("1", "4")

# Coefficients of alpha^1 .. alpha^6 from the values, slopes and curvatures at +1 and -1: the inverse of the
# matching conditions of code 4 at alpha0 = 1, in units of 1/16.
_MATCHING = (
    (15.0, -15.0, -7.0, -7.0, 1.0, -1.0),
    (24.0, 24.0, -9.0, 9.0, 1.0, 1.0),
    (-10.0, 10.0, 10.0, 10.0, -2.0, 2.0),
    (-24.0, -24.0, 14.0, -14.0, -2.0, -2.0),
    (3.0, -3.0, -3.0, -3.0, 1.0, -1.0),
    (8.0, 8.0, -5.0, 5.0, 1.0, 1.0),
)


def additive_coefficients(low: Tensor, nominal: Tensor, high: Tensor) -> tuple[Tensor, Tensor]:
    """Return ``S = (high - low) / 2`` and ``D = (high + low) / 2 - nominal`` of additive codes.

    Args:
        low, nominal, high: templates at alpha = -1, 0, +1, any common shape, events.

    >>> additive_coefficients(torch.tensor(8.0), torch.tensor(10.0), torch.tensor(13.0))
    (tensor(2.5000), tensor(0.5000))
    """
    return (high - low) / 2, (high + low) / 2 - nominal


def additive_basis(code: str, alpha: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return the odd function of a code, and its even function with two derivatives.

    The odd function has the slope one everywhere.  Code 4p has ``even = (15 a^2 - 10 a^4 + 3 a^6) / 8`` for
    ``|a| < 1`` and ``|a|`` outside; code 0 has ``|a|`` everywhere; code 2 has ``a^2`` inside.

    Args:
        code: ``"0"``, ``"2"`` or ``"4p"``.
        alpha: any shape.

    Returns:
        odd, even, even', even'', each of the shape of alpha.

    Raises:
        ParameterError: if the code is not an additive one.

    >>> [each.item() for each in additive_basis("4p", torch.tensor(1.0))]
    [1.0, 1.0, 1.0, 0.0]
    """
    if code == "4p":
        # Outside, the polynomial goes on along its tangent at +-1, where its curvature vanishes.
        inner = alpha.clamp(-1, 1)
        square = inner * inner
        even = square * (15 + square * (3 * square - 10)) / 8 + (alpha - inner) * inner
        return (
            alpha,
            even,
            inner * (15 + square * (9 * square - 20)) / 4,
            (15 + square * (45 * square - 60)) / 4,
        )
    one, zero = torch.ones_like(alpha), torch.zeros_like(alpha)
    if code == "0":
        sign = torch.where(alpha > 0, one, -one)
        return alpha, sign * alpha, sign, zero
    if code == "2":
        above, below = alpha > 1, alpha < -1
        odd = torch.where(above, alpha - 1, alpha)
        side = torch.where(above, 2 * one, -2 * one)
        outside = above | below
        return (
            odd,
            torch.where(outside, side * odd, alpha * alpha),
            torch.where(outside, side, 2 * alpha),
            torch.where(outside, zero, 2 * one),
        )
    raise ParameterError(
        f"additive interpolation has the codes {ADDITIVE_CODES}, got {code!r}; use one of them"
    )


def factor_coefficients(code: str, low: Tensor, high: Tensor) -> Tensor:
    """Return what :func:`factor` needs of the factors at alpha = -1 and +1 (at 0 the factor is one).

    Args:
        code: ``"1"`` or ``"4"``.
        low, high: positive factors, any common shape ``(..., n)``.

    Returns:
        Code 1: ``(..., 2, n)``, the slopes ``S + D`` and ``S - D`` of ln f.  Code 4: ``(..., 23, n)``,
        followed by the coefficients of alpha^0 to alpha^6 of the inner polynomial and of its two derivatives.

    Raises:
        ParameterError: if the code is not a multiplicative one.

    >>> factor_coefficients("1", torch.tensor([0.5]), torch.tensor([2.0])).shape
    torch.Size([2, 1])
    """
    if code not in MULTIPLICATIVE_CODES:
        raise ParameterError(
            f"multiplicative interpolation has the codes {MULTIPLICATIVE_CODES}, got {code!r}; "
            "use one of them"
        )
    log_low, log_high = low.log(), high.log()
    pieces = torch.stack([log_high, -log_low], dim=-2)
    if code == "1":
        return pieces
    conditions = torch.stack(
        [high - 1, low - 1, log_high * high, -log_low * low, log_high**2 * high, log_low**2 * low], dim=-2
    )
    inner = (high.new_tensor(_MATCHING) / 16) @ conditions
    polynomial = torch.cat([torch.ones_like(inner[..., :1, :]), inner], dim=-2)
    power = torch.arange(7, dtype=high.dtype, device=high.device).unsqueeze(-1)
    zero = torch.zeros_like(inner[..., :1, :])
    slope = torch.cat([(polynomial * power)[..., 1:, :], zero], dim=-2)
    bend = torch.cat([(slope * power)[..., 1:, :], zero], dim=-2)
    return torch.cat([pieces, polynomial, slope, bend], dim=-2)


def factor(code: str, coefficients: Tensor, alpha: Tensor, *, derivatives: bool = False) -> Tensor:
    """Return the factor f(alpha) of codes 1 and 4, with its first two derivatives if asked.

    Args:
        code: ``"1"`` or ``"4"``.
        coefficients: from :func:`factor_coefficients`, ``(..., 2 or 23, n)``.
        alpha: ``(..., n)``; leading dimensions broadcast.
        derivatives: also return f' and f''.

    Returns:
        ``(..., 1, n)``, or ``(..., 3, n)`` with derivatives.

    >>> c = factor_coefficients("4", torch.tensor([0.5]), torch.tensor([2.0]))
    >>> factor("4", c, torch.tensor([2.0])).item()
    4.0
    """
    n = 3 if derivatives else 1
    slope = torch.where(alpha > 0, coefficients[..., 0, :], coefficients[..., 1, :])
    value = torch.exp(slope * alpha)
    first = slope * value
    outside = torch.stack([value, first, slope * first], dim=-2) if derivatives else value.unsqueeze(-2)
    if code == "1":
        return outside
    polynomials = coefficients[..., 2 : 2 + 7 * n, :]
    *lower, inside = polynomials.reshape(*polynomials.shape[:-2], n, 7, polynomials.shape[-1]).unbind(-2)
    point = alpha.unsqueeze(-2)
    for coefficient in reversed(lower):
        inside = torch.addcmul(coefficient, inside, point)
    return torch.where((alpha.abs() < 1).unsqueeze(-2), inside, outside)


def interpolate(
    code: str, alpha: Tensor, low: Tensor, nominal: Tensor, high: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Interpolate one template triple: the shift (codes 0, 2, 4p) or the factor (1, 4) and its derivatives.

    Args:
        code: ``"0"``, ``"1"``, ``"2"``, ``"4"`` or ``"4p"``.
        alpha: the parameter, any shape that broadcasts with the templates.
        low, nominal, high: templates at alpha = -1, 0, +1 (positive for codes 1 and 4).

    Returns:
        Value, first and second derivative in alpha.

    Raises:
        ParameterError: if the code is unknown.

    >>> value, slope, bend = interpolate("4p", torch.tensor([2.0]), *torch.tensor([[8.0], [10.0], [13.0]]))
    >>> value.item(), slope.item(), bend.item()
    (6.0, 3.0, 0.0)
    """
    alpha, low, nominal, high = torch.broadcast_tensors(alpha, low, nominal, high)  # type: ignore[no-untyped-call]
    if code in MULTIPLICATIVE_CODES:
        pieces = factor_coefficients(code, (low / nominal).unsqueeze(-1), (high / nominal).unsqueeze(-1))
        found = factor(code, pieces, alpha.unsqueeze(-1), derivatives=True).squeeze(-1)
        return found[..., 0], found[..., 1], found[..., 2]
    odd, even, slope, curvature = additive_basis(code, alpha)
    half, bend = additive_coefficients(low, nominal, high)
    return half * odd + bend * even, half + bend * slope, bend * curvature
