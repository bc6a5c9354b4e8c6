"""Laws of the classifier two-sample test: exact given the classifier, powerful where it can be, anyone's classifier."""

import pytest
import scipy.stats
import torch
from registry import rng
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.dummy import DummyClassifier
from sklearn.neighbors import KNeighborsClassifier
from sklearn.svm import LinearSVC

from cnflib.metrics import classifier_test


def normal(*shape, seed=0, generator=None):
    return torch.randn(*shape, generator=generator or rng(seed), dtype=torch.float64)


LEARNERS = [
    LinearDiscriminantAnalysis(),
    KNeighborsClassifier(3),
]  # the second memorises, and its scores have ties


@pytest.mark.parametrize("classifier", LEARNERS, ids=lambda c: type(c).__name__)
@pytest.mark.parametrize(("n", "m"), [(40, 40), (30, 60)])
def test_the_p_value_is_uniform_for_samples_of_one_law(classifier, n, m):
    generator = rng(1)
    tests = [
        classifier_test(
            normal(n, 2, generator=generator), normal(m, 2, generator=generator), classifier, generator
        )
        for _ in range(150)
    ]
    ps = torch.tensor([test.p_value for test in tests]).double()
    assert scipy.stats.kstest(ps, "uniform").pvalue > 0.01
    for kind in ("accuracy", "auc"):
        values = torch.tensor([getattr(test, kind) for test in tests])
        assert abs(values.mean() - 0.5) < 4 * values.std() / 150**0.5


def test_the_auc_between_shifted_gaussians_is_that_of_the_best_classifier():
    x, y = normal(4000, 3), normal(4000, 3, seed=1) + torch.tensor([1.0, 0.0, 0.0])
    found = classifier_test(x, y, LinearDiscriminantAnalysis(), rng(1))
    law = torch.distributions.Normal(0.0, 1.0)
    assert found.auc == pytest.approx(law.cdf(torch.tensor(0.5**0.5)).item(), abs=4 * 0.3 / 2000**0.5)
    assert found.accuracy == pytest.approx(law.cdf(torch.tensor(0.5)).item(), abs=4 * 0.35 / 2000**0.5)


@pytest.mark.parametrize(
    "wrong", [lambda y: y + 1, lambda y: 2 * y, lambda y: y.abs()], ids=["shift", "scale", "fold"]
)
def test_the_default_classifier_finds_a_clear_difference(wrong):
    found = classifier_test(normal(300, 2), wrong(normal(250, 2, seed=1)), generator=rng(2))
    assert found.p_value < 1e-4 and found.auc > 0.6 and found.accuracy > 0.55


def test_one_that_learns_nothing_says_one_half():
    assert classifier_test(normal(20, 2), normal(30, 2) + 9, DummyClassifier()) == (0.5, 0.5, 1.0)


def test_scores_of_a_decision_function_serve_too_and_the_classifier_is_left_alone():
    classifier = LinearSVC()
    assert classifier_test(normal(80, 2), normal(80, 2, seed=1) + 2, classifier, rng(1)).p_value < 1e-6
    assert not hasattr(classifier, "coef_")


def test_images_are_rows_and_the_generator_alone_decides():
    x, y = normal(50, 1, 4, 4).float().requires_grad_(), normal(60, 1, 4, 4, seed=1).float()
    state = torch.get_rng_state()
    first, second, other = (classifier_test(x, y, generator=rng(seed)) for seed in (1, 1, 2))
    assert first == second != other and all(type(v) is float for v in first)
    assert first == classifier_test(x.flatten(1), y.flatten(1), generator=rng(1))
    assert torch.equal(state, torch.get_rng_state())


def test_a_test_prints_its_three_numbers():
    found = classifier_test(normal(40, 2), normal(40, 2, seed=1), LEARNERS[0], rng(1))
    assert str(found) == f"accuracy {found.accuracy:.2f}, AUC {found.auc:.2f}, p = {found.p_value:.2g}"


def test_a_fault_is_named():
    with pytest.raises(ValueError, match=r"\(8, 2\) and \(8, 3\)"):
        classifier_test(torch.zeros(8, 2), torch.zeros(8, 3))
    with pytest.raises(ValueError, match="N, M ≥ 4"):
        classifier_test(torch.zeros(3, 2), torch.zeros(8, 2))
    with pytest.raises(ValueError, match="finite x"):
        classifier_test(torch.zeros(8, 2) / 0, torch.zeros(8, 2))
