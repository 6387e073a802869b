"""Tables for readers say what the data frame says."""

import re

import numpy as np
import pandas as pd
import pytest

from geocompress import curves, tables


def test_a_table_becomes_markdown():
    rows = pd.DataFrame({"solver": ["a", "b"], "seconds": [1.04, float("nan")], "other": [0, 0]})
    text = tables.markdown(rows, {"solver": ("", ""), "seconds": ("time (s)", ".1f")})
    assert text == "|  | time (s) |\n| --- | --- |\n| a | 1.0 |\n| b |  |"
    with pytest.raises(KeyError):
        tables.markdown(rows, {"p": ("p", "d")})


def test_every_column_as_it_is():
    assert tables.markdown(pd.DataFrame({"a": ["x"], "b": ["y"]})) == "| a | b |\n| --- | --- |\n| x | y |"


def test_exponents_in_words():
    columns = ("task", "d", "method", "p_low", "p_high", "seeds", "beta", "beta_low", "beta_high", "last", "predicted")
    line = ("stripe", 5, "network", 2048, 16384, 4, 0.6921, 0.65, 0.701, 0.688, 9 / 13)
    words = tables.in_words(pd.DataFrame([line], columns=list(columns)).assign(off=0.0021, verdict="agrees")).iloc[0]
    assert words["method"] == curves.STYLES["network"].label
    assert words["$p$"] == "2\u00a0048 – 16\u00a0384"
    assert words["$\\beta$ (95 %)"] == "0.69 (0.65 – 0.70)"
    assert words["predicted"] == "0.692"
    assert (words["off by"], words["verdict"]) == ("+0.002", "agrees")


GAP = {"task": "stripe", "d": 5, "kernel": "svc_laplace", "p_low": 1024, "p_high": 8192, "seeds": 10}
GAP |= {"network": 0.7, "network_low": 0.6, "network_high": 0.8, "lazy": 0.4, "lazy_low": 0.35, "lazy_high": 0.45}
GAP |= {"gap": 0.3, "gap_low": -0.2, "gap_high": 0.41, "predicted": 4 / 13, "off": 0.3 - 4 / 13, "disjoint": True}
GAP |= {"network_off": 0.01, "lazy_off": 0.015}


def test_gaps_in_words():
    words = tables.gaps_in_words(pd.DataFrame([GAP])).iloc[0]
    assert words["kernel"] == curves.STYLES["svc_laplace"].label
    assert words["$p$"] == "1\u00a0024 – 8\u00a0192"
    assert words["difference (95 %)"] == "0.30 (−0.20 – 0.41)"
    assert words["$\\beta$, network (95 %)"] == "0.70 (0.60 – 0.80)"
    assert (words["predicted"], words["off by"], words["disjoint"]) == ("0.308", "−0.01", "yes")


def test_gaps_in_prose_name_each_gap_once_and_trace_what_is_off():
    far = GAP | {"d": 10, "off": -0.2, "network_off": -0.15, "lazy_off": 0.05, "disjoint": False}
    apart, overlap, close, off = tables.gaps_in_prose(pd.DataFrame([GAP, far]), 0.08).splitlines()
    assert apart.endswith("above: Laplace kernel, $d = 5$.")
    assert overlap.endswith("not: Laplace kernel, $d = 10$.")
    assert close == "- The difference is within 0.08 of its prediction: Laplace kernel, $d = 5$ (−0.01)."
    assert "$d = 10$ (−0.20: the network is off its own exponent by −0.15, the kernel by +0.05)." in off
    assert tables.gaps_in_prose(pd.DataFrame([GAP]), 0.08).endswith("more than 0.08: nowhere.")


def test_what_agrees_is_said_first_and_what_has_no_verdict_not_at_all():
    said = tables.by_verdict("abcd", [0.071, -0.004, float("nan"), -0.2], ["above", "agrees", "–", "undecided"])
    assert said == "agree: b (0.00); above: a (+0.07); undecided: d (−0.20)"
    assert tables.by_verdict(["a"], [0.0], ["–"]) == "nothing measured yet"


def test_amplifications_in_words():
    line = {"task": "stripe", "d": 5, "p_low": 128, "p_high": 1024, "seeds": 4, "off": 0.04, "verdict": "agrees"}
    for name, value in (("star", 0.54), ("max", 0.7), ("end", -0.04)):
        line |= {name: value, f"{name}_low": value - 0.1, f"{name}_high": value + 0.1}
    words = tables.amplifications_in_words(pd.DataFrame([line])).iloc[0]
    assert words["exponent of $\\lambda(t^*)$ (95 %)"] == "0.54 (0.44 – 0.64)"
    assert words["of $\\lambda$ at the end (95 %)"] == "−0.04 (−0.14 – 0.06)"
    assert (words["off 1/2 by"], words["verdict"]) == ("+0.04", "agrees")


