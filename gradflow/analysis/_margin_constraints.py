"""The margins as constraints, one by one, and their multipliers."""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from .._network import AbstractNetwork
from .._problem import Problem
from ._nnls import nnls_or_nan
from ._samples import of_samples


def constraints(
    problem: Problem, outputs: Float[Array, "N C"]
) -> Float[Array, "N ..."]:
    """What is to be positive, a linear function of the outputs: $y_n f_n$, or for
    classes $f_{y_n} - f_j$ for all $j$."""
    return jax.vmap(_of_sample)(outputs, problem.dataset.labels)


def are_constraints(problem: Problem) -> Bool[Array, "N ..."]:
    """Which entries are constraints: for the class itself there is none."""
    labels, classes = problem.dataset.labels, problem.dataset.num_classes
    if classes is None:
        return jnp.ones(labels.shape, bool)
    return jax.nn.one_hot(labels, classes, dtype=int) == 0


def slopes_of_constraints(
    problem: Problem, network: AbstractNetwork
) -> Float[Array, "N ..."]:
    r"""$-\partial L / \partial q_n$ of an exponential-type loss, up to a factor."""
    slopes = problem.slopes(problem.outputs(network), problem.log_value(network))
    if problem.dataset.signs:
        return -problem.dataset.labels * slopes[:, 0]
    # The output of another class is in one constraint only, with a minus sign.
    return jnp.where(are_constraints(problem), slopes, 0)


def best_multipliers(
    problem: Problem, network: AbstractNetwork, active: Bool[Array, "N ..."]
) -> Float[Array, "N ..."]:
    """The non-negative multipliers of the active constraints that fit the layers of a
    network best, in least squares. NaN where they are not found."""
    outputs = network.out_size

    def flat(gradients, _):
        return jnp.concatenate([g.reshape(outputs, -1) for g in gradients], 1).ravel()

    by_outputs = of_samples(problem, network, flat)
    by_outputs = by_outputs.reshape(by_outputs.shape[0], outputs, -1)
    of_weights = jax.vmap(lambda x: constraints(problem, x), in_axes=-1, out_axes=-1)
    columns = of_weights(by_outputs)
    # Inactive constraints have a gradient of 0, and then a multiplier of 0.
    columns = jnp.where(active[..., None], columns, 0).reshape(active.size, -1)
    target = jnp.concatenate([w.ravel() for w in network.weights])
    # The triangular factor has the same inner products as the columns, and does not
    # square their condition number as a matrix of inner products would.
    factor = jnp.linalg.qr(jnp.vstack([columns, target[None]]).T, mode="r")
    found = jax.pure_callback(
        _nnls,
        jax.ShapeDtypeStruct((active.size,), factor.dtype),
        factor,
        vmap_method="sequential",
    )
    return found.reshape(active.shape)


def _of_sample(
    outputs: Float[Array, " C"], label: Array
) -> Float[Array, ""] | Float[Array, " C"]:
    """The constraints of one sample."""
    if not jnp.issubdtype(label.dtype, jnp.integer):
        return label * outputs[0]
    onehot = jax.nn.one_hot(label, outputs.shape[0], dtype=outputs.dtype)
    return jnp.sum(onehot * outputs) - outputs


def _nnls(factor: Array) -> np.ndarray:
    """The last column by the others, on the host."""
    matrix = np.asarray(factor, np.float64)
    return nnls_or_nan(matrix[:, :-1], matrix[:, -1]).astype(factor.dtype)
