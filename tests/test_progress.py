"""The forecast of a sweep: exact where costs follow its law, however many processes work."""

import dataclasses

import joblib
import pytest

from geocompress import progress, store


@dataclasses.dataclass(frozen=True)
class Config:
    p: int
    seed: int = 0
    method: str = "a"


@dataclasses.dataclass(frozen=True)
class Bare:
    name: str


CONFIGS = {store.key(c): c for c in [Config(p, s, m) for p in (64, 128, 256, 512) for s in range(3) for m in "ab"]}


def seconds(config):
    return (2.0 if config.method == "a" else 0.1) * (config.p / 64) ** 1.5


def row(key):
    took = seconds(CONFIGS[key])
    return {"key": key, "status": "DONE", "wall_s": 0.25 * took, "test_s": 0.75 * took}


@pytest.fixture
def clock(monkeypatch):
    now = [1000.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    return now


@pytest.mark.parametrize("processes", [1, 4])
def test_a_power_law_of_each_method_is_found(clock, processes):
    forecast = progress.Forecast(CONFIGS, {}, CONFIGS)
    assert forecast.seconds() is None
    assert forecast.text() == ""
    done = [key for key, config in CONFIGS.items() if config.p <= 128]
    for key in done:
        clock[0] += seconds(CONFIGS[key]) / processes
        forecast.add(row(key))
    left = sum(seconds(config) for key, config in CONFIGS.items() if key not in done) / processes
    assert forecast.seconds() == pytest.approx(left)
    assert forecast.left == 12


def test_rows_of_an_earlier_run_tell_costs_and_not_speed(clock):
    """A run that starts again knows what points cost; how fast it goes, it sees."""
    earlier = {key: row(key) for key, config in CONFIGS.items() if config.p < 512}
    todo = CONFIGS.keys() - earlier.keys()
    forecast = progress.Forecast(CONFIGS, earlier, todo)
    first, *others = sorted(todo)
    clock[0] += 3 * seconds(CONFIGS[first])  # a third of the speed
    forecast.add(row(first))
    assert forecast.seconds() == pytest.approx(3 * sum(seconds(CONFIGS[key]) for key in others))
    assert forecast.text().startswith("about ")


def test_failures_are_done_and_teach_nothing(clock):
    forecast = progress.Forecast(CONFIGS, {}, CONFIGS)
    keys = list(CONFIGS)
    for key in keys[:6]:
        clock[0] += seconds(CONFIGS[key])
        forecast.add(row(key))
    before = forecast.left
    failed = keys[6]
    forecast.add({"key": failed, "status": "FAILED", "wall_s": 0.0})
    assert forecast.left == before - 1
    # one size done: cost in proportion to p, which is the law as long as nothing else is known
    expected = sum(seconds(dataclasses.replace(CONFIGS[k], p=64)) * CONFIGS[k].p / 64 for k in keys[7:])
    assert forecast.seconds() == pytest.approx(expected)


def test_points_without_a_size_count_the_same(clock):
    configs = {name: Bare(name) for name in "abcd"}
    forecast = progress.Forecast(configs, {}, configs)
    clock[0] += 5
    forecast.add({"key": "a", "status": "DONE", "wall_s": 5.0})
    assert forecast.seconds() == pytest.approx(15)
    assert progress.Forecast({}, {}, {}).seconds() is None


def test_processes_that_compute_beside_others_show_no_bars():
    assert progress.hidden() is None
    assert joblib.Parallel(n_jobs=2)(joblib.delayed(progress.hidden)() for _ in range(2)) == [True, True]
