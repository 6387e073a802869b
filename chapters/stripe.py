# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# (stripe)=
# # The stripe
#
# Take points in several dimensions and colour them by the first coordinate alone: one colour inside a band, the other
# outside. A network sees the points and the colours. Nobody tells it that all other coordinates are noise. Does it find
# out? And what does it gain?
#
# This chapter trains networks on that task to the very end, watches their neurons turn, and measures both answers. The
# argument behind the predictions is in {doc}`theory`. The task, the network and most of the observables are those of
# {cite:t}`paccolat2021geometric`.

# %% tags=["parameters"]
d = 5
p = 256
width = 1000
alpha = 1e-6
seed = 0
p_grid = [64, 128, 256, 512]
n_seeds = 6
test_size = 20000
device = "cpu"
published = "stripe-network"

# %% tags=["hide-cell"]
from geocompress import notebooks

notebooks.check_parameters("stripe")

# %% tags=["hide-input"]
import dataclasses
from fractions import Fraction

import matplotlib.pyplot as plt
import numpy as np
from IPython.display import HTML
from myst_nb import glue

from geocompress import animations, directions, experiments, exponents, figures, store, sweep, tasks, timelines

figures.use_style()

# %% [markdown]
# ## The data
#
# A point $x \in \R^d$ is standard Gaussian. Its label is $y = -1$ for $x_{\min} < x_1 < x_{\max}$ and $y = +1$ outside.
# The lower edge is $x_{\min} = -0.3$; the upper one follows from asking that both labels are equally likely:
#
# $$
# x_{\max} = \Phi^{-1}\!\left(\tfrac12 + \Phi(x_{\min})\right),
# $$ (stripe-edges)
#
# with $\Phi$ the Gaussian distribution function, which gives $x_{\max} =$ {glue:text}`stripe_x_max:.4f`. We write
# $x_\parallel = x_1$ for the informative direction ($d_\parallel = 1$) and $x_\perp$ for the other
# $d_\perp = d - 1$.

# %% tags=["hide-input"] mystnb={"image": {"alt": "Scatter plot of two coordinates of the training points. Squares of label minus one fill a vertical band, circles of label plus one lie on both sides of it."}, "figure": {"name": "fig-stripe-data", "caption": "The stripe: the training points of the run below in the plane of the informative coordinate and one of the others. The label flips at the two lines and depends on nothing else."}}
task = tasks.stripe(d)
config = experiments.NetworkConfig(
    task="stripe", d=d, p=p, width=width, alpha=alpha, seed=seed, test_size=test_size, device=device
)
x, y = task.sample(p, config.seeds["data"])
glue("stripe_x_max", task.edges[1], display=False)
fig, ax = plt.subplots(figsize=(5, 4.4))
figures.points_in_plane(ax, x, y, edges=task.edges)
_ = ax.legend(loc="upper left")

# %% [markdown]
# ## One network, trained to the end
#
# The network has one hidden layer of $h$ neurons, $f(x) = \frac1h \sum_n \beta_n\, \sigma(\omega_n \cdot x/\sqrt d + b_n)$
# with $\sigma(z) = \sqrt2 \max(0, z)$, and all its parameters start as standard normal numbers. It predicts with the sign
# of $F = \alpha (f - f_0)$, where $f_0$ is the network at the start. A tiny $\alpha$ forces the weights to move far
# before $F$ is of order one: that is the *feature regime*. Training is gradient flow on the hinge loss, followed until
# every point has margin $y F \ge 1$.

# %%
recording = experiments.record_network(config)
marks = experiments.milestones(recording.series)
end = recording.end
glue("stripe_steps", float(end.step), display=False)
glue("stripe_t_end", end.t, display=False)
series = recording.series
at_star = series.test_error[series.t >= marks["t_star"]].iloc[0]
errors = {"start": series.test_error.iloc[1], "star": at_star, "min": series.test_error[1:].min()}
for name, value in (*errors.items(), ("live", series.test_error.iloc[-1])):
    glue(f"stripe_error_{name}", float(value), display=False)

# %% tags=["nbval-check-output"]
# tolerance: 0
print(f"{end.status.value}: {int((end.margins >= 1).sum())} of {p} margins are at least 1, the loss is {end.loss}")

