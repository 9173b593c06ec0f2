"""Simulation-based inference in particle physics: flows, classifiers and the statistics around them."""

__version__ = "0.1.0"
