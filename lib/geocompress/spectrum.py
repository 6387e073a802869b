"""The spectrum of a kernel on its training points, and what its eigenvectors know about the label.

Grams come as torch tensors or numpy arrays and are looked at in float64; results are numpy arrays on the processor.
Nothing here knows about networks: a kernel too large to hold is a `LinearOperator`, a product with a vector.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int
from scipy.linalg import eigh
from scipy.sparse.linalg import ArpackNoConvergence, LinearOperator, eigsh
from sklearn.feature_selection import mutual_info_classif

from geocompress import spectrum_checks
from geocompress.checks import Whole, integer
from geocompress.fits import fit_power_law
from geocompress.spectrum_checks import Numbers

NEIGHBOURS = 5  # of the estimator of mutual information, as in arXiv:2007.11471
DENSE = 512  # points up to which the dense decomposition, which sees multiplicities, costs next to nothing (0.05 s)
EQUAL = 1e-9  # eigenvalues this close, in units of the largest, are taken for one: far above rounding
BLIND = 1e-10  # |⟨u, y⟩| / |y| below which the sign of the projection is rounding


@dataclass(frozen=True, eq=False)
class Spectrum:
    """The k largest eigenvalues λ_r of a Gram and their eigenvectors u_r, by conventions that make them comparable.

    Signs: ⟨u_r, y⟩ ≥ 0. An eigenvector that does not see the label, and every one where no label was given, has its
    entry of largest modulus positive.
    Degeneracy: eigenvalues that follow each other at a distance of at most 10⁻⁹ λ_1 are one, and their eigenvectors any
    basis of its space. The first one of the group is then turned to carry all of the label's projection, the others
    carry none, so label projections and energies are those of the space; beyond that nothing is said of the basis.

    Attributes:
        values: λ_1 ≥ … ≥ λ_k, shape (k,), in the unit of the Gram.
        vectors: u_r as columns, orthonormal, shape (p, k).
        group: number of the eigenvalue that each pair belongs to, from 0, shape (k,); equal for degenerate pairs.
        cut: whether the last group goes on beyond the k-th pair; its space is then not known, only a part of it.
    """

    values: Float[np.ndarray, " k"]
    vectors: Float[np.ndarray, "p k"]
    group: Int[np.ndarray, " k"]
    cut: bool

    def extend(self, cross: Numbers) -> Float[np.ndarray, "q k"]:
        """Eigenfunctions at new points from the cross-Gram K(x, X) (q, p): φ_r(x) = K(x, X) u_r / λ_r (Nyström).

        At the training points φ_r is u_r itself.

        Raises:
            ValueError: a cross-Gram that does not fit, or an eigenvalue that is zero up to rounding.
        """
        cross = spectrum_checks.array(cross, "cross", 2)
        p = len(self.vectors)
        if cross.shape[1] != p:
            raise ValueError(f"cross: expected the kernel of new against training points (q, {p}), got {cross.shape}")
        if not self.values[-1] > p * np.finfo(float).eps * self.values[0]:
            raise ValueError(
                f"extend: expected eigenvalues above zero, got {self.values[-1]:.3g}; ask for fewer eigenpairs"
            )
        return cross @ self.vectors / self.values


def top_eigenpairs(
    gram: Numbers | LinearOperator, k: Whole = 10, *, y: Numbers | None = None, dense: bool | None = None
) -> Spectrum:
    """The k largest eigenvalues of a symmetric matrix with their eigenvectors; see `Spectrum` on the conventions.

    Up to 512 points by LAPACK, above by Lanczos (ARPACK), to machine precision and from a fixed start. At p = 2048 and
    ten pairs that is 8 times faster (0.2 against 1.6 s). Lanczos sees the copies of a repeated eigenvalue only through
    rounding: use `dense=True` where multiplicities matter.

    Args:
        gram: K (p, p), symmetric; or a `LinearOperator` of that shape and kind, whose symmetry is not checked.
        k: number of pairs, at most p.
        y: labels or any target (p,), which fixes signs and the first vector of degenerate groups.
        dense: decompose in full (True) or by Lanczos (False) instead of by size.

    Raises:
        TypeError: a Gram or y that are no numbers, k no integer.
        ValueError: a Gram that is not square, finite and symmetric, or of a single point; k above p; a y that does not
            fit or is zero; Lanczos asked for more than p − 2 pairs.
        RuntimeError: if Lanczos does not converge.
    """
    k = integer(k, "k")
    held = not isinstance(gram, LinearOperator)
    matrix = spectrum_checks.gram(gram, "gram") if held else gram
    p = matrix.shape[0]
    if matrix.shape != (p, p) or p < 2:
        raise ValueError(f"gram: expected an operator (p, p) on p ≥ 2 points, got {matrix.shape}")
    if k > p:
        raise ValueError(f"k: expected at most one eigenpair a point, p = {p}, got {k}; ask for fewer")
    target = None if y is None else spectrum_checks.target(y, p, "y")
    more = min(k + 1, p)  # one more than asked tells whether the last group is cut
    if dense is False and more > p - 1:
        raise ValueError(f"k: expected at most p − 2 = {p - 2} pairs by Lanczos, got {k}; use dense=True")
    if dense or (dense is None and (p <= DENSE or more > p - 1)):
        matrix = matrix if held else matrix @ np.eye(p)
        values, vectors = eigh(matrix, subset_by_index=(p - more, p - 1))
    else:
        values, vectors = _lanczos(matrix, more)
    order = np.argsort(-values, kind="stable")
    values, vectors = values[order], vectors[:, order]
    group = np.concatenate([[0], np.cumsum(-np.diff(values) > EQUAL * np.abs(values).max())])
    cut = more > k and group[k] == group[k - 1]
    values, vectors, group = values[:k], vectors[:, :k], group[:k]
    return Spectrum(values, _oriented(vectors, group, target), group, bool(cut))


def label_projections(vectors: Numbers, y: Numbers) -> Float[np.ndarray, " k"]:
    """⟨u_r, y⟩² / |y|² of each orthonormal column, shape (k,): the share of the label along it, between 0 and 1.

    Raises:
        TypeError, ValueError: arrays that are not finite numbers of shapes (p, k) and (p,), or y = 0.
    """
    vectors = spectrum_checks.array(vectors, "vectors", 2)
    y = spectrum_checks.target(y, len(vectors), "y")
    return (vectors.T @ y) ** 2 / (y @ y)


def relative_energy(vectors: Numbers, v: Numbers) -> Float[np.ndarray, " k"]:
    """E_j(v) = Σ_{i≤j} ⟨u_i, v⟩² / |v|², shape (k,): the share of v in the first j eigenvectors (arXiv:1910.08720).

    Raises:
        TypeError, ValueError: as `label_projections`.
    """
    return np.cumsum(label_projections(vectors, v))


def mutual_information(
    vectors: Numbers, y: Numbers, *, neighbours: Whole = NEIGHBOURS, seed: Whole = 0
) -> Float[np.ndarray, " k"]:
    """I(φ_r; y) in nats between each column and a discrete label, by nearest neighbours (Ross, PLoS ONE 9, 2014).

    Components are standardised to mean 0 and deviation 1. Then scikit-learn's estimator: with k neighbours of a point
    among the n_y of its class, and m points of any class nearer than the k-th of these,
    I = ψ(n) + ψ(k) − ⟨ψ(n_y)⟩ − ⟨ψ(m)⟩, cut off below zero. It adds noise of 10⁻¹⁰, drawn by `seed`, so that no two
    values are equal. At most ln 2 for two balanced classes, up to the noise of the estimate, about 1/√n.

    Args:
        vectors: one continuous variable a column, shape (p, k).
        y: labels (p,), each of them on more than `neighbours` points.
        neighbours: k of the estimator.
        seed: of its noise.

    Raises:
        TypeError, ValueError: arrays that do not fit or are not finite, one class only, a class too small, or a column
            that is constant.
    """
    vectors = spectrum_checks.array(vectors, "vectors", 2)
    neighbours, seed = integer(neighbours, "neighbours"), integer(seed, "seed", minimum=0)
    y = spectrum_checks.target(y, len(vectors), "y")
    labels, counts = np.unique(y, return_counts=True)
    if len(labels) < 2:
        raise ValueError(f"y: expected at least two classes, got {labels[0]:g} only; a constant has no information")
    if counts.min() <= neighbours:
        raise ValueError(
            f"y: expected more than {neighbours} points in each class, got {counts.min()} with label "
            f"{labels[counts.argmin()]:g}; use fewer neighbours or more points (is y continuous?)"
        )
    spread = vectors.std(0)
    if not (spread > 1e-12 * np.abs(vectors).max(0)).all():
        raise ValueError(f"vectors: expected columns that vary, got a constant column {int(spread.argmin())}; drop it")
    standard = (vectors - vectors.mean(0)) / spread
    classes = np.searchsorted(labels, y)
    found = mutual_info_classif(standard, classes, discrete_features=False, n_neighbors=neighbours, random_state=seed)
    return found.astype(np.float64)  # it returns integers where every estimate was cut off at zero


def label_alignment(gram: Numbers, y: Numbers) -> float:
    """Centred alignment of a Gram with y yᵀ: ỹᵀ K ỹ / (|H K H| |ỹ|²), ỹ = H y, H = I − 1/p (Cortes et al., 2012).

    1 if the centred kernel is y yᵀ up to a factor, 0 if it ignores the label; never negative for a kernel.

    Raises:
        TypeError, ValueError: a Gram that is not square, finite and symmetric, a label that does not fit, one class
            only, or a Gram that centring makes zero.
    """
    gram = spectrum_checks.gram(gram, "gram")
    y = spectrum_checks.target(y, len(gram), "y")
    centred = y - y.mean()
    if not np.abs(centred).max() > 1e-12 * np.abs(y).max():
        raise ValueError(f"y: expected at least two classes, got {y[0]:g} only; nothing is left after centring")
    return float(centred @ gram @ centred) / (_centred_norm(gram) * float(centred @ centred))


def kernel_alignment(gram: Numbers, other: Numbers) -> float:
    """Centred alignment of two Grams on the same points, ⟨HKH, HLH⟩ / (|HKH| |HLH|): 1 if they are proportional (CKA).

    Raises:
        TypeError, ValueError: as `label_alignment`, or Grams of two sizes.
    """
    gram, other = spectrum_checks.gram(gram, "gram"), spectrum_checks.gram(other, "other")
    if gram.shape != other.shape:
        raise ValueError(f"other: expected a Gram on the same {len(gram)} points, got one on {len(other)}")
    product = float(np.vdot(_centred(gram), other))  # H is a projection: one of the two may stay as it is
    return product / (_centred_norm(gram) * _centred_norm(other))


def centred(gram: Numbers) -> Float[np.ndarray, "p p"]:
    """H K H with H = 1 − 11ᵀ/p, the Gram of features minus their mean: what kernel PCA decomposes; raises as below."""
    result = _centred(spectrum_checks.gram(gram, "gram"))
    return (result + result.T) / 2


def effective_dimension(gram: Numbers) -> float:
    """Participation ratio (tr K)² / tr K² of the eigenvalues: how many of them matter, from 1 to p.

    Raises:
        TypeError, ValueError: a Gram that is not square, finite and symmetric, or is zero.
    """
    gram = spectrum_checks.gram(gram, "gram")
    if not gram.any():
        raise ValueError("gram: expected a kernel that is not zero everywhere; look at the net it came from")
    return float(np.trace(gram) / np.linalg.norm(gram)) ** 2


def decay_exponent(values: Numbers, first: Whole, last: Whole) -> float:
    """The a of λ_r ~ r^{−a}, by least squares of log λ_r on log r over the ranks first ≤ r ≤ last, from 1.

    A cusp of exponent ξ in d dimensions makes a = 1 + ξ/d (arXiv:2007.11471). Keep the window off the first ranks,
    where the law has not begun, and off those near p, where the Gram no longer knows the kernel.

    Raises:
        TypeError, ValueError: eigenvalues that do not descend or are not positive in the window, or a window that holds
            fewer than two ranks or goes beyond the k at hand.
    """
    values = spectrum_checks.array(values, "values", 1)
    first, last = integer(first, "first"), integer(last, "last")
    if not first < last <= len(values):
        raise ValueError(f"window: expected 1 ≤ first < last ≤ k = {len(values)}, got {first} and {last}")
    inside = values[first - 1 : last]
    if not (inside > 0).all() or (np.diff(inside) > 0).any():
        raise ValueError(f"values: expected positive eigenvalues in descending order in the window, got {inside[:5]}…")
    return fit_power_law(np.arange(first, last + 1), inside, n_bootstrap=1).beta


def _lanczos(matrix: np.ndarray | LinearOperator, k: int) -> tuple[np.ndarray, np.ndarray]:
    start = np.random.default_rng(0).standard_normal(matrix.shape[0])  # the same run every time
    try:
        return eigsh(matrix, k, which="LA", v0=start, ncv=min(matrix.shape[0], max(2 * k + 1, 40)))
    except ArpackNoConvergence as error:
        raise RuntimeError(f"top_eigenpairs: Lanczos did not converge: {error}; use dense=True") from error


def _oriented(vectors: np.ndarray, group: np.ndarray, target: np.ndarray | None) -> np.ndarray:
    """The same spaces with signs, and bases of degenerate ones, by the conventions of `Spectrum`."""
    vectors = vectors.copy()
    seen = np.zeros(vectors.shape[1]) if target is None else vectors.T @ target / np.linalg.norm(target)
    for number in np.unique(group):
        (members,) = (group == number).nonzero()
        share = seen[members]
        if len(members) > 1 and np.linalg.norm(share) > BLIND:
            turn = np.linalg.qr(np.column_stack([share, np.eye(len(members))]))[0]  # its first column is along share
            vectors[:, members] = vectors[:, members] @ turn
            seen[members] = share @ turn
    largest = np.take_along_axis(vectors, np.abs(vectors).argmax(0)[None], 0)[0]
    return vectors * np.where(np.where(np.abs(seen) > BLIND, seen, largest) < 0, -1.0, 1.0)


def _centred(gram: np.ndarray) -> np.ndarray:
    mean = gram.mean(0)
    return gram - mean - (mean - mean.mean())[:, None]


def _centred_norm(gram: np.ndarray) -> float:
    norm = float(np.linalg.norm(_centred(gram)))
    if not norm > 1e-12 * len(gram) * np.abs(gram).max():
        raise ValueError(
            "gram: expected a kernel that tells points apart, got one that is constant; centring makes it zero"
        )
    return norm