# %% [markdown]
# The flow has stopped by itself: no point pulls any more. It took {glue:text}`stripe_steps:.0f` steps to mean-field
# time {glue:text}`stripe_t_end:.0f`.
#
# What did the neurons do? {numref}`fig-stripe-neurons` shows each neuron as a point $\beta_n \omega_n$ in the same plane
# as the data. Drag the slider. They start as a round cloud. Long before anything is fitted they fall onto the
# horizontal axis: the first layer has turned towards the one direction that matters.

# %% tags=["hide-input", "remove-output"]
animation = animations.moving_neurons(recording.planes, recording.series.t, recording.series.amplification)
text = "Neurons as points in the plane of the informative and one other direction; over training they collapse onto the informative axis."
glue("stripe_neurons", HTML(animations.embed(animation, "stripe-neurons", text)), display=False)

# %% [markdown]
# :::{glue:figure} stripe_neurons
# :name: fig-stripe-neurons
#
# Neurons $\beta_n \omega_n$ during training, informative direction to the right, one of the others upwards, each
# frame in units of its own longest arrow. Move the slider or press Play.
# :::
#
# ### Compression, in time
#
# The *amplification factor* puts a number on it: the root-mean-square weight along $x_\parallel$ over that along
# $x_\perp$,
#
# $$
# \lambda = \sqrt{\frac{\sum_n |\omega_{n,\parallel}|^2 / d_\parallel}{\sum_n |\omega_{n,\perp}|^2 / d_\perp}} .
# $$ (stripe-lambda)
#
# At the start $\lambda \approx 1$. {numref}`fig-stripe-periods` follows it together with the margins and the test error.
# Three periods show.
#
# 1. **Compressing.** Nearly all margins are below 1, every point pulls with the same force, and $\lambda$ grows. We end
#    this period at $t^*$, the first time at which one point in ten has reached its margin. The sign of $F$ is not good
#    for much yet: the fastest neurons, all on one side of the stripe, have outgrown the others, and the test error is
#    *larger* at $t^*$ ({glue:text}`stripe_error_star:.2f`) than just after the start ({glue:text}`stripe_error_start:.2f`).
# 2. **Fitting.** Points reach margin 1 and stop pulling. Those that are left lie near the edges of the stripe.
#    Compression goes on, more slowly, until $\lambda$ is at its largest.
# 3. **Over-fitting.** The last points are fitted one by one, with whatever direction helps. $\lambda$ falls. The test
#    error passes its minimum, {glue:text}`stripe_error_min:.4f`, and ends at {glue:text}`stripe_error_live:.4f`: on this
#    sample the network would have done best to stop before its last points were fitted.

# %% tags=["hide-input"] mystnb={"image": {"alt": "Three stacked curves against time on a logarithmic axis: amplification rises from 1, peaks and falls; margins grow until all points are fitted; test error rises a little, falls to a minimum and ends above it."}, "figure": {"name": "fig-stripe-periods", "caption": "One training in the feature regime (the run above). Top: amplification λ. Middle: margins of the training points (median, and the span of eight points in ten) and the number of points still below margin 1. Bottom: test error on fresh points. The three periods are separated by t* and by the time of the largest λ; the fitting period is shaded."}}
fig, axes = plt.subplots(3, 1, figsize=(6.5, 7.5), sharex=True)
timelines.training_periods(axes, recording.series, marks["t_star"], marks["t_lambda_max"])

# %% tags=["nbval-check-output"]
# tolerance: 25%
print(f"lambda at t*: {marks['lambda_star']:.1f}")
print(f"largest lambda: {marks['lambda_max']:.0f}")
print(f"lambda at the end: {marks['lambda_end']:.1f}")

# %% [markdown]
# ## Compression against the number of points
#
# More points, less noise in the average that drives the neurons: the theory chapter derives $\lambda \sim \sqrt p$. We
# train {glue:text}`stripe_n_seeds:.0f` networks for each $p$ and read $\lambda$ at $t^*$ and at its maximum. Each has its own
# data and initial weights; the smaller samples of a replica are parts of its larger ones, so intervals resample whole
# replicas.

# %%
grid = sweep.grid(
    experiments.NetworkConfig,
    task="stripe", d=d, p=p_grid, width=width, alpha=alpha, seed=range(n_seeds), test_size=test_size, device=device,
)  # fmt: skip
live = sweep.run(experiments.train_network, grid, name="stripe-live")
rows = store.load(published, missing_ok=True)
rows = rows[(rows.task == "stripe") & (rows.d == d) & (rows.alpha == alpha) & (rows.status == "FITTED")]
glue("stripe_n_seeds", float(n_seeds), display=False)

