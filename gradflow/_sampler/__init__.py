from .base import AbstractSampler as AbstractSampler
from .full_batch import FullBatch as FullBatch
from .label_noise import LabelNoise as LabelNoise
from .minibatches import Minibatches as Minibatches
