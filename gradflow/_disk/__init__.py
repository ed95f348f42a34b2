from .run import Checkpoint as Checkpoint
from .run import RunFiles as RunFiles
