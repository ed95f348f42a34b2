from .activation import AbstractActivation as AbstractActivation
from .activation import Identity as Identity
from .activation import ReLU as ReLU
from .base import AbstractNetwork as AbstractNetwork
from .conv import Conv as Conv
from .dense import Dense as Dense
from .diagonal import Diagonal as Diagonal
from .polar import Polar as Polar
