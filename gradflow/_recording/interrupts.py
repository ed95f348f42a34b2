"""Ctrl-C that waits for a good moment."""

import signal
import threading
from types import FrameType


class Interrupts:
    """While it is entered, the first interrupt is only noted, in `any`. The second one
    raises `KeyboardInterrupt` as usual.

    Only the main thread can do so; in others, interrupts do not arrive anyway.
    """

    def __init__(self):
        self.any = False

    def __enter__(self) -> "Interrupts":
        self._usual = None
        if threading.current_thread() is threading.main_thread():
            self._usual = signal.signal(signal.SIGINT, self._note)
        return self

    def __exit__(self, *exception: object) -> None:
        if self._usual is not None:
            signal.signal(signal.SIGINT, self._usual)

    def _note(self, number: int, frame: FrameType | None) -> None:
        if self.any:
            signal.default_int_handler(number, frame)
        self.any = True
