"""`rankbench maps`: one rank map out of several calibrations, for PEFT and for the controls."""

import json
import re
import shutil

import pytest
from peft import LoraConfig, get_peft_model
from peft.tuners.lora import LoraLayer
from support.harness import configure

from rankbench.cli import main
from rankbench.cli.maps import mean_map
from rankbench.config.control_sources import rank_map
from rankbench.core.budget import Budget
from rankbench.records.record import RunRecord, run_id
from rankbench.records.run_folder import RunFolder
from rankbench.training.assembly import assemble

EQUAL = ["budget=r2", "budget.unit=ranks"]
SITES = [f"model.layers.{layer}.self_attn.{kind}_proj" for layer in range(2) for kind in "qkvo"] + [
    f"model.layers.{layer}.mlp.{kind}_proj" for layer in range(2) for kind in ("gate", "up", "down")
]
ATTENTION = dict.fromkeys(SITES, 0) | {site: 3 for site in SITES[:8]} | {SITES[0]: 7}  # 28 ranks, as uniform rank 2
LATER = ATTENTION | {SITES[0]: 3, SITES[7]: 7}
MEAN = ATTENTION | {SITES[0]: 5, SITES[7]: 5}


def finished(results, ranks, *overrides, status="ok", loss=None):
    """A run of igu with these final ranks, as its folder has it."""
    config = configure(results, "method=igu", *EQUAL, *overrides).plain()
    name = run_id(config)
    folder = RunFolder(results, name)
    folder.path.mkdir(parents=True)
    ledger = {"unit": "ranks", "target": 28}
    metrics = {"validation": {"step": 1, "loss": loss}}
    record = RunRecord.of(
        config, name, status, None, {"numbers_code": "1a"}, ledger=ledger, ranks=ranks, metrics=metrics
    )
    folder.write_record(record)
    return str(folder.path)


@pytest.fixture(scope="module")
def consensus(tmp_path_factory):
    """The folder of the map of two runs, which leaves the sites of the MLP out."""
    place = tmp_path_factory.mktemp("maps")
    finished(place / "results", ATTENTION, "seed=7")
    finished(place / "results", LATER, "seed=8")
    finished(place / "results", LATER, "seed=9", status="nan")
    assert main(["maps", str(place / "results"), "--into", str(place / "maps")]) == 0
    return place / "maps" / "tiny-planted-r2" / "igu"


def test_the_mean_of_two_runs_is_a_map_with_its_provenance(consensus):
    assert rank_map(str(consensus), consensus)["ranks"] == {site: rank for site, rank in MEAN.items() if rank}
    facts = json.loads((consensus / "provenance.json").read_text())
    assert list(facts["run_ids"]) == ["7", "8"]
    assert (facts["spent"], facts["budget"]["target"], facts["reference_rank"], facts["code"]) == (28, 28, 2, ["1a"])
    assert facts["agreement_of_seeds"]["overlap"] == pytest.approx(24 / 28, abs=1e-4)
    assert 0 < facts["agreement_of_seeds"]["spearman"] < 1
    assert facts["mean_of"] == "final ranks (not all runs have scores)"
    for file in consensus.iterdir():
        content = json.loads(file.read_text())
        assert file.read_text() == json.dumps(content, indent=1, sort_keys=True) + "\n"


@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated")  # peft 0.21 asks transformers for it
def test_peft_reads_the_map_and_gives_each_site_its_rank_and_scale(consensus):
    model = assemble(configure(consensus, *EQUAL)).adapters.model.unload()
    wrapped = get_peft_model(model, LoraConfig.from_pretrained(consensus))
    layers = {
        name.removeprefix("base_model.model."): (layer.r["default"], layer.scaling["default"])
        for name, layer in wrapped.named_modules()
        if isinstance(layer, LoraLayer)
    }
    assert layers == {site: (rank, 16 / 2) for site, rank in MEAN.items() if rank}


@pytest.mark.parametrize(
    ("method", "words", "kept"),
    [
        ("transplant", [], True),
        ("permuted", ["method.map_number=0"], False),
        ("permuted", ["method.map_number=1", "method.within=layer"], False),
        ("reversed", [], False),
    ],
)
def test_the_controls_read_the_map(consensus, tmp_path, method, words, kept):
    where = ["method.source=null", f"method.source_run={consensus}"]
    config = configure(tmp_path, *EQUAL, f"method={method}", *where, *words)
    ranks = assemble(config).adapters.ranks()
    assert sorted(ranks.values()) == sorted(MEAN.values())
    assert (ranks == MEAN) is kept
    assert config.method.origin == "consensus of igu"


def test_the_identity_of_a_run_is_the_map_and_not_its_place(consensus, tmp_path):
    other = shutil.copytree(consensus, tmp_path / "other")
    (other / "provenance.json").write_text('{"method": "igu", "model": "of another day"}')
    names = {
        run_id(configure(tmp_path, "method=transplant", f"method.source_run={place}").plain())
        for place in (consensus, consensus / "adapter_config.json", other)
    }
    assert len(names) == 1


def named(values):
    return dict(zip("abcd", values, strict=True))


