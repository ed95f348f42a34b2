"""Neural collapse."""

from typing import Literal, TypeAlias

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from .._network import AbstractNetwork
from .._problem import Problem
from .._tree import safe_norm, safe_sqrt, scaled
from ._classes import classes_of
from ._features import hidden_features

Center: TypeAlias = Literal["classes", "samples"]


class NeuralCollapse(eqx.Module):
    r"""How far the features of the hidden layers have collapsed.

    Features $h_{k,i}$ of $K$ classes with $n_k$ samples each, $N$ in all, their class
    means $\mu_k$ and a global mean $\mu_G$; $m_k = \mu_k - \mu_G$ are the rows of $M$.
    $\Sigma_W$ is the covariance within the classes, over all samples, and $\Sigma_B =
    \frac1K \sum_k m_k m_k^\top$ that of the classes. Everything tends to 0 in a
    collapse.

    **Attributes**, the first seven with one entry for each hidden layer:

    - `nc1`: $\frac1K \operatorname{tr}(\Sigma_W \Sigma_B^\dagger)$; `inf` where the
        $m_k$ span fewer dimensions than $K - 1$ and the width allow for, as where class
        means coincide.
    - `variance_ratio`: $\operatorname{tr} \Sigma_W / \operatorname{tr} \Sigma_B$.
    - `class_distance_variance`: CDNV, the mean over pairs of classes of
        $(v_k + v_l) / (2 \|\mu_k - \mu_l\|^2)$, $v_k$ being the mean of $\|h_{k,i} -
        \mu_k\|^2$.
    - `nc2_norms`: the standard deviation of the $\|m_k\|$ over their mean.
    - `nc2_angles`: the mean of $|\cos(m_k, m_l) + 1 / (K - 1)|$ over pairs of classes.
    - `nc2_simplex`: $\| M M^\top / \|M M^\top\|_F - E \|_F$, with $E = (I -
        \frac1K 1 1^\top) / \sqrt{K - 1}$ the Gram matrix of a simplex.
    - `nc4`: the fraction of samples whose predicted class is not that of the nearest
        class mean.

    For the last layer $W$ with respect to the last features:

    - `nc3`: $\| W / \|W\|_F - M / \|M\|_F \|_F$.
    - `nc3_product`: $\| W M^\top / \|W M^\top\|_F - E \|_F$.
    - `nc2_norms_of_weights`: as `nc2_norms`, of the rows of $W$.

    ??? cite "References"

        V. Papyan, X. Y. Han, D. Donoho: Prevalence of neural collapse during the
        terminal phase of deep learning training. PNAS 117, 2020.

        T. Galanti, A. György, M. Hutter: On the role of neural collapse in transfer
        learning. ICLR, 2022 (CDNV).
    """

    nc1: Float[Array, " hidden"]
    variance_ratio: Float[Array, " hidden"]
    class_distance_variance: Float[Array, " hidden"]
    nc2_norms: Float[Array, " hidden"]
    nc2_angles: Float[Array, " hidden"]
    nc2_simplex: Float[Array, " hidden"]
    nc4: Float[Array, " hidden"]
    nc3: Float[Array, ""]
    nc3_product: Float[Array, ""]
    nc2_norms_of_weights: Float[Array, ""]


def neural_collapse(
    problem: Problem, network: AbstractNetwork, *, center: Center = "classes"
) -> NeuralCollapse:
    r"""Neural collapse in every hidden layer (M112 §5).

    **Arguments:**

    - `problem`: with labels that are classes, or $\pm 1$. The latter are two classes,
        and the one row $w$ of the last layer stands for $-w$ and $w$.
    - `network`: with one hidden layer or more. The features of a convolution are those
        of all positions.
    - `center`: whether $\mu_G$ is the mean of the class means, as with Papyan et al.
        (`"classes"`), or of all samples (`"samples"`). They differ where classes are
        unequal.

    **Returns:** a [`gradflow.analysis.NeuralCollapse`][]. NaN for what is not defined:
    angles and distances of class means that are 0 or coincide, and what needs the mean
    of an empty class where that cannot be seen, under transformations.

    **Raises:** `ValueError` for regression data, a single class, classes without a
    sample, a network without hidden layers, and another `center`.
    """
    if center not in ("classes", "samples"):
        raise ValueError(f'`center` must be "classes" or "samples", got {center!r}.')
    layers = hidden_features(problem, network)
    classes, num_classes = classes_of(problem)
    outputs = problem.outputs(network)
    last = network.matrices[-1]
    if problem.dataset.signs:
        outputs, last = (
            jnp.concatenate([-x, x], a) for x, a in ((outputs, 1), (last, 0))
        )
    predicted = jnp.argmax(outputs, axis=1)
    clouds = [_Clouds.of(h, classes, num_classes, center) for h in layers]
    means = clouds[-1].means

    def of_layers(measure) -> Float[Array, " hidden"]:
        return jnp.stack([measure(cloud) for cloud in clouds])

    return NeuralCollapse(
        nc1=of_layers(_nc1),
        variance_ratio=of_layers(
            lambda c: (
                jnp.mean(jnp.sum(c.deviations**2, 1)) / jnp.mean(jnp.sum(c.means**2, 1))
            )
        ),
        class_distance_variance=of_layers(_class_distance_variance),
        nc2_norms=of_layers(lambda c: _spread_of_norms(c.means)),
        nc2_angles=of_layers(lambda c: _angles(c.means)),
        nc2_simplex=of_layers(lambda c: _distance_to_simplex(c.means @ c.means.T)),
        nc4=of_layers(lambda c: _mismatch(c, predicted)),
        nc3=safe_norm(_unit(last) - _unit(means)),
        nc3_product=_distance_to_simplex(last @ means.T),
        nc2_norms_of_weights=_spread_of_norms(last),
    )


