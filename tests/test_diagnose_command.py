"""`python -m geocompress diagnose`: files in, a page out; what is refused ends with 2 and one message."""

import sys

import numpy as np
import pytest
import torch

from geocompress import __main__ as cli
from geocompress import diagnose_command

FILE = """
from torch import nn
import beside

def make():
    return nn.Sequential(nn.Linear(3, 6), nn.Dropout(0.1), nn.ReLU(), nn.Linear(6, beside.OUTPUTS))

def fails():
    raise KeyError("no settings")

def number():
    return 3
"""


@pytest.fixture
def files(tmp_path, monkeypatch):
    (tmp_path / "net.py").write_text(FILE)
    (tmp_path / "beside.py").write_text("OUTPUTS = 1\n")
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(0)
    for name in ("start", "end"):
        torch.save(diagnose_command.build("net.py:make").state_dict(), f"{name}.pt")
    rng = np.random.default_rng(0)
    x = rng.standard_normal((50, 3))
    y = np.where(x[:, 0] > 0, 1, -1)
    np.savez("train.npz", x=x[:30], y=y[:30])
    np.savez("test.npz", x=x[30:], y=y[30:])
    np.savez("both.npz", x=x[:30], y=y[:30], x_test=x[30:], y_test=y[30:])
    np.savez("objects.npz", x=np.array([None, 1], dtype=object), y=y[:2])
    np.savez("words.npz", x=x[:30], y=np.array(["a", "b"] * 15))
    np.save("plain.npy", x)
    return tmp_path


def call(text):
    return cli.main(["diagnose", *text.split()])


SETTINGS = """
from __future__ import annotations
from dataclasses import dataclass
from torch import nn

@dataclass(frozen=True)
class Settings:
    width: int = 4

def make():
    return nn.Linear(3, Settings().width)

def fails():
    raise KeyError("no settings")
"""


def test_a_file_may_use_what_looks_into_its_module(tmp_path):
    (tmp_path / "json.py").write_text(SETTINGS)  # a name that is taken
    before = set(sys.modules)
    with pytest.raises(ValueError, match="no settings"):
        diagnose_command.build(f"{tmp_path / 'json.py'}:fails")
    assert set(sys.modules) == before
    assert diagnose_command.build(f"{tmp_path / 'json.py'}:make").out_features == 4
    assert set(sys.modules) - before == {"_diagnosed_json"}
    sys.modules.pop("_diagnosed_json")


@pytest.mark.parametrize("data", ["both.npz", "train.npz --holdout test.npz", "train.npz"])
def test_files_in_page_out(files, capsys, data):
    assert call(f"net.py:make {data} --checkpoints start.pt end.pt --times 0 10 -o page.html") == 0
    assert capsys.readouterr().out.strip() == "page.html"
    page = (files / "page.html").read_text()
    assert ("no points held out" in page) == (data == "train.npz")
    assert "start" in page


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("net.py train.npz --checkpoints start.pt", "expected FILE.py:FUNCTION"),
        ("none.py:make train.npz --checkpoints start.pt", "expected FILE.py:FUNCTION with a file that exists"),
        ("net.py:other train.npz --checkpoints start.pt", "expected a function 'other', got none"),
        ("net.py:fails train.npz --checkpoints start.pt", "got KeyError: 'no settings'"),
        ("net.py:number train.npz --checkpoints start.pt", "returns a torch.nn.Module, got int"),
        ("net.py:make none.npz --checkpoints start.pt", "none.npz"),
        ("net.py:make plain.npy --checkpoints start.pt", "np.savez"),
        ("net.py:make net.py --checkpoints start.pt", "np.savez"),
        ("net.py:make objects.npz --checkpoints start.pt", "np.savez"),
        ("net.py:make words.npz --checkpoints start.pt", "an array 'y' of numbers, got <U1"),
        ("net.py:make both.npz --checkpoints start.pt --holdout test.npz", "drop one of the two"),
        ("net.py:make train.npz --checkpoints none.pt", "expected a file, got none there"),
        ("net.py:make train.npz --checkpoints net.py", "weights_only=True"),
        ("net.py:make train.npz --checkpoints start.pt --times 1 2", "one a checkpoint"),
        ("net.py:make train.npz --checkpoints start.pt --output 1", "below the 1 outputs"),
        ("net.py:make train.npz --checkpoints start.pt --memory-gb 1e-9", "memory_gb"),
        ("net.py:make train.npz --checkpoints start.pt -o nowhere/page.html", "a folder that exists"),
    ],
)
def test_what_is_refused(files, capsys, text, message):
    assert call(text) == 2
    error = capsys.readouterr().err
    assert error.startswith("geocompress diagnose: ")
    assert message in error
    assert "Traceback" not in error