def test_scores_count_where_they_alone_decide_the_ranks():
    one, eight = named([1] * 4), named([8] * 4)
    budget = Budget("ranks", "final", 12, 3, 0.01, one, one, eight)
    scores = [named([5.0, 4.0, 2.0, 1.0]), named([50.0, 10.0, 30.0, 30.0])]
    maps = [budget.allocate(own) for own in scores]
    mean = budget.allocate(named([10, 5, 5, 4]))  # of shares in twelfths
    assert mean_map(maps, scores, budget) == (mean, "scores")
    bent = [named([1, 2, 4, 5]), maps[1]]
    for other, why in (((), "not all runs have scores"), (scores, "more than scores decide them")):
        sums = named([bent[0][name] + bent[1][name] for name in "abcd"])
        assert mean_map(bent, other, budget) == (budget.allocate(sums), f"final ranks ({why})")
    spike = named([9.0, 1.0, 1.0, 1.0])
    capped = [budget.allocate(spike, least=2, most=6)] * 2  # a floor and a cap of the method's own
    assert mean_map(capped, [spike] * 2, budget) == (named([6, 2, 2, 2]), "scores")
    assert mean_map(capped, [{**spike, "a": float("inf")}] * 2, budget)[1].startswith("final ranks")


OTHER_SITES = {"model.layers.0.self_attn.q_proj": 28}


@pytest.mark.parametrize(
    ("runs", "message"),
    [
        ([(ATTENTION, ["seed=7"])], r"tiny-planted-r2/igu: one run alone \(seed 7\); give it as method.source_run"),
        (
            [(ATTENTION, ["seed=7"]), (LATER, ["seed=8", "train.learning_rate=0.5"])],
            r"tiny-planted-r2/igu: the runs differ in train.learning_rate \(0.\d+, 0.5\)",
        ),
        (
            [(ATTENTION, ["seed=7"]), (LATER, ["seed=8", "budget.unit=params"])],
            r"budget.unit: params, ranks. Make a map of each with --by KEY",
        ),
        (
            [(ATTENTION, ["seed=7"]), (LATER, ["seed=8", "model.targets=[q_proj]"])],
            r"model.targets: all-linear, q_proj. Make a map of each",
        ),
        ([(OTHER_SITES, ["seed=7"]), (OTHER_SITES, ["seed=8"])], r"its sites are not those of model=tiny as it is"),
        ([(dict.fromkeys(SITES, 0), ["seed=7"])], r"no finished run with a rank map; igu seed=7: status ok, no rank"),
    ],
)
def test_what_is_no_consensus_is_refused(tmp_path, capsys, runs, message):
    places = [finished(tmp_path / "results", ranks, *words) for ranks, words in runs]
    assert main(["maps", *places, "--into", str(tmp_path / "maps")]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert re.search(message, line), line
    assert not (tmp_path / "maps").exists()


def test_a_mean_that_allocates_nothing_is_no_map(tmp_path, capsys):
    for seed in (7, 8):
        finished(tmp_path / "results", dict.fromkeys(SITES, 2), f"seed={seed}", status="inert")
    assert main(["maps", str(tmp_path / "results"), "--into", str(tmp_path / "maps")]) == 0
    assert (
        capsys.readouterr().out == "left out: tiny-planted-r2/igu: the mean map is uniform, so it allocates nothing\n"
    )
    assert not (tmp_path / "maps").exists()


def test_a_setting_named_by_the_user_parts_the_maps(tmp_path):
    for pattern, ranks in (("few", ATTENTION), ("type", LATER)):
        for seed in (7, 8):
            finished(tmp_path / "results", ranks, f"seed={seed}", f"task.map={pattern}")
    words = ["maps", str(tmp_path / "results"), "--into", str(tmp_path / "maps")]
    assert main(words) == 2
    assert main([*words, "--by", "task.map"]) == 0
    found = []
    for pattern in ("few", "type"):
        folder = f"{tmp_path}/maps/tiny-planted-r2-task.map-${{task.map}}/igu"
        words = ["method=transplant", f"method.source_run={folder}", f"task.map={pattern}"]
        found.append(configure(tmp_path, *words).method.ranks[SITES[0]])
    assert found == [7, 3]


def test_the_best_map_is_chosen_by_its_mean_over_seeds(tmp_path, capsys):
    losses = {"0.5": (ATTENTION, 0.1, 0.5), "0.6": (LATER, 0.2, 0.3), "0.7": (dict.fromkeys(SITES, 2), 0.0, 0.0)}
    for beta, (ranks, *of_seeds) in losses.items():
        for seed, loss in zip((7, 8), of_seeds, strict=True):
            finished(tmp_path / "results", ranks, f"seed={seed}", f"method.beta1={beta}", loss=loss)
    for seed, ranks in ((7, ATTENTION), (8, LATER)):  # not one map
        finished(tmp_path / "results", ranks, f"seed={seed}", "method.beta1=0.8", loss=0.0)
    words = ["maps", str(tmp_path / "results"), "--into", str(tmp_path / "maps"), "--best"]
    assert main([*words, "validation/loss"]) == 0
    (folder,) = (tmp_path / "maps").glob("*/*")
    assert folder.name == "best"
    assert rank_map(str(folder), folder)["ranks"] == {site: rank for site, rank in LATER.items() if rank}
    facts = json.loads((folder / "provenance.json").read_text())
    assert facts["best_by"] == "validation/loss"
    assert facts["of"] == pytest.approx({"tiny-planted-r2/igu-beta1-0.5": 0.3, "tiny-planted-r2/igu-beta1-0.6": 0.25})
    finished(tmp_path / "results", ATTENTION, "seed=9", "method.beta1=0.5", loss=0.1)
    for metric, message in (
        ("test/loss", "choose by a metric of validation"),
        ("validation/loss", "told from two or more at the same seeds"),
    ):
        assert main([*words, metric]) == 2
        assert message in capsys.readouterr().err
