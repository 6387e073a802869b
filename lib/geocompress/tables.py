"""Tables for readers: data frames as Markdown, and fitted exponents in words."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd

from geocompress.curves import STYLES


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


def in_words(table: pd.DataFrame) -> pd.DataFrame:
    """A `curves.exponent_table` for readers, as text: names in words, intervals in brackets, two digits."""
    return pd.DataFrame(
        {
            "task": table.task,
            "$d$": table.d.astype(str),
            "method": [STYLES[name].label if name in STYLES else name for name in table.method],
            "$p$": [
                f"{low:,} – {high:,}".replace(",", " ") for low, high in zip(table.p_low, table.p_high, strict=True)
            ],
            "seeds": table.seeds.astype(str),
            "$\\beta$ (95 %)": [
                f"{line.beta:.2f} ({line.beta_low:.2f} – {line.beta_high:.2f})" for line in table.itertuples()
            ],
            "last octave": [f"{value:.2f}" for value in table["last"]],
            "predicted": ["–" if np.isnan(value) else f"{value:.3f}" for value in table.predicted],
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
            "$p$": [
                f"{low:,} – {high:,}".replace(",", " ") for low, high in zip(table.p_low, table.p_high, strict=True)
            ],
            "$\\beta$, network": [f"{value:.2f}" for value in table.network],
            "$\\beta$, kernel": [f"{value:.2f}" for value in table.kernel],
            "difference (95 %)": [f"{gap:.2f} ({low:.2f} – {high:.2f})" for gap, low, high in gaps],
            "predicted": [f"{value:.3f}" for value in table.predicted],
        }
    )
