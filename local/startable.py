"""What can be started and ended, by its methods or by `with`."""

from __future__ import annotations

from abc import ABC, abstractmethod
from types import TracebackType
from typing import Self


class Startable(ABC):
    """One or more processes. Whatever goes wrong while they start, nothing of them is left."""

    def __enter__(self) -> Self:
        """Start it."""
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End it for good."""
        self.close()

    @property
    @abstractmethod
    def running(self) -> bool:
        """Whether its processes are there."""

    def start(self) -> None:
        """Start it, unless it runs, and wait until it answers. What a killed run left behind is cleaned up first."""
        if self.running:
            return
        try:
            self._start()
        except BaseException:
            self.close()
            raise

    @abstractmethod
    def close(self) -> None:
        """End it for good, and let go of its folder."""

    @abstractmethod
    def _start(self) -> None:
        """Start it. What this leaves when it raises is closed."""