# %% tags=["hide-input"] mystnb={"image": {"alt": "Amplification at t star and at its maximum against the number of points on logarithmic axes. The first follows a line proportional to the square root of p, the second rises faster."}, "figure": {"name": "fig-stripe-lambda", "caption": "Amplification against the number of training points. Full symbols: networks trained while this page was built; open symbols: published runs of wider networks. Averages over seeds are $\\langle\\lambda^{-2}\\rangle^{-1/2}$, bars 95 % bootstrap intervals. Dashed: the prediction of the neuron dynamics of the theory chapter (dark), and the simpler estimate that averages over all points (light)."}}
fig, ax = plt.subplots()
timelines.amplification_scaling(ax, live, "live")
if len(rows):
    timelines.amplification_scaling(ax, rows, "published", filled=False, shift=1.06)
span = np.array(sorted({*live.p, *rows.p}), dtype=float)
naive = exponents.amplification_prefactor(*task.edges)
corrected = directions.amplification_prediction(1, task)
figures.guide(ax, span, 0.5, (1, corrected), label=f"neurons, {corrected:.2f}$\\sqrt{{p}}$", colour="0.2")
figures.guide(ax, span, 0.5, (1, naive), label=f"all points, {naive:.2f}$\\sqrt{{p}}$", colour="0.6")
figures.plain_powers(ax, span)
_ = ax.legend(ncols=3, loc="lower center", bbox_to_anchor=(0.5, 1.0), fontsize=9)

# %% tags=["nbval-check-output"]
# tolerance: 0.15
star, peak = (
    exponents.fit_amplification(live.p, live[column], replica=live.seed) for column in ("lambda_star", "lambda_max")
)
print(f"lambda at t*   ~ p^{-star.beta:.2f}")
print(f"largest lambda ~ p^{-peak.beta:.2f}")

# %% tags=["hide-input"]
for name, fit in (("star", star), ("peak", peak)):
    ends = sorted((-fit.beta_low, -fit.beta_high))
    for part, value in (("slope", -fit.beta), ("low", ends[0]), ("high", ends[1])):
        glue(f"stripe_{name}_{part}", float(value), display=False)
ratio = (live.p / live.lambda_star**2).mean() ** -0.5
glue("stripe_star_prefactor", float(ratio), display=False)
glue("stripe_corrected", corrected, display=False)
glue("stripe_naive", naive, display=False)

# %% [markdown]
# At $t^*$ the exponent is {glue:text}`stripe_star_slope:.2f` (95 % interval {glue:text}`stripe_star_low:.2f` to
# {glue:text}`stripe_star_high:.2f`; predicted 1/2), and $\lambda(t^*)/\sqrt p$ averages to
# {glue:text}`stripe_star_prefactor:.2f`. The neuron dynamics says {glue:text}`stripe_corrected:.2f`; the estimate that
# averages over all points, {glue:text}`stripe_naive:.2f`, is too low. The largest $\lambda$ grows with exponent
# {glue:text}`stripe_peak_slope:.2f` ({glue:text}`stripe_peak_low:.2f` to {glue:text}`stripe_peak_high:.2f`). It is reached
# later, while only the points near the edges still pull; the prediction does not cover that period, and a prefactor of
# its own is to be expected.
#
# {numref}`fig-stripe-collapse` shows the same in time. The compressing period ends on a plateau, and the plateaus of
# different $p$ fall together once $\lambda$ is divided by $\sqrt p$. What comes after $t^*$ does not: there each sample goes
# its own way.

# %% tags=["hide-input"] mystnb={"image": {"alt": "Two panels of amplification against time for several numbers of points; divided by the square root of p the curves come together in the compressing period."}, "figure": {"name": "fig-stripe-collapse", "caption": "Left: amplification in time, one network for each number of points. Right: the same divided by √p. Dots mark t*; the dashed line is the prediction of the neuron dynamics for the plateau of the compressing period."}}
fig, axes = plt.subplots(1, 2, figsize=(7, 3.8))
for count in p_grid:
    series = experiments.record_network(dataclasses.replace(config, p=count), test_size=1).series
    label = f"$p = {count}$"
    t_star = experiments.milestones(series)["t_star"]
    timelines.amplification_in_time(axes[0], series, t_star, label=label)
    timelines.amplification_in_time(axes[1], series, t_star, label=label, unit=np.sqrt(count))
