"""Agreement of labels beyond chance, from a confusion matrix; fixed horizon, description."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import ndtri

from shadow_report.statistics.interval import UNKNOWN, Estimate, Interval


def cohens_kappa(confusion: ArrayLike, alpha: float) -> Estimate:
    """Cohen's kappa of a square count matrix (rows primary, columns shadow) with its interval.

    Large-sample variance of Fleiss, Cohen, Everitt 1969 (Psychological Bulletin 72, 323-327).
    NaN without pairs, or when both sides only ever give one and the same label.
    """
    shares, n = _shares(confusion)
    if n == 0:
        return Estimate(math.nan, UNKNOWN)
    rows, columns = shares.sum(axis=1), shares.sum(axis=0)
    agreed, by_chance = float(np.trace(shares)), float(rows @ columns)
    if by_chance >= 1:
        return Estimate(math.nan, UNKNOWN)
    kappa = (agreed - by_chance) / (1 - by_chance)
    off = shares * (columns[:, None] + rows[None, :]) ** 2
    diagonal = np.diag(shares) * (1 - (rows + columns) * (1 - kappa)) ** 2
    variance = (
        diagonal.sum()
        + (1 - kappa) ** 2 * (off.sum() - np.trace(off))
        - (kappa - by_chance * (1 - kappa)) ** 2
    ) / (n * (1 - by_chance) ** 2)
    half = float(-ndtri(alpha / 2)) * math.sqrt(max(0.0, float(variance)))
    return Estimate(kappa, Interval(max(-1.0, kappa - half), min(1.0, kappa + half)))


def gwet_ac1(confusion: ArrayLike) -> float:
    """Gwet's AC1: like kappa, but it does not collapse when one label dominates.

    (Gwet 2008, British Journal of Mathematical and Statistical Psychology 61, 29-48.) NaN without
    pairs or with fewer than two labels.
    """
    shares, n = _shares(confusion)
    labels = len(shares)
    if n == 0 or labels < 2:
        return math.nan
    usual = (shares.sum(axis=1) + shares.sum(axis=0)) / 2
    by_chance = float((usual * (1 - usual)).sum()) / (labels - 1)
    return (float(np.trace(shares)) - by_chance) / (1 - by_chance)


def _shares(confusion: ArrayLike) -> tuple[NDArray[np.float64], float]:
    counts = np.asarray(confusion, dtype=np.float64)
    if counts.ndim != 2 or counts.shape[0] != counts.shape[1]:
        raise ValueError(f"The confusion matrix has shape {counts.shape}; give a square one.")
    n = float(counts.sum())
    return (counts / n if n else counts), n
