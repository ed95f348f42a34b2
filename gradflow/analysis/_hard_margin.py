"""The largest margin of a linear network."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.special import entr
from jaxtyping import Array, Float, Int

from ..datasets import Dataset
from ._nnls import nnls_or_nan

_TOLERANCE = 1e-9
"""How far the margin may be from its upper bound, relative to it."""


class HardMarginSVM(eqx.Module):
    r"""The linear function of norm one with the largest margin, and its multipliers.

    **Attributes:**

    - `direction`: $v$, in the shape of one input.
    - `margin`: $\gamma = \min_n y_n \langle v, x_n \rangle$.
    - `multipliers`: $p_n \ge 0$ with $\sum_n p_n = 1$ and $\sum_n p_n y_n x_n = \gamma
        v$. The shortest $w$ with margins of at least 1 is $v / \gamma = \sum_n \alpha_n
        y_n x_n$ with $\alpha_n = p_n / \gamma^2$.
    """

    direction: Float[Array, "..."]
    margin: Float[Array, ""]
    multipliers: Float[Array, " N"]

    @property
    def num_support(self) -> Int[Array, ""]:
        """How many multipliers are positive."""
        return jnp.sum(self.multipliers > 0)

    @property
    def effective_support(self) -> Float[Array, ""]:
        r"""For how many support vectors of equal weight they count: $A = \exp(-\sum_n
        p_n \log p_n)$.

        The soft-max weights of an exponential-type loss tend to the $p_n$. A linear
        function that makes $g$ of $v$ makes $\gamma g + c_n$ of $y_n x_n$, with $\sum_n
        p_n c_n = 0$. So $p_n = e^{-c_n} / A$ in the limit, and the sum of the losses is
        $A e^{-\gamma g}$.
        """
        return jnp.exp(jnp.sum(entr(self.multipliers)))


def hard_margin_svm(dataset: Dataset) -> HardMarginSVM:
    r"""The support vector machine with a hard margin, without a bias, to which linear
    networks tend under exponential-type losses (T3 14.3).

    $$\gamma = \max_{\|v\| = 1} \min_n y_n \langle v, x_n \rangle = \min_{p \ge 0,\,
    \sum_n p_n = 1} \Big\| \sum_n p_n y_n x_n \Big\|$$

    The second problem becomes one of non-negative least squares, solved by an
    active-set method on the CPU, in float64 and without derivatives. Its support
    vectors, all of them with equal margins, then give $v$. The two sides are a lower
    and an upper bound of $\gamma$, and agree to $10^{-9}$ of it, or nothing is
    returned.

    **Arguments:**

    - `dataset`: with labels $\pm 1$. A constant component of the inputs plays the bias,
        see [`gradflow.datasets.unit_norm`][].

    **Returns:** a [`gradflow.analysis.HardMarginSVM`][]. $v$ is unique, the multipliers
    are where the support vectors are linearly independent. All of it is NaN where no
    linear function separates the samples, and where the bounds do not meet.

    **Raises:** `ValueError` for classes and regression data.

    ??? cite "Reference"

        C. Lawson, R. Hanson: Solving least squares problems. SIAM, 1995, chapter 23.4.
    """
    if dataset.regression:
        raise ValueError("`dataset`: regression data have no margins.")
    if not dataset.signs:
        raise ValueError(
            f"`dataset` must have labels ±1, not {dataset.num_classes} classes. "
            "`kkt_residual` checks a network of several outputs."
        )
    inputs = dataset.inputs
    rows = dataset.labels[:, None] * inputs.reshape(len(inputs), -1)
    direction, margin, multipliers = jax.pure_callback(
        _largest_margin,
        tuple(
            jax.ShapeDtypeStruct(shape, rows.dtype)
            for shape in (rows.shape[1:], (), rows.shape[:1])
        ),
        rows,
        vmap_method="sequential",
    )
    return HardMarginSVM(direction.reshape(dataset.input_shape), margin, multipliers)


def _largest_margin(rows: Array) -> tuple[np.ndarray, ...]:
    """Direction, margin and multipliers, on the host."""
    with np.errstate(all="ignore"):
        found = _separate(np.asarray(rows, np.float64))
    if found is None:
        found = (np.full(rows.shape[1], np.nan), np.nan, np.full(len(rows), np.nan))
    return tuple(np.asarray(x, rows.dtype) for x in found)


def _separate(rows: np.ndarray) -> tuple[np.ndarray, float, np.ndarray] | None:
    # Numbers of about one are neither lost beside the row of ones nor squared to zero.
    size = np.max(np.abs(rows))
    rows = rows / size
    matrix = np.vstack([rows.T, np.ones(len(rows))])
    shares = nnls_or_nan(matrix, np.append(np.zeros(rows.shape[1]), 1.0))
    shares = shares / np.sum(shares)
    if np.any(np.isnan(shares)):
        return None
    # In the sum of the support vectors the digits of a small margin cancel.
    support = rows[shares > 0]
    w, *_ = np.linalg.lstsq(support, np.ones(len(support)))
    direction = w / np.linalg.norm(w)
    lower = np.min(rows @ direction)
    upper = np.linalg.norm(shares @ rows)
    if not (lower > 0 and upper - lower <= _TOLERANCE * upper):
        return None
    return direction, size * lower, shares
