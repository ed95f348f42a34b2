"""The (smoothed) ReLU and one layer of units, differentiated by hand.

A unit with weight row ``w`` and input ``h`` has pre-activation ``z = <w, h>``.  Its
ReLU is smoothed over a width proportional to the unit's own scale,
``s = smoothing * |w| * |h|``::

    0                   for z <= -s
    (z + s)^2 / (4 s)   for |z| < s
    z                   for z >= s

so the unit stays positively homogeneous of degree one in ``w`` and in ``h``.  Zero
width is the exact ReLU, with derivative 0 at z = 0.  The norm has subgradient 0 at 0.
"""

import numpy as np


def norm_and_unit(array):
    """Euclidean norm along the last axis, and the unit vectors (0 where the norm is 0).

    The largest entry is divided out first, so that nothing under- or overflows.
    """
    array = np.asarray(array, dtype=np.float64)
    largest = np.max(np.abs(array), axis=-1, keepdims=True, initial=0.0)
    scaled = array / np.where(largest > 0.0, largest, 1.0)
    length = np.sqrt(np.sum(scaled * scaled, axis=-1, keepdims=True))
    unit = scaled / np.where(length > 0.0, length, 1.0)
    return (largest * length)[..., 0], unit


def _position(z, s):
    """Mask of the smooth zone |z| < s, and z / s there (0 elsewhere)."""
    zone = np.abs(z) < s
    return zone, np.where(zone, z, 0.0) / np.where(zone, s, 1.0)


def smoothed_relu(z, s):
    """Value of the smoothed ReLU of width ``s >= 0``."""
    zone, t = _position(z, s)
    return np.where(zone, 0.25 * s * (t + 1.0) ** 2, np.maximum(z, 0.0))


def smoothed_relu_slopes(z, s):
    """Partial derivatives with respect to ``z`` and to the width ``s``."""
    zone, t = _position(z, s)
    by_z = np.where(zone, 0.5 * (1.0 + t), np.where(z > 0.0, 1.0, 0.0))
    by_s = np.where(zone, 0.25 * (1.0 - t) * (1.0 + t), 0.0)
    return by_z, by_s


def units_forward(matrix, h, smoothing, identity):
    """Outputs of units with weight rows ``matrix`` (units, features).

    ``h`` is (samples, places, features): the same units look at every place of a
    sample (one place for a dense layer, many for a convolution).  Returns
    (samples, places, units).
    """
    z = h @ matrix.T
    if identity:
        return z
    row_norm, _ = norm_and_unit(matrix)
    h_norm, _ = norm_and_unit(h)
    return smoothed_relu(z, smoothing * h_norm[..., None] * row_norm)


def units_backward(matrix, h, smoothing, identity, cotangents):
    """Pull cotangents (samples, places, units) back through ``units_forward``.

    Returns the gradient of every sample with respect to ``matrix``,
    (samples, units, features), and with respect to ``h``.
    """
    if identity:
        return np.swapaxes(cotangents, 1, 2) @ h, cotangents @ matrix
    row_norm, row_unit = norm_and_unit(matrix)
    h_norm, h_unit = norm_and_unit(h)
    width = smoothing * h_norm[..., None] * row_norm
    by_z, by_s = smoothed_relu_slopes(h @ matrix.T, width)
    along_z = cotangents * by_z
    along_s = cotangents * by_s
    # d width/d row = smoothing |h| row/|row|, d width/d h = smoothing |row| h/|h|
    to_row_norm = np.sum(along_s * (smoothing * h_norm)[..., None], axis=1)
    to_h_norm = np.sum(along_s * (smoothing * row_norm), axis=2)
    to_matrix = np.swapaxes(along_z, 1, 2) @ h + to_row_norm[..., None] * row_unit
    to_h = along_z @ matrix + to_h_norm[..., None] * h_unit
    return to_matrix, to_h
