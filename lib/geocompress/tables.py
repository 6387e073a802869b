"""Tables for readers: data frames as Markdown or HTML, and fitted exponents in words."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

import numpy as np
import pandas as pd

from geocompress.curves import STYLES

_SIGNS = {"\\sqrt{p}": "√p", "\\lambda": "λ", "\\beta": "β", "\\Delta": "Δ", "t^*": "t*", "r_c": "r_c"}  # TeX, plainly


def markdown(rows: pd.DataFrame, columns: Mapping[str, tuple[str, str]] | None = None) -> str:
    """A table in Markdown, for `IPython.display.Markdown`: chosen columns in order, with their titles and formats.

    Args:
        rows: one line each.
        columns: name of a column → its title and the format of its numbers ("" for text); nothing is shown for nan.
            None: every column under its own name, as it is.

    Raises:
        KeyError: a column that the rows have not.
    """
    columns = {name: (name, "") for name in rows} if columns is None else columns
    cells = [
        [title, "---", *("" if pd.isna(value) else format(value, form) for value in rows[name])]
        for name, (title, form) in columns.items()
    ]
    return "\n".join("| " + " | ".join(line) + " |" for line in zip(*cells, strict=True))


def html(words: pd.DataFrame) -> str:
    """A table of text as HTML, for a page that shows no Markdown: wide ones scroll, mathematics becomes plain text.

    Raises:
        ValueError: as `plain`.
    """
    text = words.map(plain).rename(columns=plain)
    return f'<div style="overflow-x: auto">{text.to_html(index=False, border=0, classes="table", justify="left")}</div>'


def plain(text: str) -> str:
    """Text without TeX, for places that show none.

    Raises:
        ValueError: mathematics that is not a single letter, √p, λ, β, Δ, t* or r_c.
    """

    def sign(found: re.Match) -> str:
        inner = found[1]
        if inner not in _SIGNS and not re.fullmatch(r"\w", inner):
            raise ValueError(f"tables: expected one of {', '.join(_SIGNS)} or a letter, got {inner}; write it plainly")
        return _SIGNS.get(inner, inner)

    return re.sub(r"\$([^$]*)\$", sign, text)


def thousands(number: int) -> str:
    """A whole number in groups of three digits, which no line break parts."""
    return f"{number:,}".replace(",", "\N{NO-BREAK SPACE}")


def _windows(low: Iterable[int], high: Iterable[int]) -> list[str]:
    return [f"{thousands(first)} – {thousands(last)}" for first, last in zip(low, high, strict=True)]


def in_words(table: pd.DataFrame) -> pd.DataFrame:
    """A `curves.exponent_table` for readers, as text: names in words, intervals in brackets."""
    return pd.DataFrame(
        {
            "task": table.task,
            "$d$": table.d.astype(str),
            "method": [STYLES[name].label if name in STYLES else name for name in table.method],
            "$p$": _windows(table.p_low, table.p_high),
            "seeds": table.seeds.astype(str),
            "$\\beta$ (95 %)": _intervals(table, "beta"),
            "last octave": [f"{value:.2f}" for value in table["last"]],
            "predicted": ["–" if np.isnan(value) else f"{value:.3f}" for value in table.predicted],
            "off by": ["–" if np.isnan(value) else signed(value, 3) for value in table.off],
            "verdict": table.verdict,
        }
    )


def signed(number: float, digits: int = 2) -> str:
    """A number with its sign, a true minus, and no sign when it rounds to zero."""
    text = f"{number:+.{digits}f}"
    return text[1:] if float(text) == 0 else text.replace("-", "−")


def interval(value: float, low: float, high: float, digits: int = 2) -> str:
    """A value with its interval in brackets, unless that is nan, with true minus signs."""
    middle, start, end = (f"{number:.{digits}f}".replace("-", "−") for number in (value, low, high))
    return middle if np.isnan(low) else f"{middle} ({start} – {end})"


def ratio_by_p(ratio: pd.DataFrame) -> str:
    """The lines of `comparisons.paired_ratio` as text: the ratio with its interval at each p."""
    return ", ".join(f"{interval(line.ratio, line.low, line.high)} at {line.p:g}" for line in ratio.itertuples())


def _intervals(table: pd.DataFrame, name: str) -> list[str]:
    parts = (table[name], table[f"{name}_low"], table[f"{name}_high"])
    return [interval(*line) for line in zip(*parts, strict=True)]


def kernel_names(table: pd.DataFrame) -> list[str]:
    """Names in words of the column `kernel`."""
    return [STYLES[name].label if name in STYLES else name for name in table.kernel]


def gaps_in_words(table: pd.DataFrame) -> pd.DataFrame:
    """A `comparisons.gap_table` for readers, as text."""
    return pd.DataFrame(
        {
            "task": table.task,
            "$d$": table.d.astype(str),
            "kernel": kernel_names(table),
            "$p$": _windows(table.p_low, table.p_high),
            "seeds": table.seeds.astype(str),
            "$\\beta$, network (95 %)": _intervals(table, "network"),
            "$\\beta$, kernel (95 %)": _intervals(table, "lazy"),
            "disjoint": ["yes" if apart else "no" for apart in table.disjoint],
            "difference (95 %)": _intervals(table, "gap"),
            "predicted": [f"{value:.3f}" for value in table.predicted],
            "off by": [signed(value) for value in table.off],
        }
    )


def frozen_in_words(table: pd.DataFrame) -> pd.DataFrame:
    """A `comparisons.frozen_table` for readers, as text."""
    titles = {"kept": "kernel of $t^*$ − kernel of the start", "lost": "kernel of the end − kernel of $t^*$"}
    titles |= {"rest": "network − kernel of the end", "gap": "sum: network − kernel of the start"}
    return pd.DataFrame(
        {
            "$d$": table.d.astype(str),
            "$p$": _windows(table.p_low, table.p_high),
            "seeds": table.seeds.astype(str),
            **{title: _intervals(table, name) for name, title in titles.items()},
            "gap predicted": [f"{value:.3f}" for value in table.predicted],
        }
    )


def amplifications_in_words(table: pd.DataFrame) -> pd.DataFrame:
    """A `comparisons.amplification_table` for readers, as text."""
    return pd.DataFrame(
        {
            "task": table.task,
            "$d$": table.d.astype(str),
            "$p$": _windows(table.p_low, table.p_high),
            "seeds": table.seeds.astype(str),
            "exponent of $\\lambda(t^*)$ (95 %)": _intervals(table, "star"),
            "off 1/2 by": [signed(value) for value in table.off],
            "verdict": table.verdict,
            "of $\\max_t\\lambda$ (95 %)": _intervals(table, "max"),
            "of $\\lambda$ at the end (95 %)": _intervals(table, "end"),
        }
    )


def layers_in_words(table: pd.DataFrame) -> pd.DataFrame:
    """Exponents of a layer of support vectors for readers, as text: quantity, d, beta and its interval, prediction."""
    return pd.DataFrame(
        {
            "quantity": table.quantity,
            "$d$": table.d.astype(str),
            "exponent (95 %)": _intervals(table, "beta"),
            "predicted": [f"{value:.3f}".replace("-", "−") for value in table.predicted],
            "off by": [signed(value) for value in table.off],
            "verdict": table.verdict,
        }
    )


def settings_in_words(table: pd.DataFrame, titles: Mapping[str, str]) -> pd.DataFrame:
    """A `comparisons.setting_table` for readers, as text; `titles` are the names of the settings in words."""
    return pd.DataFrame(
        {
            "changed": [f"{titles[line.setting]} = {line.value:g}" for line in table.itertuples()],
            "pairs": table.pairs.astype(str),
            "test error, ratio": _intervals(table, "error"),
            "$\\lambda(t^*)$, ratio": _intervals(table, "star"),
        }
    )


def ratios_in_words(ratios: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
    """Several `comparisons.paired_ratio` beside each other for readers, as text: lines are p, columns their titles."""
    names = {"low": "ratio_low", "high": "ratio_high"}
    columns = {
        title: pd.Series(_intervals(found.rename(columns=names), "ratio"), index=found.p)
        for title, found in ratios.items()
    }
    table = pd.DataFrame(columns).fillna("–")
    table.insert(0, "$p$", [thousands(int(p)) for p in table.index])
    return table.reset_index(drop=True)


def metric_in_words(table: pd.DataFrame, titles: Mapping[str, str]) -> pd.DataFrame:
    """A `comparisons.metric_table` for readers, as text; `titles` say in words what the machine was told."""
    same = {"agrees": "same", "above": "rises", "below": "falls"}
    return pd.DataFrame(
        {
            "compressed by": [titles[told] for told in table.told],
            "$d$": table.d.astype(str),
            "$p$": _windows(table.p_low, table.p_high),
            "seeds": table.seeds.astype(str),
            "ratio": [f"{low:.2f} to {high:.2f}" for low, high in zip(table.lowest, table.highest, strict=True)],
            "1 held at": [f"{held} of {points} $p$" for held, points in zip(table.held, table.points, strict=True)],
            "its exponent in $p$ (95 %)": _intervals(table, "trend"),
            "with $p$ it": [same.get(word, word) for word in table.verdict],
        }
    )