class _Clouds(eqx.Module):
    """The features of one layer: the means $m_k$ of the classes, and how the samples
    deviate from them. Centred, since differences of large numbers are not precise, and
    in units of the largest feature, of which nothing that is measured depends."""

    means: Float[Array, "K units"]
    deviations: Float[Array, "N units"]
    classes: Int[Array, " N"]
    counts: Float[Array, " K"]

    @classmethod
    def of(cls, h: Float[Array, "N units"], classes, num_classes: int, center: Center):
        def over_classes(values):
            return jax.ops.segment_sum(values, classes, num_classes)

        h, _ = scaled(h)
        counts = over_classes(jnp.ones(h.shape[0], h.dtype))
        centred = h - jnp.mean(h, axis=0, keepdims=True)
        means = over_classes(centred) / counts[:, None]
        deviations = centred - means[classes]
        if center == "classes":
            means = means - jnp.mean(means, axis=0, keepdims=True)
        return cls(means, deviations, classes, counts)

    def nearest(self) -> Int[Array, " N"]:
        """The class whose mean is nearest to each sample."""
        to_own = self.means[self.classes]
        # |h - m_l|² less |h|², of h = m_k + deviation.
        products = (to_own + self.deviations) @ self.means.T
        squares = jnp.sum(self.means**2, axis=1)
        return jnp.argmin(squares[None] - 2 * products, axis=1)


def _nc1(clouds: _Clouds) -> Float[Array, ""]:
    # Without a matrix of units by units: S and V^T of the means M = U S V^T.
    _, s, vt = jnp.linalg.svd(clouds.means, full_matrices=False)
    rank = min(clouds.means.shape[0] - 1, clouds.means.shape[1])
    s, vt = s[:rank], vt[:rank]
    tiny = jnp.finfo(s.dtype).eps * max(clouds.means.shape)
    # The largest distance of any sample from its mean tells what is rounding.
    size = s[0] + jnp.max(jnp.abs(clouds.deviations))
    coincide = s[-1] <= tiny * size
    scaled = (clouds.deviations @ vt.T) / jnp.where(coincide, 1, s)[None]
    return jnp.where(coincide, jnp.inf, jnp.mean(jnp.sum(scaled**2, axis=1)))


def _mismatch(clouds: _Clouds, predicted: Int[Array, " N"]) -> Float[Array, ""]:
    fraction = jnp.mean(clouds.nearest() != predicted, dtype=clouds.means.dtype)
    # A class without a sample has no mean, which `argmin` would take for the nearest.
    return jnp.where(jnp.all(clouds.counts > 0), fraction, jnp.nan)


def _class_distance_variance(clouds: _Clouds) -> Float[Array, ""]:
    squares = jnp.sum(clouds.deviations**2, axis=1)
    num_classes = clouds.means.shape[0]
    variances = jax.ops.segment_sum(squares, clouds.classes, num_classes)
    variances = variances / clouds.counts
    one, other = jnp.triu_indices(num_classes, 1)
    distances = jnp.sum((clouds.means[one] - clouds.means[other]) ** 2, axis=1)
    return jnp.mean((variances[one] + variances[other]) / (2 * distances))


def _spread_of_norms(rows: Float[Array, "K units"]) -> Float[Array, ""]:
    rows, _ = scaled(rows)
    norms = safe_norm(rows, axis=1)
    return safe_sqrt(jnp.var(norms)) / jnp.mean(norms)


def _angles(means: Float[Array, "K units"]) -> Float[Array, ""]:
    num_classes = means.shape[0]
    units = means / jnp.linalg.norm(means, axis=1, keepdims=True)
    cosines = (units @ units.T)[jnp.triu_indices(num_classes, 1)]
    # Of the absolute values: the mean itself is 0 for all centred means of one norm.
    return jnp.mean(jnp.abs(cosines + 1 / (num_classes - 1)))


def _distance_to_simplex(gram: Float[Array, "K K"]) -> Float[Array, ""]:
    num_classes = gram.shape[0]
    simplex = jnp.eye(num_classes, dtype=gram.dtype) - 1 / num_classes
    return safe_norm(_unit(gram) - _unit(simplex))


def _unit(x: Float[Array, "..."]) -> Float[Array, "..."]:
    x, _ = scaled(x)
    return x / jnp.linalg.norm(x)
