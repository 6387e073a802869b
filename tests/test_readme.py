"""The README: its snippets run as they stand."""

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

import readme
from geocompress import grids
from geocompress.__main__ import parser

ROOT = Path(__file__).resolve().parent.parent
TEXT = (ROOT / "README.md").read_text()
PYTHON = re.findall(r"^```python\n(.*?)^```", TEXT, re.MULTILINE | re.DOTALL)
SHELL = [
    line.split("  #")[0].strip()
    for block in re.findall(r"^```(?:sh|shell|bash)\n(.*?)^```", TEXT, re.MULTILINE | re.DOTALL)
    for line in block.splitlines()
    if line.strip() and not line.startswith("#")
]
# what takes hours or a cluster: typed, not run
CONSOLE = [
    shlex.split(line.removeprefix("$ "), comments=True)
    for block in re.findall(r"^```console\n(.*?)^```", TEXT, re.MULTILINE | re.DOTALL)
    for line in block.splitlines()
]
# what runs this very test, what the fixture `book` has done, or what takes hours: here it is enough that it exists
ELSEWHERE = ("make book", "make test", "make sync", "make html", "make lock", "make clean", "make run")


def run(command, **options) -> None:
    env = {**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    done = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, **options)
    assert done.returncode == 0, f"{command}\n{done.stdout}{done.stderr}"


def test_there_are_snippets():
    assert PYTHON
    assert "make book" in SHELL
    assert "make test" in SHELL


@pytest.mark.parametrize("snippet", PYTHON)
def test_python_snippet(snippet):
    run([sys.executable, "-W", "error", "-c", snippet])


@pytest.mark.parametrize("line", SHELL)
def test_shell_snippet(line):
    run(line.replace("make", "make -n", 1) if line.startswith(ELSEWHERE) else line, shell=True)


@pytest.mark.parametrize("words", [words for words in CONSOLE if "geocompress" in words], ids=" ".join)
def test_typed_commands_are_understood(words):
    told = parser().parse_args(words[words.index("geocompress") + 1 :])
    if getattr(told, "name", None) and not getattr(told, "file", None):
        assert (ROOT / "results" / f"{told.name}.yaml").exists()


@pytest.mark.parametrize("command", ["scheduler", "worker"])
def test_typed_dask_commands_have_these_options(command):
    typed = [words for words in CONSOLE if ".venv/bin/dask" in words and command in words]
    options = {word for words in typed for word in words if word.startswith("--")}
    helped = subprocess.run([sys.executable, "-m", "dask", command, "--help"], capture_output=True, text=True)
    assert typed
    assert options <= set(re.findall(r"--[a-z-]+", helped.stdout))


@pytest.mark.parametrize("text", re.findall(r"^```yaml\n(.*?)^```", TEXT, re.MULTILINE | re.DOTALL))
def test_grid_snippet(text, tmp_path):
    (tmp_path / "mine.yaml").write_text(text)
    assert len(grids.read(tmp_path / "mine.yaml").configs) > 1


@pytest.mark.parametrize("place", re.findall(r"\]\(((?!https?:|#)[^)]+)\)", TEXT))
def test_links_and_pictures_exist(place):
    assert (ROOT / place).exists()


def test_pictures_are_described():
    assert all(len(alt) > 3 for alt in re.findall(r"!\[(.*?)\]\(", TEXT))


def test_seconds_forget_a_pause_of_the_machine():
    """Two kinds of runs, training and testing counted; one was paused, and a measured setting tells no runs apart."""
    kinds = [{"p": p, "wall_s": float(p), "test_s": 1.0, "alpha": a} for p in (10, 20) for a in (1e-6, 1e6)]
    rows = pd.DataFrame([kind | {"seed": seed} for kind in kinds for seed in range(5)])
    rows["amplification"] = rows.index / 7
    rows.loc[rows.alpha > 1, "wall_s"] *= 3
    exact = (rows.wall_s + rows.test_s).sum()
    rows.loc[3, "wall_s"] = 10_000
    assert readme.serial_seconds(rows) == pytest.approx(exact)
    rows.loc[rows.p == 10, "test_s"] = float("nan")  # rows of a network have no such column
    assert readme.serial_seconds(rows) == pytest.approx(exact - 10)


@pytest.mark.parametrize("name", sorted(path.stem for path in (ROOT / "results").glob("*.jsonl")))
def test_table_counts_the_published_runs(name):
    assert f"| published rows `{name}`, {len(readme.store.load(name))} runs |" in TEXT, "run `make readme`"


def test_table_says_what_its_seconds_are():
    table = readme.figure_table()
    assert "one core" in table
    assert "`stripe-kernels`" in table


def test_summary_is_drawn_where_small_p_have_more_replicas(monkeypatch):
    """The slope that is named is that of the largest octaves, as in the table."""
    rows = readme.store.load(readme.PUBLISHED)
    rows = rows[(rows.d == readme.DIMENSION) & (rows.regime == "feature")]
    more = rows[rows.p == rows.p.min()].assign(seed=lambda extra: extra.seed + 1000)
    monkeypatch.setattr(readme.store, "load", lambda name: pd.concat([rows, more]))
    _, right = readme.summary_figure().axes
    expected = readme.curves.fit(rows.assign(curve="")).beta
    assert any(f"= {expected:.2f}$" in label for label in right.get_legend_handles_labels()[1])
