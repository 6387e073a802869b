"""What several test files share: the tree, its chapters, and the built book (built once, from what changed)."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="session")
def root() -> Path:
    return ROOT


@pytest.fixture(scope="session")
def book(root) -> Path:
    """The folder of the strictly built pages; chapters that did not change since the last build are not run again."""
    build = subprocess.run([sys.executable, "tools/build_book.py", "book"], cwd=root, capture_output=True, text=True)
    assert build.returncode == 0, build.stdout + build.stderr
    return root / "_build" / "html"


@pytest.fixture(autouse=True)
def _close():
    """Figures that a test has left open are closed."""
    yield
    if pyplot := sys.modules.get("matplotlib.pyplot"):
        pyplot.close("all")
