"""Smooth deformations: ramps give the field away; the stability of layers whose answer is known; and bad input."""

import functools
import math

import numpy as np
import pytest
import torch

from geocompress import deformations
from geocompress.deformations import deformed, relative_stability

SIZE = 32


def ramps(n, height=SIZE, width=SIZE):
    """Images whose two channels are the numbers of their row and their column."""
    rows, columns = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    return torch.stack([rows, columns]).double().expand(n, 2, height, width).clone()


def displacement_of(x, *settings, **options):
    """Of every place, from ramps, (n, 2, height, width): a linear image is interpolated without error inside."""
    return deformed(x, *settings, **options) - x


def test_ramps_move_by_the_root_mean_square_that_was_asked_for():
    for size in (0.2, 1.0):
        moved = displacement_of(ramps(200), size, 3)
        inside = moved[..., 4:-4, 4:-4]  # nearer to the rim some places would look outside
        assert float(moved.abs().max()) < 8 * size
        found = math.sqrt(float(moved.square().sum(1).mean()))
        assert found == pytest.approx(size, rel=2e-3)
        assert float(inside.square().mean()) > float(moved.square().mean())


def test_fields_vanish_at_the_rim_and_are_smooth():
    moved = displacement_of(ramps(100, 64, 64), 1.0, 0)
    rim = torch.cat([moved[..., 0, :], moved[..., -1, :], moved[..., :, 0], moved[..., :, -1]], -1)
    assert float(rim.abs().max()) < 0.15 * float(moved.abs().max())
    jumps = (moved[..., 1:, :] - moved[..., :-1, :]).square().mean()
    # of sin(iπs) with i ≤ 2 between two places of 64
    assert float(jumps) < (2 * math.pi / 64) ** 2 * float(moved.square().mean())


def test_frequencies_are_sines_with_the_weights_of_the_paper():
    """E C_ij² falls as 1/(i² + j²) where i² + j² ≤ c², and is zero beyond."""
    c, n = 4, 1500
    moved = displacement_of(ramps(n), 0.3, 1, frequencies=c).numpy()
    places = (np.arange(SIZE) + 0.5) / SIZE
    sines = np.stack([np.sin(math.pi * i * places) for i in range(1, c + 2)])
    found = np.mean(np.einsum("nkhw,ih,jw->nkij", moved, sines, sines) ** 2, axis=(0, 1))
    i = np.arange(1, c + 2)
    square = i[:, None] ** 2 + i**2
    expected = np.where(square <= c**2, 1 / square, 0.0)
    np.testing.assert_allclose(found / found[0, 0], expected / expected[0, 0], atol=0.06)


def test_rows_and_columns_are_those_of_images_that_are_not_square():
    moved = displacement_of(ramps(300, 16, 48), 0.5, 2)
    down, right = (float(moved[:, k].square().mean()) for k in (0, 1))
    assert down + right == pytest.approx(0.25, rel=2e-3)
    assert down == pytest.approx(right, rel=0.15)  # in pixels, whatever the sides


def test_constant_images_stay_and_every_image_has_its_own_field():
    constant = torch.full((3, 1, 8, 8), 2.5, dtype=torch.float64)
    torch.testing.assert_close(deformed(constant, 1.0, 0), constant)
    moved = displacement_of(ramps(2), 1.0, 0)
    assert float((moved[0] - moved[1]).abs().max()) > 0.3


