"""rankbench: rank-allocation methods for LoRA, compared at one matched budget."""

__version__ = "0.1.0"
