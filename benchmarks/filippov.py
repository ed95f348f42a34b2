r"""The Filippov solution of an exact ReLU flow, with the sliding units treated exactly.

The Lagrange flow (last norm free, $\lambda \rho^2$, square loss summed over samples) of
a dense network with one output and exact ReLU. Its right-hand side jumps where a
pre-activation $z_{n,i}$ vanishes. A pair (sample n, unit i) is therefore in one of
three modes:

- on ($z > 0$), off ($z < 0$): the gate is 1 or 0;
- sliding: $z = 0$ is held, and the gate is the multiplier $\theta \in [0, 1]$.

The gates enter the field only through the back-propagated signals
$s_{n,i} = \theta_{n,i} q_{n,i}$, where $q$ is the signal above the gate. Taken as the
unknowns, the signals of the sliding pairs obey a linear system, whatever the depth: the
gradient loses its component along the normals $\partial z_A / \partial V$ of the sliding
set, so the Filippov field is the gradient flow projected on $\{z_A = 0\}$. The multiplier
is read off afterwards, and a pair stops sliding when $s$ or $q - s$ becomes negative.

For fixed modes the field is smooth, also beyond the places where a mode ends: there
an explicit Runge-Kutta pair of order 8 integrates it, steps end where a pre-activation
changes sign or a multiplier leaves [0, 1], and the modes are determined anew.

NumPy and SciPy only, independent of gradflow.
"""

from collections import Counter
from dataclasses import dataclass, field

import numpy as np
from scipy.integrate import DOP853
from scipy.optimize import brentq

# Relative to the scale of the quantity: how far a pre-activation may be on the wrong
# side, and a multiplier out of [0, 1], before that counts as an event. Above rounding
# errors, so that a pair which has just changed its mode does not change it back.
SLACK = 1e-11
# A unit whose weights have decayed to this size is set to zero, where it stays: signs
# of its pre-activations would be decided by integration errors.
DEAD = 1e-9


@dataclass
class Evaluation:
    """The field at a state, and what decides on the modes."""

    velocity: np.ndarray
    z: list[np.ndarray]  # pre-activations of the hidden layers, (N, units) each
    above: list[np.ndarray]  # q, signals above the gates
    below: list[np.ndarray]  # s, signals below the gates
    unit: list[np.ndarray]  # sizes of the pre-activations
    force: list[np.ndarray]  # sizes of the signals


@dataclass
class Result:
    """States at the requested times, and how they were found."""

    times: list[float] = field(default_factory=list)
    states: list[tuple] = field(default_factory=list)  # (rho, directions)
    sliding: list[list[int]] = field(default_factory=list)  # pairs in each layer
    count: Counter = field(default_factory=Counter)


