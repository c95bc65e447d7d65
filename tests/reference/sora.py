"""Re-implementation of SoRA's proximal step, gate by gate."""

from collections.abc import Sequence


def released_step(gates: Sequence[float], threshold: float) -> list[float]:
    """In three passes, as released: the large positive ones, the large negative ones, then out with the small."""
    result = [gate - threshold if gate > threshold else gate for gate in gates]
    result = [gate + threshold if gate < -threshold else gate for gate in result]
    return [0.0 if abs(gate) < threshold else gate for gate in result]


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
