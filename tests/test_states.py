"""States in between accepted steps, and states in files."""

import dataclasses
import pickle

import pytest
import torch

from geocompress import flow, networks, states, tasks
from geocompress.states import Status

NET = networks.OneHidden(d=3, width=40)
X, Y = tasks.stripe(3).sample(14, 101)


def path():
    return flow.hinge_flow(NET, NET.init(0), X, Y, alpha=1.0, margin_tol=0.03, state_tol=0.03)


def test_on_an_accepted_time_the_state_is_the_accepted_one():
    accepted = list(path())
    chosen = accepted[3::10]
    for found, expected in zip(states.at_times(path(), [s.t for s in chosen]), chosen, strict=True):
        torch.testing.assert_close(found.margins, expected.margins)
        torch.testing.assert_close(found.params["omega"], expected.params["omega"])


def test_in_between_the_error_is_of_the_order_of_the_step():
    times = [0.7, 1.3, 2.9, 6.1]
    for found in states.at_times(path(), times):
        *_, there = flow.hinge_flow(
            NET, NET.init(0), X, Y, alpha=1.0, margin_tol=0.03, state_tol=0.03, max_time=found.t
        )
        assert there.t == pytest.approx(found.t)
        after = next(s for s in path() if s.t > found.t)
        assert torch.equal(found.multipliers, after.multipliers)
        torch.testing.assert_close(found.margins.clamp(max=1.5), there.margins.clamp(max=1.5), rtol=0, atol=0.06)


def test_after_the_end_nothing_moves():
    *_, end = path()
    late = list(states.at_times(path(), [2 * end.t, 3 * end.t]))
    assert [s.t for s in late] == [2 * end.t, 3 * end.t]
    assert all(torch.equal(s.margins, end.margins) and s.status is end.status for s in late)


@pytest.mark.parametrize("times", [[2.0, 1.0], [-1.0], [float("nan")]])
def test_times_that_do_not_ascend_are_refused(times):
    with pytest.raises(ValueError, match="ascending times"):
        list(states.at_times(path(), times))


def same(a, b):
    if isinstance(a, dict):
        return list(a) == list(b) and all(map(torch.equal, a.values(), b.values()))
    return torch.equal(a, b) if isinstance(a, torch.Tensor) else a == b


@pytest.mark.parametrize("with_velocity", [False, True])
def test_a_state_comes_back_from_its_file_to_the_last_bit(tmp_path, with_velocity):
    *_, end = flow.hinge_flow(NET, NET.init(0), X, Y, alpha=1.0, max_steps=7)
    end = dataclasses.replace(end, velocity=NET.init(1) if with_velocity else None)
    states.save(end, tmp_path / "state.pt", recipe="p = 14", t_star=None, wall_s=0.1)
    assert [file.name for file in tmp_path.iterdir()] == ["state.pt"]
    found, notes = states.load(tmp_path / "state.pt")
    assert notes == {"recipe": "p = 14", "t_star": None, "wall_s": 0.1}
    assert found.status is end.status is Status.MAX_STEPS
    assert all(same(getattr(found, f.name), getattr(end, f.name)) for f in dataclasses.fields(end))


def test_a_file_is_replaced_whole_or_not_at_all(tmp_path, monkeypatch):
    first, second, *_ = path()
    states.save(first, tmp_path / "state.pt")

    def broken(content, file):
        file.write_bytes(b"half of it")
        raise OSError("no space left")

    monkeypatch.setattr(torch, "save", broken)
    with pytest.raises(OSError, match="no space left"):
        states.save(second, tmp_path / "state.pt")
    assert states.load(tmp_path / "state.pt")[0].step == first.step


OTHERS = {
    "empty": lambda file: file.write_bytes(b""),
    "noise": lambda file: file.write_bytes(b"not a state"),
    "truncated": lambda file: file.write_bytes(file.read_bytes()[:-200]),
    "a tensor": lambda file: torch.save(torch.ones(3), file),
    "weights": lambda file: torch.save(NET.init(0), file),
    "a field too few": lambda file: torch.save({"state": {"status": "FITTED", "t": 1.0}, "notes": {}}, file),
    "an unknown status": lambda file: torch.save({"state": {"status": "HAPPY"}, "notes": {}}, file),
    "code": lambda file: file.write_bytes(pickle.dumps(print, protocol=2)),
}


@pytest.mark.parametrize("case", OTHERS)
def test_a_file_that_is_no_state_is_refused(tmp_path, case):
    file = tmp_path / "state.pt"
    states.save(next(path()), file)
    OTHERS[case](file)
    with pytest.raises(ValueError, match=r"state.pt: expected a state written by states.save, got .*; delete the file"):
        states.load(file)


def test_a_file_that_is_not_there_is_said(tmp_path):
    with pytest.raises(FileNotFoundError):
        states.load(tmp_path / "absent.pt")