def test_a_seed_means_the_same_fields_in_both_precisions():
    x = torch.randn(4, 3, 9, 9, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    once, again, other = deformed(x, 1.0, 5), deformed(x, 1.0, 5), deformed(x, 1.0, 6)
    assert torch.equal(once, again)
    assert float((once - other).abs().max()) > 0.1
    single = deformed(x.float(), 1.0, 5)
    assert single.dtype == torch.float32
    torch.testing.assert_close(single.double(), once, rtol=0, atol=1e-5)


def test_the_interpolation_is_that_between_the_four_places_around():
    x = torch.rand(2, 1, 6, 7, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    field = displacement_of(ramps(2, 6, 7), 0.6, 4)
    found = deformed(x, 0.6, 4)
    for n, row, column in ((0, 2, 3), (1, 3, 2), (1, 2, 4)):
        s, t = row + float(field[n, 0, row, column]), column + float(field[n, 1, row, column])
        top, left = math.floor(s), math.floor(t)
        four = x[n, 0, top : top + 2, left : left + 2]
        down, right = (torch.tensor([1 - u % 1, u % 1], dtype=torch.float64) for u in (s, t))
        value = down @ four @ right
        assert float(found[n, 0, row, column]) == pytest.approx(float(value), abs=1e-12)


# --- relative stability ---------------------------------------------------------------------------------------------


def blobs(n=64, size=SIZE):
    """Smooth images: a bump somewhere in the middle of each."""
    generator = torch.Generator().manual_seed(0)
    centre = 0.35 * size + 0.3 * size * torch.rand(n, 2, 1, 1, generator=generator, dtype=torch.float64)
    rows, columns = torch.meshgrid(torch.arange(size), torch.arange(size), indexing="ij")
    square = (rows - centre[:, :1]) ** 2 + (columns - centre[:, 1:]) ** 2
    return torch.exp(-square / (2 * (size / 8) ** 2))


def test_what_passes_images_on_has_stability_one():
    layers = lambda x: {"same": x, "turned": -3 * x.flatten(1).flip(1)}
    found = relative_stability(layers, blobs())
    assert found == pytest.approx({"same": 1.0, "turned": 1.0}, rel=1e-9)


def test_smoothing_and_differences_against_their_closed_forms():
    """White noise of norm s: a mean over N places has s²/N² of it, a difference of neighbours 2 s² (N − 1)/N²…"""
    x = blobs()
    moved = deformed(x, 1.0, 0)
    change = (moved - x).double()
    layers = lambda z: {"mean": z.mean((2, 3)), "difference": z[..., 1:] - z[..., :-1]}
    found = relative_stability(layers, x)
    n, per_place = SIZE**2, change.square().sum() / SIZE**2  # variance of the noise, summed over images
    mean = float(change.mean((2, 3)).square().sum() / (per_place / n))
    difference = float((change[..., 1:] - change[..., :-1]).square().sum() / (2 * per_place * (n - SIZE)))
    assert found["mean"] == pytest.approx(mean, rel=0.5)  # one number an image
    assert found["difference"] == pytest.approx(difference, rel=0.05)
    assert found["difference"] < 0.5 < 1 < found["mean"]


def test_blocks_of_images_change_nothing_and_seeds_do():
    layers = lambda z: {"squares": z.square().flatten(1), "edge": z[..., 0]}
    whole = relative_stability(layers, blobs(), seed=1)
    assert relative_stability(layers, blobs(), seed=1, block=7) == pytest.approx(whole, rel=1e-10)
    other = relative_stability(layers, blobs(), seed=2)["squares"]
    assert other != whole["squares"]
    assert list(whole) == ["squares", "edge"]


def test_larger_displacements_are_passed_on():
    layers = lambda z: {"mean": z.mean((2, 3)) ** 2}
    small, large = (relative_stability(layers, blobs(), displacement=size) for size in (0.1, 3.0))
    assert small != pytest.approx(large, rel=1e-3)


def test_no_gradient_is_kept():
    weight = torch.ones(1, dtype=torch.float64, requires_grad=True)
    seen = []

    def layers(x):
        seen.append((weight * x).requires_grad)
        return {"scaled": weight * x}

    relative_stability(layers, blobs(4))
    assert seen == [False] * 3


IMAGES = torch.zeros(2, 1, 8, 8)
DEFORM = functools.partial(deformed, IMAGES)
BAD = {
    "no displacement": (lambda: DEFORM(0.0, 0), ValueError, "displacement: expected"),
    "nan": (lambda: DEFORM(math.nan, 0), ValueError, "displacement: expected"),
    "seed": (lambda: DEFORM(1.0, -1), ValueError, "seed: expected an integer ≥ 0"),
    "frequencies": (lambda: DEFORM(1.0, 0, frequencies=1), ValueError, "frequencies: expected an integer ≥ 2"),
    # while testing, jaxtyping says it in words of its own before the function does
    "flat": (lambda: deformed(IMAGES[0, 0], 1.0, 0), (ValueError, TypeError), r"images \(n, c, h, w\)|'x'"),
    "bytes": (lambda: deformed(IMAGES.byte(), 1.0, 0), (ValueError, TypeError), "floating-point images|'x'"),
    "block": (lambda: relative_stability(lambda x: {"x": x}, blobs(2), block=0), ValueError, "block: expected"),
    "dead": (
        lambda: relative_stability(lambda x: {"b": 0 * x, "x": x, "a": x.round(decimals=-3)}, blobs(2)),
        ValueError,
        "expected layers that noise changes, got none in a, b",
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_refused(case):
    call, error, message = BAD[case]
    with pytest.raises(error, match=message):
        call()


def test_frequencies_default_to_those_of_the_module():
    x = ramps(3)
    assert torch.equal(deformed(x, 1.0, 0), deformed(x, 1.0, 0, frequencies=deformations.FREQUENCIES))
