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


def test_exponents_in_words():
    columns = ("task", "d", "method", "p_low", "p_high", "seeds", "beta", "beta_low", "beta_high", "last", "predicted")
    line = ("stripe", 5, "network", 2048, 16384, 4, 0.6921, 0.65, 0.701, 0.688, 9 / 13)
    words = tables.in_words(pd.DataFrame([line], columns=list(columns)).assign(off=0.0021, verdict="agrees")).iloc[0]
    assert words["method"] == curves.STYLES["network"].label
    assert words["$p$"] == "2\u00a0048 – 16\u00a0384"
    assert words["$\\beta$ (95 %)"] == "0.69 (0.65 – 0.70)"
    assert words["predicted"] == "0.692"
    assert (words["off by"], words["verdict"]) == ("+0.002", "agrees")


def test_gaps_in_words():
    columns = ("task", "d", "p_low", "p_high", "seeds", "network", "kernel", "gap", "gap_low", "gap_high", "predicted")
    line = ("stripe", 5, 1024, 8192, 10, 0.7, 0.4, 0.3, 0.2, 0.41, 4 / 13)
    words = tables.gaps_in_words(pd.DataFrame([line], columns=list(columns))).iloc[0]
    assert words["$p$"] == "1\u00a0024 – 8\u00a0192"
    assert words["difference (95 %)"] == "0.30 (0.20 – 0.41)"
    assert words["predicted"] == "0.308"


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
