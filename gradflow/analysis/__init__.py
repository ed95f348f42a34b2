"""What the theory speaks of, as pure functions of a problem and a network."""

from ._distance import relative_distance as relative_distance
from ._equilibrium import rho_eq as rho_eq
from ._identities import structural_residual as structural_residual
from ._kinks import sliding_units as sliding_units
from ._stationarity import stationarity_residual as stationarity_residual
