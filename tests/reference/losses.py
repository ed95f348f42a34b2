"""Losses and their slopes, stable for outputs of any size.

Outputs are (N, C).  Labels are

* ``square``: real targets (N,) for one output, (N, C) for several, or classes (N,)
  of integers for several outputs (one-hot targets);
* ``exponential``, ``logistic``: signs +-1, (N,) for one output or (N, C);
* ``cross_entropy``: classes (N,) of integers 0 ... C-1, C >= 2.

Losses are sums over the samples unless ``mean`` is asked for.
"""

import numpy as np

LOSSES = ("square", "exponential", "logistic", "cross_entropy")


def _logsumexp(a, axis):
    """log sum exp; -inf for an empty or vanishing sum."""
    largest = np.max(a, axis=axis, keepdims=True, initial=-np.inf)
    shift = np.where(np.isfinite(largest), largest, 0.0)
    with np.errstate(divide="ignore", over="ignore"):
        total = np.log(np.sum(np.exp(a - shift), axis=axis, keepdims=True)) + shift
    return np.squeeze(total, axis=axis)


def _exp(a):
    with np.errstate(over="ignore", under="ignore"):
        return np.exp(a)


def _prepare(name, outputs, labels):
    """Float outputs (N, C), and targets (N, C): real, signs, or a one-hot mask."""
    if name not in LOSSES:
        raise ValueError(f"unknown loss {name!r}")
    outputs = np.asarray(outputs, dtype=np.float64)
    labels = np.asarray(labels)
    if outputs.ndim != 2 or len(labels) != len(outputs):
        raise ValueError("outputs must be (N, C), with N labels")
    n, c = outputs.shape
    classes = labels.ndim == 1 and c > 1
    if name == "cross_entropy" and not classes:
        raise ValueError("cross-entropy needs classes (N,) and two or more outputs")
    if classes:
        if name in ("exponential", "logistic"):
            raise ValueError(f"{name} needs labels of the shape of the outputs")
        if not np.issubdtype(labels.dtype, np.integer):
            raise ValueError("classes must be integers")
        if np.any(labels < 0) or np.any(labels >= c):
            raise ValueError("classes must lie in 0 ... C-1")
        return outputs, (labels[:, None] == np.arange(c)).astype(np.float64)
    return outputs, np.asarray(labels, dtype=np.float64).reshape(n, c)


def _class_margin(outputs, one_hot):
    """g_j - g_y, and m with cross-entropy = log(1 + e^-m): no cancellation."""
    relative = outputs - np.sum(outputs * one_hot, axis=1, keepdims=True)
    others = np.where(one_hot == 1.0, -np.inf, relative)
    return relative, -_logsumexp(others, axis=1)


def _log_logistic(m):
    """log log(1 + e^-m), also where e^-m underflows."""
    small = np.maximum(m, 30.0)  # there log(1 + x) = x (1 - x / 2) to rounding
    tail = -small + np.log1p(-0.5 * _exp(-small))
    return np.where(m > 30.0, tail, np.log(np.logaddexp(0.0, -np.minimum(m, 30.0))))


def sample_losses(name, outputs, labels):
    """Loss of each sample (N,)."""
    g, y = _prepare(name, outputs, labels)
    if name == "square":
        return np.sum((g - y) ** 2, axis=1)
    if name == "exponential":
        return np.sum(_exp(-y * g), axis=1)
    if name == "logistic":
        return np.sum(np.logaddexp(0.0, -y * g), axis=1)
    return np.logaddexp(0.0, -_class_margin(g, y)[1])


def loss(name, outputs, labels, mean=False):
    """Sum (or mean) of the losses of the samples."""
    losses = sample_losses(name, outputs, labels)
    return float(np.mean(losses) if mean else np.sum(losses))


def slopes(name, outputs, labels, mean=False):
    """Slopes d_{n,c} = d loss / d g_{n,c}, (N, C)."""
    g, y = _prepare(name, outputs, labels)
    if name == "square":
        d = 2.0 * (g - y)
    elif name == "exponential":
        d = -y * _exp(-y * g)
    elif name == "logistic":
        d = -y * _exp(-np.logaddexp(0.0, y * g))
    else:
        relative, m = _class_margin(g, y)
        others = _exp(relative - np.logaddexp(0.0, -m)[:, None])
        d = np.where(y == 1.0, -_exp(-np.logaddexp(0.0, m))[:, None], others)
    return d / len(g) if mean else d


def log_loss(name, outputs, labels, mean=False):
    """Logarithm of ``loss``, also where the loss itself under- or overflows."""
    g, y = _prepare(name, outputs, labels)
    if name == "square":
        with np.errstate(divide="ignore"):
            terms = 2.0 * np.log(np.abs(g - y))
    elif name == "exponential":
        terms = -y * g
    elif name == "logistic":
        terms = _log_logistic(y * g)
    else:
        terms = _log_logistic(_class_margin(g, y)[1])
    total = float(_logsumexp(np.ravel(terms), axis=0))
    return total - float(np.log(len(g))) if mean else total


def log_loss_slopes(name, outputs, labels):
    """Slopes d log L / d g_{n,c} = d_{n,c} / L, (N, C), without under- or overflow.

    The slopes of the flow on the clock ds = L dt, the same for sum and mean.
    """
    g, y = _prepare(name, outputs, labels)
    total = log_loss(name, outputs, labels)
    if name == "square":
        return 2.0 * (g - y) / np.sum((g - y) ** 2)
    if name == "exponential":
        return -y * _exp(-y * g - total)
    if name == "logistic":
        return -y * _exp(-np.logaddexp(0.0, y * g) - total)
    relative, m = _class_margin(g, y)
    others = _exp(relative - np.logaddexp(0.0, -m)[:, None] - total)
    own = -_exp(-np.logaddexp(0.0, m) - total)[:, None]
    return np.where(y == 1.0, own, others)


def slopes_function(name, labels, mean=False):
    """The function outputs -> slopes that the flows ask for."""
    return lambda outputs: slopes(name, outputs, labels, mean)
