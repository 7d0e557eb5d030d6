"""Seconds spent in each phase of something."""

from __future__ import annotations

import time
from collections.abc import Mapping


class Clock:
    """Runs from its making; each lap gives the time since the last one to a phase.

    Attributes:
        seconds: by phase, in the order in which the phases began.

    Example:
        >>> clock = Clock()
        >>> model = xray.load("mini")
        >>> clock.lap("load")
        >>> clock.seconds
        {'load': 6.024}
    """

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._last = time.perf_counter()

    def lap(self, phase: str) -> None:
        """Give the time since the last lap to `phase`, added to what it has."""
        now = time.perf_counter()
        self.seconds[phase] = round(self.seconds.get(phase, 0.0) + now - self._last, 3)
        self._last = now

    def adopt(self, seconds: Mapping[str, float]) -> None:
        """Take over the phases that another clock told apart since this one's last lap."""
        for phase, each in seconds.items():
            self.seconds[phase] = self.seconds.get(phase, 0.0) + each
            self._last += each
