"""Binned template likelihoods (HistFactory) in PyTorch, differentiable in their templates.

Names and conventions follow pyhf, whose JSON workspaces are read and written.  All statistics run in float64.
"""

from sbilib.histfactory.asymptotics import (
    TailProbabilities,
    expected_tail_probabilities,
    significance,
    tail_probabilities,
)
from sbilib.histfactory.fits import FitResult, fit, fixed_poi_fit
from sbilib.histfactory.hypotests import HypotestResult, asimov_data, expected_hypotest, hypotest
from sbilib.histfactory.information import (
    Impacts,
    Pulls,
    covariance,
    fisher_information,
    impacts,
    poi_uncertainty,
    pulls,
)
from sbilib.histfactory.interpolation import interpolate
from sbilib.histfactory.limits import LimitResult, upper_limit
from sbilib.histfactory.model import Model
from sbilib.histfactory.simple import correlated_background, uncorrelated_background
from sbilib.histfactory.solver import Minimum, SolverSettings, minimize
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
from sbilib.histfactory.statistics import q0, qmu, qmu_tilde, tmu, tmu_tilde
from sbilib.histfactory.toys import ToyResult, sample_data, toy_probabilities
from sbilib.histfactory.workspace import Workspace

__all__ = [
    "Channel",
    "FitResult",
    "HistoSys",
    "HypotestResult",
    "Impacts",
    "LimitResult",
    "Lumi",
    "Minimum",
    "Model",
    "Modifier",
    "NormFactor",
    "NormSys",
    "ParameterSettings",
    "Pulls",
    "Sample",
    "ShapeFactor",
    "ShapeSys",
    "SolverSettings",
    "StatError",
    "TailProbabilities",
    "ToyResult",
    "Workspace",
    "asimov_data",
    "correlated_background",
    "covariance",
    "expected_hypotest",
    "expected_tail_probabilities",
    "fisher_information",
    "fit",
    "fixed_poi_fit",
    "hypotest",
    "impacts",
    "interpolate",
    "minimize",
    "poi_uncertainty",
    "pulls",
    "q0",
    "qmu",
    "qmu_tilde",
    "sample_data",
    "significance",
    "tail_probabilities",
    "tmu",
    "tmu_tilde",
    "toy_probabilities",
    "uncorrelated_background",
    "upper_limit",
]
