"""Does the decision rule keep its promises? Simulated studies whose truth is known, judged by the package's own code.

python benchmarks/simulate_rule.py [--families N] [--seed N]

Tables, as Markdown: errors of the rule per family, power beside what `family.power` promises, how often each interval
holds its truth, what joint sign flips would do, and what no rule can see. Runs are drawn, not trained; a unit is the
standard deviation of a paired difference.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray
from scipy import special

from rankbench.statistics import budget_ladder
from rankbench.statistics.decision import lopsided, outcomes
from rankbench.statistics.estimates import Array, Estimate
from rankbench.statistics.family import LEVEL, power, simultaneous_bounds
from rankbench.statistics.map_effect import MapEffect, map_effect
from rankbench.statistics.over_tasks import mean_of_such, mean_of_these
from rankbench.statistics.seeds_and_items import crossed_mean

ARMS = 12
SEEDS = (5, 10, 20)
EFFECTS = (1.0, 1.5, 2.0)  # deviations of a paired difference
SMALLEST = 1.0  # effect of interest, likewise
COLLAPSE = 0.15  # share of runs that collapse
FALL = 10.0  # deviations of a run that does not collapse

Generator = np.random.Generator
Words = NDArray[np.str_]
Shape = Callable[[Generator, tuple[int, ...]], Array]


def _normal(generator: Generator, size: tuple[int, ...]) -> Array:
    return generator.standard_normal(size)


def _heavy(generator: Generator, size: tuple[int, ...]) -> Array:
    values: Array = generator.standard_t(3, size) / np.sqrt(3)
    return values


def _skewed(generator: Generator, size: tuple[int, ...]) -> Array:
    return generator.standard_exponential(size)


def _collapsing(generator: Generator, size: tuple[int, ...]) -> Array:
    falls = FALL * (generator.random(size) < COLLAPSE)
    values: Array = (generator.standard_normal(size) - falls) / np.sqrt(1 + FALL**2 * COLLAPSE * (1 - COLLAPSE))
    return values


SHAPES: Mapping[str, Shape] = {"normal": _normal, "t3": _heavy, "skewed": _skewed, "15 % collapse": _collapsing}


def gains(generator: Generator, shape: Shape, families: int, seeds: int) -> Array:
    """Gains of ARMS equal arms over uniform, permuted maps of their own and random ranks.

    Uniform and random are the same runs for all arms of a family, as in a study.

    Returns:
        (families, ARMS, 3, seeds), of mean 0 and standard deviation 1.
    """
    arm = shape(generator, (families, ARMS, 1, seeds))
    shared = shape(generator, (families, 1, 2, seeds))
    own = shape(generator, (families, ARMS, 1, seeds))
    uniform, random = np.broadcast_to(shared, (families, ARMS, 2, seeds)).transpose(2, 0, 1, 3)
    controls = np.stack([uniform, own[:, :, 0], random], axis=2)
    difference: Array = (arm - controls) / np.sqrt(2)
    return difference


def errors(generator: Generator, families: int, seeds: int, shape: Shape) -> dict[str, float]:
    """Share of families with a wrong word, in the case where each word is most easily wrong.

    works: every arm beats uniform and random by far and equals its own permuted maps. harmful: the null, every arm
    equals everything. no worthwhile gain: every arm gains exactly the smallest effect. any: a third of the arms each.
    null: anything but "open" or "no worthwhile gain", which is true there.
    """
    null = gains(generator, shape, families, seeds)
    works, just = (_said(null + np.reshape(shift, (-1, 1))) for shift in ((10.0, 0.0, 10.0), SMALLEST))
    harmful = _said(null)
    wrong = {
        "works": np.isin(works, ("works", "worthwhile")),
        "harmful": harmful == "harmful",
        "no worthwhile gain": np.isin(just, ("no worthwhile gain", "harmful")),
    }
    third = np.arange(ARMS) % 3
    wrong["any"] = np.select([third == 0, third == 1], [wrong["works"], wrong["harmful"]], wrong["no worthwhile gain"])
    wrong["null"] = np.isin(harmful, ("works", "worthwhile", "harmful"))
    return {word: float(arms.any(axis=1).mean()) for word, arms in wrong.items()}


def powers(generator: Generator, families: int, seeds: int, shape: Shape) -> Iterator[tuple[float, list[float]]]:
    """For each of EFFECTS: shares of arms that work, promised and simulated; that show no worthwhile gain, likewise.

    The smallest effect of the latter is the effect, and their true gain is 0.
    """
    null = gains(generator, shape, families, seeds)
    for effect in EFFECTS:
        works = np.isin(_said(null + effect), ("works", "worthwhile")).mean()
        small = np.isin(_said(null, effect), ("no worthwhile gain", "harmful")).mean()
        promised = [power(effect, 1.0, seeds, ARMS, controls) for controls in (3, 1)]
        yield effect, [promised[0], float(works), promised[1], float(small)]


def unseen_collapses(generator: Generator, families: int, seeds: int, effect: float = 2.0) -> float:
    """Share of arms said to work whose runs gain `effect` except for those 15 % that collapse, and then lose far more.

    Uniform and controls never collapse, so the true gain is below 0. The unit is the deviation without collapses.
    """
    values = gains(generator, _normal, families, seeds) + effect
    values -= FALL * np.sqrt(2) * (generator.random((families, ARMS, 1, seeds)) < COLLAPSE)
    return float(np.isin(_said(values), ("works", "worthwhile")).mean())


def long_tails(generator: Generator, families: int, seeds: int, share: float) -> list[float]:
    """What is said of arms whose gains have a long lower tail, and of which none gains or loses.

    `share` of the variance of the gains is exponential, the rest normal: SHAPES have the same shape for arm and
    control, so that their differences are symmetric, which these are not.

    Returns:
        Shares of families with an interval above 0, with one below, with all that hold, and with an arm that is said to
        work without a doubt about its pairs (`decision.lopsided`).
    """
    size = (families, ARMS, seeds)
    values = np.sqrt(share) * (1 - _skewed(generator, size)) + np.sqrt(1 - share) * _normal(generator, size)
    low, high = simultaneous_bounds(values, ARMS)
    above, below = low > 0, high < 0
    doubtless = above & ~lopsided(np.where(above, "works", "open"), values)
    families_with = [above.any(axis=1), below.any(axis=1), (~(above | below)).all(axis=1), doubtless.any(axis=1)]
    return [float(each.mean()) for each in families_with]


def doubted(generator: Generator, families: int, seeds: int, shape: Shape) -> list[float]:
    """For each of EFFECTS: share of arms above 0 by that true gain whose pairs are `lopsided`, by bad luck."""
    null = gains(generator, shape, families, seeds)[:, :, 0]
    shares = []
    for effect in EFFECTS:
        low, _ = simultaneous_bounds(null + effect, ARMS)
        shares.append(float(lopsided(np.where(low > 0, "works", "open"), null).mean()))
    return shares


def family_coverage(generator: Generator, families: int, seeds: int, shape: Shape) -> float:
    """Share of families in which all intervals over uniform hold their truth, which is 0."""
    low, high = simultaneous_bounds(gains(generator, shape, families, seeds)[:, :, 0], ARMS)
    return float(((low <= 0) & (high >= 0)).all(axis=1).mean())


def joint_flips(generator: Generator, families: int, seeds: int, shape: Shape, patterns: int = 1023) -> list[float]:
    """What a critical value from joint sign flips of the residuals would do: coverage, and its size to Bonferroni's."""
    over_uniform = gains(generator, shape, families, seeds)[:, :, 0]
    signs = generator.choice([-1.0, 1.0], (patterns, seeds))
    critical = special.stdtrit(seeds - 1, 1 - (1 - LEVEL) / (2 * ARMS))
    held, ratios = [], []
    for values in over_uniform:
        residuals = values - values.mean(axis=1, keepdims=True)
        means = residuals @ signs.T / seeds
        flipped = means / np.sqrt(((residuals**2).mean(axis=1)[:, None] - means**2) / (seeds - 1))
        joint = np.quantile(np.abs(flipped).max(axis=0), LEVEL)
        observed = values.mean(axis=1) / values.std(axis=1, ddof=1) * np.sqrt(seeds)
        held.append(np.abs(observed).max() <= joint)
        ratios.append(joint / critical)
    return [float(np.mean(held)), float(np.median(ratios))]


