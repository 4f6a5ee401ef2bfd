"""How fast a run trains now."""

from __future__ import annotations

from collections import deque

WINDOW_SECONDS = 60.0


class Pace:
    """Steps per second over the last minute, or over the last step where that took longer."""

    def __init__(self, step: int, seconds: float) -> None:
        self._marks = deque([(seconds, step)])

    def at(self, step: int, seconds: float) -> float:
        """The pace when `step` steps are done after `seconds` of training."""
        self._marks.append((seconds, step))
        while len(self._marks) > 2 and self._marks[1][0] <= seconds - WINDOW_SECONDS:
            self._marks.popleft()
        begun, first = self._marks[0]
        return (step - first) / max(1e-9, seconds - begun)
