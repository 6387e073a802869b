"""`python -m geocompress run`: wrong input is refused before a kernel starts, right input reaches the chapter."""

import json
import resource
import subprocess
import sys

import jupytext
import nbformat
import pytest

from geocompress import __main__ as cli
from geocompress import grids, notebooks, store

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


KERNELS = (
    "experiment: kernel\ndevice: {device}\nd: 2\ngrids: [{{p: [16, 32], seed: [0, 1]}}, {{p: 64}}]\ntest_size: 10\n"
)


@pytest.fixture
def kernels(results):
    (results / "small.yaml").write_text(KERNELS.format(device="cpu"))
    return results


def test_a_grid_that_is_no_published_one_is_cached(kernels, monkeypatch, capsys):
    monkeypatch.setattr(cli, "code_version", lambda: "abc")
    told = ["small", "-f", str(kernels / "small.yaml"), "--memory-gb", "0.1", "--jobs", "1"]
    assert cli.main(["sweep", *told]) == 0
    rows = kernels / "cache" / "abc" / "small.jsonl"
    assert capsys.readouterr().out == f"{rows}\n"
    assert len(rows.read_text().splitlines()) == 5
    assert cli.main(["status", *told[:3]]) == 0
    assert capsys.readouterr().out == f"small: 5 of 5 points done ({rows})\n"
    assert cli.main(["status", "small"]) == 1  # the published ones are other rows


def test_a_device_is_a_place_and_no_part_of_a_point(kernels, capsys):
    """A grid for another device, filled by this one."""
    (kernels / "small.yaml").write_text(KERNELS.format(device="meta"))
    told = ["sweep", "small", "--output", str(kernels / "rows.jsonl")]
    assert cli.main(told) == 2  # that device holds no numbers
    (kernels / "small.yaml").write_text(KERNELS.format(device="cpu"))
    assert cli.main([*told, "--device", "cpu:0", "--jobs", "1"]) == 0
    rows = [json.loads(line) for line in (kernels / "rows.jsonl").read_text().splitlines()]
    configs = grids.read(kernels / "small.yaml").configs
    assert sorted(row["key"] for row in rows) == sorted(store.key(config) for config in configs)
    assert all(row["device"].startswith("cpu") for row in rows)


def test_status_tells_what_is_done_missing_and_failed(kernels, capsys):
    configs = grids.read(kernels / "small.yaml").configs
    said = ("SEPARATED", "FAILED", "FAILED", "INSEPARABLE")
    for config, status in zip(configs, said, strict=False):
        row = {
            "key": store.key(config),
            "status": status,
            "error": "ValueError: one class" if status == "FAILED" else None,
        }
        store.append("small", row, directory=kernels, required=())
    before = (kernels / "small.jsonl").read_bytes()
    assert cli.main(["status"]) == 1
    out = capsys.readouterr().out
    assert f"small: 1 of 5 points done, 2 failed, 1 ended INSEPARABLE, 1 missing ({kernels / 'small.jsonl'})\n" in out
    table = [line.split() for line in out.splitlines() if line.startswith("  ")]
    assert table[:4] == [
        ["p", "done", "failed", "INSEPARABLE", "missing"],
        ["16", "1", "1", "0", "0"],
        ["32", "0", "1", "1", "0"],
        ["64", "0", "0", "0", "1"],
    ]
    assert "  2 × ValueError: one class, first at p = 16, seed = 1\n" in out
    assert "tiny: 0 of 3 points done, 3 missing" in out
    assert (kernels / "small.jsonl").read_bytes() == before


def test_failed_points_end_a_sweep_with_1_and_are_retried_on_request(kernels, capsys):
    config = grids.read(kernels / "small.yaml").configs[0]
    row = {"key": store.key(config), "status": "FAILED", "error": "ValueError: one class"}
    store.append("small", row, directory=kernels, required=())
    assert cli.main(["sweep", "small", "--jobs", "1"]) == 1
    said = "1 of 5 points failed, the first with ValueError: one class; --retry-failed computes them again"
    assert said in capsys.readouterr().err
    assert cli.main(["sweep", "small", "--jobs", "1", "--retry-failed"]) == 0
    assert cli.main(["status", "small"]) == 0


def test_points_that_did_not_reach_their_end_end_a_sweep_with_1(kernels, capsys):
    configs = grids.read(kernels / "small.yaml").configs
    for config, status in zip(configs, ["MAX_ROUNDS"] * 2 + ["SEPARATED"] * (len(configs) - 2), strict=True):
        row = {"key": store.key(config), "status": status, "error": None}
        store.append("small", row, directory=kernels, required=())
    assert cli.main(["sweep", "small", "--jobs", "1"]) == 1
    told = capsys.readouterr()
    assert "2 of 5 points did not end SEPARATED: 2 MAX_ROUNDS; curves leave them out" in told.err
    assert "small.jsonl" in told.out


PATIENCE_S = 300  # for a busy machine


def refused(command, folder):
    """A command in a process of its own, and the seconds of processor time that it took."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=PATIENCE_S)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return done, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


@pytest.fixture(scope="module")
def soon(tmp_path_factory):
    """Seconds in which bad input has to be refused: 10, or more where importing torch alone takes longer than 2."""
    _, seconds = refused([sys.executable, "-c", "import torch"], tmp_path_factory.mktemp("torch"))
    return max(10.0, 5 * seconds)


@pytest.mark.parametrize(
    ("grid", "message"),
    [
        ("p: 64.5\n", "p: expected an integer ≥ 1, got 64.5 (float); convert it with int(…)\n"),
        ("seed: text\n", "seed: expected an integer ≥ 0, got 'text' (str)"),
        ("experiment: nonsense\np: 8\n", "experiment: expected one of network, "),
        ("p: [1, 2\nd: {", "expected YAML, got while parsing a flow sequence"),
        ("p: []\n", "p: expected at least one value, got none; leave the field out for its default\n"),
        ("", "expected lines `name: value`, got NoneType\n"),
    ],
)
def test_grids_that_are_none_are_refused_soon(tmp_path, soon, grid, message):
    """As a process of its own, where the types are not checked as in these tests."""
    (tmp_path / "bad.yaml").write_text(grid)
    command = [sys.executable, "-m", "geocompress", "sweep", "bad", "-f", "bad.yaml"]
    done, seconds = refused(command, tmp_path)
    assert seconds < soon
    assert done.returncode == 2
    assert done.stderr.startswith(f"geocompress sweep: bad.yaml: {message}")
    assert "Traceback" not in done.stderr
    assert not done.stdout
    assert [file.name for file in tmp_path.iterdir()] == ["bad.yaml"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["absent"], "expected the name of a grid among tiny, got 'absent'; or give a grid by -f"),
        (["absent", "-f", "nowhere.yaml"], "nowhere.yaml"),
        (["tiny", "--output", "rows.csv"], "--output: expected a file that ends in .jsonl, got rows.csv"),
        (["tiny", "--memory-gb", "1"], "memory_gb: expected none, for train_network takes no budget, got 1.0"),
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
