"""What settings change is told on the same images."""

import numpy as np
import pandas as pd
import pytest

from geocompress import image_settings
from reference import image_rows as rows
from reference import image_trainings as trainings


def test_trainings_are_told_by_alpha_and_inertia():
    table = image_settings.trainings_in_words(pd.concat([trainings(), trainings(inertia=10.0)]))
    assert table["$\\tau$"].tolist() == ["0", "10"]
    assert table["net"][0].startswith("0.1100 (")
    assert table["steps"].tolist() == ["45", "45"]
    assert table["ended"][0] == "1 fitted, 1 max_steps"


def test_trainings_are_told_by_other_settings_too():
    both = pd.concat([trainings().assign(order=1), trainings().assign(order=2, steps=90)])
    table = image_settings.trainings_in_words(both, by=("order", "inertia"))
    assert table["order"].tolist() == ["1", "2"]
    assert table["steps"].tolist()[1] == "90"
    assert table["class gap"].tolist() == ["–", "–"]
    both = both.assign(class_gap=[0.1, 0.3, 0.5, np.nan])
    assert image_settings.trainings_in_words(both, by=("order",))["class gap"].tolist() == ["0.20", "–"]


def test_momentum_is_compared_on_the_same_images():
    flow, momentum = rows(points=(200,)), rows(points=(200,), inertia=10.0, network=(6.0, 0.5))
    told = image_settings.momentum_in_words(pd.concat([flow, momentum]))
    assert told == "net 2.00 (2.00 – 2.00); NTK at the end 1.00 (1.00 – 1.00)"
    assert image_settings.momentum_in_words(flow) == "not yet run"


def test_errors_against_alpha_are_of_the_same_images():
    usual, best = rows(points=(200,)), rows(points=(200,), alpha=0.1, seeds=3, network=(1.5, 0.5))
    lazy = rows(points=(200,), alpha=1e4, seeds=4, network=(6.0, 0.5))
    every = image_settings.on_common_seeds(pd.concat([usual, best, lazy]))
    assert sorted(every.seed.unique()) == [0, 1, 2]
    assert len(every) == 3 * 9
    told = image_settings.crossover_in_words(every, 2e-3)
    assert told == "0.50 (0.50 – 0.50) at α = 0.1, 2.00 (2.00 – 2.00) at α = 10000; least at α = 0.1"
    assert image_settings.crossover_in_words(pd.concat([usual, lazy]), 2e-3).endswith("least at α = 0.002")
    assert image_settings.crossover_in_words(usual, 2e-3) == "not yet run"


def test_two_recipes_are_compared_at_each_p_that_both_have():
    usual, best = rows(seeds=5), rows(points=(200, 400), seeds=3, alpha=0.1, network=(1.5, 0.5))
    told = image_settings.against_in_words(best, usual)
    assert told == "0.50 (0.50 – 0.50) at 200, 0.50 (0.50 – 0.50) at 400"
    assert image_settings.against_in_words(usual, best).startswith("2.00 (2.00 – 2.00) at 200")
    assert image_settings.against_in_words(best, usual[usual.p == 50]) == "not yet run"
    assert image_settings.against_in_words(best.iloc[:0], pd.DataFrame()) == "not yet run"


def test_seeds_are_counted_once_at_each_p():
    every = pd.concat([rows(points=(100,), seeds=3), rows(points=(42, 100), seeds=2)])
    assert image_settings.seeds_in_words(every) == "2 seeds at p = 42, 3 seeds at p = 100"
    assert image_settings.seeds_in_words(pd.DataFrame()) == "none"


def test_gains_are_ratios_on_the_same_images_with_the_path_beside_them():
    usual = rows(points=(200,), seeds=8, ntk_init=(6.0, 0.5)).assign(steps=30, class_gap=0.5)
    table = image_settings.gains(pd.concat([usual, rows(points=(100,)).assign(steps=9)]))  # of a version without gaps
    assert table.columns.tolist() == ["p", "alpha", "inertia", "seed", "steps", "class_gap", "ratio"]
    assert table.seed.tolist() == list(range(8))
    assert table.ratio.tolist() == pytest.approx([0.5] * 8)
    assert image_settings.gains_in_words(table) == "not yet run"  # all equally one-sided
    assert not len(image_settings.gains(pd.DataFrame()))
    assert image_settings.gains_in_words(image_settings.gains(pd.DataFrame())) == "not yet run"


def test_nets_of_one_sided_paths_are_said_to_gain_less():
    table = image_settings.gains(rows(points=(200,), seeds=8).assign(steps=30, class_gap=0.0))
    table["class_gap"], table["ratio"] = table.seed / 8, 0.5 + table.seed / 16
    assert image_settings.gains_in_words(table) == "+1.00 at α = 0.002 (0.000; 8 nets)"
    table["ratio"] = [0.5, 0.9, 0.6, 0.8, 0.7, 0.5, 1.0, 0.4]  # by ranks, a tie among them: −5.5 / √(42 · 41.5)
    assert image_settings.gains_in_words(table).startswith("\N{MINUS SIGN}0.13 at α = 0.002 (0.7")
    assert image_settings.gains_in_words(table[:4]) == "not yet run"
    table["steps"] = 10 - 10 * table.ratio
    assert image_settings.gains_in_words(table, "steps") == "\N{MINUS SIGN}1.00 at α = 0.002 (0.000; 8 nets)"