axes[0].set_ylabel("$\\lambda$")
axes[1].set_ylabel("$\\lambda / \\sqrt{p}$")
axes[1].axhline(corrected, color="0.4", linestyle="--")
_ = axes[0].legend()

# %% [markdown]
# ## What compression buys
#
# Now the test error. The theory predicts $\varepsilon \sim p^{-\beta}$ with $\beta = (2d-1)/(3d-2)$ in the feature regime
# and $\beta = d/(3d-2)$ for a kernel that cannot compress.

# %%
fit = exponents.fit_power_law(live.p, live.test_error, replica=live.seed)
beta_feature, beta_lazy = exponents.beta_feature(d, 1), exponents.beta_lazy(d)
for name in ("beta", "beta_low", "beta_high"):
    glue(f"stripe_{name}", float(getattr(fit, name)), display=False)
glue("stripe_beta_feature", beta_feature, display=False)
glue("stripe_beta_lazy", beta_lazy, display=False)

# %% tags=["nbval-check-output"]
# tolerance: 0.1
predicted = Fraction(2 * d - 1, 3 * d - 2)
print(f"feature regime, d = {d}, p = {min(p_grid)} to {max(p_grid)}, {n_seeds} seeds")
print(f"beta = {fit.beta:.2f}, 95 % interval {fit.beta_low:.2f} to {fit.beta_high:.2f}")
print(f"predicted {predicted} = {float(predicted):.3f}")

# %% tags=["hide-input"] mystnb={"image": {"alt": "Test error against number of training points on logarithmic axes, with fitted line and a dashed line of the predicted slope."}, "figure": {"name": "fig-stripe-learning", "caption": "Learning curve in the feature regime: test error of networks trained to zero loss, mean over seeds with 95 % bootstrap intervals. Black: trained while this page was built, with the fitted power law. Blue: published runs. Dashed: predicted slope for the feature regime; its height means nothing."}}
fig, ax = plt.subplots()
style = {"label": "live", "fit": fit.predict, "fit_label": f"fit, $\\beta = {fit.beta:.2f}$"}
figures.learning_curve(ax, fit.p, fit.mean_error, fit.mean_low, fit.mean_high, prediction=beta_feature, **style)
if len(rows):
    long = exponents.fit_power_law(rows.p, rows.test_error, replica=rows.seed)
    style = {"label": "published", "colour": figures.COLOURS["blue"], "marker": "s"}
    figures.scaling(ax, 1.06 * long.p, long.mean_error, long.mean_low, long.mean_high, **style)
figures.plain_powers(ax, span)
_ = ax.legend()

# %% [markdown]
# On this page: $\beta =$ {glue:text}`stripe_beta:.2f`, with a 95 % interval from {glue:text}`stripe_beta_low:.2f` to
# {glue:text}`stripe_beta_high:.2f`. The prediction for the feature regime is {glue:text}`stripe_beta_feature:.3f`, for a
# kernel {glue:text}`stripe_beta_lazy:.3f`.
#
# A fit over three octaves of small $p$ is not an asymptotic exponent. The published runs reach further, with wider
# networks. We fit their three largest octaves, whatever comes out, and look at the slope octave by octave.

# %% tags=["hide-input"]
not_yet = "not yet run"
texts = dict.fromkeys(("beta", "window", "runs", "made", "star", "peak", "prefactor"), not_yet)
if len(rows):
    last = rows[rows.p >= rows.p.max() / 8]
    best, widest = exponents.fit_power_law(last.p, last.test_error, replica=last.seed), rows.width.max()
    texts["beta"] = f"{best.beta:.2f} ({best.beta_low:.2f} to {best.beta_high:.2f})"
    texts["window"] = f"{best.p.min():.0f} to {best.p.max():.0f}"
    texts["runs"] = f"{len(last)} runs of {widest} neurons"
    texts["made"] = store.origin(rows)
    for key, column in (("star", "lambda_star"), ("peak", "lambda_max")):
        power = exponents.fit_amplification(rows.p, rows[column], replica=rows.seed)
        texts[key] = f"{-power.beta:.2f} ({-power.beta_high:.2f} to {-power.beta_low:.2f})"
    texts["prefactor"] = f"{(rows.p / rows.lambda_star**2).mean() ** -0.5:.2f}"

