"""The README: its snippets run as they stand."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
TEXT = (ROOT / "README.md").read_text()
PYTHON = re.findall(r"^```python\n(.*?)^```", TEXT, re.MULTILINE | re.DOTALL)
SHELL = [
    line.split("  #")[0].strip()
    for block in re.findall(r"^```(?:sh|shell|bash)\n(.*?)^```", TEXT, re.MULTILINE | re.DOTALL)
    for line in block.splitlines()
    if line.strip() and not line.startswith("#")
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


@pytest.mark.parametrize("place", re.findall(r"\]\(((?!https?:|#)[^)]+)\)", TEXT))
def test_links_and_pictures_exist(place):
    assert (ROOT / place).exists()


def test_pictures_are_described():
    assert all(len(alt) > 3 for alt in re.findall(r"!\[(.*?)\]\(", TEXT))
