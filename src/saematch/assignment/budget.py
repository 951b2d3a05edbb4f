"""How long a solver may go on, and how much memory it may take."""

import time
from dataclasses import dataclass, field

import psutil


@dataclass(frozen=True)
class Budget:
    """Seconds from now on, and bytes besides the factors; None: no end."""

    seconds: float | None
    bytes: int
    started: float = field(default_factory=time.perf_counter)

    @classmethod
    def of(cls, seconds: float | None, memory: int | None, memory_share: float) -> "Budget":
        """A memory budget of None is a share of what the machine has available."""
        if memory is None:
            memory = int(memory_share * psutil.virtual_memory().available)
        return cls(seconds, memory)

    @property
    def elapsed(self) -> float:
        return time.perf_counter() - self.started

    def allows(self, seconds: float = 0.0) -> bool:
        """Whether so many more seconds are left."""
        return self.seconds is None or self.elapsed + seconds < self.seconds