# %% tags=["hide-input"]
live_text = {
    "beta": f"{fit.beta:.2f} ({fit.beta_low:.2f} to {fit.beta_high:.2f})",
    "window": f"{min(p_grid)} to {max(p_grid)}",
    "star": f"{-star.beta:.2f} ({-star.beta_high:.2f} to {-star.beta_low:.2f})",
    "peak": f"{-peak.beta:.2f} ({-peak.beta_high:.2f} to {-peak.beta_low:.2f})",
}
for source, cells in (("published", texts), ("live", live_text)):
    for key, value in cells.items():
        glue(f"stripe_{source}_{key}", value, display=False)

# %% [markdown]
# | | on this page | published | predicted |
# |---|---|---|---|
# | training points | {glue:text}`stripe_live_window` | {glue:text}`stripe_published_window` | $p \to \infty$ |
# | $\beta$ of the test error | {glue:text}`stripe_live_beta` | {glue:text}`stripe_published_beta` | {glue:text}`stripe_beta_feature:.3f` |
# | exponent of $\lambda(t^*)$ | {glue:text}`stripe_live_star` | {glue:text}`stripe_published_star` | 1/2 |
# | exponent of $\max_t \lambda$ | {glue:text}`stripe_live_peak` | {glue:text}`stripe_published_peak` | – |
#
# Intervals are 95 %. Published: {glue:text}`stripe_published_runs` in the fit of $\beta$; made {glue:text}`stripe_published_made`.

# %% tags=["hide-input"] mystnb={"image": {"alt": "Local exponent of the learning curve for each octave of p, with error bars and a dashed line at the prediction."}, "figure": {"name": "fig-stripe-slopes", "caption": "Local exponent of the learning curve octave by octave, with 95 % intervals: published runs where there are any, else the runs of this page. Dashed: prediction for the feature regime."}}
source = rows if len(rows) else live
fig, ax = plt.subplots(figsize=(6.5, 3.2))
figures.local_slopes(ax, exponents.local_slopes(source.p, source.test_error, replica=source.seed), beta_feature)
_ = ax.legend()

# %% [markdown]
# ## What we saw
#
# - The network finds the informative direction without being told. Its first layer turns before the points are fitted,
#   and the amplification at $t^*$ is that of independent neurons in a noisy field, of order $\sqrt p$ with the prefactor of
#   the theory chapter.
# - Compression goes on while the points near the edges are fitted, to a maximum several times larger. The prediction does
#   not cover this period. $\lambda$ decays at the end, when single points are fitted.
# - The exponent of the test error agrees with the prediction for the feature regime within its interval on this page. A
#   kernel's predicted exponent is {glue:text}`stripe_beta_lazy:.3f`; kernels at these $p$ have not reached it (see
#   {doc}`theory`), so a comparison with *measured* kernels in the same dimension is still to be made.
#
# **Where it departs and why.** $\lambda(t^*)$ scatters from sample to sample by tens of per cent however wide the net
# is, because all neurons feel the same noise; averages over few seeds inherit that. The learning curve at small $p$
# mixes the exponent of the error at given compression with a compression that itself changes in time and with $p$. And
# the end of a run is sensitive: a tighter tolerance of the solver moves the test error of a single network by
# {glue:text}`solver.ipynb::solver_shift_sd:.0f` % (standard deviation), the average by
# {glue:text}`solver.ipynb::solver_shift_mean:+.1f` $\pm$ {glue:text}`solver.ipynb::solver_shift_sem:.1f` % ({doc}`solver`). The lazy side of the comparison, and $p$
# large enough for asymptotics, are not in this book yet.
#
# ## Try it
#
# Each of these runs as it stands.
#
# - More dimensions to ignore: `python -m geocompress run stripe -p d 10`. Does $\lambda(t^*)/\sqrt p$ change? (The
#   theory says: hardly, once $p$ is large enough.)
# - Half-way to lazy: `-p alpha 1.0`. When does compression disappear?
# - A narrow net: `-p width 100`. What changes first, the amplification or the error?
