"""Two CPU processes equal one: the same global batch, ranks and history, and the same losses up to rounding."""

import json

import pytest
from support.harness import ENVIRONMENT, SUPPORT, configure, folder_of, perform, python, rows

# `accelerate launch --cpu` starts several processes through MPI alone; --multi_gpu is torchrun, on CPUs as told here.
LAUNCH = ["-m", "accelerate.commands.launch", "--multi_gpu", "--num_processes", "2", "--num_machines", "1"]
LAUNCH += ["--main_process_port", "0", "--mixed_precision", "no", "--dynamo_backend", "no", str(SUPPORT / "in_turn.py")]
METHODS = ["lora", "adalora", "igu", "igu_code", "fim", "sensitivity", "gora", "eva", "increlora", "para"]
SHARED = [
    "train.batch_size=5",
    "train.weight_decay=0.1",
    "train.checkpoint_every=5",
]  # 3 examples for one, 2 for the other


@pytest.fixture(scope="module")
def both(tmp_path_factory):
    """Per method: the folder of the run on one process, and on two; one launch for all."""
    one, two = tmp_path_factory.mktemp("one"), tmp_path_factory.mktemp("two")
    done = python(
        *LAUNCH, str(two), ",".join(METHODS), *SHARED, environment={**ENVIRONMENT, "ACCELERATE_USE_CPU": "true"}
    )
    assert done.returncode == 0, done.stderr[-2000:]
    folders = {}
    for method in METHODS:
        config = configure(one, f"method={method}", *SHARED)
        perform(config)
        name = folder_of(config).run_id
        folders[method] = (one / "runs" / name, two / "runs" / name)
    return folders


def records(folders):
    return [json.loads((folder / "record.json").read_text()) for folder in folders]


@pytest.mark.slow
@pytest.mark.parametrize("method", METHODS)
def test_two_processes_equal_one(both, method):
    one, two = records(both[method])
    assert [record["provenance"]["processes"] for record in (one, two)] == [1, 2]
    assert one["status"] == two["status"] == "ok"
    assert one["ranks"] == two["ranks"]
    assert one["ledger"] == two["ledger"]
    assert rows(both[method][0] / "ranks.jsonl") == rows(both[method][1] / "ranks.jsonl")
    for split in ("before", "validation", "test"):
        assert two["metrics"][split] == pytest.approx(one["metrics"][split], abs=1e-5)
    steps, others = (rows(folder / "steps.jsonl") for folder in both[method])
    losses = [row["loss"] for row in steps]
    assert others[0]["loss"] == pytest.approx(losses[0], rel=1e-6)  # the same examples, each counted once
    assert max(losses) - min(losses) > 1e-3  # a wrong batch would be seen
    assert [row["step"] for row in others] == list(range(1, 13))
    for row, other in zip(steps, others, strict=True):
        assert row.pop("loss") == pytest.approx(other.pop("loss"), abs=1e-5)
        assert {key for key in row if row[key] is None} == {key for key in other if other[key] is None}
        measured = [key for key in row if row[key] is not None]
        assert [other[key] for key in measured] == pytest.approx([row[key] for key in measured], rel=1e-3)


@pytest.mark.slow
def test_each_process_does_its_share(both):
    one, two = (record["cost"]["training"] for record in records(both["lora"]))
    assert one["tokens"] == 12 * 5 * 8
    assert two["tokens"] == 12 * 3 * 8  # of the first process
    assert one["forward_passes"] == two["forward_passes"] == 12