class Filippov:
    """The field for given modes of all pairs, and the rules that change them."""

    def __init__(self, weights, inputs, labels, weight_decay):
        weights = [np.asarray(w, np.float64) for w in weights]
        norms = [np.linalg.norm(w) for w in weights]
        self.shapes = [w.shape for w in weights]
        self.inputs = np.asarray(inputs, np.float64)
        self.labels = np.asarray(labels, np.float64)
        self.weight_decay = weight_decay
        self.start = self.pack(np.prod(norms), [w / n for w, n in zip(weights, norms)])
        hidden = [(len(self.inputs), shape[0]) for shape in self.shapes[:-1]]
        self.on = [np.zeros(shape, bool) for shape in hidden]
        self.sliding = [np.zeros(shape, bool) for shape in hidden]
        h = self.inputs
        for on, v in zip(self.on, self.unpack(self.start)[1]):
            on[:] = h @ v.T > 0.0
            h = np.maximum(h @ v.T, 0.0)

    def pack(self, rho, directions):
        return np.concatenate([[rho], *(v.ravel() for v in directions)])

    def unpack(self, y):
        directions, i = [], 1
        for shape in self.shapes:
            size = shape[0] * shape[1]
            directions.append(y[i : i + size].reshape(shape))
            i += size
        return y[0], directions

    def forward(self, directions):
        """Inputs of all layers and pre-activations of the hidden ones.

        A sliding unit gives 0, and the modes of the others are kept where z has the
        wrong sign: this extends the field smoothly past the end of a mode.
        """
        h, z = [self.inputs], []
        for v, on in zip(directions, self.on):
            z.append(h[-1] @ v.T)
            h.append(z[-1] * on)
        return h, z

    def backward(self, directions, last, held):
        """Signals above and below the gates, `held` on the sliding pairs."""
        above, below = [], []
        signal = last
        for v, on, s in zip(directions[:0:-1], self.on[::-1], held[::-1]):
            above.append(signal @ v)
            signal = above[-1] * on + s
            below.append(signal)
        return above[::-1], below[::-1]

    def normals(self, directions, h):
        """For each layer, dz/dV_k of the sliding pairs as outer products t h^T."""
        where = [np.nonzero(s) for s in self.sliding]
        total = sum(len(n) for n, _ in where)
        ts = [np.zeros((total, v.shape[0])) for v in directions[:-1]]
        hs = [np.zeros((total, v.shape[1])) for v in directions[:-1]]
        first = 0
        for layer, (n, i) in enumerate(where):
            rows = slice(first, first + len(n))
            first += len(n)
            t = np.zeros((len(n), directions[layer].shape[0]))
            t[np.arange(len(n)), i] = 1.0
            for k in range(layer, -1, -1):
                ts[k][rows], hs[k][rows] = t, h[k][n]
                if k > 0:
                    t = (t @ directions[k]) * self.on[k - 1][n]
        return ts, hs, where

    def evaluate(self, y):
        rho, directions = self.unpack(y)
        h, z = self.forward(directions)
        f = (h[-1] @ directions[-1].T)[:, 0]
        d = 2.0 * (rho * f - self.labels)
        last = (rho * d)[:, None]
        held = [np.zeros_like(a) for a in z]
        above, below = self.backward(directions, last, held)

        if any(s.any() for s in self.sliding):
            ts, hs, where = self.normals(directions, h)
            gram, rate = 0.0, 0.0
            for t, hh, s, hk in zip(ts, hs, below, h):
                gram = gram + (t @ t.T) * (hh @ hh.T)
                rate = rate + np.einsum("pi,pi->p", t, hh @ (hk.T @ s))
            multiplier = np.linalg.solve(gram, rate)
            first = 0
            for a, (n, i) in zip(held, where):
                a[n, i] = -multiplier[first : first + len(n)]
                first += len(n)
            above, below = self.backward(directions, last, held)

        velocities = []
        for v, hk, s in zip(directions, h, [*below, last]):
            g = s.T @ hk
            velocities.append(np.sum(v * g) * v - g)
        rho_dot = -d @ f - 2.0 * self.weight_decay * rho
        largest = np.max(np.abs(last))
        return Evaluation(
            self.pack(rho_dot, velocities),
            z,
            above,
            below,
            [
                np.linalg.norm(hk, axis=1)[:, None] * np.linalg.norm(v, axis=1)
                for hk, v in zip(h, directions[:-1])
            ],
            [
                np.broadcast_to(largest * np.linalg.norm(v, axis=0), a.shape)
                for v, a in zip(directions[1:], z)
            ],
        )

    def slacks(self, e):
        """(3, pairs): what must not be negative, in parts of its scale.

        The pre-activation with the sign of its mode; s and q - s of sliding pairs, in
        the direction of q > 0, where both sides push towards z = 0.
        """
        rows = []
        for z, q, s, unit, force, on, sliding in zip(
            e.z, e.above, e.below, e.unit, e.force, self.on, self.sliding, strict=True
        ):
            alive = (unit > 0.0) & (force > 0.0)
            unit, force = np.where(alive, unit, 1.0), np.where(alive, force, 1.0)
            side = np.where(sliding | ~alive, np.inf, np.where(on, z, -z) / unit)
            low = np.where(sliding & alive, s / force, np.inf)
            high = np.where(sliding & alive, (q - s) / force, np.inf)
            rows.append(np.stack([side, low, high]).reshape(3, -1))
        return np.concatenate(rows, axis=1) + SLACK

    def set_mode(self, pair, on, sliding):
        for a, b in zip(self.on, self.sliding):
            if pair < a.size:
                a.flat[pair], b.flat[pair] = on and not sliding, sliding
                return
            pair -= a.size

    def rates(self, y, velocity):
        """dz/dt of all pairs, in parts of the scale of z."""
        _, directions = self.unpack(y)
        _, dots = self.unpack(velocity)
        h, _ = self.forward(directions)
        h_dot, rates = np.zeros_like(self.inputs), []
        for v, v_dot, hk, on in zip(directions, dots, h, self.on):
            z_dot = hk @ v_dot.T + h_dot @ v.T
            rates.append(z_dot.ravel())
            h_dot = z_dot * on
        return np.concatenate(rates)

    def project(self, y):
        """The nearby state on the unit spheres with z = 0 on the sliding pairs."""
        rho, directions = self.unpack(y.copy())
        for k in range(len(directions) - 1):
            size_in = np.linalg.norm(directions[k], axis=1)
            size_out = np.linalg.norm(directions[k + 1], axis=0)
            dead = np.maximum(size_in, size_out) < DEAD
            directions[k][dead] = 0.0
            directions[k + 1][:, dead] = 0.0
            self.sliding[k][:, dead] = self.on[k][:, dead] = False
        h = self.inputs
        for v, on, sliding in zip(directions, self.on, self.sliding):
            for i in np.nonzero(sliding.any(axis=0))[0]:
                rows = h[sliding[:, i]]
                v[i] -= np.linalg.lstsq(rows, rows @ v[i], rcond=1e-12)[0]
            v /= np.linalg.norm(v)
            h = (h @ v.T) * on
        directions[-1] /= np.linalg.norm(directions[-1])
        return self.pack(rho, directions)

    def change_modes(self, y, changes, count):
        """New modes after an event: `changes` are rows and columns of `slacks`.

        A pair whose z vanishes is tried as sliding; the multiplier says whether it
        slides or to which side it goes.
        """
        at_zero = set()
        for row, pair in changes:
            self.set_mode(pair, on=row == 2, sliding=row == 0)
            at_zero.add(int(pair))
            count[("enter", "leave off", "leave on")[row]] += 1
        y = self.project(y)
        returned = Counter()
        for _ in range(1000):
            e = self.evaluate(y)
            slack = self.slacks(e)[1:]
            row, pair = np.unravel_index(np.argmin(slack), slack.shape)
            if slack[row, pair] < 0.0:
                self.set_mode(pair, on=row == 1, sliding=False)
                at_zero.add(int(pair))
                count["released"] += 1
                continue
            # A released pair must move to its side.
            rates = self.rates(y, e.velocity)
            on = np.concatenate([a.ravel() for a in self.on])
            sliding = np.concatenate([a.ravel() for a in self.sliding])
            size = np.concatenate([a.ravel() for a in e.unit])
            wrong = [
                p
                for p in at_zero
                if not sliding[p]
                and (rates[p] if on[p] else -rates[p]) < -1e-8 * size[p]
                and returned[p] < 3
            ]
            if not wrong:
                return y
            for p in wrong:
                returned[p] += 1
                count["returned"] += 1
                self.set_mode(p, on=False, sliding=True)
            y = self.project(y)
        raise RuntimeError("no consistent set of modes")


