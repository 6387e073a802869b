"""One page of HTML from a `diagnosis.Diagnosis`: sentences, figures and a table in one file that loads nothing."""

from __future__ import annotations

import contextlib
import io
import math
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime
from html import escape
from pathlib import Path

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from geocompress import __version__, diagnosis_figures
from geocompress.diagnosis import Diagnosis

INK, LINE = "#123456", "#654321"  # stand-ins in a figure for the colours of the page's text and rules
SHOWN = 3  # directions
LONG = 3  # sides of a point that are this many times longer than the other
STYLE = """
:root { color-scheme: light dark; --ink: #1b1b1b; --paper: #ffffff; --line: #c9c9c9; --soft: #f4f4f2 }
@media (prefers-color-scheme: dark) { :root { --ink: #e8e8e6; --paper: #16181c; --line: #4a4d55; --soft: #20242b } }
body { font: 1rem/1.55 system-ui, sans-serif; color: var(--ink); background: var(--paper); margin: 0 auto;
       max-width: 44rem; padding: 1rem }
h1 { font-size: 1.5rem; line-height: 1.25 } h2 { font-size: 1.15rem; margin-top: 2rem }
figure { margin: 1rem 0 } figure svg { width: 100%; height: auto; display: block; color: var(--ink) }
figcaption, footer, .note { font-size: 0.9rem }
.table { overflow-x: auto } table { border-collapse: collapse; font-variant-numeric: tabular-nums; font-size: 0.9rem }
th, td { padding: 0.3rem 0.6rem; border-bottom: 1px solid var(--line); text-align: right; white-space: nowrap }
th:first-child, td:first-child { text-align: left } th { background: var(--soft) }
"""
COLUMNS = {  # of the table → title, format
    "checkpoint": ("checkpoint", "s"),
    "train_error": ("error, training points", ".3f"),
    "net_error": ("error, net", ".3f"),
    "kernel_error": ("error, frozen kernel", ".3f"),
    "kernel_status": ("its fit", "s"),
    "alignment": ("alignment", ".3f"),
    "information": ("best information", ".3f"),
    "effective_dimension": ("dimension of the kernel", ".1f"),
    "gradient_dimension": ("directions felt", ".1f"),
    "compression": ("compression", ".3g"),
    "compression_along": ("along known directions", ".3g"),
}


@dataclass(frozen=True)
class Section:
    """A heading, sentences, and at most one figure with its description."""

    title: str
    sentences: tuple[str, ...]
    draw: Callable[[Figure], object] | None = None
    alt: str = ""


def write_html(report: Diagnosis, path: str | os.PathLike) -> Path:
    """Write the page of a report, and return its path.

    The file is complete in itself: figures are vector drawings inside, in the colours of the reader's light or dark
    scheme, as wide as the screen.

    Raises:
        OSError: a folder that does not exist, or may not be written to.
    """
    path = Path(path)
    path.write_text(html(report), encoding="utf-8")
    return path


def html(report: Diagnosis) -> str:
    """The page as text."""
    body = "\n".join(_section(number, section) for number, section in enumerate(sections(report)))
    title = f"What became of {escape(report.module)} in training"
    made = f"{datetime.now().astimezone():%Y-%m-%d %H:%M}, geocompress {__version__}"
    return (
        f'<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n<title>{title}</title>\n'
        f'<meta name="viewport" content="width=device-width, initial-scale=1">\n<style>{STYLE}</style>\n</head>\n'
        f"<body>\n<main>\n<h1>{title}</h1>\n<p>{escape(_what(report))}</p>\n{body}\n<h2>All numbers</h2>\n"
        f'<div class="table" role="region" aria-label="all numbers" tabindex="0">{_table(report)}</div>\n</main>\n'
        f"<footer><p>Made {made}. Method: arXiv:2007.11471.</p></footer>\n</body>\n</html>\n"
    )


