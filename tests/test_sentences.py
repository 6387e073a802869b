"""Sentences say what the rows say, and the opposite when the rows do."""

import numpy as np
import pandas as pd

from geocompress import sentences, tables
from reference import law
from test_tables import GAP


def test_gaps_name_each_gap_once_and_trace_what_is_off():
    far = GAP | {"d": 10, "off": -0.2, "network_off": -0.15, "lazy_off": 0.05, "disjoint": False}
    apart, overlap, close, off = sentences.gaps(pd.DataFrame([GAP, far]), 0.08).splitlines()
    assert apart.endswith("above: Laplace kernel, $d = 5$.")
    assert overlap.endswith("not: Laplace kernel, $d = 10$.")
    assert close == "- The difference is within 0.08 of its prediction: Laplace kernel, $d = 5$ (−0.008)."
    assert "$d = 10$ (−0.200: the network is off its own exponent by −0.150, the kernel by +0.050)." in off
    assert sentences.gaps(pd.DataFrame([GAP]), 0.08).endswith("more than 0.08: nowhere.")


def test_each_part_of_a_gap_has_the_verdict_of_its_own_prediction():
    line = {"d": 5, "predicted": 0.3, "kept": 0.6, "kept_verdict": "above", "lost": -0.4, "lost_verdict": "below"}
    line |= {"rest": 0.04, "rest_verdict": "agrees", "gap": 0.24, "gap_verdict": "undecided"}
    kept, lost, rest, gap = sentences.frozen(pd.DataFrame([line, line | {"d": 3, "lost_verdict": "–"}])).splitlines()
    assert kept.endswith("above: $d = 5$ (+0.30), $d = 3$ (+0.30).")
    assert lost.endswith("against 0: below: $d = 5$ (−0.40).")
    assert rest.endswith("agree: $d = 5$ (+0.04), $d = 3$ (+0.04).")
    assert gap.endswith("undecided: $d = 5$ (−0.06), $d = 3$ (−0.06).")


def test_what_agrees_is_said_first_and_what_has_no_verdict_not_at_all():
    said = sentences.by_verdict("abcd", [0.071, -0.004, float("nan"), -0.2], ["above", "agrees", "–", "undecided"])
    assert said == "agree: b (0.00); above: a (+0.07); undecided: d (−0.20)"
    assert sentences.by_verdict(["a"], [0.0], ["–"]) == "nothing measured yet"


def test_verdicts_are_gathered_by_kind_and_without_tex():
    lines = [
        ("by $\\sqrt{p}$", 3, 0.01, "agrees"),
        ("$\\Delta$", 3, -0.1, "below"),
        ("by $\\sqrt{p}$", 5, 0.2, "above"),
    ]
    table = pd.DataFrame(lines, columns=["kind", "d", "off", "verdict"])
    said = sentences.by_kind(table, "kind")
    assert said == "by √p – agree: d = 3 (+0.01); above: d = 5 (+0.20). Δ – below: d = 3 (−0.10)"
    assert sentences.by_kind(table[:0], "kind") == "not yet run"


def test_a_gap_widens_closes_or_is_not_certain():
    net = law(0.7, seeds=4)
    told = sentences.trend(law(0.9, method="ntk_final", seeds=4), net)
    power = "the ratio goes as p to the power −0.20 (−0.20 – −0.20)"
    assert told == f"{net.p.max() ** -0.2:.2f} times at p = 1024, and the gap widens with p: {power}"
    assert "the gap closes with p: the ratio goes as p to the power 0.20" in sentences.trend(law(0.5, seeds=4), net)
    noise = np.random.default_rng(0).lognormal(0, 0.1, len(net))
    assert "neither widens nor closes" in sentences.trend(net.assign(test_error=net.test_error * noise), net)


def test_settings_that_make_a_difference_are_named():
    lines = [
        {"setting": "width", "value": 500, "pairs": 10, "error": 0.97, "error_low": 0.9, "error_high": 1.05}
        | {"star": 0.8, "star_low": 0.7, "star_high": 0.9},
        {"setting": "alpha", "value": 1e-8, "pairs": 10, "error": 1.2, "error_low": 1.1, "error_high": 1.3}
        | {"star": 1.0, "star_low": 0.9, "star_high": 1.1},
    ]
    table, titles = pd.DataFrame(lines), {"width": "h", "alpha": "α"}
    assert list(tables.settings_in_words(table, titles).changed) == ["h = 500", "α = 1e-08"]
    said = sentences.settings(table, titles)
    assert (said["error"], said["star"]) == ("α = 1e-08 (1.20)", "h = 500 (0.80)")
    draws = np.random.default_rng(0).standard_normal((100_000, 10))
    outside = np.mean(np.abs(draws.mean(1)) > 2 * draws.std(1, ddof=1) / 10**0.5)
    assert said["chance"] == f"{4 * outside:.1f} of 4"


def test_a_metric_is_the_whole_story_only_where_errors_are_the_same():
    line = {"d": 5, "told": "star", "p_low": 128, "p_high": 1024, "seeds": 4, "lowest": 0.95, "highest": 1.1}
    line |= {"last": 1.02, "last_low": 0.9, "last_high": 1.1, "held": 4, "points": 4}
    line |= {"trend": 0.01, "trend_low": -0.05, "trend_high": 0.07, "verdict": "agrees"}
    other = line | {"told": "end", "held": 1, "last": 0.5, "last_low": 0.4, "last_high": 0.6, "verdict": "below"}
    table, titles = pd.DataFrame([line, other]), {"star": "early", "end": "late"}
    words = tables.metric_in_words(table, titles)
    assert list(words["with $p$ it"]) == ["same", "falls"]
    assert words["1 held at"][1] == "1 of 4 $p$"
    said = sentences.metric(table, titles)
    assert "without a trend: early in $d = 5$." in said
    assert "1.02 times as often as the machine told early (1 is within the error), 0.50 times as often" in said
    assert "constant factor: none of them." in said
    assert "without a trend: none of them." in sentences.metric(table[1:], titles)
    factor = pd.DataFrame([line | {"held": 0, "last": 2.3, "last_low": 2.1, "last_high": 2.6}, other])
    said = sentences.metric(factor, titles)
    assert (
        "without a trend: none of them. The same exponent, and errors that differ by a constant factor: early" in said
    )
    assert sentences.metric(table[:0], titles) == "Not yet run."
