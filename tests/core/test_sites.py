"""Names of sites, and site values arranged as kinds x layers."""

from __future__ import annotations

from rankbench.core.sites import rank_grid


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


def test_a_grid_takes_any_value_and_no_site_at_all():
    assert rank_grid({"layers.0.q": None}).cells == {(0, "q"): None}
    assert rank_grid({}).layers == []
