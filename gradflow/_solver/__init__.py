from .cost import num_evaluations as num_evaluations
from .projected import Projected as Projected
