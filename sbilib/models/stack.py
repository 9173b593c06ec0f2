r"""Many models of one architecture as one module.

Every parameter of a stack is that of an ordinary model with a leading *member* axis of length :math:`M`, and
events have it too, so a layer of all members is one batched matrix product,

.. math:: h_{m} = W_m\, u_m + b_m, \qquad m = 1, \dots, M .

Members never mix: the gradient of :math:`\sum_m L_m` with respect to the weights of member ``m`` is that of
:math:`L_m` alone, so one backward pass trains all of them, each as if it were alone. Small networks leave
most of a GPU, and a good part of a CPU, idle when they are trained one after the other; a stack fills it.

``stack_models`` makes a stack of ordinary models, and ``stack.member(i)`` takes one out again.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, Protocol

import torch
from torch import Tensor, nn

from sbilib.errors import DataError, ParameterError
from sbilib.models.classifier import ACTIVATION_FUNCTIONS, Classifier, ClassifierConfig, legendre
from sbilib.models.flow import ConditionalFlow, FlowConfig, FlowNetwork
from sbilib.models.made import affine

__all__ = ["ClassifierStack", "FlowStack", "Stack", "stack_models"]


class Stack(Protocol):
    """What every stack of models offers."""

    n_members: int

    def member(self, index: int) -> nn.Module:
        """An ordinary model with a copy of the weights of one member."""
        ...


class FlowStack(FlowNetwork):
    """Flows with one configuration, each with weights and permutations of its own.

    Args:
        config: the architecture of every member.
        n_members: number of members M.

    The weights are left for :func:`stack_models` to fill in.

    Example:
        >>> stack = stack_models([ConditionalFlow(FlowConfig.sluijter(), seed=s) for s in (1, 2, 3)])
        >>> stack.log_prob(torch.zeros(3, 5, 2), torch.zeros(3, 5, 1)).shape
        torch.Size([3, 5])
    """

    kind: ClassVar[str] = "flow-stack"

    def __init__(self, config: FlowConfig, n_members: int) -> None:
        super().__init__(config, members=(n_members,))
        self.n_members = n_members

    def log_prob(self, x: Tensor, context: Tensor) -> Tensor:
        """Log density of events ``x`` (M, n, d), each member's own, given ``context`` (M, n, c): ``(M, n)``.

        Raises:
            DataError: if the shapes do not fit the stack or each other.
        """
        _check_shapes(x, context, self.n_members, self.config.features, self.config.context_features)
        result: Tensor = self(x, context)
        return result

    def member(self, index: int) -> ConditionalFlow:
        """An ordinary flow with a copy of the weights of member ``index``."""
        flow = ConditionalFlow(self.config).to(next(self.parameters()))
        _copy_member(self, index, flow)
        return flow

    def _permute(self, rows: Tensor, permutation: Tensor) -> Tensor:
        # Row m * d + k holds feature k of member m.
        start = torch.arange(self.n_members, device=rows.device)[:, None] * self.config.features
        return rows.index_select(0, (permutation + start).flatten())


class ClassifierStack(nn.Module):
    """Classifiers with one configuration, each with weights and standardization of its own.

    Args:
        config: the architecture of every member.
        n_members: number of members M.

    The weights are left for :func:`stack_models` to fill in.

    Example:
        >>> models = [Classifier(ClassifierConfig.modern(), seed=s) for s in (1, 2)]
        >>> stack = stack_models(models)
        >>> x, z = torch.ones(2, 7, 2), torch.zeros(2, 7, 1)
        >>> torch.allclose(stack(x, z)[1], models[1](x[1], z[1]), atol=1e-6)
        True
    """

    kind: ClassVar[str] = "classifier-stack"
    shift: Tensor
    scale: Tensor

    def __init__(self, config: ClassifierConfig, n_members: int) -> None:
        super().__init__()
        self.config, self.n_members = config, n_members
        template = Classifier(config, seed=0)
        self.layers = nn.ModuleDict()
        for name, layer in template.layers.named_children():
            if isinstance(layer, nn.Linear):
                self.layers[name] = _StackedLinear(n_members, layer.in_features, layer.out_features)
        self._activation = ACTIVATION_FUNCTIONS[config.activation]
        for name in ("shift", "scale"):
            self.register_buffer(name, getattr(template, name).repeat(n_members, 1))

    def forward(self, x: Tensor, z: Tensor) -> Tensor:
        """Logit ``(M, n)`` of events ``x`` (M, n, d), each member's own, at values ``z`` (M, n, c)."""
        if self.config.nuisance_degree > 0:
            return (self.coefficients(x) * self.basis(z)).sum(dim=-1)
        inputs = torch.cat((x, z), dim=-1)
        if self.config.standardize:
            inputs = (inputs - self.shift[:, None]) / self.scale[:, None]
        return self._outputs(inputs).squeeze(-2)

    def coefficients(self, x: Tensor) -> Tensor:
        """Coefficients ``(M, n, k)`` of the polynomial in z of events ``x`` (M, n, d)."""
        d = self.config.n_features
        return self._outputs((x - self.shift[:, None, :d]) / self.scale[:, None, :d]).mT

    def basis(self, z: Tensor) -> Tensor:
        """Legendre polynomials ``(M, n, k)`` at nuisance values ``z`` (M, n, 1), one per coefficient."""
        d = self.config.n_features
        return legendre((z - self.shift[:, None, d:]) / self.scale[:, None, d:], self.config.nuisance_degree)

    def member(self, index: int) -> Classifier:
        """An ordinary classifier with a copy of the weights of member ``index``."""
        classifier = Classifier(self.config, seed=0).to(self.shift)
        _copy_member(self, index, classifier)
        return classifier

    def _outputs(self, inputs: Tensor) -> Tensor:
        """Outputs ``(M, k, n)`` of the networks for inputs ``(M, n, i)``."""
        units = inputs.mT
        *hidden, final = self.layers.values()
        for layer in hidden:
            units = self._activation(layer(units))
        outputs: Tensor = final(units)
        return outputs


