"""rankbench: rank-allocation methods for LoRA, compared at one matched budget."""

__version__ = "0.1.0"


class RankbenchError(Exception):
    """Base of the errors that a user can act on; the message names the value, the place and the way out.

    Every other exception is a fault of rankbench.
    """
