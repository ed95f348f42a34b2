from .describe import describe as describe
from .description import Description as Description
from .description import check_whole as check_whole
from .description import fingerprint as fingerprint
from .restore import restore as restore
