"""Right-hand sides of the flows, written out as in the papers.

SQ: Poggio & Liao 2021 (square loss); M112: CBMM Memo 112; T3: Theory III, Banburski
et al. 2019.  ``f_n`` are the outputs of the network of the directions ``V_k``,
``g_n = rho f_n`` those of the whole network, ``d_n`` the slopes of the loss at
``g_n`` and ``lam`` the weight decay ``lam * |W|^2`` (``lam * rho^2``).  For several
outputs, ``d_n f_n`` is the inner product over them.

``slopes_fn`` maps outputs (N, C) to slopes (N, C) and decides between sum and mean.
The directions are a network whose weights are the ``V_k``.  The formulas hold on the
unit spheres.  Off them, the tangent forms here use the projector
``I - V V^T / |V|^2``, which keeps the norm.  (With ``I - V V^T`` the tangent form would
equal the raw form everywhere, since ``<V_k, sum d_n df_n/dV_k> = sum d_n f_n``.)
"""

import numpy as np


def _tangent(direction, vector):
    """Part of ``vector`` orthogonal to ``direction``, both taken as one vector."""
    square = np.sum(direction * direction)
    if square == 0.0:
        return np.array(vector)
    return vector - direction * (np.sum(direction * vector) / square)


def _tangent_rows(direction, vector):
    """The same for every row (every kernel of an output channel) on its own."""
    pairs = zip(direction, vector, strict=True)
    return np.stack([_tangent(v_row, g_row) for v_row, g_row in pairs])


def _sums(rho, directions, inputs, slopes_fn):
    """sum_n d_n f_n and, for each layer, sum_n d_n df_n/dV_k."""
    f = directions.outputs(inputs)
    d = slopes_fn(rho * f)
    _, gradients = directions.pullback(inputs, d)
    return np.sum(d * f), gradients


def gradient_flow(network, inputs, slopes_fn, lam=0.0):
    """Gradient flow of L + lam sum_k |W_k|^2: the list of the dW_k/dt."""
    d = slopes_fn(network.outputs(inputs))
    _, gradients = network.pullback(inputs, d)
    return [-g - 2.0 * lam * w for g, w in zip(gradients, network.weights, strict=True)]


def polar_gradient_flow(rho, directions, inputs, slopes_fn, lam=0.0):
    """``gradient_flow`` of W_k = rho_k V_k in polar coordinates.

    ``rho`` is (L,).  Returns drho/dt (L,) and the list of the dV_k/dt.
    """
    rho = np.asarray(rho, dtype=np.float64)
    product = np.prod(rho)
    d_f, gradients = _sums(product, directions, inputs, slopes_fn)
    rho_dot = -(product / rho) * d_f - 2.0 * lam * rho
    v_dot = [
        -(product / r**2) * _tangent(v, g)
        for r, v, g in zip(rho, directions.weights, gradients, strict=True)
    ]
    return rho_dot, v_dot


def lagrange_flow_last(rho, directions, inputs, slopes_fn, lam=0.0, raw=False):
    """Lagrange-multiplier flow, all the scale on the last layer (SQ 3-4, M112 5-6).

    ``rho`` is a scalar.  Returns drho/dt and the list of the dV_k/dt, in the tangent
    form, or with ``raw`` as printed, with the multiplier ``2 nu = -rho sum d_n f_n``.
    """
    d_f, gradients = _sums(rho, directions, inputs, slopes_fn)
    rho_dot = -d_f - 2.0 * lam * rho
    pairs = zip(directions.weights, gradients, strict=True)
    if raw:
        two_nu = -rho * d_f
        return rho_dot, [-rho * g - two_nu * v for v, g in pairs]
    return rho_dot, [-rho * _tangent(v, g) for v, g in pairs]


def lagrange_flow_all(rho, directions, inputs, slopes_fn, lam=0.0):
    """Lagrange-multiplier flow with all rho_k free (T3 12-14), tangent form.

    ``rho`` is (L,).  Returns drho/dt (L,) and the list of the dV_k/dt.  T3 has no
    decay of the rho_k: ``lam`` adds -2 lam rho_k.
    """
    rho = np.asarray(rho, dtype=np.float64)
    product = np.prod(rho)
    d_f, gradients = _sums(product, directions, inputs, slopes_fn)
    rho_dot = -(product / rho) * d_f - 2.0 * lam * rho
    pairs = zip(directions.weights, gradients, strict=True)
    return rho_dot, [-product * _tangent(v, g) for v, g in pairs]


