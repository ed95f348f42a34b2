from .describe import describe as describe
from .description import Description as Description
from .description import check_whole as check_whole
from .description import fingerprint as fingerprint
from .description import without_labels as without_labels
from .restore import restore as restore
