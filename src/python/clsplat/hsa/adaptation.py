"""What adaptations did, counted."""
from __future__ import annotations

from typing import Any

from .. import adaptation


class AdaptationMonitor:
    """Counts what adaptations do to splats, from its making on: of all sets of this process, or of those it is told (`record`)."""

    KINDS = ("mitosis", "birth", "death", "adjust", "merge")

    def __init__(self, listen: bool = True) -> None:
        self.cycles, self.history = 0, []
        if listen:
            adaptation.observers.add(self)

    def record(self, adapted: adaptation.Adapted) -> None:
        self.cycles += 1 + max((event["cycle"] for event in adapted.events), default=0)
        self.history += [event for event in adapted.events if event["kept"]]

    def get_adaptation_stats(self) -> dict[str, Any]:
        counts = {kind: sum(event["decision"] == kind for event in self.history) for kind in self.KINDS}
        stats: dict[str, Any] = {"total_cycles": self.cycles, "total_adaptations": len(self.history)}
        stats.update({f"{kind}_count": n for kind, n in counts.items()})
        if self.cycles:
            stats["adaptations_per_cycle"] = len(self.history) / self.cycles
            stats.update({f"{kind}_per_cycle": n / self.cycles for kind, n in counts.items()})
        return stats
