"""The chapters: both files agree, numbers are really compared, and they hold when the chapters run again."""

import base64
import copy
import io
import os
import subprocess
import sys

import matplotlib.pyplot as plt
import nbformat
import numpy as np
import pytest
from PIL import Image

import build_book
import checked_cells
from geocompress import notebooks

CHAPTERS = notebooks.list_chapters()
each_chapter = pytest.mark.parametrize("name", CHAPTERS)


def read(path) -> nbformat.NotebookNode:
    return nbformat.read(path, as_version=4)


def checked(notebook) -> list:
    return [cell for cell in notebook.cells if checked_cells.is_checked(cell)]


def test_there_are_chapters():
    assert CHAPTERS


def test_pictures_become_light_and_look_the_same():
    figure, ax = plt.subplots()
    ax.imshow(np.random.default_rng(0).random((8, 8)))
    drawn = io.BytesIO()
    figure.savefig(drawn, facecolor="white")
    plt.close(figure)
    data = {"image/png": base64.b64encode(drawn.getvalue()).decode(), "text/plain": "a figure"}
    outputs = [nbformat.v4.new_output("display_data", data), nbformat.v4.new_output("stream", text="one")]
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell("draw()", outputs=outputs)])
    build_book.lighten(notebook)
    light = io.BytesIO(base64.b64decode(notebook.cells[0].outputs[0].data["image/png"]))
    assert light.getbuffer().nbytes < drawn.getbuffer().nbytes
    assert Image.open(light).mode == "P"
    before, after = (np.asarray(Image.open(one).convert("RGB"), dtype=float) for one in (drawn, light))
    assert before.shape == after.shape
    assert np.abs(before - after).mean() < 1
    assert notebook.cells[0].outputs[1].text == "one"


@each_chapter
def test_text_and_notebook_agree(name):
    assert build_book.pair_problem(name) == ""


@each_chapter
def test_parameters_are_declared_and_checked(name):
    declared = notebooks.declared_parameters(name)
    assert declared
    assert f'check_parameters("{name}")' in notebooks.chapter_path(name).read_text()
    notebooks.validate_parameters(name, {key: parameter.default for key, parameter in declared.items()})


@each_chapter
def test_full_scale_parameters_fit(name, root):
    from geocompress.__main__ import read_parameters

    for path in (root / "chapters" / "params").glob(f"{name}-*.yaml"):
        notebooks.validate_parameters(name, read_parameters(path))


@each_chapter
def test_at_least_three_cells_are_checked(name):
    cells = checked(build_book.read_chapter(name))
    assert len(cells) >= 3, f"chapters/{name}.py: expected 3 cells tagged {checked_cells.TAG}, got {len(cells)}"
    for cell in cells:
        checked_cells.tolerance_of(cell.source)


@each_chapter
def test_cells_are_short(name):
    assert build_book.cell_problem(name) == ""


def test_a_long_cell_and_a_definition_are_found(monkeypatch):
    def chapter(*cells):
        monkeypatch.setattr(build_book, "read_chapter", lambda name: nbformat.v4.new_notebook(cells=list(cells)))
        return build_book.cell_problem("one")

    code, text = nbformat.v4.new_code_cell, nbformat.v4.new_markdown_cell
    long = "\n".join(["x = 1"] * build_book.CELL_LINES)
    assert chapter(text(f"{long}\n\ndef"), code(f"# why\n\n{long}")) == ""
    assert "at most 15 lines in a cell, got 16" in chapter(code("y = 2"), code(f"{long}\ny = 2"))
    assert "no definition" in chapter(code("x = 1\n\n\ndef f():\n    return 1"))


@each_chapter
def test_committed_notebook_is_complete(name, root):
    path = root / "chapters" / f"{name}.ipynb"
    assert path.stat().st_size <= 1_000_000
    notebook = read(path)
    assert build_book.blemish(notebook) == ""
    cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1)), "run `make sync`"


@each_chapter
def test_committed_numbers_hold_when_run_again(name, root, book):
    committed = checked(read(root / "chapters" / f"{name}.ipynb"))
    computed = checked(read(root / "_build" / "executed" / f"{name}.ipynb"))
    for old, new in zip(committed, computed, strict=True):
        problem = checked_cells.difference(old.source, old.outputs, new.outputs)
        assert not problem, f"chapters/{name}: {problem}"


