"""Sentences whose words are decided by rows: which exponents agree, what differs, what a measured compression explains.

Tables of the same are in `tables`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import pandas as pd
from scipy.special import stdtr

from geocompress import comparisons, tables


def by_verdict(names: Iterable[str], offs: Iterable[float], verdicts: Iterable[str]) -> str:
    """Which of several measurements agree with their prediction, and which are off and by how much, in one phrase.

    For instance "agree: d = 3 (+0.01), d = 5 (−0.02); above: d = 10 (+0.07)". What has no verdict ("–") is left out.
    """
    groups: dict[str, list[str]] = {"agrees": [], "above": [], "below": [], "undecided": []}
    for name, off, word in zip(names, offs, verdicts, strict=True):
        if word in groups:
            groups[word].append(f"{name} ({tables.signed(off)})")
    titles = {"agrees": "agree"}
    said = [f"{titles.get(word, word)}: {', '.join(found)}" for word, found in groups.items() if found]
    return "; ".join(said) or "nothing measured yet"


def by_kind(table: pd.DataFrame, label: str) -> str:
    """`by_verdict` over the dimensions of each kind of measurement, for text without TeX.

    The table has the columns d, off and verdict, and `label`, the name of the kind.
    """
    kinds = {
        tables.plain(kind): by_verdict([f"d = {d}" for d in group.d], group.off, group.verdict)
        for kind, group in table.groupby(label, sort=False)
    }
    return ". ".join(f"{kind} – {said}" for kind, said in kinds.items()) or "not yet run"


def gaps(table: pd.DataFrame, tolerance: float) -> str:
    """What a `comparisons.gap_table` says, as Markdown: where intervals are disjoint, which gaps are as predicted.

    A gap that misses its prediction by more than `tolerance` is traced to the two curves: how far each β is from its
    own prediction over that window.
    """
    names = [f"{kernel}, $d = {d}$" for kernel, d in zip(tables.kernel_names(table), table.d, strict=True)]
    apart = [name for name, yes in zip(names, table.disjoint, strict=True) if yes]
    overlap = [name for name in names if name not in apart]
    close = [
        f"{name} ({tables.signed(off, 3)})" for name, off in zip(names, table.off, strict=True) if abs(off) <= tolerance
    ]
    far = [
        f"{name} ({tables.signed(line.off, 3)}: the network is off its own exponent by "
        f"{tables.signed(line.network_off, 3)}, the kernel by {tables.signed(line.lazy_off, 3)})"
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


def frozen(table: pd.DataFrame) -> str:
    """What a `comparisons.frozen_table` says of each part of a gap, by the rule of all verdicts, as Markdown."""
    titles = {
        "kept": ("What the kernel gained up to $t^*$, against the predicted gap", table.predicted),
        "lost": ("What it gained or lost from there to the end, against 0", 0.0),
        "rest": ("What the network has beyond the kernel of its end, against 0", 0.0),
        "gap": ("The sum, which is the gap, against the predicted one", table.predicted),
    }
    names = [f"$d = {d}$" for d in table.d]
    return "\n".join(
        f"- {title}: {by_verdict(names, table[name] - against, table[f'{name}_verdict'])}."
        for name, (title, against) in titles.items()
    )


def trend(above: pd.DataFrame, below: pd.DataFrame) -> str:
    """How the errors of `above` over those of `below`, on the same points, go with p, in one phrase without TeX.

    For instance "0.24 times at p = 4096, and the gap widens with p: the ratio goes as p to the power −0.25 (…)". A gap
    widens when `above` errs ever less; where the 95 % interval of the power holds 0, nothing is certain.

    Raises:
        ValueError: as `comparisons.ratio_law`.
    """
    last, law = comparisons.paired_ratio(above, below).iloc[-1], comparisons.ratio_law(above, below)
    word = "widens" if law.beta_low > 0 else "closes" if law.beta_high < 0 else "neither widens nor closes for certain"
    power = tables.interval(-law.beta, -law.beta_high, -law.beta_low)
    at = f"{last.ratio:.2f} times at p = {last.p:.0f}, and the gap {word} with p"
    return f"{at}: the ratio goes as p to the power {power}"


def settings(table: pd.DataFrame, titles: Mapping[str, str]) -> dict[str, str]:
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


def metric(table: pd.DataFrame, titles: Mapping[str, str]) -> str:
    """Whether a compression put into the kernel makes the network's errors, as sentences; see `tables.metric_in_words`.

    It does where the interval of the ratio holds 1 at every p of the window and the ratio has no trend in p. Without a
    trend alone it makes the network's exponent, and errors that differ by a factor.
    """
    if not len(table):
        return "Not yet run."
    flat = table.verdict == "agrees"
    kinds = {"The same errors at every $p$ of the window, without a trend": flat & (table.held == table.points)}
    kinds |= {"The same exponent, and errors that differ by a constant factor": flat & (table.held < table.points)}
    said = []
    for title, chosen in kinds.items():
        told = [f"{titles[line.told]} in $d = {line.d}$" for line in table[chosen].itertuples()]
        said.append(f"{title}: {', '.join(told) or 'none of them'}.")
    for (d, p), group in table.groupby(["d", "p_high"]):
        words = [
            f"{line.last:.2f} times as often as the machine told {titles[line.told]}"
            + (" (1 is within the error)" if line.last_low <= 1 <= line.last_high else "")
            for line in group.itertuples()
        ]
        said.append(f"In $d = {d}$ at $p =$ {tables.thousands(int(p))} the network errs {', '.join(words)}.")
    return " ".join(said)
