"""Figures of trajectories, one function each."""

from ._comparison import comparison as comparison
from ._ensemble import ensemble as ensemble
from ._flow_against_descent import flow_against_descent as flow_against_descent
from ._layers import layers as layers
from ._loss import loss as loss
from ._margin_histogram import margin_histogram as margin_histogram
from ._margins import sorted_margins as sorted_margins
from ._neural_collapse import neural_collapse as neural_collapse
from ._rho import rho as rho
from ._spectrum import spectrum as spectrum
