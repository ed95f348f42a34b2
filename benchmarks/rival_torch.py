"""torchdiffeq's dopri5 on the same field, where PyTorch is installed.

The tangent form of the Lagrange flow of an exact ReLU network with one output and the
square loss, written out by hand in float64: nothing here knows gradflow or JAX.
"""

import math
from collections.abc import Sequence

import numpy as np

try:
    import torch
    from torchdiffeq import odeint
except ImportError:
    torch = odeint = None

IS_INSTALLED = odeint is not None
MISSING = "torchdiffeq's dopri5 is left out: `pip install torch torchdiffeq` brings it."


class Field:
    """The velocity of (ρ, V_1, …) as one vector; counts its evaluations."""

    def __init__(self, weights, inputs, labels, weight_decay: float):
        self.shapes = [w.shape for w in weights]
        self.sizes = [1, *(math.prod(shape) for shape in self.shapes)]
        self.inputs = torch.tensor(inputs, dtype=torch.float64)
        self.labels = torch.tensor(labels, dtype=torch.float64)
        self.weight_decay = weight_decay
        self.count = 0

    def __call__(self, t, y):
        del t
        self.count += 1
        rho, *flat = torch.split(y, self.sizes)
        pairs = zip(flat, self.shapes, strict=True)
        directions = [v.reshape(shape) for v, shape in pairs]
        layers = [self.inputs]
        for v in directions[:-1]:
            layers.append(torch.relu(layers[-1] @ v.T))
        f = (layers[-1] @ directions[-1].T)[:, 0]
        d = 2.0 * (rho * f - self.labels)
        # The scalar product of V_k and its gradient, the same for every layer.
        along = d @ f
        velocities, signal = [], d[:, None]
        for v, h in zip(reversed(directions), reversed(layers), strict=True):
            square = torch.sum(v * v)
            velocities.append(-rho * (signal.T @ h - (along / square) * v))
            signal = (signal @ v) * (h > 0)
        velocities.append(-along - 2.0 * self.weight_decay * rho)
        return torch.cat([u.reshape(-1) for u in reversed(velocities)])


def with_torchdiffeq(
    weights: Sequence[np.ndarray],
    inputs: np.ndarray,
    labels: np.ndarray,
    weight_decay: float,
    t1: float,
    *,
    rtol: float,
    atol: float,
    max_steps: int = 2**31 - 1,
) -> tuple[np.ndarray, int, str]:
    """The state (ρ, V_k) at `t1`, evaluations of the field, and how the run ended."""
    norms = [np.linalg.norm(w) for w in weights]
    directions = [w / n for w, n in zip(weights, norms, strict=True)]
    start = np.concatenate([[math.prod(norms)], *(v.ravel() for v in directions)])
    field = Field(weights, inputs, labels, weight_decay)
    # More than one thread is slower for matrices as small as these.
    torch.set_num_threads(1)
    try:
        with torch.no_grad():
            states = odeint(
                field,
                torch.tensor(start, dtype=torch.float64),
                torch.tensor([0.0, t1], dtype=torch.float64),
                rtol=rtol,
                atol=atol,
                method="dopri5",
                options={"max_num_steps": max_steps},
            )
    except AssertionError as error:
        # How torchdiffeq says that there were too many steps, or that they collapsed.
        return np.full_like(start, np.nan), field.count, str(error)
    end = states[-1].numpy()
    parts = np.split(end, np.cumsum(field.sizes)[:-1])
    projected = [v / np.linalg.norm(v) for v in parts[1:]]
    return np.concatenate([parts[0], *projected]), field.count, "success"
