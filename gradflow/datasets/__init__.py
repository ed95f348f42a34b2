"""Data to train on: real images, and problems that theory uses."""

from ._cifar10 import CIFAR10_CLASSES as CIFAR10_CLASSES
from ._cifar10 import cifar10 as cifar10
from ._dataset import Dataset as Dataset
from ._digits import digits as digits
from ._gaussian_mixture import gaussian_mixture as gaussian_mixture
from ._mnist import mnist as mnist
from ._polynomial import chebyshev_nodes as chebyshev_nodes
from ._polynomial import chebyshev_polynomials as chebyshev_polynomials
from ._polynomial import equispaced_nodes as equispaced_nodes
from ._polynomial import monomials as monomials
from ._polynomial import polynomial as polynomial
from ._preprocess import unit_norm as unit_norm
from ._teacher_student import teacher_student as teacher_student
from ._whiten import whiten as whiten
