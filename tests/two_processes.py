"""One of two processes that share samples: finds what one process finds."""

import sys

import jax
import numpy as np

import gradflow as gf

jax.config.update("jax_platforms", "cpu")
jax.config.update("jax_enable_x64", True)
jax.config.update("jax_num_cpu_devices", 2)
jax.config.update("jax_cpu_collectives_implementation", "gloo")
port, rank, folder = sys.argv[1:]
jax.distributed.initialize(f"localhost:{port}", num_processes=2, process_id=int(rank))


def descend(problem, path=None):
    network = gf.Dense((5, 6, 1), key=jax.random.key(0), activation=gf.ReLU(0.1))
    return gf.descend(problem, 1e-2, network, 20, observe={}, path=path).networks


inputs = np.random.default_rng(0).normal(size=(12, 5))
dataset = gf.Dataset(inputs, np.sign(inputs[:, 0]))
alone = gf.Problem(dataset, gf.LogisticLoss(), batch_size=2)
mesh = jax.make_mesh((jax.device_count(),), ("samples",))
together = gf.shard_samples(alone, mesh)

assert mesh.size == 4
assert not together.dataset.inputs.is_fully_addressable
assert "12 samples" in repr(together.dataset)
found = descend(together)
if rank == "0":
    expected = descend(alone)
    for w, v in zip(found.weights, expected.weights, strict=True):
        np.testing.assert_allclose(w, v, rtol=1e-10, atol=1e-12)

# Both together have written what each has found, and read it.
for _ in range(2):
    recorded = descend(together, folder)
    for w, v in zip(recorded.weights, found.weights, strict=True):
        np.testing.assert_allclose(w, v, rtol=1e-12, atol=1e-14)
