r"""Whether a classifier can tell two samples apart: the two-sample test that learns what to look at.

If x and y come from one law, no classifier does better than a coin on points that it was not trained on. What one
finds is a difference; what it misses may be too small for it, or of a kind that another one would see.
"""

from typing import NamedTuple, Protocol, Self

import numpy as np
import torch
from torch import Generator, Tensor

from cnflib._random import source
from cnflib.metrics._checks import check_samples

__all__ = ["Classifier", "ClassifierTest", "classifier_test"]


class Classifier(Protocol):
    """What a classifier of scikit-learn has; beside these either ``predict_proba`` or ``decision_function``."""

    def fit(self, X: np.ndarray, y: np.ndarray) -> Self:
        """Train on rows X, shape ``(n, D)``, with the labels y."""

    def predict(self, X: np.ndarray) -> np.ndarray:
        """The labels of rows."""


class ClassifierTest(NamedTuple):
    r"""How well a classifier tells two samples apart; prints as ``accuracy 0.53, AUC 0.55, p = 0.21``.

    Args:
        accuracy: The mean of the shares of x and of y that it gets right, 1/2 for a coin; the held-out half alone.
        auc: The probability that it scores a point of y higher than one of x, ties counted half.
        p_value: The probability of an AUC at least as large for samples of one law, given the classifier.
    """

    accuracy: float
    auc: float
    p_value: float

    def __str__(self) -> str:
        return f"accuracy {self.accuracy:.2f}, AUC {self.auc:.2f}, p = {self.p_value:.2g}"


def classifier_test(
    x: Tensor, y: Tensor, classifier: Classifier | None = None, generator: Generator | None = None
) -> ClassifierTest:
    r"""Train a classifier on one half of both samples, and test its scores s on the other by Mann and Whitney.

    .. math:: \mathrm{AUC} = \frac{1}{NM} \sum_{i, j}
              \big[ 1_{s(x_i) < s(y_j)} + \tfrac12 1_{s(x_i) = s(y_j)} \big]

    The classifier is fixed when it meets the held-out points, so the test needs no correction for what it learned,
    however much it overfits. The p-value is exact where a sample has at most eight held-out points and scores have
    no ties, else that of the normal limit, ties allowed for: with twenty points of each it is off by 0.002 at most.

    Args:
        x: The first sample, independent points, shape ``(N, *event)``, N ≥ 4.
        y: The second, shape ``(M, *event)``, M ≥ 4.
        classifier: Any classifier of scikit-learn with ``predict_proba`` or ``decision_function``; a clone of it is
            trained. None is ``HistGradientBoostingClassifier``.
        generator: Source of the halves, and of the seed of the default classifier.

    Raises:
        ValueError: If the shapes do not fit, a sample has fewer than four points, or there is a NaN or inf.

    References:
        Revisiting Classifier Two-Sample Tests, Lopez-Paz & Oquab, 2017, arXiv:1610.06545.

    Example:
        >>> import torch
        >>> x, y = torch.randn(200, 2), torch.randn(200, 2)
        >>> classifier_test(x, y + 2).p_value < 1e-6
        True
    """
    from scipy.stats import mannwhitneyu
    from sklearn.base import clone
    from sklearn.ensemble import HistGradientBoostingClassifier

    check_samples(x, y, least=4)
    if classifier is None:
        seed = torch.randint(2**31, (), **_on(generator)).item()
        classifier = HistGradientBoostingClassifier(max_depth=3, max_iter=50, random_state=seed)
    (x_train, x_test), (y_train, y_test) = _halves(x, generator), _halves(y, generator)
    labels = np.repeat([0, 1], [len(x_train), len(y_train)])
    trained = clone(classifier).fit(np.concatenate([x_train, y_train]), labels)
    on_x, on_y = _scores(trained, x_test), _scores(trained, y_test)
    test = mannwhitneyu(on_y, on_x, alternative="greater")
    right = (trained.predict(x_test) == 0).mean() + (trained.predict(y_test) == 1).mean()
    return ClassifierTest(
        float(right / 2), float(test.statistic) / (len(on_x) * len(on_y)), float(test.pvalue)
    )


def _on(generator: Generator | None) -> dict:
    return source(generator) | ({} if generator is None else {"device": generator.device})


def _halves(x: Tensor, generator: Generator | None) -> tuple[np.ndarray, np.ndarray]:
    """Two random halves in the form of scikit-learn."""
    order = torch.randperm(len(x), **_on(generator)).cpu()
    rows = x.detach().cpu().flatten(1).double()[order].numpy()
    return rows[: len(x) // 2], rows[len(x) // 2 :]


def _scores(trained: Classifier, x: np.ndarray) -> np.ndarray:
    """What a classifier says of rows, the larger the more they look like y."""
    if hasattr(trained, "predict_proba"):
        return trained.predict_proba(x)[:, 1]
    return trained.decision_function(x)
