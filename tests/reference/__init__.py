"""An independent oracle: networks, losses and flows in plain NumPy, float64.

Written from the papers with hand-written back-propagation.  It shares no code with
the library that it checks.
"""

from .conv import ReferenceConv
from .dense import ReferenceDense
from .diagonal import ReferenceDiagonal
from .flows import (
    gradient_flow,
    lagrange_flow_all,
    lagrange_flow_last,
    lagrange_flow_rows,
    polar_gradient_flow,
    rho_eq,
    square_equal_norms_rho_rate,
    square_lagrange_flow,
    square_multiplier,
    square_rho_rate,
    weight_norm_flow,
)
from .losses import (
    LOSSES,
    log_loss,
    log_loss_slopes,
    loss,
    sample_losses,
    slopes,
    slopes_function,
)
from .network import ReferenceNetwork
from .smoothing import smoothed_relu, smoothed_relu_slopes

__all__ = [
    "LOSSES",
    "ReferenceConv",
    "ReferenceDense",
    "ReferenceDiagonal",
    "ReferenceNetwork",
    "gradient_flow",
    "lagrange_flow_all",
    "lagrange_flow_last",
    "lagrange_flow_rows",
    "log_loss",
    "log_loss_slopes",
    "loss",
    "polar_gradient_flow",
    "rho_eq",
    "sample_losses",
    "slopes",
    "slopes_function",
    "smoothed_relu",
    "smoothed_relu_slopes",
    "square_equal_norms_rho_rate",
    "square_lagrange_flow",
    "square_multiplier",
    "square_rho_rate",
    "weight_norm_flow",
]
