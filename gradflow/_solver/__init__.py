from .block_norms import BlockNorms as BlockNorms
from .cost import num_evaluations as num_evaluations
from .projected import Projected as Projected
from .report import Reporting as Reporting
from .report import Tallying as Tallying
from .rkc import RKC as RKC
from .rkc3 import RKC3 as RKC3
from .stabilised import AbstractStabilised as AbstractStabilised