def _said(values: Array, smallest: float = SMALLEST) -> Words:
    return outcomes(*simultaneous_bounds(values, ARMS), smallest)


def over_tasks(generator: Generator, tasks: int, seeds: int, between: float) -> list[tuple[Estimate, float]]:
    """Intervals over these tasks, tasks like these, and one more, with their truths; spreads differ up to threefold."""
    true = generator.standard_normal(tasks) * between
    spreads = np.linspace(0.5, 1.5, tasks)
    values = [mean + spread * generator.standard_normal(seeds) for mean, spread in zip(true, spreads, strict=True)]
    such, spread = mean_of_such(values), generator.choice(spreads)
    another = generator.standard_normal() * between + generator.standard_normal() * spread / np.sqrt(seeds)
    return [(mean_of_these(values), float(true.mean())), (such.mean, 0.0), (such.another, float(another))]


def maps(generator: Generator, number: int, seeds: int, deviation: float, shape: Shape = _normal) -> MapEffect:
    """What maps x seeds show whose true effects have a shape and a deviation, in units of the residual.

    Seeds differ by 2, for all maps alike.
    """
    of_maps = deviation * (shape(generator, (number, 1)) - (shape is _skewed))
    rest = generator.standard_normal((number, seeds))
    return map_effect(of_maps + 2 * generator.standard_normal((1, seeds)) + rest)


