"""Re-implementation of SoRA's proximal step, gate by gate."""

from collections.abc import Sequence


def step(gates: Sequence[float], rate: float, strength: float) -> list[float]:
    """After a gradient step: towards zero by rate * strength, and to zero within it (paper, eq. of T)."""
    result = []
    for gate in gates:
        if gate > rate * strength:
            result.append(gate - rate * strength)
        elif gate < -rate * strength:
            result.append(gate + rate * strength)
        else:
            result.append(0.0)
    return result
