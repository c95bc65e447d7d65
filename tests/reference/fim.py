"""FIM-LoRA's released allocator, step by step as in its specification: fractions and dictionaries, without shortcuts.

1. Give each free module its proportional share. Those whose whole part reaches the cap are fixed at the cap; the rest
   share what is left; repeat until none is fixed.
2. Whole parts, then one more for the largest fractional parts.
3. Raise free modules to the floor; take the debt back from the least important free modules above the floor.
"""

import math


def ranks(scores, total, least, most):
    modules = dict(enumerate(scores))
    result, left = {}, float(total)
    shares = {}
    while modules:
        mass = sum(modules.values())
        shares = {m: s / mass * left for m, s in modules.items()}
        full = [m for m, share in shares.items() if math.floor(share) >= most]
        if not full:
            break
        for m in full:
            result[m] = most
            del modules[m]
            left -= most
    whole = {m: math.floor(shares[m]) for m in modules}
    missing = int(left) - sum(whole.values())
    by_fraction = sorted(modules, key=lambda m: -(shares[m] - whole[m]))
    for m in by_fraction[: max(missing, 0)]:
        whole[m] += 1
    debt = 0
    for m in whole:
        if whole[m] < least:
            debt += least - whole[m]
            whole[m] = least
    for m in sorted(modules, key=lambda m: modules[m]):
        while debt and whole[m] > least:
            whole[m] -= 1
            debt -= 1
    result.update(whole)
    return [result[m] for m in range(len(scores))]


def moments(gradients, centred):
    """Mean over the entries of one matrix of the second moment (or unbiased variance) over samples of nested lists."""
    n = len(gradients)
    total, entries = 0.0, 0
    for i in range(len(gradients[0])):
        for j in range(len(gradients[0][0])):
            values = [g[i][j] for g in gradients]
            if centred:
                mean = sum(values) / n
                total += sum((v - mean) ** 2 for v in values) / (n - 1)
            else:
                total += sum(v * v for v in values) / n
            entries += 1
    return total / entries
