"""Exponents and verdicts on rows whose law is known."""

import numpy as np
import pandas as pd
import pytest

from geocompress import image_claims
from reference import image_rows as rows
from reference import image_trainings as trainings


def test_the_interval_of_a_mean_is_students():
    every = rows(points=(100,), seeds=2)
    every["test_error"] = np.tile([0.1, 0.2], 3)
    line = image_claims.error_by_method(every).iloc[0]
    assert line.error == pytest.approx(0.15)
    assert line.high - line.error == pytest.approx(12.7062 * 0.05, rel=1e-4)  # one degree of freedom


def test_one_seed_has_no_interval():
    table = image_claims.error_by_method(rows(seeds=1))
    assert table.low.isna().all()
    assert table.high.isna().all()


def test_exponents_are_those_of_the_rows():
    table = image_claims.exponents_in_words(rows())
    assert table.method.tolist() == ["net, feature regime", "NTK at the start", "NTK at the end"]
    values = [float(text.split()[0]) for text in table["$\\beta$ (95 %)"]]
    np.testing.assert_allclose(values, [0.5, 0.35, 0.5], atol=0.011)
    assert table["$p$"].tolist() == ["50 – 1000"] * 3
    assert table["larger $p$"].tolist() == ["200 – 1000"] * 3


def test_a_p_with_too_few_seeds_does_not_count():
    every = rows()
    every = every[(every.p < 1000) | (every.seed < 2)]
    assert image_claims.exponents_in_words(every)["$p$"].tolist() == ["50 – 400"] * 3
    assert not len(image_claims.exponents_in_words(rows(seeds=2)))


def test_claims_that_hold_are_said_to_hold():
    table = image_claims.claims(rows())
    assert table.verdict.tolist() == ["holds"] * 3
    same = (3.0 * 1000**-0.5) / (3.0 * 1000**-0.35)
    assert f"on the same images {same:.2f} (" in table.measured[0]
    assert table.measured[1].startswith("difference 0.15")
    assert [part.split(" at ")[1] for part in table.measured[2].split(", ")] == ["200", "400", "1000"]


def test_verdicts_are_told_with_their_claims():
    told = image_claims.verdicts_in_words(image_claims.claims(rows()))
    assert told == "lower error: holds; larger exponent: holds; better final kernel: holds"
    assert image_claims.verdicts_in_words(pd.DataFrame()) == "not yet run"


def test_claims_that_fail_are_said_to_fail():
    table = image_claims.claims(rows(network=(3.0, 0.2), ntk_final=(6.0, 0.35)))
    assert table.verdict.tolist() == ["does not hold"] * 3


def test_claims_within_the_noise_are_undecided():
    table = image_claims.claims(rows(network=(3.0, 0.35), ntk_final=(2.9, 0.35)))
    assert table.verdict.tolist() == ["undecided", "undecided", "holds"]
    every = rows()
    final = (every.method == "ntk_final") & (every.p == 400)
    every.loc[final, "test_error"] = 3.0 * 400**-0.35 * np.array([0.5, 1.9, 1.4, 1.2, 0.9])
    assert image_claims.claims(every).verdict[2] == "undecided"  # above one in the mean, within its interval
    every.loc[final, "test_error"] = 3.0 * 400**-0.35 * np.array([0.5, 1.6, 0.8, 1.2, 0.7])
    assert image_claims.claims(every).verdict[2] == "undecided"  # below one in the mean, within its interval


def test_claims_without_rows_are_not_yet_run():
    assert image_claims.claims(rows(points=(50, 100))).verdict.tolist() == ["not yet run", "holds", "not yet run"]
    assert image_claims.claims(rows(seeds=1)).verdict.tolist() == ["not yet run", "not yet run", "undecided"]
    apart = rows()
    apart = apart[(apart.method != "ntk_init") | (apart.seed > 3)]  # one seed in common
    assert image_claims.claims(apart).verdict[0] == "not yet run"
    assert image_claims.claims(apart[(apart.method != "network") | (apart.seed < 4)]).verdict[0] == "not yet run"
    assert image_claims.claims(rows().iloc[:0]).verdict.tolist() == ["not yet run"] * 3


def test_what_changes_the_same_way_is_told_with_its_factors():
    other = trainings(alignment_final=0.05, svc_final=0.16)
    told = image_claims.similarities_in_words({"a": trainings(), "b": other})
    same, opposite = told.split("; ")
    assert same.startswith("change the same way: largest label projection (× 3.2, × 3.2), ")
    assert same.endswith("error of its machine (× 0.5, × 0.8)")
    assert opposite == "do not: alignment (× 5.0, × 0.5)"
    assert image_claims.similarities_in_words({}) == "not yet run"


def test_machines_without_a_result_are_named_with_their_ending():
    every = rows(points=(100, 200), seeds=2)
    assert image_claims.left_out(every) == "none"
    every.loc[(every.method == "ntk_init") & (every.p == 200), "status"] = "UNSOLVED"
    label = image_claims.curves.STYLES["ntk_init"].label
    assert image_claims.left_out(every) == f"{label}, 2 of 4 (unsolved), from $p$ = 200 on"


def test_stability_is_told_by_the_output_and_by_the_number_of_layers():
    told = image_claims.stability_in_words({"init": [[1.0, 1.0, 1.0]], "final": [[1.5, 0.9, 0.5]]})
    assert told == "training made the output more stable to deformations, and 2 of 3 layers more stable"
    assert "output less stable" in image_claims.stability_in_words({"init": [[1.0]], "final": [[2.0]]})
    assert image_claims.stability_in_words({}) == "not yet run"


def test_what_training_did_to_the_kernel_is_of_the_largest_p():
    small = trainings(p=50, svc_final=0.9)
    (line,) = image_claims.similarities({"MNIST": pd.concat([small, trainings()])}).to_dict("records")
    assert line["largest label projection"] == "0.20 → 0.65"
    assert line["error of its machine"] == "0.200 → 0.100"
    assert line["seeds"] == "2"
