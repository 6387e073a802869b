"""Compare the outputs of checked cells as numbers with a tolerance, in nbval and in our own tests.

A checked cell carries the tag `nbval-check-output`, and says in a comment how far its numbers may be from the committed
ones on another processor, thread count or Python:

    # tolerance: 5%       each number within 5 % of the committed one
    # tolerance: 0.02     each number within 0.02 of the committed one
    # tolerance: 0        no difference at all

Everything between the numbers must be the same, up to white space. Printed text and the `text/plain` of results and of
glued values are compared; pictures and HTML are not.
"""

import math
import re

from nbval.plugin import IPyNbCell, coalesce_streams

TAG = "nbval-check-output"
NUMBER = re.compile(r"(?<![\w.])[-+−]?(?:\d+\.?\d*(?:[eE][-+]?\d+)?|\.\d+(?:[eE][-+]?\d+)?|inf\b|nan\b)")
TOLERANCE = re.compile(r"^# tolerance: (\d[\d.e-]*) ?(%?)$", re.MULTILINE)


def tolerance_of(source: str) -> tuple[float, float]:
    """Read a checked cell's (relative, absolute) tolerance; a cell that states none, or two, is a mistake."""
    found = TOLERANCE.findall(source)
    if len(found) != 1:
        raise ValueError(f"expected one comment `# tolerance: 5%` (or 0.02, or 0), got {len(found)} in:\n{source}")
    value, percent = float(found[0][0]), found[0][1]
    return (value / 100, 0.0) if percent else (0.0, value)


def is_checked(cell) -> bool:
    """True for a code cell whose outputs are compared."""
    return cell.cell_type == "code" and TAG in cell.metadata.get("tags", [])


def texts(outputs) -> list[str]:
    """Return what can be compared: printed text, plain representations, glued values."""
    found = []
    for output in outputs:
        if output["output_type"] == "stream" and output["name"] == "stdout":
            found.append(output["text"])
        data = output.get("data", {})
        found += [value for mime, value in sorted(data.items()) if mime.endswith("text/plain")]
    return found


def difference(source: str, committed, computed) -> str:
    """Say how the computed outputs of a cell differ from the committed ones by more than its tolerance ("" if not)."""
    relative, absolute = tolerance_of(source)
    old, new = texts(committed), texts(computed)
    if len(old) != len(new):
        return f"expected {len(old)} text output(s), got {len(new)}"
    if not any(NUMBER.search(text) for text in old):
        return "expected a checked cell to show a number, got none: nothing would be compared"
    for before, after in zip(old, new, strict=True):
        if _words(before) != _words(after):
            return f"the text differs\nexpected: {before}\ngot:      {after}"
        for a, b in zip(_numbers(before), _numbers(after), strict=True):
            same = a == b or (math.isnan(a) and math.isnan(b))
            if not same and not math.isclose(a, b, rel_tol=0, abs_tol=absolute + relative * abs(a)):
                return f"expected {a} within {absolute or f'{relative:.2%}'}, got {b}\nin:  {before}\nnow: {after}"
    return ""


def _words(text: str) -> list[str]:
    return NUMBER.sub("#", text).split()


def _numbers(text: str) -> list[float]:
    return [float(number.replace("−", "-")) for number in NUMBER.findall(text)]


def _compare_as_numbers(self, test, ref, skip_compare=None) -> bool:
    """Stand in for nbval's comparison of strings."""
    problem = difference(self.cell.source, coalesce_streams(ref), coalesce_streams(test))
    self.comparison_traceback = [problem]
    return not problem


def pytest_configure(config) -> None:
    """Put the comparison in place; nbval offers no hook for it, and a fixture would not reach its cells."""
    IPyNbCell.compare_outputs = _compare_as_numbers
