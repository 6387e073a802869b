"""The page of a report: whole in itself, described, true to the table; figures refuse what they cannot draw."""

import html.parser

import matplotlib.pyplot as plt
import pytest
import torch
from torch import nn

from geocompress import diagnosis_figures, diagnosis_page
from geocompress.diagnosis import diagnose


def report(shape=(6,), outputs=1, test=True, **told):
    torch.manual_seed(0)
    x = torch.randn(50, *shape)
    y = (x.flatten(1)[:, 0] > 0).long()
    size = x[0].numel()
    states = []
    for _ in range(2):
        module = nn.Sequential(nn.Flatten(), nn.Linear(size, 8), nn.ReLU(), nn.Linear(8, outputs)).eval()
        states.append(module.state_dict())
    holdout = (x[30:], y[30:]) if test else None
    return diagnose(module, x[:30], y[:30], checkpoints=states, holdout=holdout, **told)


class Structure(html.parser.HTMLParser):
    """Tags that are open, and what every element of interest says of itself."""

    def __init__(self, text):
        super().__init__()
        self.open, self.found, self.loads = [], [], []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        told = dict(attrs)
        self.found.append((tag, told))
        self.loads += [told[key] for key in ("src", "srcset", "href", "xlink:href") if key in told]
        if tag not in ("meta", "link", "br", "img"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_startendtag(self, tag, attrs):
        told = dict(attrs)
        self.loads += [told[key] for key in ("src", "href", "xlink:href") if key in told]


def test_page_is_whole_described_and_true(tmp_path):
    one = report(shape=(1, 4, 4))
    path = diagnosis_page.write_html(one, tmp_path / "report.html")
    text = path.read_text(encoding="utf-8")
    structure = Structure(text)
    assert structure.open == []
    assert all(place.startswith(("#", "data:")) for place in structure.loads)  # nothing is loaded from elsewhere
    assert "url(http" not in text
    assert "<script" not in text
    drawings = [told for tag, told in structure.found if tag == "svg"]
    assert len(drawings) == 5
    assert all(told["role"] == "img" and len(told["aria-label"]) > 20 for told in drawings)
    assert diagnosis_page.INK not in text
    assert "currentColor" in text
    last = one.table.iloc[-1]
    for number in (
        f"{last.net_error:.3f}",
        f"{last.kernel_error:.3f}",
        f"{last.alignment:.3f}",
        f"{last.compression:.3g}",
    ):
        assert number in text
    assert "viewport" in text
    assert "prefers-color-scheme: dark" in text


def test_page_says_what_is_not_there():
    text = diagnosis_page.html(report(test=False))
    assert "no points held out" in text
    assert "there are no test errors" in text
    assert "along known" not in text
    assert "along known" in diagnosis_page.html(report(directions=torch.eye(6)[:1]))


def test_page_of_whole_numbers_and_of_classes():
    torch.manual_seed(0)
    x = torch.randint(0, 4, (40, 3))
    module = nn.Sequential(nn.Embedding(4, 3), nn.Flatten(), nn.Linear(9, 1)).eval()
    assert "have no gradient" not in (text := diagnosis_page.html(diagnose(module, x, (x[:, 0] > 1).long())))
    assert "The inputs are whole numbers" in text
    assert "task: classes" in diagnosis_page.html(report(outputs=2))


def test_names_cannot_break_the_page():
    text = diagnosis_page.html(report(names=["<b>start", "end & more"]))
    assert "<b>start" not in text
    assert "&lt;b&gt;start" in text
    assert Structure(text).open == []


def test_a_kernel_without_machine_is_named():
    torch.manual_seed(0)
    x = torch.randn(40, 3)
    y = (x[:, 0] > 0).long()
    x[1], y[1] = x[0], 1 - y[0]
    module = nn.Linear(3, 1)
    text = diagnosis_page.html(diagnose(module, x, y, holdout=(torch.randn(9, 3), torch.ones(9).long())))
    assert "does not separate the training points" in text


@pytest.mark.parametrize("shape", [(4,), (20,), (2, 3), (3, 20), (2, 4, 4), (1, 1, 3)])
def test_directions_of_every_shape(shape):
    figure, axes = plt.subplots(1, 2)
    assert len(diagnosis_figures.directions(list(axes), report(shape=shape))) == 2
    plt.close(figure)


def test_figures_refuse_what_they_cannot_draw():
    figure, axes = plt.subplots(1, 7)
    with pytest.raises(ValueError, match="held-out points, got none"):
        diagnosis_figures.errors(axes[0], report(test=False))
    with pytest.raises(ValueError, match="at most 6 axes"):
        diagnosis_figures.directions(list(axes), report())
    plt.close(figure)