def over_items(generator: Generator, seeds: int, items: int, shared: float) -> tuple[Estimate, float]:
    """Interval of seeds x items; a share of the variance of items is common to all seeds, and seeds differ by 0.1."""
    of_seeds = 0.1 * generator.standard_normal((seeds, 1))
    of_items = np.sqrt(shared) * generator.standard_normal((1, items))
    rest = np.sqrt(1 - shared) * generator.standard_normal((seeds, items))
    return crossed_mean(of_seeds + of_items + rest).mean, 0.0


def over_budgets(generator: Generator, seeds: int, tuning: int, factor: float) -> tuple[Estimate, float]:
    """Interval of a budget equivalent, on a ladder of tuning seeds of its own; runs have a deviation of 0.2."""
    rungs = np.array([-1.0, 0.0, 0.7, 1.2])  # true gains at each of the factors
    ladder = budget_ladder.budget_ladder(rungs + 0.2 * generator.standard_normal((tuning, len(rungs))), True)
    true = np.interp(np.log2(factor), budget_ladder.RUNGS, rungs)
    arm = true + 0.2 * np.sqrt(2) * generator.standard_normal(seeds)
    return budget_ladder.budget_equivalent(arm, ladder), factor


def _holds(estimate: Estimate, true: float) -> bool:
    low = -np.inf if estimate.low is None else estimate.low
    return low <= true <= (np.inf if estimate.high is None else estimate.high)


def coverages(generator: Generator, repeats: int) -> Iterator[tuple[str, float]]:
    """Name of each interval and setting, and how often it holds its truth."""
    for tasks, seeds, between in ((3, 5, 0.0), (3, 10, 1.0), (6, 5, 0.3), (6, 10, 1.0), (12, 10, 0.3)):
        draws = [over_tasks(generator, tasks, seeds, between) for _ in range(repeats)]
        for index, which in enumerate(("these tasks", "tasks like these", "one more task, as seen")):
            share = float(np.mean([_holds(*draw[index]) for draw in draws]))
            yield f"{which}: {tasks} tasks, n = {seeds}, tau = {between:g}", share
    for seeds, items, shared in ((5, 200, 0.1), (10, 200, 0.1), (20, 200, 0.1), (10, 200, 0.0), (10, 200, 0.5)):
        share = float(np.mean([_holds(*over_items(generator, seeds, items, shared)) for _ in range(repeats)]))
        yield f"seeds x items: n = {seeds}, {items} items, {shared:.0%} of the items' variance shared", share
    for seeds, tuning, factor in ((5, 3, 1.0), (10, 3, 1.3), (10, 3, 2.5), (10, 5, 1.3), (20, 10, 0.7)):
        share = float(np.mean([_holds(*over_budgets(generator, seeds, tuning, factor)) for _ in range(repeats)]))
        yield f"budget equivalent: n = {seeds}, ladder of {tuning} seeds, truth {factor:g}", share
    for number, seeds, deviation in ((8, 5, 1.0), (24, 3, 0.5), (24, 5, 0.3), (24, 5, 1.0), (20, 10, 0.3)):
        effects = [maps(generator, number, seeds, deviation) for _ in range(repeats)]
        where = f"{number} maps, n = {seeds}, sigma_map = {deviation:g}"
        yield f"sigma_map: {where}", float(np.mean([_holds(effect.deviation, deviation) for effect in effects]))
        yield f"residual: {where}", float(np.mean([_holds(effect.residual, 1.0) for effect in effects]))