def nbval(path, threads: int) -> subprocess.CompletedProcess:
    env = {**os.environ, "OMP_NUM_THREADS": str(threads), "MKL_NUM_THREADS": str(threads)}
    options = ["--nbval-lax", "--nbval-current-env", "--nbval-cell-timeout=600", "-q", "-p", "no:cacheprovider"]
    command = [sys.executable, "-m", "pytest", *options, str(path)]
    return subprocess.run(command, capture_output=True, text=True, env=env, cwd=build_book.ROOT)


def test_numbers_hold_with_another_thread_count(root):
    """The book runs its chapters on one thread each; nbval runs this one on two."""
    run = nbval(root / "chapters" / f"{CHAPTERS[-1]}.ipynb", threads=2)
    assert run.returncode == 0, run.stdout + run.stderr


def test_nbval_compares_numbers(root, tmp_path):
    """Of two committed numbers, nbval itself passes the one within its tolerance and fails the one 4 % off."""
    source = '# tolerance: 1%\nprint("slope =", 0.5)'
    cells = []
    for count, committed in enumerate(["slope = 0.501\n", "slope = 0.52\n"], start=1):
        shown = nbformat.v4.new_output("stream", name="stdout", text=committed)
        cell = nbformat.v4.new_code_cell(source, execution_count=count, outputs=[shown])
        cell.metadata["tags"] = [checked_cells.TAG]
        cells.append(cell)
    # below the root, so that the conftest.py which teaches nbval is found
    path = root / "_build" / f"{tmp_path.name}.ipynb"
    path.parent.mkdir(exist_ok=True)
    nbformat.write(nbformat.v4.new_notebook(cells=cells), path)
    try:
        run = nbval(path, threads=1)
    finally:
        path.unlink()
    assert "1 failed, 1 passed" in run.stdout, run.stdout + run.stderr
    assert "expected 0.52 within 1.00%, got 0.5" in run.stdout


@each_chapter
def test_a_mutated_number_is_noticed(name, root):
    """In each checked cell, any number moved by more than its tolerance makes the comparison fail."""
    for cell in checked(read(root / "chapters" / f"{name}.ipynb")):
        assert checked_cells.difference(cell.source, cell.outputs, cell.outputs) == ""
        mutant = copy.deepcopy(cell.outputs)
        for output in mutant:
            spots = [output] if "text" in output else [output.get("data", {})]
            for spot in spots:
                for key in [key for key in spot if key == "text" or key.endswith("text/plain")]:
                    spot[key] = checked_cells.NUMBER.sub(
                        lambda n: f"{3 * float(n[0].replace('−', '-')) + 9}", spot[key]
                    )
        assert checked_cells.difference(cell.source, cell.outputs, mutant) != "", cell.source


def outputs(text: str) -> list:
    return [{"output_type": "stream", "name": "stdout", "text": text}]


@pytest.mark.parametrize(
    ("tolerance", "before", "after", "same"),
    [
        ("5%", "a = 1.00", "a = 1.04", True),
        ("5%", "a = 1.00", "a = 1.06", False),
        ("0.02", "a = 1e-3, b = -2", "a  =  0.0185, b = -2.01", True),
        ("0.02", "a = 1e-3", "a = 0.03", False),
        ("0", "d5: 7", "d5: 7", True),
        ("0", "d5: 7", "d5: 7.0001", False),
        ("0", "3 of 4", "3 in 4", False),
        ("0.1", "x = nan", "x = nan", True),
        ("0.1", "x = 1", "x = nan", False),
        ("0.1", "x = 1", "x = inf", False),
        ("5%", "[1.0, 2.0]", "[1.0]", False),
        ("5%", "−0.5", "0.5", False),
        ("5%", "nothing to compare", "nothing to compare", False),
    ],
)
def test_comparison(tolerance, before, after, same):
    problem = checked_cells.difference(f"# tolerance: {tolerance}\nprint()", outputs(before), outputs(after))
    assert (problem == "") is same, problem


@pytest.mark.parametrize("source", ["print(1)", "# tolerance: 1%\n# tolerance: 2%", "# tolerance: small"])
def test_a_checked_cell_states_one_tolerance(source):
    with pytest.raises(ValueError, match="expected one comment"):
        checked_cells.tolerance_of(source)
