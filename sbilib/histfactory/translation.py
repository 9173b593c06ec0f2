"""Between pyhf's JSON and the dataclasses of a specification."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import torch
from torch import Tensor

from sbilib.errors import DataError
from sbilib.histfactory.specification import (
    Channel,
    HistoSys,
    Lumi,
    Modifier,
    NormFactor,
    NormSys,
    ParameterSettings,
    Sample,
    ShapeFactor,
    ShapeSys,
    StatError,
)

__all__ = ["KINDS", "channel_from_dict", "channel_to_dict", "settings_to_dict"]

KINDS = ("histosys", "lumi", "normfactor", "normsys", "shapefactor", "shapesys", "staterror")


def channel_from_dict(spec: Mapping[str, Any]) -> Channel:
    """Read a channel of a schema-checked workspace.

    >>> channel_from_dict({"name": "SR", "samples": [{"name": "b", "data": [1.0], "modifiers": []}]}).name
    'SR'
    """
    return Channel(
        spec["name"],
        [
            Sample(each["name"], each["data"], [_modifier_from_dict(one) for one in each["modifiers"]])
            for each in spec["samples"]
        ],
    )


def _modifier_from_dict(spec: Mapping[str, Any]) -> Modifier:
    kind, name, data = spec["type"], spec["name"], spec["data"]
    if kind == "histosys":
        return HistoSys(name, data["lo_data"], data["hi_data"])
    if kind == "normsys":
        return NormSys(name, data["lo"], data["hi"])
    if kind == "shapesys":
        return ShapeSys(name, data)
    if kind == "staterror":
        return StatError(name, data)
    if kind == "shapefactor":
        return ShapeFactor(name)
    return Lumi(name) if kind == "lumi" else NormFactor(name)


def channel_to_dict(channel: Channel) -> dict[str, Any]:
    """Write a channel as pyhf's JSON; gradients are dropped.

    Raises:
        DataError: if a template has batch dimensions, which JSON workspaces do not know.

    >>> channel_to_dict(Channel("SR", [Sample("b", [1.0])]))["samples"][0]["data"]
    [1.0]
    """
    return {
        "name": channel.name,
        "samples": [
            {
                "name": sample.name,
                "data": _plain(sample.yields, 1, f"channel {channel.name!r}, sample {sample.name!r}"),
                "modifiers": [
                    _modifier_to_dict(one, f"channel {channel.name!r}, sample {sample.name!r}, {one.name!r}")
                    for one in sample.modifiers
                ],
            }
            for sample in channel.samples
        ],
    }


def _modifier_to_dict(modifier: Modifier, place: str) -> dict[str, Any]:
    data: Any = None
    if isinstance(modifier, HistoSys):
        data = {"lo_data": _plain(modifier.low, 1, place), "hi_data": _plain(modifier.high, 1, place)}
    elif isinstance(modifier, NormSys):
        data = {"lo": _plain(modifier.low, 0, place), "hi": _plain(modifier.high, 0, place)}
    elif isinstance(modifier, ShapeSys | StatError):
        data = _plain(modifier.uncertainties, 1, place)
    return {"name": modifier.name, "type": modifier.kind, "data": data}


def _plain(values: object, dimensions: int, place: str) -> Any:
    tensor = torch.as_tensor(values.detach() if isinstance(values, Tensor) else values, dtype=torch.float64)
    if tensor.dim() != dimensions:
        raise DataError(
            f"{place}: a workspace holds templates without batch dimensions, got shape "
            f"{tuple(tensor.shape)}; select one member of the batch"
        )
    return tensor.tolist()


def settings_to_dict(settings: ParameterSettings) -> dict[str, Any]:
    """Write parameter settings as pyhf's JSON, without the fields that keep their defaults.

    >>> settings_to_dict(ParameterSettings("mu", bounds=[(0, 5)]))
    {'name': 'mu', 'bounds': [[0.0, 5.0]]}
    """
    plain = {name: value for name, value in asdict(settings).items() if value is not None}
    if settings.bounds is not None:
        plain["bounds"] = [list(pair) for pair in settings.bounds]
    return {name: list(value) if isinstance(value, tuple) else value for name, value in plain.items()}
