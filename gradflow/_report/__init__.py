from .report import Report as Report
from .report import report as report
