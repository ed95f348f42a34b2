"""What the theory speaks of, as pure functions of a problem and a network."""

from ._balance import layer_balance as layer_balance
from ._balance import matrix_balance as matrix_balance
from ._balance import unit_balance as unit_balance
from ._complexity import path_norm as path_norm
from ._complexity import product_of_norms as product_of_norms
from ._complexity import ramp_loss as ramp_loss
from ._complexity import spectral_complexity as spectral_complexity
from ._distance import relative_distance as relative_distance
from ._equilibrium import rho_eq as rho_eq
from ._growth import log_time_of_rho as log_time_of_rho
from ._growth import rho_of_log_time as rho_of_log_time
from ._identities import sample_residual as sample_residual
from ._identities import structural_residual as structural_residual
from ._jacobian_rank import jacobian_rank as jacobian_rank
from ._kinks import sliding_units as sliding_units
from ._neural_collapse import NeuralCollapse as NeuralCollapse
from ._neural_collapse import neural_collapse as neural_collapse
from ._orthogonality import asymmetry as asymmetry
from ._orthogonality import orthogonality_defect as orthogonality_defect
from ._orthogonality import projection_defect as projection_defect
from ._rank import distance_to_rank_one as distance_to_rank_one
from ._rank import effective_rank as effective_rank
from ._rank import singular_values as singular_values
from ._rank import stable_rank as stable_rank
from ._stationarity import stationarity_residual as stationarity_residual
