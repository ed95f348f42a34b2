"""Rules of descent from the papers, as optax gradient transformations."""

from ._halpern import halpern as halpern
from ._halpern import nmgd as nmgd
from ._halpern_iteration import HalpernIterates as HalpernIterates
from ._halpern_iteration import halpern_iteration as halpern_iteration
from ._power_decay import power_decay as power_decay
from ._weight_decay import weight_decay as weight_decay
