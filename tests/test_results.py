"""Published rows are those that this library computes, and fill their grid."""

import dataclasses

import pytest

from geocompress import __main__, experiments, store, sweep

FOLDER = store.results_directory()
NAMES = sorted(path.stem for path in FOLDER.glob("*.yaml"))


def configs(name):
    return sweep.grid(experiments.NetworkConfig, **__main__.read_parameters(FOLDER / f"{name}.yaml"))


def test_there_are_published_rows():
    assert NAMES


@pytest.mark.parametrize("name", NAMES)
def test_rows_fill_their_grid_and_come_from_one_clean_commit(name):
    rows = store.load(name)
    assert sorted(rows.key) == sorted(store.key(config) for config in configs(name))
    assert rows.commit.nunique() == 1
    assert not rows.dirty.any()
    assert (rows.status == "FITTED").all()


@pytest.mark.parametrize("name", NAMES)
def test_cheap_rows_come_out_again(name):
    """λ(t*) to rounding; the end of a run, where rounding grows, to less than what seeds differ by."""
    rows = store.load(name).set_index("key")
    cheap = sorted(configs(name), key=lambda config: config.p)[:3]
    for config in cheap:
        published = rows.loc[store.key(config)]
        again = experiments.train_network(dataclasses.replace(config, test_size=20_000))
        assert again["lambda_star"] == pytest.approx(published.lambda_star, rel=1e-3)
        assert again["test_error"] == pytest.approx(published.test_error, rel=0.15)
        assert again["t_star"] == pytest.approx(published.t_star, rel=1e-3)
