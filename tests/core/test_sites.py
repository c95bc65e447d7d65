"""Names of sites, and site values arranged as kinds x layers."""

from __future__ import annotations

import pytest

from rankbench.core.sites import UNEVEN, describe_unevenness, rank_grid


def test_a_grid_has_kinds_in_the_order_of_the_sites_and_layers_rising():
    ranks = {"layers.10.q": 1, "layers.2.v": 2, "layers.2.q": 3}
    grid = rank_grid(ranks)
    assert grid.kinds == ["q", "v"]
    assert grid.layers == [2, 10]
    assert grid.cells == {(10, "q"): 1, (2, "v"): 2, (2, "q"): 3}


def test_sites_outside_the_layers_have_a_column_of_their_own_at_the_end():
    grid = rank_grid({"pooler": 4, "layers.0.q": 1})
    assert grid.layers == [0, None]
    assert grid.kinds == ["pooler", "q"]
    assert grid.cells[None, "pooler"] == 4
    assert (0, "pooler") not in grid.cells


def test_layers_of_an_encoder_and_of_a_decoder_have_cells_of_their_own():
    grid = rank_grid({f"model.{part}.layers.0.fc1": rank for part, rank in (("encoder", 1), ("decoder", 2))})
    assert grid.cells == {(0, "fc1"): 1, (0, "decoder.fc1"): 2}


def test_a_grid_takes_any_value_and_no_site_at_all():
    assert rank_grid({"layers.0.q": None}).cells == {(0, "q"): None}
    assert rank_grid({}).layers == []


def many(*ranks: int) -> dict[str, int]:
    return {f"layers.{layer}.q": rank for layer, rank in enumerate(ranks)}


@pytest.mark.parametrize(
    ("ranks", "costs", "reasons"),
    [
        (
            [1] * 206 + [576, 365, 73, 50],
            1,
            ["206 of 210 sites have at most rank 1", "layers.206.q (rank 576) holds 45%"],
        ),
        ([2] * 9 + [6], 1, ["layers.9.q (rank 6) holds 25%"]),
        ([2] * 10 + [6], 1, []),  # 23 %
        ([1] * 18 + [11, 11], 1, ["18 of 20 sites have at most rank 1", "holds 28%"]),
        ([1] * 17 + [8, 8, 8], 1, []),  # 85 % of the sites, 20 % of what is spent
        ([1] * 18 + [2, 2], 1, []),  # a budget of about one rank for each site
        ([8, 8], 1, []),  # two sites hold half each, as they do at uniform rank
        ([15, 1], 1, []),
        ([0] * 19 + [40], 1, ["19 of 20 sites have at most rank 1", "holds 100%"]),
    ],
)
def test_an_allocation_is_uneven_where_few_sites_hold_much(ranks, costs, reasons):
    note = describe_unevenness(many(*ranks), dict.fromkeys(many(*ranks), costs))
    assert bool(note) == bool(reasons)
    assert not note or note.startswith(f"{UNEVEN}: ")
    assert all(reason in note for reason in reasons)


def test_what_a_site_holds_is_its_cost():
    costs = {name: 1 for name in many(*[4] * 10)} | {"layers.0.q": 3}
    assert describe_unevenness(many(*[4] * 10), costs) is None  # 25 % as at uniform rank
    assert "layers.0.q (rank 12) holds 50%" in describe_unevenness(many(12, *[4] * 9), costs)


def test_two_stacks_of_layers_are_two_sets_of_kinds():
    names = ["encoder.block.0.wi", "decoder.block.0.wi", "model.vision_tower.layers.0.wi", "model.layers.0.wo"]
    grid = rank_grid(dict.fromkeys(names, 1))
    assert grid.kinds == ["wi", "decoder.wi", "vision_tower.wi", "wo"]
    assert len(grid.cells) == len(names)
