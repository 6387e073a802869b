"""Run the chapters and build the book: `build_book.py book | html | sync [CHAPTER...] | check`.

book   runs each chapter whose text, library, published results or lock changed, into `_build/executed/`, then builds
       the HTML from those copies into `_build/html`; the work tree is not touched
html   builds the HTML from the committed outputs, running nothing
sync   runs what changed, then rewrites the committed `chapters/NAME.ipynb` (the only thing that does)
check  fails when a chapter's two files say different things, or a cell is too long for a reader

Whatever a reader would stumble over fails the build: a failing cell, a dead kernel, a warning on stderr, a path of this
machine in an output, any warning of Sphinx.
"""

import base64
import fcntl
import hashlib
import io
import json
import os
import re
import shutil
import subprocess
import sys
import time
from concurrent.futures import ProcessPoolExecutor, as_completed
from multiprocessing import get_context
from pathlib import Path

import jupytext
import nbformat
import plotly
from jupytext.compare import NotebookDifference, compare_notebooks
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError, CellTimeoutError
from PIL import Image  # matplotlib writes its own pictures with it

from geocompress.provenance import device_name

ROOT = Path(__file__).resolve().parent.parent
CHAPTERS = ROOT / "chapters"
BUILD = ROOT / "_build"
EXECUTED = BUILD / "executed"
STAGE = BUILD / "book"
HTML = BUILD / "html"
COLOURS = 256  # of a picture: a palette takes a third of the room, and drawings have fewer
CELL_LINES = 15  # most that a reader takes in at once
CELL_TIMEOUT_S = 900
STARTUP_TIMEOUT_S = 180
MOST_WORKERS = 4
SHARED = "shared"  # folder of the built site that holds MathJax and plotly once for all pages
PAGES = ("_config.yml", "_toc.yml", "references.bib", "assets", "*.md")
ANSI = re.compile(r"\x1b\[[0-9;]*m")


def digest(paths, *more) -> str:
    """Hash the contents of files (and some strings) together with where they are in the tree."""
    sha = hashlib.sha256("\0".join(more).encode())
    for path in sorted(paths):
        sha.update(f"\0{path.relative_to(ROOT)}\0".encode() + path.read_bytes())
    return sha.hexdigest()


def execution_key(name: str) -> str:
    """Hash of all that a chapter's outputs depend on; the parameters are part of its text."""
    library = [p for p in (ROOT / "lib" / "geocompress").rglob("*") if p.is_file() and p.suffix != ".pyc"]
    published = [p for p in (ROOT / "results").glob("*") if p.is_file()]
    return digest(
        [CHAPTERS / f"{name}.py", ROOT / "requirements.lock", Path(__file__).resolve(), *library, *published],
        sys.version,
    )


def chapter_names(chosen=()) -> list[str]:
    """Return the chosen chapters, or all of them."""
    known = sorted(path.stem for path in CHAPTERS.glob("*.py"))
    if unknown := sorted(set(chosen) - set(known)):
        raise SystemExit(f"build_book: expected chapters among {', '.join(known)}, got {', '.join(unknown)}")
    return list(chosen) or known


def read_chapter(name: str) -> nbformat.NotebookNode:
    """Read the text of a chapter as a notebook whose cell ids depend on nothing but the text."""
    notebook = jupytext.read(CHAPTERS / f"{name}.py")
    seen = {}
    for cell in notebook.cells:
        short = hashlib.sha256(cell.source.encode()).hexdigest()[:8]
        seen[short] = seen.get(short, 0) + 1
        cell.id = f"{short}-{seen[short]}"
    kernel = {"name": "python3", "display_name": "Python 3", "language": "python"}
    notebook.metadata = nbformat.from_dict({"kernelspec": kernel, "language_info": {"name": "python"}})
    notebook.nbformat, notebook.nbformat_minor = 4, 5
    return notebook


