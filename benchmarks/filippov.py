r"""The Filippov solution of an exact ReLU flow, with sliding units treated exactly.

Any flow of norms and directions (`polar_flow.py`) for any loss of ±1 labels
(`slopes.py`), summed over the samples, of a dense network with one output and exact
ReLU. Its right-hand side jumps where a pre-activation $z_{n,i}$ vanishes. A pair
(sample n, unit i) is therefore in one of three modes:

- on ($z > 0$) or off ($z < 0$): the gate $\theta$ is 1 or 0;
- sliding: $z = 0$ is held, and $\theta \in [0, 1]$ is Filippov's multiplier.

The gates enter the field only through the back-propagated signals $s = \theta q$, where
$q$ is the signal above the gate. With the signals of the sliding pairs for unknowns,
$\dot z = 0$ is a linear system whatever the depth, and a symmetric one: each signal
adds its multiple of the normal $N = \partial z / \partial V$ to the gradient, which the
flow turns into a velocity by its mobilities and the projections on the tangents of its
spheres, $M S$. With the velocity u that the other pairs alone would give,

$$\sum_j \langle N_i, M S N_j \rangle s_j = \langle N_i, u \rangle.$$

So the Filippov field is the descent in the flow's metric along the set where sliding
pre-activations vanish. A pair stops sliding when $s$ or $q - s$ becomes negative.

For fixed modes the field is smooth, also past the places where they end. There a
Runge-Kutta pair of order 8 integrates it. Steps end where a pre-activation changes sign
or a multiplier leaves [0, 1], and the modes are determined anew.

The normals have to be independent. They are not where samples reach a unit through one
and the same unit below: there the integration fails.

NumPy and SciPy only: independent of gradflow and of JAX.
"""

import math
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
from polar_flow import LAGRANGE, PolarFlow
from scipy.integrate import DOP853, DenseOutput
from scipy.optimize import root_scalar
from slopes import square

# A unit whose weights have decayed to this norm is set to zero, where it stays: else
# integration errors would decide on the signs of its pre-activations.
DEAD = 1e-9

# In a step, where the ends of modes are looked for. With 2 a pair went and came back
# unseen, which moved the solution by 9e-6.
PLACES = 8

Array = np.ndarray


@dataclass
class Evaluation:
    """The field at a state, with lists over the hidden layers."""

    velocity: Array
    h: list[Array]  # inputs of all layers, (N, in)
    z: list[Array]  # pre-activations, (N, units)
    above: list[Array]  # signals q
    below: list[Array]  # signals s
    last: Array  # signals at the output, (N, 1)


@dataclass
class Result:
    """States at the requested times, and how they were found."""

    times: list[float] = field(default_factory=list)
    states: list[tuple[Array, list[Array]]] = field(default_factory=list)
    sliding: list[list[int]] = field(default_factory=list)  # pairs in each layer
    at_rest: float = np.inf  # time from which the state was taken as constant
    count: Counter = field(default_factory=Counter)


def _flat(layers: list[Array]) -> Array:
    return np.concatenate([layer.ravel() for layer in layers])


