"""Functions and objects such as users write, and what is made of them.

In a file of its own, which another process can import at no great cost.
"""

import dataclasses
import functools
import itertools
import logging

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax

SCALE = 2.0


def scaled(problem, network):
    return SCALE * problem.value(network)


def helper(x):
    return x + 1


def even(n):
    return n == 0 or odd(n - 1)


def odd(n):
    return n > 0 and even(n - 1)


def closed(constant):
    return lambda problem, network: constant * problem.value(network)


def made(body, line=0, **names):
    """A function of that source, at some line of a file."""
    source = "\n" * line + f"def f(x, *, k=1):\n    {body}"
    namespace = {"jnp": jnp, "__name__": "made", **names}
    exec(compile(source, f"{line}.py", "exec"), namespace)
    return namespace["f"]


class Own(eqx.Module):
    size: float
    name: str = eqx.field(static=True, default="own")

    def __call__(self, problem, network):
        return self.size * problem.value(network)


def own_of(method, **fields):
    return dataclasses.make_dataclass("A", list(fields), namespace={"m": method})(
        **fields
    )


LINES = itertools.count()
SAME = {
    "closure": lambda: closed(0.5),
    "closure of an array": lambda: closed(jnp.arange(3.0)),
    "closure of a key": lambda: closed(jax.random.key(3)),
    "line": lambda: made("return x", line=next(LINES)),
    "global": lambda: scaled,
    "functions in circles": lambda: even,
    "jit": lambda: jax.jit(closed(0.5)),
    "filter_jit": lambda: eqx.filter_jit(closed(0.5)),
    "partial": lambda: functools.partial(scaled, network=2),
    "own class": lambda: Own(0.5),
    "own object": lambda: own_of(closed(1), x=1.0, y=[1, {2: 3}]),
    "method": lambda: Own(0.5).__call__,
    "set": lambda: made("return x in {'a', 'bc', 'def', 'g', (1, 2), (3, 4)}"),
    "optimiser": lambda: optax.chain(
        optax.clip(1.0), optax.adam(optax.cosine_decay_schedule(0.1, 10))
    ),
    "builtin": lambda: sum,
    "jnp": lambda: jnp.sum,
    "ufunc": lambda: np.add,
    "logger": lambda: made("return log.info(x)", log=logging.getLogger()),
}
