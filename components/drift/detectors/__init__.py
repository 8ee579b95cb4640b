"""Detectors: what tells that a sample, or a stream, is no longer what it was.

To add one: a file with a function or a ``Stream`` and its line in ``DETECTORS``;
``tests/contracts/test_detectors.py`` holds it to what all of them promise.
"""

from __future__ import annotations

from components.drift.detectors.adwin import Adwin
from components.drift.detectors.chi_squared import chi_squared
from components.drift.detectors.ddm import Ddm
from components.drift.detectors.detector import Detector
from components.drift.detectors.domain_classifier import domain_classifier
from components.drift.detectors.g_test import g_test
from components.drift.detectors.jensen_shannon import jensen_shannon
from components.drift.detectors.kolmogorov_smirnov import kolmogorov_smirnov
from components.drift.detectors.mmd import mmd
from components.drift.detectors.page_hinkley import PageHinkley
from components.drift.detectors.population_stability import population_stability
from components.drift.detectors.wasserstein import wasserstein

__all__ = ["DETECTORS"]

DETECTORS: dict[str, Detector] = {
    "kolmogorov-smirnov": Detector("numbers", 20, 0.15, kolmogorov_smirnov),
    "wasserstein": Detector("numbers", 20, 0.3, wasserstein),
    "chi-squared": Detector("categories", 20, 0.15, chi_squared),
    "g-test": Detector("categories", 20, 0.15, g_test),
    "population-stability": Detector("categories", 20, 0.25, population_stability),
    "jensen-shannon": Detector("categories", 20, 0.15, jensen_shannon),
    "mmd": Detector("vectors", 50, 0.05, mmd),
    "domain-classifier": Detector("vectors", 50, 0.4, domain_classifier),
    "page-hinkley": Detector("stream", 30, 0.0, PageHinkley),
    "adwin": Detector("stream", 30, 0.0, Adwin),
    "ddm": Detector("stream", 30, 0.0, Ddm),
}
"""By name, as ``drift`` in a project file names them."""
