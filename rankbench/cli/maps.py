"""`rankbench maps RUNS ... --into FOLDER`: one rank map out of a method's runs at several seeds.

RUNS are experiment=X (its reported runs, by arm), or results folders, files of records, folders and run_ids of runs.
For each method (or arm), model, task and budget there is one map: the mean over seeds of what the sites got, each run
counting the same, apportioned once to the exact budget. Where the runs' scores are there and their apportionment is
the runs' ranks, the mean is that of the scores; else that of the final ranks.

FOLDER/PANEL/ARM/adapter_config.json holds the map as PEFT reads it, and so does method.source_run of transplant,
permuted, reversed, by_type and by_depth; sites of rank 0 are left out of its targets. provenance.json beside it says
what it was made of. With --best validation/loss there is one map per panel, FOLDER/PANEL/best: of the arms that have
one map at all seeds, the one whose runs are best by their mean; run it at other seeds (`only` of an experiment).
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rankbench.cli.arguments import ALLOW_MIXED, add_results, names, results_of, with_results
from rankbench.cli.arguments import parser as command_parser
from rankbench.cli.exit_codes import OK
from rankbench.config.control_sources import CONFIG, PROVENANCE
from rankbench.files import write_atomically
from rankbench.records.record import RunRecord
from rankbench.studies.calibrations import Calibration, MapError, best, calibrations, grouped, refuse
from rankbench.terminal import loading

if TYPE_CHECKING:
    from rankbench.config.sections import Config
    from rankbench.core.budget import Budget
    from rankbench.core.sites import Site

BEST = "only the best map of each panel by a metric of validation, as PANEL/best"
BY = "a map for each value of this setting, such as task.map; may be repeated"


def mean_map(
    maps: Sequence[Mapping[str, int]], scores: Sequence[Mapping[str, float]], budget: Budget
) -> tuple[dict[str, int], str]:
    """The mean of several maps at the exact budget, and what the mean was taken of.

    A method may cap, floor or bend what its scores say: they count only where their apportionment, between the least
    and the greatest rank of each run, is the run's map. The least rank that all runs keep is kept.

    Args:
        maps: final ranks of each run, site -> rank.
        scores: those of each run, site -> score; () where a run has none.
        budget: what there is to spend, and what a rank costs.
    """
    least = min(min(ranks.values()) for ranks in maps)
    if scores and all(_decide(own, ranks, budget) for own, ranks in zip(scores, maps, strict=True)):
        most = max(max(ranks.values()) for ranks in maps)
        return budget.allocate(_shares(scores, budget), least=least, most=most), "scores"
    why = "more than scores decide them" if scores else "not all runs have scores"
    return budget.allocate(_shares(maps, budget), least=least), f"final ranks ({why})"


def _decide(scores: Mapping[str, float], ranks: Mapping[str, int], budget: Budget) -> bool:
    """Whether scores, between the least and the greatest rank, are all that decides the ranks."""
    least, most = min(ranks.values()), max(ranks.values())
    return all(map(math.isfinite, scores.values())) and budget.allocate(scores, least=least, most=most) == ranks


def _shares(values: Sequence[Mapping[str, float]], budget: Budget) -> dict[str, float]:
    from rankbench.statistics.consensus import mean_shares

    order = list(budget.costs)
    return dict(zip(order, mean_shares([[own[name] for name in order] for own in values]).tolist(), strict=True))


def combine(runs: Sequence[Calibration], sites: Sequence[Site]) -> tuple[dict[str, int], dict[str, Any]]:
    """The mean map of runs that differ in nothing but the seed, and the content of its provenance.json.

    Raises:
        MapError: the model has other sites here than in the runs.
    """
    from rankbench.core.sites import describe_unevenness
    from rankbench.statistics.consensus import agreement, variation

    first, names = runs[0].record, {site.name for site in sites}
    if other := [run.record.run_id for run in runs if set(run.record.ranks or ()) != names]:
        raise MapError(f"run {other[0]}: its sites are not those of model={first.model} as it is here")
    budget = _budget(first, sites)
    maps = [run.record.ranks or {} for run in runs]
    scores = [run.scores for run in runs if run.scores and set(run.scores) == names]
    ranks, origin = mean_map(maps, scores if len(scores) == len(runs) else (), budget)
    agreeing = agreement([[own[name] for name in budget.costs] for own in maps], list(budget.costs.values()))
    facts = {
        **{key: getattr(first, key) for key in ("method", "model", "task")},
        "arm": runs[0].arm,
        "budget": {"name": first.budget, "unit": budget.unit, "target": budget.target},
        "reference_rank": budget.reference_rank,
        "spent": budget.spent(ranks),
        "run_ids": {str(run.record.seed): run.record.run_id for run in runs},
        "code": sorted({str(run.record.provenance.get("numbers_code")) for run in runs}),
        "mean_of": origin,
        "agreement_of_seeds": {key: value and round(value, 4) for key, value in vars(agreeing).items()},
        # seeds that disagree average out: the mean map is then flatter than those of the runs
        "variation_of_ranks": {"map": variation(ranks.values()), "runs": [variation(own.values()) for own in maps]},
        "unevenness": describe_unevenness(ranks, budget.costs),
    }
    return ranks, facts


def _budget(record: RunRecord, sites: Sequence[Site]) -> Budget:
    """The budget of a run, as its ledger has it."""
    from rankbench.core.budget import Budget

    ledger, section = record.ledger or {}, record.config["budget"]
    params = {site.name: site.d_in + site.d_out for site in sites}
    costs = params if ledger["unit"] == "params" else dict.fromkeys(params, 1)
    reference = max(1, round(ledger["target"] / sum(costs.values())))
    full = {site.name: min(site.d_in, site.d_out) for site in sites}
    figures = (ledger["target"], reference, section["tolerance"])
    return Budget(ledger["unit"], section["match"], *figures, costs, params, full)


def peft_config(
    ranks: Mapping[str, int], reference_rank: int, config: Config, modules: Sequence[str]
) -> dict[str, Any]:
    """The map as PEFT reads it, with the alphas that give each site the scale that it has in a run.

    Args:
        ranks: the map.
        reference_rank: uniform rank of its budget.
        config: configuration of one of its runs.
        modules: names of all modules of the model.
    """
    from rankbench.core.gated_lora import Scale
    from rankbench.core.peft_names import exact_keys, exact_targets
    from rankbench.models.heads import class_of

    adapted = {name: rank for name, rank in ranks.items() if rank}
    scale = Scale(config.adapter.scale_rule, config.adapter.alpha, reference_rank)
    keys = exact_keys(adapted)
    return {
        "peft_type": "LORA",
        "task_type": class_of(config.model.architecture, None)[1],
        "r": scale.reference_rank,
        "lora_alpha": scale.alpha,
        "lora_dropout": config.adapter.dropout,
        "target_modules": exact_targets(list(adapted), modules),
        "rank_pattern": {keys[name]: rank for name, rank in adapted.items()},
        "alpha_pattern": {keys[name]: scale.at(rank) * rank for name, rank in adapted.items()},
    }


def write(folder: Path, contents: Mapping[str, Mapping[str, Any]]) -> None:
    """Write JSON files, keys sorted, each whole or not at all."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in contents.items():
        write_atomically(folder / name, (json.dumps(content, indent=1, sort_keys=True) + "\n").encode())


