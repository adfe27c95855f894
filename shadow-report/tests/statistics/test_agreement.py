"""How far two series agree, and the tests of where they differ."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.stats import chi2_contingency, fisher_exact, ks_2samp, pearsonr
from statsmodels.stats.inter_rater import cohens_kappa as statsmodels_kappa

from shadow_report.statistics.agreement import (
    cohens_kappa,
    fisher_p,
    kolmogorov_smirnov_p,
    limits_of_agreement,
    pearson,
    same_shares_p,
)
from shadow_report.statistics.samples import Moments, PairMoments


def test_pearson_agrees_with_scipy() -> None:
    random = np.random.default_rng(61)
    x = random.normal(size=200)
    y = 0.6 * x + random.normal(size=200)
    assert pearson(PairMoments.of(x, y)) == pytest.approx(pearsonr(x, y).statistic)


def test_shifted_shadow_correlates_but_does_not_agree() -> None:
    """FACTOR=3 against FACTOR=2: the correlation is 1, the bias and the limits are not 0."""
    x = np.arange(1.0, 101)
    assert pearson(PairMoments.of(2 * x, 3 * x)) == pytest.approx(1)
    limits = limits_of_agreement(Moments.of(3 * x - 2 * x))
    assert limits.lower < x.mean() < limits.upper


def test_identical_sides_agree_perfectly() -> None:
    """Correlation 1 and limits of agreement at 0."""
    values = np.arange(50.0)
    assert pearson(PairMoments.of(values, values)) == 1
    assert limits_of_agreement(Moments.of(values - values)) == (0, 0)


def test_most_differences_lie_within_the_limits_of_agreement() -> None:
    """About 95 % of them."""
    differences = np.random.default_rng(64).normal(0.2, 0.5, 20_000)
    lower, upper = limits_of_agreement(Moments.of(differences))
    inside = (lower <= differences) & (differences <= upper)
    assert inside.mean() == pytest.approx(0.95, abs=0.005)


@pytest.mark.parametrize("values", [[], [1.0], [2.0, 2.0, 2.0, 2.0]])
def test_constant_or_missing_values_give_nan(values: list[float]) -> None:
    """There is no correlation to speak of, and no error either."""
    assert math.isnan(pearson(PairMoments.of(values, values)))


def test_kappa_agrees_with_statsmodels() -> None:
    """Two and more labels, balanced and skewed."""
    random = np.random.default_rng(51)
    for labels in (2, 3, 7):
        confusion = random.integers(0, 20, (labels, labels)) + 40 * np.eye(labels, dtype=int)
        assert cohens_kappa(confusion) == pytest.approx(statsmodels_kappa(confusion).kappa)
    assert cohens_kappa([[118, 5], [2, 0]]) < 0


def test_perfect_agreement_is_one() -> None:
    """Two labels that always agree."""
    assert cohens_kappa([[30, 0], [0, 9]]) == 1.0


def test_one_label_has_no_kappa() -> None:
    """When both sides can only say one thing, agreement proves nothing; nor do no data."""
    assert math.isnan(cohens_kappa([[30]]))
    assert math.isnan(cohens_kappa([[0, 0], [0, 0]]))


def test_confusion_must_be_square() -> None:
    """Rows and columns are the same labels."""
    with pytest.raises(ValueError, match=r"shape \(1, 2\)"):
        cohens_kappa([[1, 2]])


def test_fisher_agrees_with_scipy_where_the_part_is_worse() -> None:
    """And is 1 where it is no worse than the whole."""
    for bad, pairs, all_bad, all_pairs in ((5, 40, 20, 1_000), (80, 80, 90, 9_000), (9, 10, 9, 20)):
        table = [[bad, pairs - bad], [all_bad - bad, all_pairs - pairs - all_bad + bad]]
        theirs = fisher_exact(table, alternative="greater").pvalue
        assert fisher_p(bad, pairs, all_bad, all_pairs) == pytest.approx(theirs, rel=1e-6)
    assert fisher_p(1, 100, 20, 1_000) == 1.0


def test_the_tests_of_the_missing_calls_agree_with_scipy() -> None:
    """The laws are the asymptotic ones, of sizes that the report meets."""
    random = np.random.default_rng(65)
    first, second = random.normal(size=300), random.normal(0.3, 1, 2_000)
    theirs = ks_2samp(first, second, method="asymp")
    ours = kolmogorov_smirnov_p(float(theirs.statistic), 300, 2_000)
    assert ours == pytest.approx(theirs.pvalue, rel=0.25)
    table = np.array([[10.0, 20.0, 30.0], [600.0, 500.0, 900.0]])
    assert same_shares_p(table) == pytest.approx(chi2_contingency(table).pvalue)
    assert same_shares_p(table[:, :1]) == 1.0
