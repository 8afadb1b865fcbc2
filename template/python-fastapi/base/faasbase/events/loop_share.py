"""How long lanes whose runs wait for nothing go on before the rest of the loop has its turn."""

from __future__ import annotations

_ROUND_SECONDS = 0.025
_SHORTEST_SECONDS, _LONGEST_SECONDS = 0.0005, 0.002


class LoopShare:
    """Bounds what all `busy` ones together take: taking turns has its price, and waiting for a whole round, too."""

    def __init__(self) -> None:
        self.busy = 0
        """How many go on now."""

    @property
    def seconds(self) -> float:
        """How long the turn of one is."""
        return max(_SHORTEST_SECONDS, min(_LONGEST_SECONDS, _ROUND_SECONDS / max(1, self.busy)))
