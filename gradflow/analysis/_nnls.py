"""Non-negative least squares on the host."""

import numpy as np
from scipy.optimize import nnls


def nnls_or_nan(matrix: np.ndarray, target: np.ndarray) -> np.ndarray:
    r"""The $x \ge 0$ for which the matrix times $x$ is nearest to the target, in
    float64; NaN for numbers that are not finite, and out of iterations."""
    if np.all(np.isfinite(matrix)) and np.all(np.isfinite(target)):
        try:
            return nnls(matrix, target)[0]
        except RuntimeError:
            pass
    return np.full(matrix.shape[1], np.nan)