class Modes:
    """Field, scales and projection for given modes of all pairs, which it holds."""

    def __init__(
        self,
        flow: PolarFlow,
        slope: Callable[[Array, Array], Array],
        state: tuple[Array, list[Array]],
        inputs: Array,
        labels: Array,
        weight_decay: float,
        slack: float,
    ):
        norms, directions = state
        self.flow, self.slope = flow, slope
        self.slack = slack
        self.norms_shape = norms.shape
        self.shapes = [v.shape for v in directions]
        self.inputs, self.labels = inputs, labels
        self.weight_decay = weight_decay
        widths = [shape[0] for shape in self.shapes[:-1]]
        splits = len(inputs) * np.cumsum(widths)[:-1]

        def layers(flat: Array) -> list[Array]:
            parts = np.split(flat, splits)
            return [p.reshape(-1, w) for p, w in zip(parts, widths, strict=True)]

        # Views by layer of one flat array each.
        self.all_on = np.zeros(len(inputs) * sum(widths), bool)
        self.all_sliding = np.zeros_like(self.all_on)
        self.on, self.sliding = layers(self.all_on), layers(self.all_sliding)
        h = inputs
        for v, on in zip(directions[:-1], self.on, strict=True):
            on[:] = h @ v.T > 0.0
            h = np.maximum(h @ v.T, 0.0)

    def pack(self, norms: Array, directions: Sequence[Array]) -> Array:
        return np.concatenate([np.ravel(a) for a in (norms, *directions)])

    def unpack(self, y: Array) -> tuple[Array, list[Array]]:
        parts, i = [], 0
        for shape in (self.norms_shape, *self.shapes):
            size = math.prod(shape)
            parts.append(y[i : i + size].reshape(shape))
            i += size
        return parts[0], parts[1:]

    def set_mode(self, pair: int, *, on: bool = False, sliding: bool = False):
        self.all_on[pair], self.all_sliding[pair] = on, sliding

    def forward(self, directions: list[Array]) -> tuple[list[Array], list[Array]]:
        """Inputs of all layers, and pre-activations of the hidden ones.

        The gates are those of the modes, also where z has the other sign: this is what
        continues the field smoothly past the end of a mode.
        """
        h, z = [self.inputs], []
        for v, on in zip(directions[:-1], self.on, strict=True):
            z.append(h[-1] @ v.T)
            h.append(z[-1] * on)
        return h, z

    def backward(self, directions: list[Array], last: Array, held: list[Array]):
        """Signals above and below the gates, `held` being those of sliding pairs."""
        above, below = [], [last]
        for v, on, s in zip(directions[:0:-1], self.on[::-1], held[::-1], strict=True):
            above.append(below[-1] @ v)
            below.append(above[-1] * on + s)
        return above[::-1], below[:0:-1]

    def normals(self, norms: Array, directions: list[Array], h: list[Array]):
        r"""$\partial z / \partial V_k = t h^T$ of all sliding pairs, for each layer k.

        **Returns:** the `t` and `h`, (pairs, out) and (pairs, in) for each layer, and
        the matrix of the $\langle N_i, M S N_j \rangle$.
        """
        where = [np.nonzero(sliding) for sliding in self.sliding]
        ends = np.cumsum([0] + [len(n) for n, _ in where])
        ts = [np.zeros((ends[-1], v.shape[0])) for v in directions[:-1]]
        hs = [np.zeros((ends[-1], v.shape[1])) for v in directions[:-1]]
        for layer, (n, i) in enumerate(where):
            rows = slice(ends[layer], ends[layer + 1])
            t = np.eye(self.shapes[layer][0])[i]
            for k in range(layer, -1, -1):
                ts[k][rows], hs[k][rows] = t, h[k][n]
                if k > 0:
                    t = (t @ directions[k]) * self.on[k - 1][n]
        gram = np.zeros((ends[-1], ends[-1]))
        mobilities = self.flow.mobilities(norms, len(directions))
        for m, v, t, g in zip(mobilities, directions, ts, hs, strict=False):
            radial = self.flow.hidden_radial(t * (g @ v.T))
            gram += m * ((t @ t.T) * (g @ g.T) - radial @ radial.T)
        return ts, hs, gram

    def velocities(self, norms, directions, h, below, last) -> list[Array]:
        """Of the directions, with these signals."""
        signals = [*below, last]
        descent = [-s.T @ hk for s, hk in zip(signals, h, strict=True)]
        mobilities = self.flow.mobilities(norms, len(directions))
        tangent = self.flow.tangent(directions, descent)
        return [m * u for m, u in zip(mobilities, tangent, strict=True)]

    def evaluate(self, y: Array) -> Evaluation:
        norms, directions = self.unpack(y)
        rho = np.prod(norms)
        h, z = self.forward(directions)
        f = (h[-1] @ directions[-1].T)[:, 0]
        d = self.slope(rho * f, self.labels)
        last = (rho * d)[:, None]
        held = [np.zeros_like(a) for a in z]
        above, below = self.backward(directions, last, held)
        velocities = self.velocities(norms, directions, h, below, last)
        if self.all_sliding.any():
            ts, hs, gram = self.normals(norms, directions, h)
            rates = sum(
                np.sum(t * (g @ u.T), axis=1)
                for t, g, u in zip(ts, hs, velocities, strict=False)
            )
            signals, i = np.linalg.solve(gram, rates), 0
            for s, sliding in zip(held, self.sliding, strict=True):
                count = np.count_nonzero(sliding)
                s[sliding] = signals[i : i + count]
                i += count
            above, below = self.backward(directions, last, held)
            velocities = self.velocities(norms, directions, h, below, last)

        norms_dot = self.flow.norms_velocity(norms, d @ f, self.weight_decay)
        velocity = self.pack(norms_dot, velocities)
        return Evaluation(velocity, h, z, above, below, last)

    def scales(self, y: Array, e: Evaluation) -> tuple[Array, Array]:
        """Sizes of all pre-activations and signals: 0 for units without weights."""
        _, directions = self.unpack(y)
        sizes, forces = [], []
        for v, after, hk in zip(directions[:-1], directions[1:], e.h, strict=False):
            norms = np.linalg.norm(hk, axis=1)[:, None] * np.linalg.norm(v, axis=1)
            force = np.max(np.abs(e.last)) * np.linalg.norm(after, axis=0)
            sizes.append(norms.ravel())
            forces.append(np.broadcast_to(force, norms.shape).ravel())
        return np.concatenate(sizes), np.concatenate(forces)

    def slacks(self, y: Array) -> Array:
        """(3, pairs): what becomes negative where a mode ends, in parts of its scale.

        The pre-activation of a pair that is on, or its negative of one that is off; s
        and q - s of a sliding pair.

        Each may go beyond its end by the slack that is added: a pair does not fall back
        into the mode that it has just left, nor does it enter and leave for ever where
        its multiplier tends to 0 or 1 at an equilibrium.
        """
        e = self.evaluate(y)
        size, force = self.scales(y, e)
        z, q, s = (_flat(layers) for layers in (e.z, e.above, e.below))
        alive = (size > 0.0) & (force > 0.0)
        size, force = np.where(alive, size, 1.0), np.where(alive, force, 1.0)
        slides = alive & self.all_sliding
        moves = alive & ~self.all_sliding
        return self.slack + np.stack(
            [
                np.where(moves, np.where(self.all_on, z, -z) / size, np.inf),
                np.where(slides, s / force, np.inf),
                np.where(slides, (q - s) / force, np.inf),
            ]
        )

    def departures(self, y: Array) -> Array:
        """Rates at which the pre-activations go to the side of their mode."""
        e = self.evaluate(y)
        size, _ = self.scales(y, e)
        _, directions = self.unpack(y)
        _, dots = self.unpack(e.velocity)
        h_dot, rates = np.zeros_like(self.inputs), []
        for v, v_dot, hk, on in zip(directions, dots, e.h, self.on, strict=False):
            rates.append(hk @ v_dot.T + h_dot @ v.T)
            h_dot = rates[-1] * on
        rate = _flat(rates)
        return np.where(self.all_on, rate, -rate) / np.where(size > 0.0, size, 1.0)

    def project(self, y: Array) -> Array:
        """The nearby state on the spheres where the sliding pre-activations vanish."""
        norms, directions = self.unpack(y.copy())
        for k, (v, after) in enumerate(zip(directions, directions[1:], strict=False)):
            dead = np.linalg.norm(v, axis=1) < DEAD
            dead &= np.linalg.norm(after, axis=0) < DEAD
            v[dead], after[:, dead] = 0.0, 0.0
            self.on[k][:, dead] = self.sliding[k][:, dead] = False
        if self.all_sliding.any():
            h, z = self.forward(directions)
            ts, hs, gram = self.normals(norms, directions, h)
            here = [a[sliding] for a, sliding in zip(z, self.sliding, strict=True)]
            c = np.linalg.solve(gram, np.concatenate(here))
            normal = [(t.T * c) @ g for t, g in zip(ts, hs, strict=True)]
            mobilities = self.flow.mobilities(norms, len(directions))
            tangent = self.flow.tangent(directions, normal)
            for v, m, u in zip(directions, mobilities, tangent, strict=False):
                v -= m * u
        return self.pack(norms, self.flow.normalised(directions))

    def change(self, y: Array, changes: Array, count: Counter) -> Array:
        """Changes the modes where `slacks`, at the rows and columns `changes`, end.

        A pair that comes to z = 0 is tried as sliding; its multiplier tells whether it
        is, or else the side to which it goes. A jump of the field can release others.

        **Returns:** the state, projected.
        """
        at_zero, returns = set(), Counter()
        for row, pair in changes:
            self.set_mode(pair, on=row == 2, sliding=row == 0)
            at_zero.add(pair)
            count["hits" if row == 0 else "exits"] += 1
        y = self.project(y)
        for _ in range(1000):
            slack = self.slacks(y)[1:]
            row, pair = divmod(int(np.argmin(slack)), slack.shape[1])
            if slack[row, pair] < 0.0:
                self.set_mode(pair, on=row == 1)
                at_zero.add(pair)
                continue
            # Released too early, while others still had the wrong mode?
            away = self.departures(y)
            released = [pair for pair in at_zero if not self.all_sliding[pair]]
            wrong = [p for p in released if away[p] < -1e-8 and returns[p] < 3]
            if not wrong:
                return y
            for pair in wrong:
                returns[pair] += 1
                self.set_mode(pair, sliding=True)
            y = self.project(y)
        raise RuntimeError("no consistent modes found")


