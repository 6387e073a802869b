"""What is committed: no registry host, no path of a machine, hashes for every package, nothing heavy, lib/ visible."""

import re
import subprocess
from pathlib import Path

import pytest

HOSTS = ("py" + "pi.org", "python" + "hosted.org", "npm" + "js.org", "index" + "-url")


@pytest.fixture(scope="module")
def tracked(root) -> list[Path]:
    listing = subprocess.run(["git", "ls-files", "-z"], cwd=root, capture_output=True, text=True)
    if listing.returncode:
        pytest.skip("not a git checkout")
    return [root / name for name in listing.stdout.split("\0") if name and (root / name).is_file()]


def texts(paths):
    for path in paths:
        if "mathjax" not in path.parts:
            yield path, path.read_bytes().decode("utf-8", errors="ignore")


def test_no_registry_host(tracked):
    assert [(path.name, host) for path, text in texts(tracked) for host in HOSTS if host in text] == []


def test_no_path_of_this_machine(tracked, root):
    here = (f"{root}/", f"{Path.home()}/")
    found = [(path.name, place) for path, text in texts(tracked) for place in here if place in text]
    assert found == []


def test_lock_has_exact_versions_and_hashes(root):
    text = (root / "requirements.lock").read_text()
    packages = re.findall(r"^(\w\S*?)==\S+.*\\\n    --hash=sha256:[0-9a-f]{64}", text, re.MULTILINE)
    assert len(packages) == len(re.findall(r"^\w", text, re.MULTILINE)) > 50
    assert "://" not in text


def test_lock_covers_what_is_declared(root):
    import tomllib

    project = tomllib.loads((root / "pyproject.toml").read_text())["project"]
    declared = project["dependencies"] + [name for extra in project["optional-dependencies"].values() for name in extra]
    names = {re.split(r"[\[<>=!~; ]", entry)[0].lower() for entry in declared} - {"geocompress"}
    locked = {
        name.lower() for name in re.findall(r"^([\w.-]+)==", (root / "requirements.lock").read_text(), re.MULTILINE)
    }
    assert names <= locked, "run `make lock`"


def test_gitignore_shows_the_library(root, tracked):
    modules = [str(path.relative_to(root)) for path in (root / "lib").rglob("*.py")]
    ignored = subprocess.run(["git", "check-ignore", "--no-index", *modules], cwd=root, capture_output=True, text=True)
    assert ignored.stdout == ""


def test_nothing_heavy_is_committed(tracked):
    sizes = {path: path.stat().st_size for path in tracked}
    assert [path.name for path in tracked if path.suffix == ".ipynb" and sizes[path] > 1_000_000] == []
    assert sum(sizes.values()) <= 30_000_000


def test_functions_and_modules_stay_small(root):
    import ast

    for path in (root / "lib").rglob("*.py"):
        source = path.read_text()
        assert source.count("\n") <= 280, f"{path.name} asks to be split"
        for node in ast.walk(ast.parse(source)):
            if isinstance(node, ast.FunctionDef):
                assert node.end_lineno - node.lineno < 80, f"{path.name}: {node.name} asks to be split"
