"""Data that a given network has labelled."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key

from ._arrays import concrete
from ._dataset import Dataset
from ._from_classes import from_classes


def teacher_student(
    teacher: Callable[[Array], Array],
    num_samples: int,
    *,
    key: Key[Array, ""],
    signs: bool = True,
    regression: bool = False,
) -> Dataset:
    r"""Inputs uniform on the unit sphere, labels by a teacher network.

    A student of the teacher's architecture can fit it, so it is separable, with
    $y_n = \mathrm{sign}\, g(x_n)$ for one output and
    $y_n = \arg\max_c g_c(x_n)$ for several.

    **Arguments:**

    - `teacher`: a network, `(d,) -> (C,)`, with an attribute `in_shape`, the shape of
        its input.
    - `num_samples`: $N$.
    - `key`: draws the inputs.
    - `signs`: with `False` the labels of one output are classes, 0 for positive
        outputs and 1 for negative ones. Several outputs always give classes.
    - `regression`: whether the labels are the outputs themselves, `(N,)` for one and
        `(N, C)` for several.

    **Returns:** a [`gradflow.Dataset`][] with inputs `(N, *teacher.in_shape)`.

    **Raises:** `ValueError` if outputs are exactly zero, or the largest two of a sample
    equal, so that it has no label: all units of a ReLU layer can be off.
    """
    if num_samples < 1:
        raise ValueError(f"`num_samples` must be at least 1, not {num_samples}")
    inputs = _on_sphere(key, num_samples, tuple(teacher.in_shape))  # pyright: ignore
    outputs = jax.vmap(teacher)(inputs)
    if outputs.ndim != 2:
        raise ValueError(
            f"`teacher` must give outputs of shape (C,), not {outputs.shape[1:]}"
        )
    single = outputs.shape[1] == 1
    if regression:
        return Dataset(inputs, outputs[:, 0] if single else outputs, regression=True)
    # One output against zero is two outputs: class 0 where it is positive.
    scores = jnp.concatenate([outputs, -outputs], axis=1) if single else outputs
    _no_tie(scores)
    return from_classes(
        inputs, jnp.argmax(scores, axis=1), scores.shape[1], signs and single
    )


def _on_sphere(key, num_samples, shape) -> Float[Array, "samples ..."]:
    normal = jax.random.normal(key, (num_samples, *shape))
    axes = tuple(range(1, normal.ndim))
    return normal / jnp.sqrt(jnp.sum(normal**2, axis=axes, keepdims=True))


def _no_tie(scores: Float[Array, "samples classes"]) -> None:
    top = concrete(jax.lax.top_k(scores, 2)[0])
    if top is None:
        return
    ties = int((top[:, 0] == top[:, 1]).sum())
    if ties:
        raise ValueError(
            f"`teacher` decides nothing for {ties} of {len(top)} samples: its output "
            "is zero, or its largest outputs are equal; take a wider teacher, another "
            "`key`, or `regression=True`"
        )