def integrate(weights, inputs, labels, weight_decay, times, *, rtol=1e-9, log=None):
    """The Filippov solution at `times`, started from a network's weights at t = 0.

    `rtol` is the relative tolerance of each step, and a hundredth of it the absolute
    one.
    """
    system = Filippov(weights, inputs, labels, weight_decay)
    result = Result()
    count = result.count

    def velocity(t, y):
        count["fields"] += 1
        return system.evaluate(y).velocity

    t, y, step, stuck = 0.0, system.start, 1e-3, 0
    for end in times:
        while t < end:
            solver = DOP853(
                velocity,
                t,
                y,
                end,
                rtol=rtol,
                atol=rtol / 100,
                first_step=min(step, end - t),
            )
            before = system.slacks(system.evaluate(y))
            while solver.status == "running":
                message = solver.step()
                if solver.status == "failed":
                    raise RuntimeError(f"at t = {solver.t}: {message}")
                count["steps"] += 1
                after = system.slacks(system.evaluate(solver.y))
                if after.min() < 0.0:
                    break
                # The derivative that the solver keeps is left as it is: the
                # projection moves the state by less than a local error.
                solver.y = system.project(solver.y)
                before, stuck = after, 0
            step = max(solver.h_abs, 1e-12)
            if after.min() >= 0.0:
                t, y = solver.t, solver.y
                continue
            t_event, y = _event(system, solver, before, after)
            stuck = stuck + 1 if t_event <= t else 0
            if stuck > 500:
                raise RuntimeError(f"modes change without end at t = {t_event}")
            t = t_event
            here = system.slacks(system.evaluate(y))
            changes = np.argwhere(here < 0.0)
            if len(changes) == 0:
                changes = [np.unravel_index(np.argmin(here), here.shape)]
            count["events"] += 1
            y = system.change_modes(y, changes, count)
            if log:
                log(t, y, changes, system, count)
        result.times.append(t)
        rho, directions = system.unpack(y)
        result.states.append((rho, tuple(v.copy() for v in directions)))
        result.sliding.append([int(s.sum()) for s in system.sliding])
    return result


def _event(system, solver, before, after):
    """Time and state where the first of the slacks becomes negative."""
    late = (after < 0.0) & (before < 0.0)
    if late.any():
        return solver.t_old, solver.dense_output()(solver.t_old)
    dense = solver.dense_output()
    hit = after < 0.0

    def least(t):
        return np.min(system.slacks(system.evaluate(dense(t)))[hit])

    t = brentq(least, solver.t_old, solver.t, xtol=1e-13, rtol=1e-15)
    return t, dense(t)
