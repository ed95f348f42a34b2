"""One line of a report."""

import dataclasses
from typing import Any

import numpy as np


@dataclasses.dataclass(frozen=True)
class Row:
    """A measured quantity, one number or one for each layer, and what theory expects of
    it, if it expects anything."""

    name: str
    symbol: str
    measured: Any
    theory: Any = None
    source: str = ""

    def __str__(self) -> str:
        cells = (_text(self.measured), _text(self.theory), self.source)
        return f"{self.symbol:26}{cells[0]:34}{cells[1]:22}{cells[2]}".rstrip()


def _text(value: Any) -> str:
    if value is None or isinstance(value, str):
        return value or ""
    return " ".join(f"{x:.4g}" for x in np.ravel(value))