def lagrange_flow_rows(rho, directions, inputs, slopes_fn, lam=0.0):
    """``lagrange_flow_last`` with every row of the hidden V_k on its own unit sphere.

    SQ footnote 2.  A row of a convolution is the kernel of one output channel.  The
    last layer keeps one sphere for its whole matrix.
    """
    if any(v.ndim < 2 for v in directions.weights[:-1]):
        raise ValueError("rows need matrices or kernels")
    d_f, gradients = _sums(rho, directions, inputs, slopes_fn)
    rho_dot = -d_f - 2.0 * lam * rho
    pairs = list(zip(directions.weights, gradients, strict=True))
    v_dot = [-rho * _tangent_rows(v, g) for v, g in pairs[:-1]]
    v_dot.append(-rho * _tangent(*pairs[-1]))
    return rho_dot, v_dot


def weight_norm_flow(g, v, network, inputs, slopes_fn, lam=0.0, last_only=False):
    """Weight normalisation W_k = g_k v_k / |v_k| (T3 89-95, M112 12-13).

    ``g`` is (L,), ``v`` a list of arrays; of ``network`` only the architecture is
    used.  Returns dg/dt (L,) and the list of the dv_k/dt.  The decay is
    ``lam sum_k g_k^2`` and so acts on the g_k alone.  With ``last_only``, only the
    last g_k is free (and decays).
    """
    g = np.asarray(g, dtype=np.float64)
    v = [np.asarray(a, dtype=np.float64) for a in v]
    norms = [np.sqrt(np.sum(a * a)) for a in v]
    built = network.with_weights(
        [a * (s / r) for s, a, r in zip(g, v, norms, strict=True)]
    )
    _, gradients = built.pullback(inputs, slopes_fn(built.outputs(inputs)))
    g_dot = np.zeros_like(g)
    v_dot = []
    for k, (a, r, gradient) in enumerate(zip(v, norms, gradients, strict=True)):
        if k == len(v) - 1 or not last_only:
            g_dot[k] = -np.sum(a * gradient) / r - 2.0 * lam * g[k]
        v_dot.append(-(g[k] / r) * _tangent(a, gradient))
    return g_dot, v_dot


# The square loss, summed over the samples, with one output: formulas of their own.


def rho_eq(f, y, lam=0.0):
    """Equilibrium rho = sum y_n f_n / (lam + sum f_n^2) (SQ 5, M112 7)."""
    f, y = np.ravel(f), np.ravel(y)
    return np.sum(y * f) / (lam + np.sum(f * f))


def square_multiplier(rho, f, y):
    """The multiplier nu = -sum (rho^2 f_n^2 - rho y_n f_n) of SQ 1."""
    f, y = np.ravel(f), np.ravel(y)
    return -np.sum(rho**2 * f**2 - rho * y * f)


def square_rho_rate(rho, f, y, lam=0.0):
    """SQ 3: drho/dt = -2 (sum rho f_n^2 - sum f_n y_n) - 2 lam rho."""
    f, y = np.ravel(f), np.ravel(y)
    return -2.0 * (np.sum(rho * f**2) - np.sum(f * y)) - 2.0 * lam * rho


def square_equal_norms_rho_rate(rho, depth, f, y):
    """M112 28: gradient flow without decay from equal norms rho_k = rho^(1/depth)."""
    f, y = np.ravel(f), np.ravel(y)
    rate = np.sum(f * y) - np.sum(rho * f**2)
    return 2.0 * depth * rho ** ((2.0 * depth - 2.0) / depth) * rate


def square_lagrange_flow(rho, directions, inputs, y, lam=0.0):
    """SQ 3-4 (the raw form), sample by sample, for one output.

    dV_k/dt = 2 rho sum_n (rho f_n - y_n) (V_k f_n - df_n/dV_k).
    """
    f = directions.outputs(inputs)[:, 0]
    y = np.ravel(y)
    v_dot = []
    for v, jacobian in zip(
        directions.weights, directions.jacobian(inputs), strict=True
    ):
        rate = np.zeros_like(v)
        for n in range(len(f)):
            rate += 2.0 * rho * (rho * f[n] - y[n]) * (v * f[n] - jacobian[n, 0])
        v_dot.append(rate)
    return square_rho_rate(rho, f, y, lam), v_dot
