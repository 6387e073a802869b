"""Tables for readers say what the data frame says."""

import re

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


def test_an_interval_is_left_out_where_there_is_none():
    assert tables.interval(0.5, -0.25, 1.0) == "0.50 (−0.25 – 1.00)"
    assert tables.interval(-0.12346, -0.2, 0.1, digits=4) == "−0.1235 (−0.2000 – 0.1000)"
    assert tables.interval(0.5, float("nan"), float("nan")) == "0.50"


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


def test_frozen_in_words():
    line = {"task": "stripe", "d": 5, "p_low": 512, "p_high": 4096, "seeds": 5, "predicted": 4 / 13}
    for name, value in (("kept", 0.62), ("lost", -0.43), ("rest", 0.05), ("gap", 0.24)):
        line |= {name: value, f"{name}_low": value - 0.1, f"{name}_high": value + 0.1}
    words = tables.frozen_in_words(pd.DataFrame([line])).iloc[0]
    intervals = ["0.62 (0.52 – 0.72)", "−0.43 (−0.53 – −0.33)", "0.05 (−0.05 – 0.15)", "0.24 (0.14 – 0.34)"]
    assert list(words) == ["5", "512 – 4\u00a0096", "5", *intervals, "0.308"]


def test_amplifications_in_words():
    line = {"task": "stripe", "d": 5, "p_low": 128, "p_high": 1024, "seeds": 4, "off": 0.04, "verdict": "agrees"}
    for name, value in (("star", 0.54), ("max", 0.7), ("end", -0.04)):
        line |= {name: value, f"{name}_low": value - 0.1, f"{name}_high": value + 0.1}
    words = tables.amplifications_in_words(pd.DataFrame([line])).iloc[0]
    assert words["exponent of $\\lambda(t^*)$ (95 %)"] == "0.54 (0.44 – 0.64)"
    assert words["of $\\lambda$ at the end (95 %)"] == "−0.04 (−0.14 – 0.06)"
    assert (words["off 1/2 by"], words["verdict"]) == ("+0.04", "agrees")


def test_layers_in_words():
    line = {"quantity": "width", "d": 3, "beta": -0.4, "beta_low": -0.5, "beta_high": -0.3, "predicted": -3 / 7}
    words = tables.layers_in_words(pd.DataFrame([line | {"off": 0.0286, "verdict": "agrees"}])).iloc[0]
    assert list(words) == ["width", "3", "−0.40 (−0.50 – −0.30)", "−0.429", "+0.03", "agrees"]


def test_ratios_stand_beside_each_other_at_their_p():
    short = pd.DataFrame({"p": [64], "pairs": [3], "ratio": [0.5], "low": [0.4], "high": [0.6]})
    long = pd.DataFrame({"p": [64, 4096], "pairs": [3, 3], "ratio": [1.5, 2], "low": [1, 1.8], "high": [2, 2.2]})
    words = tables.ratios_in_words({"a": short, "b": long})
    assert list(words["$p$"]) == ["64", "4\u00a0096"]
    assert list(words["a"]) == ["0.50 (0.40 – 0.60)", "–"]
    assert list(words["b"]) == ["1.50 (1.00 – 2.00)", "2.00 (1.80 – 2.20)"]


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
