"""Saved states: what is read is what was saved, and what does not fit is refused by name."""

import pytest
import torch
from torch import nn

from geocompress import checkpoints


def net(width=4):
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, width), nn.BatchNorm1d(width), nn.ReLU(), nn.Linear(width, 1)).eval()


class Unsaved(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(2, 1)
        self.register_buffer("offset", torch.tensor([0.5, 0.25]), persistent=False)

    def forward(self, x):
        return self.layer(x + self.offset)


def test_files_and_dictionaries_give_what_was_saved(tmp_path):
    module = net()
    torch.save(module.state_dict(), tmp_path / "epoch_3.pt")
    first, second = checkpoints.read([str(tmp_path / "epoch_3.pt"), module.state_dict()], module)
    assert (first.name, second.name) == ("epoch_3", "state 1")
    for name, value in module.state_dict().items():
        assert torch.equal(first.tensors[name], value)
        assert torch.equal(second.tensors[name], value)


def test_nothing_is_the_module_as_it_is():
    (only,) = checkpoints.read(None, module := net())
    assert only.name == "as it is"
    assert torch.equal(only.tensors["0.weight"], module[0].weight)


def test_buffers_that_are_not_saved_are_those_of_the_module():
    module = Unsaved()
    (only,) = checkpoints.read([module.state_dict()], module)
    assert torch.equal(only.tensors["offset"], module.offset)


def test_names_may_be_given():
    states = [net().state_dict()] * 2
    assert [one.name for one in checkpoints.read(states, net(), ["start", "end"])] == ["start", "end"]
    with pytest.raises(ValueError, match="one text for each of 2"):
        checkpoints.read(states, net(), ["start"])


def broken(state, **changes):
    return {name: value for name, value in {**state, **changes}.items() if value is not None}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s: broken(s, **{"3.bias": None}), r"missing: 3\.bias"),
        (lambda s: broken(s, head=torch.ones(1)), "unexpected: head"),
        (lambda s: broken(s, **{"3.bias": torch.ones(2)}), r"another shape: 3\.bias \(2,\) for \(1,\)"),
        (lambda s: {f"module.{name}": value for name, value in s.items()}, "drop 'module.' before every name"),
        (lambda s: broken(s, **{"3.bias": torch.tensor([torch.nan])}), r"finite numbers in 3\.bias"),
        (lambda s: {}, "an empty one"),
        (lambda s: {"model": s, "epoch": 3}, "entries 'model', 'epoch'"),
    ],
)
def test_states_that_do_not_fit_are_refused(change, message):
    module = net()
    with pytest.raises(ValueError, match=message):
        checkpoints.read([change(module.state_dict())], module)


def test_two_values_of_a_shared_parameter_are_refused():
    layer = nn.Linear(3, 3)
    module = nn.Sequential(layer, nn.Tanh(), layer)
    assert checkpoints.read([module.state_dict()], module)
    with pytest.raises(ValueError, match=r"one value of 0\.weight, which the module shares as 2\.weight"):
        checkpoints.read([broken(module.state_dict(), **{"2.weight": torch.ones(3, 3)})], module)


def test_another_dtype_is_refused():
    with pytest.raises(TypeError, match=r"0\.weight in torch\.float32, got torch\.float64"):
        checkpoints.read([net().double().state_dict()], net())


@pytest.mark.parametrize("wrong", ["a.pt", {"0.weight": torch.ones(1)}, 3])
def test_no_list_is_refused(wrong):
    with pytest.raises(TypeError, match="a list of state_dicts or of paths"):
        checkpoints.read(wrong, net())


def test_an_empty_list_and_a_strange_entry_are_refused():
    with pytest.raises(ValueError, match="at least one state"):
        checkpoints.read([], net())
    with pytest.raises(TypeError, match="a state_dict or a path, got int"):
        checkpoints.read([3], net())


def test_files_that_hold_no_state_are_refused(tmp_path):
    module = net()
    (tmp_path / "text.pt").write_text("weights")
    (tmp_path / "empty.pt").write_bytes(b"")
    torch.save(module, tmp_path / "module.pt")  # a pickled class, which weights_only does not load
    torch.save([1, 2], tmp_path / "list.pt")
    torch.save(module.state_dict(), tmp_path / "whole.pt")
    (tmp_path / "half.pt").write_bytes((tmp_path / "whole.pt").read_bytes()[:600])
    for name in ("text", "empty", "module", "half"):
        with pytest.raises(ValueError, match=f"{name}.*loads with weights_only=True"):
            checkpoints.read([tmp_path / f"{name}.pt"], module)
    with pytest.raises(ValueError, match="a dictionary of tensors, got list"):
        checkpoints.read([tmp_path / "list.pt"], module)
    with pytest.raises(FileNotFoundError, match=r"none\.pt"):
        checkpoints.read([tmp_path / "none.pt"], module)
