"""Stop politely: the first signal asks the trainer to finish its outer step and commit, the second ends the process at once."""

import os
import signal
import threading
from types import FrameType
from typing import Any, Self

__all__ = ["EXIT_STOPPED", "StopRequest"]

EXIT_STOPPED = 75
"""Exit status of a run that was stopped and can be resumed (EX_TEMPFAIL)."""


class StopRequest:
    """Context in which SIGTERM and SIGINT set `requested` instead of ending the process; the handlers before are put back at its end.

    Signals can be caught in the main thread only: in another thread this does nothing, and `requested` can be set by hand.
    """

    def __init__(self) -> None:
        self.requested = False
        self.signal_name: str | None = None
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGTERM, signal.SIGINT):
                self._before[number] = signal.signal(number, self._handle)
        return self

    def __exit__(self, *exception: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, signal.SIG_DFL if handler is None else handler)
        self._before.clear()

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self.requested:
            os._exit(EXIT_STOPPED)  # no clean-up that could hang or write: the last commit is valid
        self.requested = True
        self.signal_name = signal.Signals(number).name