class _StackedLinear(nn.Module):
    """``W_m u_m + b_m`` for units ``(M, n_in, batch)``."""

    def __init__(self, n_members: int, n_in: int, n_out: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(n_members, n_out, n_in))
        self.bias = nn.Parameter(torch.empty(n_members, n_out))

    def forward(self, units: Tensor) -> Tensor:
        return affine(self.weight, units, self.bias.unsqueeze(-1))


def stack_models(
    models: Sequence[Classifier] | Sequence[ConditionalFlow],
) -> ClassifierStack | FlowStack:
    """One stack with copies of the weights of ordinary models.

    Args:
        models: classifiers, or flows, of one configuration and dtype, on one device; at least one.

    Raises:
        ParameterError: if there are no models, or they differ in kind or configuration.
    """
    if len(models) == 0:
        raise ParameterError("a stack needs at least one model, got none")
    first = models[0]
    for number, model in enumerate(models):
        if type(model) is not type(first) or model.config != first.config:
            raise ParameterError(
                f"all models of a stack must be of one kind and configuration; model {number} is a "
                f"{type(model).__name__} with {getattr(model, 'config', None)}, the first one a "
                f"{type(first).__name__} with {first.config}; stack them apart"
            )
    stack: ClassifierStack | FlowStack
    if isinstance(first, ConditionalFlow):
        stack = FlowStack(first.config, len(models))
    else:
        stack = ClassifierStack(first.config, len(models))
    states = [model.state_dict() for model in models]
    joined = {name: torch.stack([state[name] for state in states]) for name in states[0]}
    stack.to(next(first.parameters())).load_state_dict(joined)
    return stack


@torch.no_grad()
def _copy_member(stack: nn.Module, index: int, model: nn.Module) -> None:
    """Copy the weights and buffers of one member into an ordinary model."""
    source = stack.state_dict()
    model.load_state_dict({name: source[name][index] for name in model.state_dict()})


def _check_shapes(x: Tensor, z: Tensor, members: int, features: int, context: int) -> None:
    for name, values, columns in (("x", x, features), ("context", z, context)):
        if values.ndim != 3 or values.shape[0] != members or values.shape[2] != columns:
            raise DataError(
                f"{name} must have shape ({members}, n, {columns}), got {tuple(values.shape)}; "
                "give each member events of its own"
            )
    if x.shape[1] != z.shape[1]:
        raise DataError(f"x has {x.shape[1]} events a member and context {z.shape[1]}; give one each")
