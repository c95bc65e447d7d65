"""L1RA's check (prune, then redistribute) on lists of gates, as specified; each rank costs one, as released."""


def shrink(gate, rate, strength):
    """Proximal step and clamp after the optimizer's."""
    return min(1.0, max(0.0, gate - rate * strength))


def check(gates, threshold=1e-10, exclude_pruned=True):
    """Ranks after a check, from the gates before it: gates is {site: [c, ...]}."""
    weakest = {site: min(values) for site, values in gates.items()}
    ranks, lost = {}, {}
    for site, values in gates.items():
        alive = [c for c in values if c >= threshold]
        ranks[site] = max(1, len(alive))
        lost[site] = len(values) - ranks[site]
    spare = sum(lost.values())
    receivers = [site for site in sorted(gates, key=lambda s: -weakest[s]) if not (exclude_pruned and lost[site])]
    turn = 0
    while spare and receivers:
        ranks[receivers[turn % len(receivers)]] += 1
        turn += 1
        spare -= 1
    return ranks