def sections(report: Diagnosis) -> Iterator[Section]:
    """What the page says, part by part; parts that the data do not allow say so."""
    yield _errors(report)
    yield _alignment(report)
    yield _information(report)
    if not report.covariances:
        text = "The inputs are whole numbers. The output has no gradient with respect to them, so this part is empty."
        yield Section("Which directions does it feel?", (text,))
        return
    yield _gradients(report)
    found = min(SHOWN, len(report.covariances[-1].vectors))
    caption = (
        "The leading directions at the last checkpoint, each with its share of the squared input gradient. "
        "Sign and length mean nothing; red and blue, or up and down, pull the output in opposite ways."
    )
    yield Section(
        "What do these directions look like?",
        (caption,),
        lambda figure: diagnosis_figures.directions(_side_by_side(figure, found, report.shape), report),
        f"{found} informative directions of the input, drawn in the shape of a point.",
    )


def _what(report: Diagnosis) -> str:
    held = f"{report.holdout} others held out" if report.holdout else "no points held out"
    shared = f" ({report.shared} of them occur among the training points)" if report.shared else ""
    return (
        f"{report.weights} trained parameters, {report.points} training points, {held}{shared}, "
        f"{len(report.table)} checkpoint(s), task: {report.kind}. The question: did the net only fit its last layer to "
        "features that it had from the start, or did it turn to the directions that its label needs?"
    )


def _errors(report: Diagnosis) -> Section:
    title, last, first = "Is the trained kernel the better one?", report.table.iloc[-1], report.table.iloc[0]
    meaning = (
        "In each state the tangent kernel, which says how a small step on one point moves the output at another, is "
        "frozen, and a kernel machine is trained on the same points. What it gains from the first state to the last is "
        "what the features gained."
    )
    if not report.holdout:
        return Section(title, (meaning, "No points were held out, so there are no test errors."))
    told = (
        f"At the end the net's error is {last.net_error:.3f}, that of the kernel frozen there {last.kernel_error:.3f}"
    )
    told += f"; the kernel of the first state reaches {first.kernel_error:.3f}." if len(report.table) > 1 else "."
    failed = report.table[report.table.kernel_error.isna()]
    if len(failed):
        told += (
            f" There is no machine at {', '.join(failed.checkpoint)} ({', '.join(failed.kernel_status.unique())}): "
            "that kernel does not separate the training points."
        )
    noise = ""
    if report.kind != "regression":
        error = math.sqrt(max(last.net_error * (1 - last.net_error), 1 / report.holdout) / report.holdout)
        noise = f"With {report.holdout} held-out points, one standard error is {error:.3f}."
    alt = "Test errors of the net and of its frozen kernel at each checkpoint."
    draw = lambda figure: diagnosis_figures.errors(figure.subplots(), report)
    return Section(title, (meaning, told, *([noise] if noise else [])), draw, alt)


def _alignment(report: Diagnosis) -> Section:
    first, last = report.table.alignment.iloc[0], report.table.alignment.iloc[-1]
    meaning = (
        "Alignment is 1 for a kernel that is large between points of one label and small between others, and 0 for one "
        "that ignores the label. In the lazy regime it stays where it was."
    )
    verb = "rose" if last > first else "fell"
    told = f"It {verb} from {first:.3f} to {last:.3f}." if len(report.table) > 1 else f"Here it is {last:.3f}."
    draw = lambda figure: diagnosis_figures.alignment(figure.subplots(), report)
    alt = "Alignment of the tangent kernel with the label at each checkpoint."
    return Section("Has the kernel turned to the label?", (meaning, told), draw, alt)


def _information(report: Diagnosis) -> Section:
    best = int(report.information[-1].argmax())
    share = ""
    if np.isfinite(report.ceiling):
        share = f", of {report.ceiling:.2f} that there are to know"
    told = (
        f"At the last checkpoint eigenvector {best + 1} knows most: {report.information[-1, best]:.2f} nats{share}. "
        f"At the first one the best knew {report.information[0].max():.2f}."
    )
    meaning = (
        "A kernel learns quickly what its first eigenvectors say. Each bar is what one of them, alone, tells about the "
        "label; an estimate, with noise of about one over the root of the number of points."
    )
    draw = lambda figure: diagnosis_figures.information(figure.subplots(), report)
    alt = "Mutual information of the kernel's first eigenvectors with the label, at the first and last checkpoint."
    return Section("Which eigenvectors know the label?", (meaning, told), draw, alt)