def effects_found(
    generator: Generator, repeats: int, number: int, seeds: int, deviation: float, shape: Shape
) -> list[float]:
    """How often the interval of sigma_map leaves out 0 and how often it holds its truth, and the median estimate."""
    effects = [maps(generator, number, seeds, deviation, shape).deviation for _ in range(repeats)]
    holds = np.mean([_holds(effect, deviation) for effect in effects])
    values = [effect.value for effect in effects]
    return [float(np.mean([bool(effect.low) for effect in effects])), float(holds), float(np.median(values))]


def _table(columns: Sequence[str], rows: Iterator[Sequence[str]]) -> None:
    print("\n| " + " | ".join(columns) + " |\n|" + " --- |" * len(columns))
    for row in rows:
        print("| " + " | ".join(row) + " |")


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--families", type=int, default=20_000, help="studies of each kind, in parts of 1000")
    parser.add_argument("--seed", type=int, default=0, help="seed of the draws")
    arguments = parser.parse_args()
    generator, parts = np.random.default_rng(arguments.seed), max(1, arguments.families // 1000)
    cases = [(name, shape, seeds) for name, shape in SHAPES.items() for seeds in SEEDS]

    def per_cent(shares: Sequence[Sequence[float]]) -> list[str]:
        return [f"{share:.1%}" for share in np.mean(shares, axis=0)]

    def errors_of(shape: Shape, seeds: int) -> list[list[float]]:
        return [
            [*errors(generator, 1000, seeds, shape).values(), family_coverage(generator, 1000, seeds, shape)]
            for _ in range(parts)
        ]

    words = ("works", "harmful", "no worthwhile gain", "any of them, mixed", "under the null", "all intervals hold")
    _table(("runs", "n", *words), ([name, str(n), *per_cent(errors_of(shape, n))] for name, shape, n in cases))
    _table(
        ("runs", "n", "effect", "works: promised", "works", "no worthwhile gain: promised", "no worthwhile gain"),
        (
            [name, str(n), f"{effect:g}", *(f"{share:.1%}" for share in shares)]
            for name, shape, n in cases
            for effect, shares in powers(generator, 1000, n, shape)
        ),
    )
    _table(("interval of 95 %", "holds"), ([name, f"{share:.1%}"] for name, share in coverages(generator, 100 * parts)))
    _table(
        ("maps", "n", "effects of maps", "sigma_map / residual", "interval leaves out 0", "holds", "median estimate"),
        (
            [str(number), str(n), name, f"{deviation:g}", f"{out:.1%}", f"{holds:.1%}", f"{median:.2f}"]
            for name, shape in (("normal", _normal), ("t3", _heavy), ("exponential", _skewed))
            for number, n, deviation in ((24, 5, 0.0), (24, 5, 0.3), (24, 5, 0.54), (24, 5, 1.0), (24, 5, 3.0))
            for out, holds, median in [effects_found(generator, 100 * parts, number, n, deviation, shape)]
        ),
    )
    _table(
        ("runs", "n", "sign flips: all intervals hold", "critical value / Bonferroni's"),
        (
            [name, str(n), f"{held:.1%}", f"{ratio:.3f}"]
            for name, shape, n in cases
            for held, ratio in [joint_flips(generator, 1000, n, shape)]
        ),
    )
    _table(
        ("n", "arms said to work that collapse in 15 % of all runs"),
        ([str(n), f"{unseen_collapses(generator, 1000, n):.1%}"] for n in SEEDS),
    )
    _table(
        (
            *("lopsided share of the variance", "n", "an interval above 0", "an interval below 0"),
            *("all intervals hold", "an arm that works, not in doubt"),
        ),
        (
            [f"{share:.0%}", str(n), *per_cent([long_tails(generator, 1000, n, share) for _ in range(parts)])]
            for share in (0.25, 0.5, 1.0)
            for n in SEEDS
        ),
    )
    _table(
        ("runs", "n", *(f"gain of {effect:g}: shown, but in doubt" for effect in EFFECTS)),
        ([name, str(n), *per_cent([doubted(generator, 1000, n, shape)])] for name, shape, n in cases),
    )


if __name__ == "__main__":
    main()
