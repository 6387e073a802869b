"""Tables for readers say what the data frame says."""

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
    words = tables.in_words(pd.DataFrame([line], columns=list(columns)).assign(verdict="agrees")).iloc[0]
    assert words["method"] == curves.STYLES["network"].label
    assert words["$p$"] == "2 048 – 16 384"
    assert words["$\\beta$ (95 %)"] == "0.69 (0.65 – 0.70)"
    assert words["predicted"] == "0.692"


def test_gaps_in_words():
    columns = ("task", "d", "p_low", "p_high", "seeds", "network", "kernel", "gap", "gap_low", "gap_high", "predicted")
    line = ("stripe", 5, 1024, 8192, 10, 0.7, 0.4, 0.3, 0.2, 0.41, 4 / 13)
    words = tables.gaps_in_words(pd.DataFrame([line], columns=list(columns))).iloc[0]
    assert words["$p$"] == "1 024 – 8 192"
    assert words["difference (95 %)"] == "0.30 (0.20 – 0.41)"
    assert words["predicted"] == "0.308"