def execute(name: str, key: str, threads: int) -> tuple[str, float, str]:
    """Run one chapter into `_build/executed`; return its name, its seconds, and what went wrong ("" for nothing)."""
    started = time.monotonic()
    notebook = read_chapter(name)
    metadata = notebook.metadata.copy()
    limits = {variable: str(threads) for variable in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")}
    env = {**os.environ, **limits, "LOKY_MAX_CPU_COUNT": str(threads), "JUPYTER_PREFER_ENV_PATH": "1"}
    os.environ["JUPYTER_PREFER_ENV_PATH"] = "1"
    client = NotebookClient(
        notebook,
        timeout=CELL_TIMEOUT_S,
        startup_timeout=STARTUP_TIMEOUT_S,
        kernel_name="python3",
        record_timing=False,
        coalesce_streams=True,  # what is printed in pieces is shown as one
        resources={"metadata": {"path": str(EXECUTED)}},
    )
    try:
        with open(EXECUTED / f"{name}.log", "w") as log:  # what the kernel itself says, for example why it died
            client.execute(env=env, stderr=log)
        problem = blemish(notebook)
    except CellExecutionError as error:
        problem = ANSI.sub("", str(error))
    except (CellTimeoutError, RuntimeError) as error:  # RuntimeError: the kernel died, or never answered
        problem = f"{type(error).__name__}: {error}\nthe kernel's own words: _build/executed/{name}.log"
    notebook.metadata = metadata
    lighten(notebook)
    target = EXECUTED / (f"{name}-failed.ipynb" if problem else f"{name}.ipynb")
    nbformat.write(notebook, target)
    if not problem:
        (EXECUTED / f"{name}.key").write_text(key)
        took = {"seconds": time.monotonic() - started, "device": device_name("cpu")}
        (EXECUTED / f"{name}.json").write_text(json.dumps(took))
        (EXECUTED / f"{name}-failed.ipynb").unlink(missing_ok=True)
    return name, time.monotonic() - started, problem


def lighten(notebook) -> None:
    """Store the pictures of a notebook with a palette instead of four numbers a pixel, in place."""
    for output in (output for cell in notebook.cells for output in cell.get("outputs", [])):
        if "image/png" in output.get("data", {}):
            light = io.BytesIO()
            picture = Image.open(io.BytesIO(base64.b64decode(output.data["image/png"])))
            picture.convert("RGB").quantize(COLOURS).save(light, "PNG", optimize=True)
            output.data["image/png"] = base64.b64encode(light.getvalue()).decode()


def blemish(notebook) -> str:
    """Say what a reader should not see in the outputs of a notebook ("" for nothing)."""
    for number, cell in enumerate(notebook.cells):
        for output in cell.get("outputs", []):
            if output.output_type == "stream" and output.name == "stderr":
                return f"cell {number} writes to stderr; mend its cause:\n{cell.source}\n--\n{output.text}"
            if str(ROOT) in str(output):
                return f"cell {number} shows a path of this machine; print a relative one:\n{cell.source}"
    return ""


def run_chapters(names: list[str]) -> bool:
    """Run those chapters whose key changed, in parallel; return True when all is well."""
    EXECUTED.mkdir(parents=True, exist_ok=True)
    keys = {name: execution_key(name) for name in names}
    stale = [name for name in names if not is_executed(name, keys[name])]
    if not stale:
        return True
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    workers = min(len(stale), cores, MOST_WORKERS)
    threads = max(1, min(cores, MOST_WORKERS) // workers)
    print(f"running {', '.join(stale)} ({workers} at a time, {threads} thread(s) each)", flush=True)
    fine = True
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
        for done in as_completed(pool.submit(execute, name, keys[name], threads) for name in stale):
            name, seconds, problem = done.result()
            print(f"  {name}: {'FAILED after ' if problem else ''}{seconds:.0f} s", flush=True)
            if problem:
                fine = False
                print(f"\nchapters/{name}.py, as far as it came: _build/executed/{name}-failed.ipynb\n{problem}\n")
    return fine


def is_executed(name: str, key: str) -> bool:
    """True when the outputs at hand were made from exactly what is there now."""
    stamp = EXECUTED / f"{name}.key"
    return (EXECUTED / f"{name}.ipynb").is_file() and stamp.is_file() and stamp.read_text() == key


def stage(notebooks: list[Path]) -> None:
    """Lay out in `_build/book` what Sphinx shall read; MathJax and plotly once, for all pages."""
    shutil.rmtree(STAGE, ignore_errors=True)
    (STAGE / "chapters").mkdir(parents=True)
    for pattern in PAGES:
        for path in ROOT.glob(pattern):
            copy = shutil.copytree if path.is_dir() else shutil.copy
            if path.name != "README.md":
                copy(path, STAGE / path.name)
    for path in notebooks:
        shutil.copy(path, STAGE / "chapters" / path.name)
    site = STAGE / "site" / SHARED
    shutil.copytree(ROOT / "assets" / "mathjax", site / "mathjax")
    shutil.copy(Path(plotly.__file__).parent / "package_data" / "plotly.min.js", site)


def build_html(notebooks: list[Path]) -> bool:
    """Build the pages strictly; skip it when they were already built from the same text."""
    stage(notebooks)
    staged = [path for path in STAGE.rglob("*") if path.is_file()]
    key = digest([*staged, ROOT / "requirements.lock"], str(ROOT))
    stamp = BUILD / "html.key"
    if stamp.is_file() and stamp.read_text() == key and (HTML / "index.html").is_file():
        print("nothing changed: _build/html/index.html")
        return True
    stamp.unlink(missing_ok=True)
    shutil.rmtree(HTML, ignore_errors=True)
    command = [Path(sys.executable).parent / "jupyter-book", "build", STAGE, "--path-output", ROOT]
    strict = ["--all", "-W", "-n", "--keep-going"]
    env = {**os.environ, "JUPYTER_PLATFORM_DIRS": "1", "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    log = subprocess.run([*command, *strict], capture_output=True, text=True, env=env, cwd=ROOT)
    text = ANSI.sub("", log.stdout + log.stderr)
    (BUILD / "build.log").write_text(text)
    warnings = [line for line in text.splitlines() if re.search(r"\b(WARNING|ERROR|CRITICAL)\b", line)]
    if log.returncode or warnings or not (HTML / "index.html").is_file():
        print("\n".join(warnings) or text[-3000:])
        print(f"the book was not built: {len(warnings)} warning(s), each an error here; all in _build/build.log")
        return False
    stamp.write_text(key)
    print("built: _build/html/index.html")
    return True


def pair_problem(name: str) -> str:
    """Say how the two files of a chapter differ ("" when they agree)."""
    notebook = CHAPTERS / f"{name}.ipynb"
    if not notebook.is_file():
        return f"chapters/{name}.ipynb: expected beside {name}.py, got no such file; make it with `make sync`"
    try:
        compare_notebooks(jupytext.read(notebook), jupytext.read(CHAPTERS / f"{name}.py"), fmt="py:percent")
    except NotebookDifference as difference:
        return f"chapters/{name}: .py and .ipynb differ; `make sync` runs the .py again\n{difference}"
    return ""


def cell_problem(name: str) -> str:
    """Say which cell of a chapter is too long, or defines what belongs into the library ("" for none)."""
    for cell in read_chapter(name).cells:
        lines = [line for line in cell.source.splitlines() if line.strip() and not line.startswith("#")]
        if cell.cell_type == "code" and len(lines) > CELL_LINES:
            return (
                f"chapters/{name}.py: expected at most {CELL_LINES} lines in a cell, got {len(lines)}:\n{cell.source}"
            )
        if cell.cell_type == "code" and re.search(r"^(def|class) ", cell.source, re.MULTILINE):
            return f"chapters/{name}.py: expected no definition in a chapter, move it to the library:\n{cell.source}"
    return ""


def main(arguments: list[str]) -> int:
    """Do what the first argument names; return the exit status."""
    action, chosen = (arguments or [""])[0], arguments[1:]
    names = chapter_names(chosen)
    if action == "check":
        looks = (pair_problem, cell_problem)
        problems = [problem for name in names for look in looks if (problem := look(name))]
        print("\n".join(problems), end="\n" if problems else "")
        return bool(problems)
    if action == "html":
        return not build_html(sorted(CHAPTERS.glob("*.ipynb")))
    if action == "book":
        return not (run_chapters(names) and build_html([EXECUTED / f"{name}.ipynb" for name in names]))
    if action == "sync":
        fine = run_chapters(names)
        for name in names:
            if is_executed(name, execution_key(name)):
                shutil.copy(EXECUTED / f"{name}.ipynb", CHAPTERS / f"{name}.ipynb")
        return not fine
    print(__doc__, file=sys.stderr)
    return 2


if __name__ == "__main__":
    BUILD.mkdir(exist_ok=True)
    with open(BUILD / ".lock", "w") as lock:  # two builds at once would write into each other's folders
        fcntl.flock(lock, fcntl.LOCK_EX)
        sys.exit(main(sys.argv[1:]))