def _gradients(report: Diagnosis) -> Section:
    first, last = report.table.iloc[0], report.table.iloc[-1]
    total = len(report.covariances[-1].values)
    meaning = (
        "The gradient of the output with respect to the input shows the directions that the net feels. Compression is "
        f"the mean of the {report.informative} largest eigenvalues of its covariance over the mean of the rest. It "
        "does not start at 1, because random weights have a mean gradient too: compare it with the first state. It "
        "depends on the units of the inputs, and says how few directions are felt, not how well they are aimed."
    )
    told = (
        f"Of {total} directions the net feels about {last.gradient_dimension:.1f} at the end"
        + (f" ({first.gradient_dimension:.1f} at the start)" if len(report.table) > 1 else "")
        + f"; compression is {last.compression:.3g}"
        + (f" ({first.compression:.3g} at the start)." if len(report.table) > 1 else ".")
    )
    known = ""
    if np.isfinite(last.compression_along):
        known = (
            f"Along the named directions it went from {first.compression_along:.3g} to {last.compression_along:.3g}."
        )
    fewer = report.covariances[-1].points
    cut = f"The budget held the gradients of {fewer} of the points." if fewer < report.points else ""
    draw = lambda figure: diagnosis_figures.gradient_spectrum(figure.subplots(), report)
    alt = "Eigenvalues of the covariance of input gradients by rank, at the first and last checkpoint."
    sentences = tuple(text for text in (meaning, told, known, cut) if text)
    return Section("Which directions does it feel?", sentences, draw, alt)


def _side_by_side(figure: Figure, count: int, shape: tuple[int, ...]) -> list[Axes]:
    """Axes in a row, or one above the other for what is long."""
    sides = [side for side in shape if side > 1]
    long = len(sides) == 1 or (len(sides) == 2 and sides[1] > LONG * sides[0])
    return np.ravel(figure.subplots(*((count, 1) if long else (1, count)))).tolist()


def _section(number: int, section: Section) -> str:
    text = "\n".join(f"<p>{escape(sentence)}</p>" for sentence in section.sentences)
    figure = "" if section.draw is None else f"\n<figure>{_svg(number, section)}</figure>"
    return f"<section>\n<h2>{escape(section.title)}</h2>\n{text}{figure}\n</section>"


def _svg(number: int, section: Section) -> str:
    """A drawing inside the page, in the page's own colours for text and rules."""
    with _look(), io.StringIO() as held:
        figure = Figure(figsize=(5.2, 3.2), layout="constrained")
        section.draw(figure)
        with mpl.rc_context({"svg.hashsalt": f"section {number}"}):
            figure.savefig(held, format="svg", transparent=True, metadata={"Date": None})
        drawing = held.getvalue()
    drawing = drawing[drawing.index("<svg") :].replace(INK, "currentColor").replace(LINE, "var(--line)")
    return drawing.replace("<svg", f'<svg role="img" aria-label="{escape(section.alt)}"', 1)


@contextlib.contextmanager
def _look() -> Iterator[None]:
    inked = ("text.color", "axes.labelcolor", "xtick.color", "ytick.color", "axes.edgecolor")
    settings = dict.fromkeys(inked, INK) | {"grid.color": LINE, "legend.labelcolor": INK, "legend.frameon": False}
    with mpl.rc_context(mpl.rcParamsDefault | {"backend": mpl.rcParams["backend"]} | settings):
        mpl.rcParams.update({"axes.grid": True, "axes.axisbelow": True, "font.size": 11, "legend.fontsize": 10})
        mpl.rcParams.update({"axes.spines.top": False, "axes.spines.right": False, "axes.titlesize": 11})
        yield


def _table(report: Diagnosis) -> str:
    shown = {name: told for name, told in COLUMNS.items() if not report.table[name].isna().all()}
    if not report.holdout:
        shown.pop("kernel_status")
    head = "".join(f'<th scope="col">{escape(title)}</th>' for title, _ in shown.values())
    lines = [
        "".join(f"<td>{escape(_cell(line[name], form))}</td>" for name, (_, form) in shown.items())
        for _, line in report.table.iterrows()
    ]
    return (
        f"<table><thead><tr>{head}</tr></thead><tbody>{''.join(f'<tr>{line}</tr>' for line in lines)}</tbody></table>"
    )


def _cell(value: object, form: str) -> str:
    return "–" if isinstance(value, float) and math.isnan(value) else format(value, form)
