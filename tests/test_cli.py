"""`python -m geocompress run`: wrong input is refused before a kernel starts, right input reaches the chapter."""

import json
import subprocess
import sys

import jupytext
import nbformat
import pytest

from geocompress import __main__ as cli
from geocompress import notebooks, store

CHAPTER = """# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% tags=["parameters"]
d = 5  # dimension
alpha = 1e-6
p_grid = [64, 128]
label = "run"
quick = True
device: str | None = None

# %%
from geocompress import notebooks

notebooks.check_parameters("tiny")

# %%
print(d, alpha, p_grid, label, quick, device)
"""


@pytest.fixture
def chapters(tmp_path, monkeypatch):
    folder = tmp_path / "chapters"
    folder.mkdir()
    (folder / "tiny.py").write_text(CHAPTER)
    jupytext.write(jupytext.read(folder / "tiny.py"), folder / "tiny.ipynb")
    monkeypatch.setenv("GEOCOMPRESS_CHAPTERS", str(folder))
    return folder


@pytest.fixture
def no_kernel(monkeypatch):
    def started(*_):
        raise AssertionError("a kernel was started")

    monkeypatch.setattr(notebooks, "run_chapter", started)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nothere"], "expected a chapter among tiny, got 'nothere'"),
        (["tiny", "-p", "dd", "3"], "expected a parameter among d, alpha, p_grid, label, quick, device, got 'dd'"),
        (["tiny", "-p", "d", "3.5"], "expected int (the default is 5), got float 3.5"),
        (["tiny", "-p", "d", "true"], "expected int (the default is 5), got bool True"),
        (["tiny", "-p", "d", "five"], "expected int (the default is 5), got str 'five'"),
        (["tiny", "-p", "quick", "1"], "expected bool (the default is True), got int 1"),
        (["tiny", "-p", "alpha", "null"], "expected float"),
        (["tiny", "-p", "p_grid", "64"], "expected list of int"),
        (["tiny", "-p", "p_grid", "[64, 0.5]"], "expected list of int"),
        (["tiny", "-p", "device", "3"], "expected str | None"),
        (["tiny", "-f", "absent.yaml"], "absent.yaml"),
    ],
)
def test_refused(chapters, no_kernel, capsys, arguments, message):
    assert cli.main(["run", *arguments]) == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize(
    ("text", "message"),
    [("[1, 2]", "expected lines `name: value`, got list"), ("a: [", "expected YAML"), ("alpha: 1e-3", "write 0.001")],
)
def test_refused_file(chapters, no_kernel, capsys, tmp_path, text, message):
    (tmp_path / "params.yaml").write_text(text)
    assert cli.main(["run", "tiny", "-f", str(tmp_path / "params.yaml")]) == 2
    assert message in capsys.readouterr().err


def test_output_among_the_chapters_is_refused(chapters, capsys):
    before = (chapters / "tiny.ipynb").read_bytes()
    assert cli.main(["run", "tiny", "-o", str(chapters / "tiny.ipynb")]) == 2
    assert "never overwrites a chapter" in capsys.readouterr().err
    assert (chapters / "tiny.ipynb").read_bytes() == before


def test_no_chapters_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("GEOCOMPRESS_CHAPTERS", str(tmp_path / "gone"))
    with pytest.raises(FileNotFoundError, match="GEOCOMPRESS_CHAPTERS"):
        notebooks.list_chapters()


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [
        ("alpha", "1", 1),
        ("alpha", "1e-3", 1e-3),
        ("label", "64", "64"),
        ("quick", "false", False),
        ("p_grid", "[1, 2]", [1, 2]),
        ("p_grid", "()", ()),
        ("device", "cuda", "cuda"),
        ("device", "null", None),
    ],
)
def test_accepted_values(chapters, name, text, value):
    parsed = notebooks.parse_value(notebooks.declared_parameters("tiny")[name], text)
    assert parsed == value
    notebooks.validate_parameters("tiny", {name: parsed})


@pytest.mark.parametrize(
    "source", ["a = 1 + b", "a, b = 1, 2", "import os", "print(1)", "a = b = 1", "a: nonsense = 1"]
)
def test_parameters_cell_holds_literals_only(source):
    with pytest.raises(ValueError, match="name = literal"):
        notebooks.parse_parameters(source)


def test_run_reaches_the_chapter_from_any_folder(chapters, tmp_path):
    """From another working folder, into a folder that does not exist yet; -p wins over -f."""
    (tmp_path / "params.yaml").write_text("d: 7\nlabel: from file\n")
    command = [
        sys.executable,
        "-m",
        "geocompress",
        "run",
        "tiny",
        "-f",
        "params.yaml",
        "-p",
        "d",
        "9",
        "-o",
        "new/x.ipynb",
    ]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    cells = nbformat.read(tmp_path / "new" / "x.ipynb", as_version=4).cells
    assert cells[-1].outputs[0].text == "9 1e-06 [64, 128] from file True None\n"


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [("dd", "3", "expected a parameter among d,"), ("d", "3.5", "expected int (the default is 5), got float 3.5")],
)
def test_plain_papermill_is_refused_inside_the_chapter(chapters, tmp_path, name, value, message):
    command = [sys.executable, "-m", "papermill", str(chapters / "tiny.ipynb"), "out.ipynb", "-p", name, value]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 1
    assert message in done.stderr


@pytest.fixture
def results(tmp_path, monkeypatch):
    (tmp_path / "tiny.yaml").write_text("d: 2\np: [16]\nwidth: 40\nalpha: 1.0\nseed: [0, 1, 2]\ntest_size: 50\n")
    monkeypatch.setattr(store, "results_directory", lambda: tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    ("arguments", "batches"), [([], [None] * 3), (["--batch", "2", "--jobs", "1", "--threads", "1"], [2, 2, None])]
)
def test_a_sweep_is_computed_as_told(results, arguments, batches):
    assert cli.main(["sweep", "tiny", "--device", "cpu", *arguments]) == 0
    rows = [json.loads(line) for line in (results / "tiny.jsonl").read_text().splitlines()]
    assert sorted(row["seed"] for row in rows) == [0, 1, 2]
    assert [row.get("batch") for row in sorted(rows, key=lambda row: row["seed"])] == batches
    assert {row["status"] for row in rows} == {"FITTED"}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["absent"], "expected the name of a grid among tiny, got 'absent'"),
        (["tiny", "--jobs", "0"], "--jobs: expected an integer ≥ 1, got 0"),
        (["tiny", "--threads", "0"], "--threads: expected an integer ≥ 1, got 0"),
        (["tiny", "--batch", "-1"], "--batch: expected an integer ≥ 1, got -1"),
        (["tiny", "--device", "abacus"], "got 'abacus'"),
    ],
)
def test_a_sweep_that_cannot_be_is_refused(results, capsys, arguments, message):
    assert cli.main(["sweep", *arguments]) == 2
    assert message in capsys.readouterr().err
    assert not (results / "tiny.jsonl").exists()
