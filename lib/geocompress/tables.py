"""Tables for readers: data frames as Markdown or HTML, and fitted exponents in words."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

import numpy as np
import pandas as pd

from geocompress.curves import STYLES

_SIGNS = {"\\sqrt{p}": "√p", "\\lambda": "λ", "\\beta": "β", "t^*": "t*"}  # TeX in tables, as plain characters


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
        ValueError: mathematics that is not a single letter, √p, λ, β or t*.
    """
    plain = words.map(_without_tex).rename(columns=_without_tex)
    return f'<div style="overflow-x: auto">{plain.to_html(index=False, border=0, classes="table")}</div>'


def _without_tex(text: str) -> str:
    def plain(found: re.Match) -> str:
        inner = found[1]
        if inner not in _SIGNS and not re.fullmatch(r"\w", inner):
            raise ValueError(
                f"tables.html: expected one of {', '.join(_SIGNS)} or a letter, got {inner}; write it plainly"
            )
        return _SIGNS.get(inner, inner)

    return re.sub(r"\$([^$]*)\$", plain, text)


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
            "$\\beta$ (95 %)": [
                f"{line.beta:.2f} ({line.beta_low:.2f} – {line.beta_high:.2f})" for line in table.itertuples()
            ],
            "last octave": [f"{value:.2f}" for value in table["last"]],
            "predicted": ["–" if np.isnan(value) else f"{value:.3f}" for value in table.predicted],
            "off by": ["–" if np.isnan(value) else f"{value:+.3f}" for value in table.off],
            "verdict": table.verdict,
        }
    )


def gaps_in_words(table: pd.DataFrame) -> pd.DataFrame:
    """A `comparisons.gap_table` for readers, as text."""
    gaps = zip(table.gap, table.gap_low, table.gap_high, strict=True)
    return pd.DataFrame(
        {
            "task": table.task,
            "$d$": table.d.astype(str),
            "$p$": _windows(table.p_low, table.p_high),
            "$\\beta$, network": [f"{value:.2f}" for value in table.network],
            "$\\beta$, kernel": [f"{value:.2f}" for value in table.kernel],
            "difference (95 %)": [f"{gap:.2f} ({low:.2f} – {high:.2f})" for gap, low, high in gaps],
            "predicted": [f"{value:.3f}" for value in table.predicted],
        }
    )
