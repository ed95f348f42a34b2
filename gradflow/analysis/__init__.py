"""What the theory speaks of, as pure functions of a problem and a network."""

from ._balance import layer_balance as layer_balance
from ._balance import matrix_balance as matrix_balance
from ._balance import unit_balance as unit_balance
from ._complexity import path_norm as path_norm
from ._complexity import product_of_norms as product_of_norms
from ._complexity import ramp_loss as ramp_loss
from ._complexity import spectral_complexity as spectral_complexity
from ._distance import relative_distance as relative_distance
from ._equilibrium import multiplier as multiplier
from ._equilibrium import rho_dot as rho_dot
from ._equilibrium import rho_eq as rho_eq
from ._flat_directions import FlatDirections as FlatDirections
from ._flat_directions import flat_directions as flat_directions
from ._growth import log_time_of_rho as log_time_of_rho
from ._growth import rho_of_log_time as rho_of_log_time
from ._growth_violations import growth_violations as growth_violations
from ._hessian import ExtremeEigenvalues as ExtremeEigenvalues
from ._hessian import extreme_eigenvalues as extreme_eigenvalues
from ._hessian import hessian_eigenvalues as hessian_eigenvalues
from ._hessian import hessian_product as hessian_product
from ._hessian import num_near_zero as num_near_zero
from ._identities import sample_residual as sample_residual
from ._identities import structural_residual as structural_residual
from ._kinks import sliding_units as sliding_units
from ._linearised import linearised_outputs as linearised_outputs
from ._identities import euler_residual as euler_residual
from ._identities import sample_residual as sample_residual
from ._identities import structural_residual as structural_residual
from ._kinks import sliding_units as sliding_units
from ._margins import average_separability as average_separability
from ._margins import equal_margin_defect as equal_margin_defect
from ._margins import interpolation_defect as interpolation_defect
from ._margins import margin_histogram as margin_histogram
from ._margins import support as support
from ._neural_collapse import NeuralCollapse as NeuralCollapse
from ._neural_collapse import neural_collapse as neural_collapse
from ._rank import distance_to_rank_one as distance_to_rank_one
from ._rank import effective_rank as effective_rank
from ._rank import singular_values as singular_values
from ._rank import stable_rank as stable_rank
from ._spectral_density import SpectralDensity as SpectralDensity
from ._spectral_density import spectral_density as spectral_density
from ._stationarity import stationarity_residual as stationarity_residual
from ._tangent_kernel import gauss_newton_eigenvalues as gauss_newton_eigenvalues
from ._tangent_kernel import tangent_kernel as tangent_kernel
from ._representation import (
    representation_coefficients as representation_coefficients,
)
from ._representation import representation_residual as representation_residual
from ._stationarity import stationarity_residual as stationarity_residual
from ._summary import Summary as Summary
from ._summary import summary as summary
