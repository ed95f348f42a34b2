"""Figures of trajectories, one function each."""

from ._flow_against_descent import flow_against_descent as flow_against_descent
from ._loss import loss as loss
from ._margin_histogram import margin_histogram as margin_histogram
from ._margins import sorted_margins as sorted_margins
from ._rho import rho as rho
