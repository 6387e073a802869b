"""The two nets to try the diagnostic on: data from seeds, training that repeats, files that load."""

import pytest
import torch

from geocompress import examples


def test_motifs_hide_the_label_in_the_first_channel():
    data = examples.motifs(4000, 50, seed=1)
    assert data.x.shape == (4000, 3, 24)
    assert data.x_test.shape == (50, 3, 24)
    assert abs(float(data.y.mean())) < 0.1
    ramp = torch.tensor(examples.MOTIF)
    slope = torch.nn.functional.conv1d(data.x.flatten(0, 1)[:, None], ramp[None, None]).reshape(4000, 3, -1)
    told = slope.gather(2, slope.abs().argmax(2, keepdim=True))[..., 0].sign() * data.y[:, None]
    agree = (told > 0).float().mean(0)
    assert agree[0] > 0.95
    assert (agree[1:] - 0.5).abs().max() < 0.05
    assert torch.equal(examples.motifs(4000, 50, seed=1).x, data.x)


def test_digits_are_all_used_once():
    data = examples.digits(300)
    assert (len(data.x), len(data.x_test)) == (300, 1497)
    assert set(data.y.tolist()) == {-1.0, 1.0}
    assert len(torch.cat([data.x, data.x_test]).flatten(1).unique(dim=0)) == len(
        examples.images.load("digits").x.unique(dim=0)
    )
    with pytest.raises(ValueError, match="at most 1700"):
        examples.digits(1797)


def test_training_repeats_and_saves_what_it_says(tmp_path):
    data = examples.motifs(64, 10)
    nets = [examples.motif_net(), examples.motif_net()]
    before = torch.random.get_rng_state()
    found = []
    for number, net in enumerate(nets):
        (tmp_path / str(number)).mkdir()
        files = examples.train(net, data, tmp_path / str(number), epochs=2, save_at=[0, 2], seed=3)
        assert [file.name for file in files] == ["epoch_000.pt", "epoch_002.pt"]
        found.append([torch.load(file, weights_only=True) for file in files])
    assert torch.equal(torch.random.get_rng_state(), before)
    for one, other in zip(*found, strict=True):
        assert all(torch.equal(one[name], other[name]) for name in one)
    start, end = found[0]
    assert not torch.equal(start["0.weight"], end["0.weight"])


@pytest.mark.parametrize("save_at", [[], [2, 0], [0, 3], [-1]])
def test_epochs_to_save_at_are_checked(tmp_path, save_at):
    with pytest.raises(ValueError, match="ascending epochs from 0 to 2"):
        examples.train(examples.motif_net(), examples.motifs(8, 2), tmp_path, epochs=2, save_at=save_at)
