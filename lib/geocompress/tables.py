"""Tables for readers: data frames as Markdown or HTML, and fitted exponents in words."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

import numpy as np
import pandas as pd
from scipy.special import stdtr

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
            "$\\beta$ (95 %)": _intervals(table, "beta"),
            "last octave": [f"{value:.2f}" for value in table["last"]],
            "predicted": ["–" if np.isnan(value) else f"{value:.3f}" for value in table.predicted],
            "off by": ["–" if np.isnan(value) else signed(value, 3) for value in table.off],
            "verdict": table.verdict,
        }
    )


def by_verdict(names: Iterable[str], offs: Iterable[float], verdicts: Iterable[str]) -> str:
    """Which of several measurements agree with their prediction, and which are off and by how much, in one phrase.

    For instance "agree: d = 3 (+0.01), d = 5 (−0.02); above: d = 10 (+0.07)". What has no verdict ("–") is left out.
    """
    groups: dict[str, list[str]] = {"agrees": [], "above": [], "below": [], "undecided": []}
    for name, off, word in zip(names, offs, verdicts, strict=True):
        if word in groups:
            groups[word].append(f"{name} ({signed(off)})")
    titles = {"agrees": "agree"}
    said = [f"{titles.get(word, word)}: {', '.join(found)}" for word, found in groups.items() if found]
    return "; ".join(said) or "nothing measured yet"


def signed(number: float, digits: int = 2) -> str:
    """A number with its sign, a true minus, and no sign when it rounds to zero."""
    text = f"{number:+.{digits}f}"
    return text[1:] if float(text) == 0 else text.replace("-", "−")


def interval(value: float, low: float, high: float) -> str:
    """A value with its interval in brackets, two digits, true minus signs."""
    value, low, high = (f"{number:.2f}".replace("-", "−") for number in (value, low, high))
    return f"{value} ({low} – {high})"


def _intervals(table: pd.DataFrame, name: str) -> list[str]:
    low, high = ("low", "high") if name == "ratio" else (f"{name}_low", f"{name}_high")
    parts = (table[name], table[low], table[high])
    return [interval(*line) for line in zip(*parts, strict=True)]


def _kernels(table: pd.DataFrame) -> list[str]:
    return [STYLES[name].label if name in STYLES else name for name in table.kernel]


def gaps_in_words(table: pd.DataFrame) -> pd.DataFrame:
    """A `comparisons.gap_table` for readers, as text."""
    return pd.DataFrame(
        {
            "task": table.task,
            "$d$": table.d.astype(str),
            "kernel": _kernels(table),
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


def gaps_in_prose(table: pd.DataFrame, tolerance: float) -> str:
    """What a `comparisons.gap_table` says, as Markdown: where intervals are disjoint, which gaps are as predicted.

    A gap that misses its prediction by more than `tolerance` is traced to the two curves: how far each β is from its
    own prediction over that window.
    """
    names = [f"{kernel}, $d = {d}$" for kernel, d in zip(_kernels(table), table.d, strict=True)]
    apart = [name for name, yes in zip(names, table.disjoint, strict=True) if yes]
    overlap = [name for name in names if name not in apart]
    close = [f"{name} ({signed(off)})" for name, off in zip(names, table.off, strict=True) if abs(off) <= tolerance]
    far = [
        f"{name} ({signed(line.off)}: the network is off its own exponent by {signed(line.network_off)}, the kernel by "
        f"{signed(line.lazy_off)})"
        for name, line in zip(names, table.itertuples(), strict=True)
        if abs(line.off) > tolerance
    ]
    said = {
        "Intervals of network and kernel are disjoint, the network above": apart,
        "They are not": overlap,
        f"The difference is within {tolerance} of its prediction": close,
        f"It is off by more than {tolerance}": far,
    }
    return "\n".join(f"- {title}: {'; '.join(found) if found else 'nowhere'}." for title, found in said.items())


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


def settings_in_prose(table: pd.DataFrame, titles: Mapping[str, str]) -> dict[str, str]:
    """Which changes of a `comparisons.setting_table` make a difference to error and star: ratios without 1 inside.

    `chance` says how many such differences to expect where there are none (Student's law, two standard errors).
    """
    said = {}
    for name in ("error", "star"):
        differs = table[(table[f"{name}_low"] > 1) | (table[f"{name}_high"] < 1)]
        words = [
            f"{titles[line.setting]} = {line.value:g} ({getattr(line, name):.2f})" for line in differs.itertuples()
        ]
        said[name] = ", ".join(words) or "none"
    by_chance = 2 * 2 * stdtr(table.pairs - 1, -2).sum()
    return said | {"chance": f"{by_chance:.1f} of {2 * len(table)}"}


def ratios_in_words(ratios: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
    """Several `comparisons.paired_ratio` beside each other for readers, as text: a line for each p, a column for each."""
    columns = {title: pd.Series(_intervals(found, "ratio"), index=found.p) for title, found in ratios.items()}
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


def metric_in_prose(table: pd.DataFrame, titles: Mapping[str, str]) -> str:
    """Whether a compression put into the kernel makes the network's errors, as sentences; see `metric_in_words`.

    It does where the interval of the ratio holds 1 at every p of the window and the ratio has no trend in p.
    """
    if not len(table):
        return "Not yet run."
    yes = table[(table.held == table.points) & (table.verdict == "agrees")]
    told = [f"{titles[line.told]} in $d = {line.d}$" for line in yes.itertuples()]
    said = [f"The same errors at every $p$ of the window, without a trend: {', '.join(told) or 'none of them'}."]
    for (d, p), group in table.groupby(["d", "p_high"]):
        words = [
            f"{line.last:.2f} times as often as the machine told {titles[line.told]}"
            + (" (1 is within the error)" if line.last_low <= 1 <= line.last_high else "")
            for line in group.itertuples()
        ]
        said.append(f"In $d = {d}$ at $p =$ {thousands(int(p))} the network errs {', '.join(words)}.")
    return " ".join(said)
