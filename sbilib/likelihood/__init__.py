"""The likelihood of signal ratio and nuisance parameter: scans, profiles, intervals, overlaps, fast fits.

It knows no networks: any `ComponentDensities` will do.  All sums and fits run in float64.
"""

from sbilib.likelihood.batched import FitResults, fit_event_sets, fit_sets, fit_toys, toy_groups
from sbilib.likelihood.convex import NuisanceProfile, profile_over_signal_ratio
from sbilib.likelihood.extended import ExpectedYields, ExtendedFits, extended_surfaces, fit_extended
from sbilib.likelihood.grid import NLLScan, ScanGrid, scan_nll
from sbilib.likelihood.intervals import Intervals, crossing_interval
from sbilib.likelihood.local import LocalLikelihood, local_likelihood
from sbilib.likelihood.local_overlap import local_overlaps
from sbilib.likelihood.overlap import Overlaps, likelihood_overlaps, overlap
from sbilib.likelihood.parabolic import (
    DEFAULT_WINDOW,
    ParabolicLevels,
    QuarticFit,
    fit_quartic,
    parabolic_interval,
    parabolic_levels,
)
from sbilib.likelihood.profile import BestFit, Profile, best_fit, profile_nuisance, profile_signal_ratio
from sbilib.likelihood.table import EventSets, NuisanceTable
from sbilib.likelihood.windows import WindowProfiles, profile_windows

__all__ = [
    "DEFAULT_WINDOW",
    "BestFit",
    "EventSets",
    "ExpectedYields",
    "ExtendedFits",
    "FitResults",
    "Intervals",
    "LocalLikelihood",
    "NLLScan",
    "NuisanceProfile",
    "NuisanceTable",
    "Overlaps",
    "ParabolicLevels",
    "Profile",
    "QuarticFit",
    "ScanGrid",
    "WindowProfiles",
    "best_fit",
    "crossing_interval",
    "extended_surfaces",
    "fit_event_sets",
    "fit_extended",
    "fit_quartic",
    "fit_sets",
    "fit_toys",
    "likelihood_overlaps",
    "local_likelihood",
    "local_overlaps",
    "overlap",
    "parabolic_interval",
    "parabolic_levels",
    "profile_nuisance",
    "profile_over_signal_ratio",
    "profile_signal_ratio",
    "profile_windows",
    "scan_nll",
    "toy_groups",
]
