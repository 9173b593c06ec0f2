"""Events of a made-up search with all 28 columns, whose masses are made of others, for quick trainings."""

from __future__ import annotations

import torch
from torch import Generator, Tensor

from sbilib.problems import BsmTables
from sbilib.simulation import BSM_FEATURES


def made_up_events(n_events: int, seed: int) -> Tensor:
    """``(n_events, 28)``: sorted jets, and masses that are at least the sum of those of their parts."""
    generator = Generator().manual_seed(seed)
    normal = torch.randn(n_events, len(BSM_FEATURES), generator=generator)
    table = {name: normal[:, number] for number, name in enumerate(BSM_FEATURES)}
    jets = torch.stack([20 + 80 * table[f"jet_{k}_pt"].sigmoid() for k in range(1, 5)], dim=1)
    jets = jets.sort(dim=1, descending=True).values
    for name, value in table.items():
        if name.endswith("_eta"):
            table[name] = (0.6 * value + 0.3 * normal[:, 0]).clamp(-2.4, 2.4)
        elif name.endswith("_phi"):
            table[name] = value.clamp(-3, 3)
        elif name.endswith("_btag"):
            table[name] = torch.zeros_like(value)
        else:
            table[name] = 20 + 60 * value.sigmoid()
    table |= {f"jet_{k + 1}_pt": jets[:, k] for k in range(4)}
    # Uncorrelated with the momentum of the lepton, but known from it.
    table["missing_energy_magnitude"] = 10 + 40 * normal[:, 0].abs() + normal[:, 3].abs()
    for whole, parts in (("m_jjj", ["m_jj"]), ("m_jlv", ["m_lv"]), ("m_wbb", ["m_bb", "m_jj", "m_lv"])):
        table[whole] = 0.1 * table[whole] + sum(table[part] for part in parts)
    table["m_wwbb"] = 0.1 * table["m_wwbb"] + table["m_wbb"]
    return torch.stack([table[name] for name in BSM_FEATURES], dim=1)


def made_up_data(n_events: int = 600) -> BsmTables:
    """Signal and background with the three splits."""
    splits = {"train": (n_events, 1), "validation": (200, 2), "reference": (n_events, 3)}
    background = {name: made_up_events(*facts) for name, facts in splits.items()}
    return BsmTables({"signal": {"train": made_up_events(10, 4)}, "background": background})
