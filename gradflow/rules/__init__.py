"""Rules of descent from the papers, as optax gradient transformations."""

from ._halpern import halpern as halpern
from ._halpern import nmgd as nmgd
from ._halpern_iteration import HalpernIterates as HalpernIterates
from ._halpern_iteration import halpern_iteration as halpern_iteration
from ._noise import kicks as kicks
from ._noise import langevin as langevin
from ._power_decay import power_decay as power_decay
from ._unit_norm import coefficient_normalisation as coefficient_normalisation
from ._unit_norm import lagrange_multiplier as lagrange_multiplier
from ._unit_norm import natural_gradient as natural_gradient
from ._unit_norm import tangent_gradient as tangent_gradient
from ._weight_decay import weight_decay as weight_decay