def main(words: Sequence[str]) -> int:
    """Write the maps and print a line on each.

    Raises:
        MapError, SelectionError: runs that make no map; nothing was written.
        ModelError: a model of theirs is not on this machine.
    """
    parser = command_parser("maps", __doc__ or "")
    parser.add_argument("runs", nargs="+", metavar="RUNS", help="experiment=X, results folders, files, runs")
    parser.add_argument("--into", type=Path, required=True, metavar="FOLDER", help="folder of the maps")
    parser.add_argument("--by", action="append", default=[], metavar="KEY", help=BY)
    parser.add_argument("--allow-mixed", type=names, default=[], metavar="NAMES", help=ALLOW_MIXED)
    parser.add_argument("--best", metavar="METRIC", help=BEST)
    add_results(parser)
    arguments = parser.parse_intermixed_args(words)
    loading("torch")
    from rankbench.analysis import mixed_records

    typed = arguments.runs
    if any("=" in word for word in typed):
        typed = with_results(typed, arguments)
    runs, left_out = calibrations(typed, results_of(arguments, typed))
    groups = dict(grouped(runs, arguments.by))
    mixed = {
        name: mixed_records.differences([run.record for run in alike], arguments.by) for name, alike in groups.items()
    }
    mixed_records.refuse(mixed, arguments.allow_mixed, "Make a map of each with --by KEY")
    for name, alike in groups.items():
        refuse(name, alike)
    if arguments.best:
        files = {
            f"{panel}/best": _files(groups[name], {"best_by": arguments.best, "of": means})
            for panel, (name, means) in best(groups, arguments.best).items()
        }
    else:
        files = {name: _files(alike) for name, alike in groups.items()}
    for name, (content, facts) in files.items():
        if not facts["variation_of_ranks"]["map"]:
            left_out.append(f"{name}: the mean map is uniform, so it allocates nothing")
            continue
        write(arguments.into / name, {CONFIG: content, PROVENANCE: facts})
        print(f"{arguments.into / name}: {describe(content, facts)}")
    for sentence in left_out:
        print(f"left out: {sentence}")
    return OK


def _files(
    runs: Sequence[Calibration], choice: Mapping[str, Any] | None = None
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Content of the map's two files; `choice`: facts on how it was chosen among others."""
    # torch and transformers take seconds to import
    import torch

    from rankbench.config.sections import Config
    from rankbench.models.inferred_settings import resolve
    from rankbench.models.loading import sites_of, without_weights

    config = Config.from_plain(runs[0].record.config)
    config = config.replace(model=resolve(config.model, download=False))
    ranks, facts = combine(runs, sites_of(config.model))
    with torch.device("meta"):
        modules = [name for name, _ in without_weights(config.model).named_modules()]
    return peft_config(ranks, facts["reference_rank"], config, modules), {**facts, **(choice or {})}


def describe(content: Mapping[str, Any], facts: Mapping[str, Any]) -> str:
    """A map in one line."""
    spearman, overlap = (facts["agreement_of_seeds"][key] for key in ("spearman", "overlap"))
    correlation = "no order to compare" if spearman is None else f"Spearman {spearman:.2f}"
    ranks = content["rank_pattern"].values()
    parts = [
        f"{len(facts['run_ids'])} seeds, mean of {facts['mean_of'].partition(' (')[0]}",
        f"{len(ranks)} sites of rank {min(ranks)} to {max(ranks)}",
        f"{facts['spent']:,} of {facts['budget']['target']:,} {facts['budget']['unit']}",
        f"seeds agree: {correlation}, overlap {overlap:.2f}",
        *([facts["unevenness"]] if facts["unevenness"] else []),
    ]
    return "; ".join(parts)
