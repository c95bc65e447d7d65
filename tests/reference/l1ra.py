"""L1RA's check (prune, then redistribute) on lists of gates, as specified; each rank costs one, as released."""


def shrink(gate, rate, strength):
    """Proximal step after the optimizer's."""
    return gate - rate * strength


def clip(gate):
    """What the next forward pass does to a gate."""
    return min(1.0, max(0.0, gate))


def check(gates, threshold=1e-10, exclude_pruned=True):
    """Ranks after a check, from the gates that the optimizer left, not clipped: gates is {site: [c, ...]}."""
    weakest = {site: min(values) for site, values in gates.items()}
    ranks = {site: max(1, sum(c >= threshold for c in values)) for site, values in gates.items()}
    spare = sum(len(gates[site]) - ranks[site] for site in gates)
    receivers = sorted(gates, key=lambda s: -weakest[s])
    if exclude_pruned:
        receivers = [site for site in receivers if weakest[site] >= threshold]
    turn = 0
    while spare and receivers:
        ranks[receivers[turn % len(receivers)]] += 1
        turn += 1
        spare -= 1
    return ranks
