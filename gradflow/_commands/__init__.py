from . import job as job
from . import resume as resume
from . import sweep as sweep
