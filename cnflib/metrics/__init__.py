"""How good a density or a sample is: likelihood and mass, calibration, two-sample tests, samples, weights of a fit.

All functions take plain tensors, so models of any library can be measured; all results are numbers that print well.
"""

from cnflib.metrics.calibration import latent_pit, pit, rank_uniformity, ranks, uniformity
from cnflib.metrics.classifier import Classifier, ClassifierTest, classifier_test
from cnflib.metrics.generators import (
    Memorisation,
    PrecisionRecall,
    frechet_distance,
    memorisation,
    precision_recall,
)
from cnflib.metrics.importance import effective_sample_size, log_z, pareto_k
from cnflib.metrics.likelihood import Bounds, LogProb, bits_per_dim, mass, midpoints, nll, on_grid, paired_gap
from cnflib.metrics.regions import Coverage, central_level, coverage, density_level, tarp_level
from cnflib.metrics.results import Estimate, Significance
from cnflib.metrics.two_sample import (
    MMD,
    EnergyDistance,
    SlicedWasserstein,
    TwoSampleStatistic,
    permutation_test,
)

__all__ = [
    "MMD",
    "Bounds",
    "Classifier",
    "ClassifierTest",
    "Coverage",
    "EnergyDistance",
    "Estimate",
    "LogProb",
    "Memorisation",
    "PrecisionRecall",
    "Significance",
    "SlicedWasserstein",
    "TwoSampleStatistic",
    "bits_per_dim",
    "central_level",
    "classifier_test",
    "coverage",
    "density_level",
    "effective_sample_size",
    "frechet_distance",
    "latent_pit",
    "log_z",
    "mass",
    "memorisation",
    "midpoints",
    "nll",
    "on_grid",
    "paired_gap",
    "pareto_k",
    "permutation_test",
    "pit",
    "precision_recall",
    "rank_uniformity",
    "ranks",
    "tarp_level",
    "uniformity",
]


def __dir__() -> list[str]:
    return sorted(__all__)
