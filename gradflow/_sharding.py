"""Samples on several devices."""

import dataclasses

import equinox as eqx
import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec
from jaxtyping import Array, Shaped

from ._check import check_instance
from ._problem import Problem


def shard_samples(problem: Problem, mesh: Mesh, axis: str = "samples") -> Problem:
    """The same problem, with its samples shared by the devices of a mesh.

    Each device takes the sums over its own samples, in chunks where the problem has a
    `batch_size`. A gradient goes between the devices once; the data never do. All that
    takes a problem takes this one, and finds the same up to rounding.

    **Arguments:**

    - `problem`: whose samples are a multiple of the devices along `axis`.
    - `mesh`: from `jax.make_mesh`. It may have other axes: for the members of an
        ensemble, say.
    - `axis`: of the mesh, along which the samples lie.

    **Raises:** `ValueError` for a number of samples that the devices cannot share
    evenly, and for an axis that the mesh does not have.
    """
    check_instance("problem", problem, Problem)
    check_instance("mesh", mesh, Mesh)
    if axis not in mesh.axis_names:
        raise ValueError(
            f"`axis` must be one of the mesh's, {mesh.axis_names}, got {axis!r}."
        )
    # JAX is to find out how to lay out what is made of the samples.
    automatic = (AxisType.Auto,) * len(mesh.axis_names)
    mesh = Mesh(mesh.devices, mesh.axis_names, axis_types=automatic)
    sharding = NamedSharding(mesh, PartitionSpec(axis))
    problem = dataclasses.replace(problem, sharding=sharding)

    def place(samples: Shaped[Array, "N ..."]) -> Shaped[Array, "N ..."]:
        # Each process puts on its devices what is theirs.
        rows = np.asarray(samples)
        return jax.make_array_from_callback(
            rows.shape, sharding, lambda index: rows[index]
        )

    return eqx.tree_at(
        lambda p: (p.dataset.inputs, p.dataset.labels), problem, replace_fn=place
    )
