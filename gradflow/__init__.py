"""Gradient flows of homogeneous ReLU networks, integrated and measured."""

from importlib.metadata import version as _version

from . import analysis as analysis
from . import datasets as datasets
from . import plot as plot
from ._critical_point import CriticalPoint as CriticalPoint
from ._default_observables import default_observables as default_observables
from ._descent import descend as descend
from ._flow import AbstractFlow as AbstractFlow
from ._flow import AbstractSpheres as AbstractSpheres
from ._flow import GradientFlow as GradientFlow
from ._flow import LagrangeFlow as LagrangeFlow
from ._flow import MatrixSpheres as MatrixSpheres
from ._flow import PolarGradientFlow as PolarGradientFlow
from ._flow import PolarState as PolarState
from ._flow import RowSpheres as RowSpheres
from ._flow import WeightNormFlow as WeightNormFlow
from ._loss import AbstractLoss as AbstractLoss
from ._loss import CrossEntropyLoss as CrossEntropyLoss
from ._loss import ExponentialLoss as ExponentialLoss
from ._loss import LogisticLoss as LogisticLoss
from ._loss import SquareLoss as SquareLoss
from ._network import AbstractActivation as AbstractActivation
from ._network import AbstractNetwork as AbstractNetwork
from ._network import Conv as Conv
from ._network import Dense as Dense
from ._network import Diagonal as Diagonal
from ._network import Identity as Identity
from ._network import Polar as Polar
from ._network import ReLU as ReLU
from ._observables import AbstractObservable as AbstractObservable
from ._observables import NormDefect as NormDefect
from ._observables import Point as Point
from ._observables import Sharpness as Sharpness
from ._observables import Stationarity as Stationarity
from ._observe import observe as observe
from ._polish import polish as polish
from ._problem import Problem as Problem
from ._report import Report as Report
from ._report import report as report
from ._results import RESULTS as RESULTS
from ._results import PolishError as PolishError
from ._results import SolveError as SolveError
from ._solve import solve as solve
from ._solver import RKC as RKC
from ._solver import RKC3 as RKC3
from ._solver import Projected as Projected
from ._trajectory import Trajectory as Trajectory
from ._until import LossBelow as LossBelow
from ._until import MarginAbove as MarginAbove
from ._until import Stationary as Stationary
from ._until import ZeroTrainingError as ZeroTrainingError
from .datasets import Dataset as Dataset

__version__ = _version("gradflow-ode")
