"""Pictures."""
from ..pictures import HSAVisualizer

__all__ = ["HSAVisualizer"]