def integrate(
    weights: Sequence[Array],
    inputs: Array,
    labels: Array,
    weight_decay: float,
    times: Sequence[float],
    *,
    flow: PolarFlow = LAGRANGE,
    slope: Callable[[Array, Array], Array] = square,
    rtol: float = 1e-7,
    rest: float = 1e-8,
) -> Result:
    """The Filippov solution at `times`, started from a network's weights at t = 0.

    **Arguments:**

    - `weights`: matrices (out, in), which `flow` splits into norms and directions.
    - `inputs`, `labels`: (N, d) and (N,).
    - `weight_decay`: what multiplies the squares of the free norms.
    - `times`: increasing.
    - `flow`, `slope`: which flow, and of which loss.
    - `rtol`: relative tolerance of each step; a hundredth of it is the absolute one.
        Also how far, in parts of its scale, a pre-activation may be on the wrong side
        and a multiplier out of [0, 1] before a mode ends.
    - `rest`: the state is taken as constant from where its velocity is below this part
        of it. That does not tell an equilibrium from a saddle.

    **Raises:** `RuntimeError` where the solver fails, or no consistent modes are found;
    `numpy.linalg.LinAlgError` where the normals are dependent.
    """
    state = flow.start(weights)
    data = np.asarray(inputs), np.asarray(labels)
    modes = Modes(flow, slope, state, *data, weight_decay, slack=rtol)
    result = Result()

    def velocity(_: float, y: Array) -> Array:
        result.count["fields"] += 1
        return modes.evaluate(y).velocity

    t, y, step, stuck = 0.0, modes.pack(*state), 1e-3, 0
    for end in times:
        while t < end and result.at_rest == np.inf:
            solver = DOP853(
                velocity,
                t,
                y,
                end,
                rtol=rtol,
                atol=rtol / 100,
                first_step=min(step, end - t),
            )
            start = t
            while True:
                message = solver.step()
                if solver.status == "failed":
                    raise RuntimeError(f"at t = {solver.t}: {message}")
                result.count["steps"] += 1
                dense = solver.dense_output()
                event = _event(modes, dense)
                if event is not None:
                    break
                # The solver keeps the derivative from before the projection, which
                # moves the state by less than the error of a step.
                solver.y = modes.project(solver.y)
                if np.linalg.norm(solver.f) < rest * np.linalg.norm(solver.y):
                    result.at_rest = solver.t
                if result.at_rest < np.inf or solver.status == "finished":
                    break
            step = max(solver.h_abs, 1e-12)
            if event is None:
                t, y, stuck = solver.t, solver.y, 0
                continue
            t, y = event, dense(event)
            slack = modes.slacks(y)
            # By rounding, the root may lie before the end of the mode.
            changes = np.argwhere(slack <= max(0.0, slack.min()))
            y = modes.change(y, changes, result.count)
            result.count["events"] += 1
            stuck = stuck + 1 if t == start else 0
            if stuck > 500:
                raise RuntimeError(f"modes change without end at t = {t}")
        norms, directions = modes.unpack(y.copy())
        result.times.append(end)
        result.states.append((norms[()], directions))
        result.sliding.append([int(np.count_nonzero(s)) for s in modes.sliding])
    return result


def _event(modes: Modes, dense: DenseOutput) -> float | None:
    """Time in a step where the first slack becomes negative, None if none does.

    Places between are looked at too, for a pair that goes and comes back.
    """
    for t in np.linspace(dense.t_old, dense.t, PLACES + 1)[1:]:
        ended = modes.slacks(dense(t)) < 0.0
        if np.any(ended):
            break
    else:
        return None

    def least(t):
        return np.min(modes.slacks(dense(t))[ended])

    if least(dense.t_old) <= 0.0:
        return dense.t_old
    root = root_scalar(least, bracket=(dense.t_old, t), method="brentq", xtol=1e-13)
    return root.root