def test_settings_that_make_a_difference_are_named():
    lines = [
        {"setting": "width", "value": 500, "pairs": 10, "error": 0.97, "error_low": 0.9, "error_high": 1.05}
        | {"star": 0.8, "star_low": 0.7, "star_high": 0.9},
        {"setting": "alpha", "value": 1e-8, "pairs": 10, "error": 1.2, "error_low": 1.1, "error_high": 1.3}
        | {"star": 1.0, "star_low": 0.9, "star_high": 1.1},
    ]
    table, titles = pd.DataFrame(lines), {"width": "h", "alpha": "α"}
    assert list(tables.settings_in_words(table, titles).changed) == ["h = 500", "α = 1e-08"]
    said = tables.settings_in_prose(table, titles)
    assert (said["error"], said["star"]) == ("α = 1e-08 (1.20)", "h = 500 (0.80)")
    draws = np.random.default_rng(0).standard_normal((100_000, 10))
    outside = np.mean(np.abs(draws.mean(1)) > 2 * draws.std(1, ddof=1) / 10**0.5)
    assert said["chance"] == f"{4 * outside:.1f} of 4"


def test_ratios_stand_beside_each_other_at_their_p():
    short = pd.DataFrame({"p": [64], "pairs": [3], "ratio": [0.5], "low": [0.4], "high": [0.6]})
    long = pd.DataFrame({"p": [64, 4096], "pairs": [3, 3], "ratio": [1.5, 2], "low": [1, 1.8], "high": [2, 2.2]})
    words = tables.ratios_in_words({"a": short, "b": long})
    assert list(words["$p$"]) == ["64", "4\u00a0096"]
    assert list(words["a"]) == ["0.50 (0.40 – 0.60)", "–"]
    assert list(words["b"]) == ["1.50 (1.00 – 2.00)", "2.00 (1.80 – 2.20)"]


def test_a_metric_is_the_whole_story_only_where_errors_are_the_same():
    line = {"d": 5, "told": "star", "p_low": 128, "p_high": 1024, "seeds": 4, "lowest": 0.95, "highest": 1.1}
    line |= {"last": 1.02, "last_low": 0.9, "last_high": 1.1, "held": 4, "points": 4}
    line |= {"trend": 0.01, "trend_low": -0.05, "trend_high": 0.07, "verdict": "agrees"}
    other = line | {"told": "end", "held": 1, "last": 0.5, "last_low": 0.4, "last_high": 0.6, "verdict": "below"}
    table, titles = pd.DataFrame([line, other]), {"star": "early", "end": "late"}
    words = tables.metric_in_words(table, titles)
    assert list(words["with $p$ it"]) == ["same", "falls"]
    assert words["1 held at"][1] == "1 of 4 $p$"
    said = tables.metric_in_prose(table, titles)
    assert "without a trend: early in $d = 5$." in said
    assert "1.02 times as often as the machine told early (1 is within the error), 0.50 times as often" in said
    assert "none of them" in tables.metric_in_prose(table[1:], titles)
    assert tables.metric_in_prose(table[:0], titles) == "Not yet run."


def test_thousands_stay_together():
    assert [tables.thousands(n) for n in (7, 512, 32768, 1000000)] == ["7", "512", "32\u00a0768", "1\u00a0000\u00a0000"]


def test_a_table_becomes_html_without_tex():
    words = pd.DataFrame(
        {"$d$": ["5"], "$\\beta$ (95 %)": ["< 0.7"], "method": ["a machine, by $\\sqrt{p}$ or $\\lambda$"]}
    )
    text = tables.html(words)
    assert re.findall("<th>(.*)</th>", text) == ["d", "β (95 %)", "method"]
    assert re.findall("<td>(.*)</td>", text) == ["5", "&lt; 0.7", "a machine, by √p or λ"]
    with pytest.raises(ValueError, match=r"expected one of .* got \\frac"):
        tables.html(pd.DataFrame({"a": ["$\\frac12$"]}))


def test_every_name_of_a_method_can_be_shown_as_html():
    tables.html(pd.DataFrame({"method": [style.label for style in curves.STYLES.values()]}))
