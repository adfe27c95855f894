"""Label agreement beyond chance, against statsmodels."""

from __future__ import annotations

import math

import numpy as np
import pytest
from statsmodels.stats.inter_rater import cohens_kappa as statsmodels_kappa

from shadow_report.statistics.agreement import cohens_kappa, gwet_ac1


def test_kappa_and_its_interval_agree_with_statsmodels() -> None:
    """Two and more labels, balanced and skewed."""
    random = np.random.default_rng(51)
    for labels in (2, 3, 7):
        confusion = random.integers(0, 20, (labels, labels)) + 40 * np.eye(labels, dtype=int)
        theirs = statsmodels_kappa(confusion)
        value, interval = cohens_kappa(confusion, 0.05)
        assert value == pytest.approx(theirs.kappa)
        assert interval == pytest.approx((theirs.kappa_low, theirs.kappa_upp))


def test_kappa_interval_covers_nominally() -> None:
    """The true kappa of a fixed table is held in about 95 % of 2,000 samples."""
    shares = np.array([[0.5, 0.05], [0.1, 0.35]])
    chance = shares.sum(axis=1) @ shares.sum(axis=0)
    truth = (np.trace(shares) - chance) / (1 - chance)
    samples = np.random.default_rng(52).multinomial(400, shares.ravel(), size=2_000)
    intervals = [cohens_kappa(sample.reshape(2, 2), 0.05).interval for sample in samples]
    assert 0.935 <= np.mean([low <= truth <= high for low, high in intervals]) <= 0.965


def test_perfect_agreement_is_one() -> None:
    """Two labels that always agree."""
    assert cohens_kappa([[30, 0], [0, 9]], 0.05) == (1.0, (1.0, 1.0))
    assert gwet_ac1([[30, 0], [0, 9]]) == 1.0


def test_one_label_has_no_kappa() -> None:
    """When both sides can only say one thing, agreement is no evidence; neither is no data."""
    assert math.isnan(cohens_kappa([[30]], 0.05).value)
    assert math.isnan(cohens_kappa([[0, 0], [0, 0]], 0.05).value)
    assert math.isnan(gwet_ac1([[30]]))


def test_ac1_stays_high_where_kappa_collapses() -> None:
    """Gwet's example of the paradox: 118 of 125 agree, kappa is below 0 and AC1 is 0.94."""
    confusion = [[118, 5], [2, 0]]
    assert cohens_kappa(confusion, 0.05).value < 0
    assert gwet_ac1(confusion) == pytest.approx(0.9408, abs=1e-4)


def test_confusion_must_be_square() -> None:
    """Rows and columns are the same labels."""
    with pytest.raises(ValueError, match=r"shape \(1, 2\)"):
        cohens_kappa([[1, 2]], 0.05)
