from .descend import descend_ensemble as descend_ensemble
from .ensemble import Ensemble as Ensemble
from .solve import solve_ensemble as solve_ensemble
