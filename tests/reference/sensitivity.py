"""Sensitivity-LoRA, equations 8 to 15 one by one, in plain loops over Python floats."""


def diagonal(rows):
    """Sum of squares of each input channel over tokens: rows are tokens."""
    return [sum(row[j] ** 2 for row in rows) for j in range(len(rows[0]))]


def metrics(entries, topk_share, mass):
    """Eq. 8 to 10."""
    ordered = sorted(entries, reverse=True)
    trace = sum(ordered)
    k = max(1, int(topk_share * len(ordered)))
    count, held = 0, 0.0
    for entry in ordered:
        if held / trace >= mass:
            break
        held += entry
        count += 1
    return trace, sum(ordered[:k]) / k, float(count)


def _mean(values):
    return sum(values) / len(values)


def _deviation(values):
    mean = _mean(values)
    return (sum((v - mean) ** 2 for v in values) / len(values)) ** 0.5


def theta(triples):
    """Eq. 11 to 14: beta1 = sigma_T / mu_T^2, beta2 = sigma_E / mu_E^2, then the same for global and local."""
    g, t, e = ([triple[i] for triple in triples] for i in range(3))
    beta1 = _deviation(t) / _mean(t) ** 2
    beta2 = _deviation(e) / _mean(e) ** 2
    local = [beta1 * a + beta2 * b for a, b in zip(t, e, strict=True)]
    gamma1 = _deviation(g) / _mean(g) ** 2
    gamma2 = _deviation(local) / _mean(local) ** 2
    return [gamma1 * a + gamma2 * b for a, b in zip(g, local, strict=True)]


def shares(triples, total):
    """Eq. 15."""
    values = theta(triples)
    return [value / sum(values) * total for value in values]


def closed_form(triples, mean_rank):
    """The same as a convex mix of scores over their means, weighted by coefficients of variation."""
    columns = [[triple[i] for triple in triples] for i in range(3)]
    cv = [_deviation(c) / _mean(c) for c in columns]
    hat = [[v / _mean(c) for v in c] for c in columns]
    local = [(cv[1] * t + cv[2] * e) / (cv[1] + cv[2]) for t, e in zip(hat[1], hat[2], strict=True)]
    cv_local = _deviation(local)
    return [mean_rank * (cv[0] * g + cv_local * v) / (cv[0] + cv_local) for g, v in zip(hat[0], local, strict=True)]
