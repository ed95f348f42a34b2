"""What the last layer is at rest, by the features that it is given."""

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from .._check import check_positive
from .._loss import SquareLoss
from .._network import AbstractNetwork
from .._problem import Problem
from .._types import RealScalarLike
from ._classes import classes_of
from ._features import hidden_features


def classifier_residual(
    problem: Problem, network: AbstractNetwork, weight_decay: RealScalarLike
) -> Float[Array, ""]:
    r"""$\| W_L - \hat W \|_F / \|W_L\|_F$ with

    $$\hat W = -\frac{1}{2 \lambda} \sum_n d_n h_n^\top,$$

    where the last layer of a gradient flow with weight decay rests, for any loss: the
    slopes $d_n$ and last features $h_n$ are the network's own.

    For the square loss it reads $\lambda W_c = \sum_n (y_{nc} - g_{nc}) h_n$ (M112 53).

    **Arguments:**

    - `problem`: with labels of any kind.
    - `network`: with one hidden layer or more.
    - `weight_decay`: $\lambda$, which multiplies $\|W_L\|^2$.

    **Raises:** `ValueError` for a `weight_decay` that is not positive, and a network
    without hidden layers.
    """
    check_positive("weight_decay", weight_decay)
    h = hidden_features(problem, network)[-1]
    slopes = problem.slopes(problem.outputs(network))
    decay = jnp.asarray(weight_decay, h.dtype)
    return _relative(network.matrices[-1], -slopes.T @ h / (2 * decay))


class ClassifierRelation(eqx.Module):
    r"""What the last layer is in terms of class means, if the features have collapsed.

    With $\epsilon$ the mean of $1 - g_{n, y_n}$, $C$ classes of $N$ samples each and
    their means $\mu_c$, the last layer is one of

    $$W_c = \frac{C N \epsilon}{\lambda (C - 1)} (\mu_c - \mu_G) \qquad \text{or} \qquad
    W_c = \frac{N \epsilon}{\lambda} \mu_c.$$

    The first, M112 (54), follows from `classifier_residual` = 0 if all other outputs
    are $\epsilon / (C - 1)$; the class means are then a simplex. But its rows add up to
    0, so that the outputs of a network without biases would have to do so as well, and
    those add up to 1; with (56), $\langle W_c, \mu_G \rangle = 1 / C$, it disagrees in
    the same way. The second follows if all other outputs are 0; the class means are
    then an orthogonal frame, as those of ReLU networks without biases can be.

    **Attributes:**

    - `epsilon`: $\epsilon$.
    - `exact`: `classifier_residual`, which does not presume a collapse.
    - `simplex`, `frame`: $\|W_L - \hat W\|_F / \|W_L\|_F$ with either form as $\hat W$.
    - `norms`: $\|W_c\|$ of the rows.
    - `simplex_norms`: $\sqrt{\frac{N}{\lambda} (\epsilon - \frac{C}{C - 1}
        \epsilon^2)}$ (M112 55); NaN where that is not real.
    - `frame_norms`: $\sqrt{\frac{N}{\lambda} \epsilon (1 - \epsilon)}$, likewise.
    """

    epsilon: Float[Array, ""]
    exact: Float[Array, ""]
    simplex: Float[Array, ""]
    frame: Float[Array, ""]
    norms: Float[Array, " C"]
    simplex_norms: Float[Array, " C"]
    frame_norms: Float[Array, " C"]


def classifier_relation(
    problem: Problem, network: AbstractNetwork, weight_decay: RealScalarLike
) -> ClassifierRelation:
    r"""How the last layer is related to the class means of the last features at the
    rest of a gradient flow with weight decay (M112 App. G.1).

    **Arguments:**

    - `problem`: with the square loss and labels that are classes. $N$ is the number of
        samples of each class, or its share of all samples for `reduction="mean"`. The
        orthogonal frame allows for classes of different sizes; the simplex does not,
        and gives NaN.
    - `network`: with one hidden layer or more.
    - `weight_decay`: $\lambda$, which multiplies $\|W_L\|^2$; M112 halves both the loss
        and the decay.

    **Returns:** a [`gradflow.analysis.ClassifierRelation`][].

    **Raises:** `ValueError` for other losses and labels, classes without a sample, a
    `weight_decay` that is not positive, and a network without hidden layers.
    """
    num_classes = problem.dataset.num_classes or 0
    if not isinstance(problem.loss, SquareLoss) or num_classes < 2:
        raise ValueError(
            "`problem` must have the square loss and labels that are two or more "
            "classes; `classifier_residual` is defined for all."
        )
    classes, _ = classes_of(problem)
    h, outputs = hidden_features(problem, network)[-1], problem.outputs(network)
    last = network.matrices[-1]
    onehot = jax.nn.one_hot(classes, num_classes, dtype=h.dtype)
    counts = jnp.sum(onehot, axis=0)
    means = onehot.T @ h / counts[:, None]
    centred = means - jnp.mean(means, axis=0, keepdims=True)
    epsilon = 1 - jnp.mean(jnp.sum(onehot * outputs, axis=1))
    # The slope of the square loss at output 0 hands over the targets, weighted.
    sizes = -jnp.sum(problem.slopes(jnp.zeros_like(outputs)), axis=0) / 2
    sizes = sizes / jnp.asarray(weight_decay, h.dtype)
    share = num_classes / (num_classes - 1)
    equal = jnp.where(jnp.all(counts == counts[0]), sizes, jnp.nan)
    return ClassifierRelation(
        epsilon=epsilon,
        exact=classifier_residual(problem, network, weight_decay),
        simplex=_relative(last, share * epsilon * equal[:, None] * centred),
        frame=_relative(last, epsilon * sizes[:, None] * means),
        norms=jnp.linalg.norm(last, axis=1),
        simplex_norms=jnp.sqrt(equal * (epsilon - share * epsilon**2)),
        frame_norms=jnp.sqrt(sizes * (epsilon - epsilon**2)),
    )


def _relative(last, expected) -> Float[Array, ""]:
    return jnp.linalg.norm(last - expected) / jnp.linalg.norm(last)
