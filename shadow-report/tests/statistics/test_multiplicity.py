"""Control of the false discovery rate."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import false_discovery_control
from statsmodels.stats.multitest import multipletests

from shadow_report.statistics.agreement import benjamini_hochberg


def test_adjusted_values_agree_with_statsmodels_and_scipy() -> None:
    """In the order of the input, with ties, with one value and with none."""
    p_values = np.random.default_rng(91).random(200) ** 2
    p_values[:5] = p_values[5]
    adjusted = benjamini_hochberg(p_values)
    assert adjusted == pytest.approx(multipletests(p_values, method="fdr_bh")[1])
    assert adjusted == pytest.approx(false_discovery_control(p_values))
    assert benjamini_hochberg([0.2]) == pytest.approx([0.2])
    assert benjamini_hochberg([]).size == 0


def test_false_discoveries_stay_at_or_under_the_level() -> None:
    """A tenth of 100 slices are truly different; of those named at 10 %, at most 10 % are not."""
    random = np.random.default_rng(92)
    shares = []
    for _ in range(1_000):
        p_values = np.concatenate([random.random(90), random.random(10) * 1e-3])
        named = benjamini_hochberg(p_values) <= 0.1
        shares.append(named[:90].sum() / max(1, named.sum()))
    assert np.mean(shares) <= 0.1
