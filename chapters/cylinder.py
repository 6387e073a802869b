# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# (cylinder)=
# # The cylinder
#
# On the stripe one direction set the label, and the network turned all its neurons towards it. What if the label depends
# on *two* directions? Then there is no single arrow to fall onto. The network has to keep a plane and to drop the rest.
# Does it still compress? Does it treat both directions alike? And why should the exponent of its test error be the same
# number in every dimension?
#
# The task and the prediction are those of {cite:t}`paccolat2021geometric`; the argument for compression is in
# {doc}`theory`, and {doc}`stripe` is the chapter to read before.

# %% tags=["parameters"]
d = 5  # dimension of the runs on this page
p = 512  # training points of the run that is watched
width = 1000
alpha = 1e-6
seed = 0
p_grid = [64, 128, 256, 512]  # networks trained to the end
n_seeds = 5
p_fitting = [64, 256, 1024, 4096]  # networks trained until fitting starts
width_fitting = 300
p_kernel = [128, 256, 512, 1024, 2048]
test_size = 20000
d_table = [3, 5, 10]
device = "cpu"
published = "cylinder-network"
published_kernels = "cylinder-kernels"

# %% tags=["hide-cell"]
from geocompress import notebooks

notebooks.check_parameters("cylinder")

# %% tags=["hide-input"]
import math
from fractions import Fraction

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from IPython.display import HTML, Markdown
from myst_nb import glue

from geocompress import angle_experiments, angles, animations, comparisons, curves, experiments, exponents, figures
from geocompress import kernel_experiments, scenes, sentences, store, sweep, tables, tasks, timelines

figures.use_style()

# %% [markdown]
# ## The data
#
# A point $x \in \R^d$ is standard Gaussian, and its label looks at the first two coordinates only,
# $x_\parallel = (x_1, x_2)$: $y = +1$ where $|x_\parallel| < R$ and $y = -1$ outside. The other $d_\perp = d - 2$
# coordinates are $x_\perp$. Seen in three of the dimensions the boundary is a cylinder. Half of the points shall lie
# inside, and $P(|x_\parallel| < R) = 1 - e^{-R^2/2}$, so
#
# $$
# R = \sqrt{2 \ln 2} ,
# $$ (cylinder-radius)
#
# which is {glue:text}`cylinder_radius:.4f`.

# %% tags=["hide-input"] mystnb={"image": {"alt": "Left: points in space around a see-through upright cylinder, circles of label plus one inside it and squares of label minus one outside. Right: the same points seen along the axis of the cylinder; the boundary is a circle."}, "figure": {"name": "fig-cylinder-data", "caption": "The cylinder: 300 training points of the run below, in three of the coordinates (left), and seen along the axis of the cylinder (right). The label flips at the surface and does not change along x₃, nor along any coordinate that is not shown."}}
task = tasks.cylinder(d)
config = experiments.NetworkConfig(
    task="cylinder", d=d, p=p, width=width, alpha=alpha, seed=seed, test_size=test_size, device=device
)
x, y = task.sample(p, config.seeds["data"])
(radius,) = task.edges
glue("cylinder_radius", radius, display=False)
fig = plt.figure(figsize=(7.6, 3.9))
fig.get_layout_engine().set(wspace=0.08)
scenes.cylinder_in_space(fig.add_subplot(1, 2, 1, projection="3d"), x[:300], y[:300], radius)
ax = scenes.cylinder_from_above(fig.add_subplot(1, 2, 2), x[:300], y[:300], radius)
_ = ax.legend(loc="upper right", frameon=True)

# %% [markdown]
# ## One network, trained to the end
#
# Network and training are those of {doc}`stripe`: one hidden layer of $h$ neurons with input weights $\omega_n$, biases
# $b_n$ and output weights $\beta_n$, predictor $F = \alpha (f - f_0)$ with a tiny $\alpha$ (the *feature regime*), and
# gradient flow on the hinge loss until every margin $y F$ is at least 1.

# %%
recording = experiments.record_network(config)
series, end = recording.series, recording.end
marks = experiments.milestones(series)
moments = {"start": 0.0, "star": marks["t_star"], "peak": marks["t_lambda_max"], "end": end.t}
steps = {name: int((series.t >= t).argmax()) for name, t in moments.items()}
shares = {name: angles.angular_shares(recording.planes[step]) for name, step in steps.items()}
for name, step in steps.items():
    glue(f"cylinder_isotropy_{name}", angles.isotropy(recording.planes[step]), display=False)
    glue(f"cylinder_sectors_{name}", angles.directions_in_use(shares[name]), display=False)
    glue(f"cylinder_error_{name}", float(series.test_error[max(step, 1)]), display=False)
glue("cylinder_error_min", float(series.test_error[1:].min()), display=False)
glue("cylinder_t_end", end.t, display=False)
glue("cylinder_sectors", len(shares["star"]), display=False)
glue("cylinder_sector", 360 / len(shares["star"]), display=False)

# %% tags=["nbval-check-output"]
# tolerance: 0
print(f"{end.status.value}: {int((end.margins >= 1).sum())} of {p} margins are at least 1, the loss is {end.loss}")

# %% [markdown]
# On the stripe we drew $\beta_n \omega_n$ along one informative and one other coordinate. Here both axes of
# {numref}`fig-cylinder-neurons` matter, so what shows is the *angle* that a neuron takes in the plane. Lengths are drawn as
# $\sqrt{|\beta_n \omega_n|}$, so that more than the few longest arrows can be seen. Drag the slider.

# %% tags=["hide-input", "remove-output"]
planes = recording.planes / np.sqrt(np.linalg.norm(recording.planes, axis=2, keepdims=True))
animation = animations.moving_neurons(planes, series.t, series.amplification, neurons=250, frames=30)
animation.update_layout(xaxis_title_text="along x<sub>1</sub>", yaxis_title_text="along x<sub>2</sub>")
text = "Neurons as points in the plane of the two informative directions; they gather at few angles first and spread around the circle later."
glue("cylinder_neurons", HTML(animations.embed(animation, "cylinder-neurons", text)), display=False)

# %% [markdown]
# :::{glue:figure} cylinder_neurons
# :name: fig-cylinder-neurons
#
# Neurons in the plane of the two informative directions during training: each at the angle of $\beta_n \omega_n$, at a
# distance $\sqrt{|\beta_n \omega_n|}$ in units of the longest of its frame. Move the slider or press Play.
# :::
#
# ### Angles
#
# The label treats all angles alike, and so do the weights at the start. One might expect a ring that grows. What happens
# is more interesting: at first a few angles outgrow all others, and only later does the weight spread around the circle.
#
# Two numbers follow this. The *isotropy*
#
# $$
# \iota = \sqrt{\frac{\mu_{\min}}{\mu_{\max}}}, \qquad
# v_n = \beta_n\, \omega_{n,\parallel} ,
# $$ (cylinder-isotropy)
#
# with $\mu$ the two eigenvalues of $\sum_n v_n v_n^{\mathsf T} / |v_n|$, is 1 for a round cloud and 0 for a line. And the *number of directions in use* cuts the plane into sectors of
# {glue:text}`cylinder_sector:.0f`°, takes the share $s$ of $\sum_n |v_n|$ in each, and counts $1 / \sum s^2$:
# {glue:text}`cylinder_sectors:d` when the weight is even, 1 when one sector holds all of it.

# %% tags=["hide-input"] mystnb={"image": {"alt": "Four round histograms of the weight by angle: even at the start, one or two petals at t star, several petals all around at the largest amplification and at the end."}, "figure": {"name": "fig-cylinder-roses", "caption": "Share of the weight Σ|βₙωₙ| at each angle of the plane, at four moments of the run: at the start, when a tenth of the points is fitted, when λ is largest, at the end. The area of a petal is its share; each rose in units of its own largest petal."}}
fig, axes = plt.subplots(1, 4, figsize=(7.6, 2.5), subplot_kw={"projection": "polar"})
names = ["$t = 0$", "$t^*$", "largest $\\lambda$", "end"]
scenes.roses(axes, list(shares.values()), names)

# %% tags=["nbval-check-output"]
# tolerance: 0.12
for name in ("start", "star", "end"):
    print(f"isotropy at {name}: {angles.isotropy(recording.planes[steps[name]]):.2f}")

# %% [markdown]
# The isotropy starts at {glue:text}`cylinder_isotropy_start:.2f` and is down to {glue:text}`cylinder_isotropy_star:.2f` at
# $t^*$, where {glue:text}`cylinder_sectors_star:.1f` of the {glue:text}`cylinder_sectors:d` directions are in use. At the end it is
# {glue:text}`cylinder_isotropy_end:.2f`, with {glue:text}`cylinder_sectors_end:.1f` directions in use. So the trained
# network feels both informative directions about equally, but it builds the circle from a limited number of sides, as a
# polygon does.
#
# ### Three periods
#
# {numref}`fig-cylinder-periods` shows the same run in time. The amplification
#
# $$
# \lambda = \sqrt{\frac{\sum_n |\omega_{n,\parallel}|^2 / d_\parallel}{\sum_n |\omega_{n,\perp}|^2 / d_\perp}},
# $$ (cylinder-lambda)
#
# now with $d_\parallel = 2$, grows while nearly no point is fitted (*compressing*, until $t^*$, when one point in ten has reached margin 1), grows
# further or stays while the points get fitted (*fitting*), and falls while the last ones are (*over-fitting*).
# At $t^*$ the test error is still {glue:text}`cylinder_error_star:.2f`: one or two petals see one side of the circle only.
# The error falls while the others grow. It passes its minimum, {glue:text}`cylinder_error_min:.4f`, and ends at
# {glue:text}`cylinder_error_end:.4f`.

# %% tags=["hide-input"] mystnb={"image": {"alt": "Three stacked curves against time on a logarithmic axis: amplification rises, peaks and falls; margins grow until all points are fitted; test error falls while points are fitted and rises a little at the end."}, "figure": {"name": "fig-cylinder-periods", "caption": "One training in the feature regime (the run above). Top: amplification λ. Middle: margins of the training points (median, and the span of eight points in ten) and the number of points still below margin 1. Bottom: test error on fresh points. The three periods are separated by t* and by the time of the largest λ; the fitting period is shaded."}}
fig, axes = plt.subplots(3, 1, figsize=(6.5, 7.5), sharex=True)
timelines.training_periods(axes, series, marks["t_star"], marks["t_lambda_max"])

# %% tags=["nbval-check-output"]
# tolerance: 3%
print(f"t* = {marks['t_star']:.1f}, lambda at t*: {marks['lambda_star']:.2f}")

# %% tags=["nbval-check-output"]
# tolerance: 25%
print(f"largest lambda: {marks['lambda_max']:.1f}, at the end: {marks['lambda_end']:.1f}")

# %% [markdown]
# ## One neuron on the cylinder
#
# Why do a few angles win at first, and how large does $\lambda$ get? While no point is fitted each neuron moves by
# itself ({doc}`theory`), so both questions are about one neuron. The argument of the stripe carries over; the formulas for
# the cylinder are worked out here.
#
# Take infinitely many points and a neuron that looks along a unit vector $n$ in the plane, with bias $b = 0$ and
# $\omega_\perp = 0$. It sees the half space $H = \{ n \cdot x_\parallel > 0 \}$. By symmetry it does not turn, and by the
# balance of labels its bias does not move. Such neurons, with $\beta < 0$, are the ones that grow: as $e^{\gamma t}$ with
#
# $$
# \gamma = \sqrt{\tfrac 2d}\, \bigl|\E[y\; n \cdot x_\parallel\, 1_H]\bigr| .
# $$ (cylinder-rate)
#
# A tilt $u = \omega_\perp / |\omega_\parallel|$ is pulled back with a force $D$ and kicked by the noise of the sample, of
# variance $P(H)/p = 1/(2p)$ per component. As on the stripe, $D$ counts the jump of the label on the part of the boundary that the neuron
# sees. There it was an edge or two; here it is half a circle, where the label jumps by 2, the Gaussian density is
# $\rho = e^{-R^2/2}/2\pi = 1/4\pi$, and the normal makes an angle $\theta$ with $n$:
#
# $$
# D = \int_{-\pi/2}^{\pi/2} 2\, \rho \cos\theta\; R\, \d\theta = \frac R\pi .
# $$ (cylinder-force)
#
# The tilt settles at a mean square of $1/(2 p D^2)$ per component, and since {eq}`cylinder-lambda` divides
# $|\omega_\parallel|^2$ by $d_\parallel = 2$,
#
# $$
# \lambda^* = \frac R\pi \sqrt p \approx 0.37 \sqrt p
# $$ (cylinder-prefactor)
#
# in the mean square over samples, in every dimension, and just before the first point is fitted.
#
# **Which angle?** All of them have the same $\gamma$, for infinitely many points. In a sample of $p$ points the rates
# differ, by $s/\sqrt p$ with $s = \sqrt{2/d}\,\sqrt{\operatorname{Var}(y\, n \cdot x_\parallel 1_H)}$, and the weights $|\omega|^2 \sim e^{2\gamma t}$
# differ by a factor $e$ when $2 s t / \sqrt p$ is 1. At $t^*$ that is the case for
#
# $$
# p \sim p_\circ = (2 s\, t^*)^2 .
# $$ (cylinder-even)
#
# With fewer points the sample chooses a few angles; with many more, the ring stays whole. The test is cheap, because
# the networks need to be trained only until $t^*$.

# %%
radial = angles.radial_neuron(task)
grid = sweep.grid(
    experiments.NetworkConfig,
    task="cylinder", d=d, p=p_fitting, width=width_fitting, alpha=alpha, seed=range(n_seeds), test_size=1, device=device,
)  # fmt: skip
fitting = sweep.run(angle_experiments.train_to_fitting, grid, name="cylinder-fitting")
p_even = radial.even_from(fitting[fitting.p == max(p_fitting)].t_star.mean())
for name, value in (("force", radial.force), ("even", p_even), ("rate", radial.rate)):
    glue(f"cylinder_{name}", value, display=False)

# %% tags=["nbval-check-output"]
# tolerance: 0.08
print(f"predicted: lambda/sqrt(p) {radial.prefactor:.2f} at the first fit")
for points, runs in fitting.groupby("p"):
    first, star = ((points / runs[column] ** 2).mean() ** -0.5 for column in ("lambda_first", "lambda_star"))
    widest = {"isotropy": float(runs.isotropy_star.mean()), "first": float(first), "star": float(star)}
    print(f"p = {points}: lambda/sqrt(p) {first:.2f} at the first fit, {star:.2f} at t*", end="; ")
    print(f"isotropy at t* {runs.isotropy_star.mean():.2f}")

# %% tags=["hide-input"]
for name, value in (widest | {"p": f"{max(p_fitting)}"}).items():
    glue(f"cylinder_wide_{name}", value, display=False)
glue("cylinder_imposed", 1 / widest["star"], display=False)
reached = exponents.fit_amplification(fitting.p, fitting.lambda_first)
for name, value in (("low", reached.mean_low[-1]), ("high", reached.mean_high[-1])):
    glue(f"cylinder_wide_{name}", float(value / math.sqrt(max(p_fitting))), display=False)

# %% tags=["hide-input"] mystnb={"image": {"alt": "Isotropy at t star against the number of points: single networks and their mean rise from low values towards those of the start, around the predicted number of points."}, "figure": {"name": "fig-cylinder-isotropy", "caption": "Isotropy of the weight in the informative plane at t*, against the number of training points: one dot for each network, the line joins the means. Grey: the same networks at the start. Dashed: the number of points p∘ of the text, above which the sample should no longer choose."}}
fig, ax = plt.subplots(figsize=(6.5, 3.4))
ax.plot(fitting.p, fitting.isotropy_star, "o", alpha=0.5, color=figures.COLOURS["blue"], label="at $t^*$")
means = fitting.groupby("p")[["isotropy_init", "isotropy_star"]].mean()
ax.plot(means.index, means.isotropy_star, color=figures.COLOURS["blue"])
ax.plot(means.index, means.isotropy_init, color="0.6", label="at the start")
ax.axvline(p_even, linestyle="--", color="0.3", label="$p_\\circ$, predicted")
ax.set(xscale="log", ylim=(0, 1.02), xlabel="number of training points $p$", ylabel="isotropy $\\iota$")
figures.plain_powers(ax, p_fitting)
_ = ax.legend(ncols=3, loc="lower center", bbox_to_anchor=(0.5, 1.0))

# %% [markdown]
# The prediction is $p_\circ \approx$ {glue:text}`cylinder_even:.0f`, and the isotropy at $t^*$ indeed rises on the way there.
# At $p =$ {glue:text}`cylinder_wide_p` it is {glue:text}`cylinder_wide_isotropy:.2f`, and $\lambda/\sqrt p$ averages to
# {glue:text}`cylinder_wide_first:.2f` at the first fit, with a 95 % interval from {glue:text}`cylinder_wide_low:.2f` to
# {glue:text}`cylinder_wide_high:.2f`; $R/\pi =$ {glue:text}`cylinder_force:.3f` was predicted. (At $t^*$, when a tenth of the
# points is fitted, it is {glue:text}`cylinder_wide_star:.2f`.) With few points both fall
# short, for one reason. The rates scatter by $s/\sqrt p$ along *any* direction; where that is as large as
# $\gamma =$ {glue:text}`cylinder_rate:.3f` itself, a sample may favour a direction outside of the plane.
#
# ## Compression against the number of points
#
# Now networks trained to the end, {glue:text}`cylinder_n_seeds:.0f` for each $p$, with their own data and initial weights.

# %%
grid = sweep.grid(
    experiments.NetworkConfig,
    task="cylinder", d=d, p=p_grid, width=width, alpha=alpha, seed=range(n_seeds), test_size=test_size, device=device,
)  # fmt: skip
live = sweep.run(angle_experiments.train_to_the_end, grid, name="cylinder-live")
nets = store.load(published, missing_ok=True)
nets = nets[(nets.task == "cylinder") & (nets.alpha == alpha) & (nets.status == "FITTED")]
rows = nets[nets.d == d]
glue("cylinder_n_seeds", float(n_seeds), display=False)
glue("cylinder_wide", curves.WIDE, display=False)
glue("cylinder_n_live", float(len(live)), display=False)
glue("cylinder_live_isotropy", float(live.isotropy_end.mean()), display=False)
glue("cylinder_live_isotropy_low", float(live.isotropy_end.min()), display=False)

# %% tags=["hide-input"] mystnb={"image": {"alt": "Amplification at the first fit, at t star and at its maximum against the number of points on logarithmic axes; from a thousand points on the first follows the predicted line proportional to the square root of p."}, "figure": {"name": "fig-cylinder-lambda", "caption": "Amplification against the number of training points. Full circles and triangles: networks trained to the end while this page was built; open ones: published runs of wider networks; diamonds: the networks trained until fitting starts, at their first fit. Averages over seeds are $\\langle\\lambda^{-2}\\rangle^{-1/2}$, bars 95 % bootstrap intervals. Dashed: the prediction for the first fit, without a free parameter."}}
fig, ax = plt.subplots()
timelines.amplification_scaling(ax, live, "live")
if len(rows):
    timelines.amplification_scaling(ax, rows, "published", filled=False, shift=1.06)
bars = np.stack([reached.mean_error - reached.mean_low, reached.mean_high - reached.mean_error])
style = {"fmt": "D", "color": figures.COLOURS["green"], "capsize": 3, "label": "first fit, live"}
ax.errorbar(0.94 * reached.p, reached.mean_error, bars, **style)
span = np.array(sorted({*live.p, *fitting.p, *rows.p}), dtype=float)
figures.guide(ax, span, 0.5, (1, radial.prefactor), label="$(R/\\pi)\\sqrt{p}$", colour="0.2")
figures.plain_powers(ax, span)
_ = ax.legend(ncols=3, loc="lower center", bbox_to_anchor=(0.5, 1.0), fontsize=9)

# %% tags=["hide-input"]
texts = dict.fromkeys(
    [f"{s}_{key}" for s in ("live", "published") for key in ("star", "peak", "window")], "not yet run"
)
growth = comparisons.amplification_table(nets)
for source, lines in (("live", comparisons.amplification_table(live)), ("published", growth[growth.d == d])):
    for line in lines.itertuples():
        texts[f"{source}_star"] = f"{line.star:.2f} ({line.star_low:.2f} to {line.star_high:.2f}), {line.verdict}"
        texts[f"{source}_peak"] = f"{line.max:.2f} ({line.max_low:.2f} to {line.max_high:.2f})"
        texts[f"{source}_window"] = f"{line.p_low} to {line.p_high}"
squares = live[live.p == max(p_grid)][["lambda_star", "lambda_max"]] ** -2
texts |= {"largest": f"{max(p_grid)}", "excess": float((squares.lambda_star.mean() / squares.lambda_max.mean()) ** 0.5)}
texts["verdicts_star"] = sentences.by_kind(growth.assign(title="$\\lambda$ at $t^*$"), "title")
for key, value in texts.items():
    glue(f"cylinder_{key}", value, display=False)

# %% [markdown]
# | | on this page | published | predicted |
# |---|---|---|---|
# | training points | {glue:text}`cylinder_live_window` | {glue:text}`cylinder_published_window` | $p \to \infty$ |
# | exponent of $\lambda(t^*)$ | {glue:text}`cylinder_live_star` | {glue:text}`cylinder_published_star` | 1/2 |
# | exponent of $\max_t \lambda$ | {glue:text}`cylinder_live_peak` | {glue:text}`cylinder_published_peak` | – |
#
# In brackets: 95 % intervals over seeds. Both columns are fitted by the rule of all curves, the three largest octaves at which
# three seeds were run, and the same is done in every dimension with published networks:

# %% tags=["hide-input"]
Markdown(
    tables.markdown(tables.amplifications_in_words(growth).drop(columns="task")) if len(growth) else "Not yet run."
)

# %% [markdown]
# The verdict on 1/2 is that of every exponent in this book: *above* or *below* where the 95 % interval does not hold the
# prediction; *agrees* where it does, unless it is wider than {glue:text}`cylinder_wide:.1f`, and then *undecided*.
#
# A window that begins at small $p$ can make the exponent of $\lambda(t^*)$ large: there some samples hardly compress at all by
# $t^*$, and the average $\langle\lambda^{-2}\rangle^{-1/2}$ counts these most. By the time of the largest $\lambda$ they have made up
# for it. At $p =$ {glue:text}`cylinder_largest` the average of the largest $\lambda$ is
# {glue:text}`cylinder_excess:.1f` times that of $\lambda(t^*)$.
#
# At the end of training the isotropy of the {glue:text}`cylinder_n_live:.0f` networks is {glue:text}`cylinder_live_isotropy:.2f`
# on average and never below {glue:text}`cylinder_live_isotropy_low:.2f`: whatever angle a sample favoured at first, the
# points that were left brought in the others.
#
# ## Why one half
#
# What is this compression worth? Recall the stripe. Its boundary is flat and extends along $x_\perp$ alone. Dividing
# $x_\perp$ by $\lambda$ is the same as stretching $x_1$ by $\lambda$: support vectors stay where they are on the boundary, and
# the layer that holds them looks $\lambda$ times thicker. Nothing is in the way.
#
# The boundary of the cylinder is curved. Of its $d - 1$ directions, $d - 2$ run along $x_\perp$, and one runs around the
# circle, in $x_\parallel$. Stretching $x_\parallel$ also stretches the circle, so support vectors get farther apart around
# it. And no stretch makes the circle straight: it takes two coordinates to say where it is. Compression can remove
# $x_\perp$ and cannot remove these two. Repeating the argument of {doc}`theory` with this change, a kernel's error is
# divided by $\lambda^{d_\perp/(3d-2)}$, and with $\lambda \sim \sqrt p$
#
# $$
# \beta = \underbrace{\frac{d}{3d-2}}_{\text{kernel}} + \frac12 \cdot \underbrace{\frac{d_\perp}{3d-2}}_{\text{compression}}
# = \frac{d + (d-2)/2}{3d - 2} = \frac12 .
# $$ (cylinder-half)
#
# The dimension drops out. Is that an accident of the algebra? Look at it from the other side. With $x_\perp$ removed
# altogether what is left is a disk in the plane, the same task with $d = 2$, and a kernel learns that with
# $\beta = d/(3d-2) = 2/4$: one half again. There, support vectors lie along the circle at distances
# $r_c \sim 1/(p\Delta) \sim p^{-1/2}$, with $\Delta \sim p^{-1/2}$ the width of their layer. A compression by $\lambda = \sqrt p$ leaves to $x_\perp$ a width of $1/\sqrt p$: just
# what the support vectors are apart. Any less, and they still see $x_\perp$; any more, and nothing is gained. So
# $\lambda \sim \sqrt p$ is what it takes to turn the cylinder into the disk, in every dimension, and *one half is the
# exponent of the disk*.

# %% tags=["nbval-check-output"]
# tolerance: 0
for dim in (2, 3, 5, 10, 100):
    kernel, compression = Fraction(dim, 3 * dim - 2), Fraction(dim - 2, 2 * (3 * dim - 2))
    assert math.isclose(exponents.beta_feature(dim, 2), kernel + compression)
    assert math.isclose(exponents.beta_lazy(dim), kernel)
    print(f"d = {dim}: {kernel} + {compression} = {kernel + compression}")

# %% [markdown]
# ## Learning curves
#
# We measure four: networks in the feature regime; a hard-margin machine with the Laplace kernel on the raw points; the
# same machine on points whose $x_\perp$ was divided by $\sqrt p$ by hand; and the machine on the disk, the task without
# $x_\perp$. All on this page, with few points.

# %%
settings = {"task": "cylinder", "p": p_kernel, "seed": range(n_seeds), "test_size": test_size, "device": device}
KernelConfig = kernel_experiments.KernelConfig
grid = sweep.grid(KernelConfig, d=d, method=["svc_laplace", "svc_laplace_compressed"], **settings)
grid += sweep.grid(KernelConfig, d=2, method="svc_laplace", **settings)
machines = sweep.run(kernel_experiments.train_kernel, grid, name="cylinder-live-kernels")
disk, boxed = machines[machines.d == 2], machines[machines.d == d]
common = ["task", "d", "d_parallel", "p", "method", "regime", "seed", "test_error", "status"]
here = pd.concat([live[common], boxed[common]])
table = curves.exponent_table(here)
net, beta = curves.names(live)[0], table.set_index("method").beta
of_disk = curves.fit(disk)

# %% tags=["nbval-check-output"]
# tolerance: 0.12
print(f"networks:                     beta = {beta[net]:.2f}, predicted {exponents.beta_feature(d, 2):.2f}")
for name, expected in (("raw", exponents.beta_lazy(d)), ("compressed", exponents.beta_feature(d, 2))):
    value = beta["svc_laplace" + name.removeprefix("raw").replace("c", "_c", 1)]
    print(f"Laplace kernel, {name + ':':13s} beta = {value:.2f}, predicted {expected:.2f}")
print(f"the same kernel on the disk:  beta = {of_disk.beta:.2f}, predicted {exponents.beta_lazy(2):.2f}")

# %% tags=["hide-input"] mystnb={"image": {"alt": "Test error against number of points for networks, raw kernel, compressed kernel and the kernel on the disk, on logarithmic axes: the raw kernel lies highest; compressed kernel and disk nearly coincide."}, "figure": {"name": "fig-cylinder-learning", "caption": "Learning curves in this page's own dimension: means over seeds with 95 % intervals and fitted power laws (thin lines). All were computed while this page was built. Grey stars: the kernel on the disk, the same task without x⊥."}}
methods = [net, "svc_laplace", "svc_laplace_compressed"]
fig, ax = plt.subplots()
curves.draw_errors(ax, here, methods)
style = {"label": "Laplace kernel on the disk", "colour": "0.5", "marker": "*"}
figures.scaling(ax, 1.05 * of_disk.p, of_disk.mean_error, of_disk.mean_low, of_disk.mean_high, **style)
figures.plain_powers(ax, here.p)
_ = ax.legend()

# %% tags=["hide-input"] mystnb={"image": {"alt": "Local exponents of the same curves octave by octave, with error bars and dashed lines at the predictions one half and five thirteenths."}, "figure": {"name": "fig-cylinder-slopes", "caption": "Local exponents of the same curves, octave by octave, with 95 % intervals. Dashed: predictions, in the colour of their curve."}}
fig, ax = plt.subplots(figsize=(6.5, 3.2))
curves.draw_slopes(ax, here, methods)
figures.plain_powers(ax, here.p)

# %% tags=["hide-input"]
at = max(p_kernel)
last = machines[machines.p == at].groupby(["d", "method"]).test_error.mean()
values = {"disk": last[2, "svc_laplace"], "boxed": last[d, "svc_laplace_compressed"], "raw": last[d, "svc_laplace"]}
values |= {"lazy": exponents.beta_lazy(d), "beta": beta[net], "beta_disk": of_disk.beta}
values |= {"beta_raw": beta["svc_laplace"], "beta_boxed": beta["svc_laplace_compressed"]}
for name, value in values.items():
    glue(f"cylinder_{name}", float(value), display=False)
glue("cylinder_at", f"{at}", display=False)
glue("cylinder_d", f"{d}", display=False)

# %% [markdown]
# The machines bear out the argument. At $p =$ {glue:text}`cylinder_at` the raw machine in $d =$ {glue:text}`cylinder_d` errs with
# probability {glue:text}`cylinder_raw:.4f`, the compressed one with {glue:text}`cylinder_boxed:.4f`, and the machine that never
# saw $x_\perp$ with {glue:text}`cylinder_disk:.4f`: for a machine compression by $\sqrt p$ is as good as a plane. The networks,
# which had to find the plane by themselves, come with $\beta =$ {glue:text}`cylinder_beta:.2f`.
#
# Exponents at these small $p$ are larger than predicted. The compressed machine has {glue:text}`cylinder_beta_boxed:.2f` and the
# disk {glue:text}`cylinder_beta_disk:.2f` where 1/2 is predicted, the raw machine {glue:text}`cylinder_beta_raw:.2f` where it is
# {glue:text}`cylinder_lazy:.3f`: their layer of support vectors is not thin yet compared with the circle. For the networks that is
# not all. Over the same $p$ their $\lambda(t^*)$ has the exponent {glue:text}`cylinder_live_star`, where 1/2 is predicted. Larger
# samples decide.
#
# ## Every dimension
#
# Published runs reach further. {numref}`fig-cylinder-published` shows them in
# several dimensions, with the local slopes beside each learning curve, and the table lists the exponents. All are fitted by
# one rule, chosen beforehand: the three largest octaves at which there are three replicas.

# %% tags=["hide-input"]
kernels = store.load(published_kernels, missing_ok=True)
kernels = kernels[(kernels.task == "cylinder") & (kernels.status == "SEPARATED")]
every = pd.concat([frame[common] for frame in (nets, kernels) if len(frame)] or [nets[common]])
shown = [dim for dim in d_table if (every.d == dim).any()]
made = [store.origin(frame) for frame in (nets, kernels) if len(frame)] or ["not yet run"]
for name, text in zip(("nets", "kernels"), [*made, made[-1]], strict=False):
    glue(f"cylinder_made_{name}", text, display=False)

# %% tags=["hide-input"] mystnb={"image": {"alt": "For each of several dimensions, test errors of networks and kernels against the number of points on the left, and their local exponents on the right, which approach the dashed predictions."}, "figure": {"name": "fig-cylinder-published", "caption": "Published runs. Left: test error of networks in the feature regime and of hard-margin machines, raw and compressed by √p, with fits over their three largest octaves. Right: local exponents, octave by octave, with 95 % intervals; dashed lines are predictions, in the colour of their curve."}}
methods = ["network", "svc_laplace", "svc_laplace_compressed", "ntk_infinite", "ntk_infinite_compressed"]
fig, axes = plt.subplots(max(len(shown), 1), 2, figsize=(7.6, 2.9 * max(len(shown), 1)), squeeze=False)
for (left, right), dim in zip(axes, shown, strict=False):
    curves.draw_errors(left, every[every.d == dim], methods)
    curves.draw_slopes(right, every[every.d == dim], methods)
    left.set_title(f"$d = {dim}$")
    right.set(title=f"$d = {dim}$", ylim=(0, 1.1))
    left.xaxis.set_minor_formatter("")
    right.xaxis.set_minor_formatter("")
if shown:
    fig.legend(*axes[0, 0].get_legend_handles_labels(), ncols=2, loc="outside lower center")
else:
    axes[0, 0].set_title("not yet run")

# %% tags=["hide-input"]
fitted = curves.exponent_table(every[every.method.isin(methods) & every.d.isin(d_table)])
words = tables.in_words(fitted).drop(columns="task")
Markdown(tables.markdown(words) if len(fitted) else "Not yet run.")

# %% tags=["hide-cell"]
# the same for the front page, which can show HTML of another page but no Markdown
glue("cylinder_exponents", HTML(tables.html(words)), display=False)

# %% [markdown]
# Networks: made {glue:text}`cylinder_made_nets`; machines: made {glue:text}`cylinder_made_kernels`.
#
# Exponents of different $p$ do not compare well, since all curves bend. The next table therefore fits networks and raw
# machines over the *same* window and samples, the largest that the networks have, and sets their difference beside the
# predicted one, $\frac12 d_\perp/(3d-2)$. "Disjoint" says whether the 95 % interval of the network lies above that of the
# kernel.

# %% tags=["hide-input"]
gaps = comparisons.gap_table(every[every.d.isin(shown)])
kinds = {"nets": fitted.method == "network", "raw": fitted.method.isin(comparisons.LAZY)}
kinds["squeezed"] = fitted.method.str.endswith("_compressed")
titled = fitted.assign(title=[curves.STYLES[name].label for name in fitted.method])
for name, chosen in kinds.items():
    glue(f"cylinder_verdicts_{name}", sentences.by_kind(titled[chosen], "title"), display=False)

# %% tags=["hide-input"]
Markdown(tables.markdown(tables.gaps_in_words(gaps).drop(columns="task")) if len(gaps) else "Not yet run.")

# %% tags=["hide-input"]
Markdown(sentences.gaps(gaps, comparisons.GAP_TOLERANCE) if len(gaps) else "Not yet run.")

# %% [markdown]
# The gap to be measured is small here, half of $d_\perp/(3d-2)$, and is the difference of two exponents that are each known to
# their intervals. Networks and machines saw the same samples, so what is hard for both does not enter the interval of the
# difference. Where that is off, the line above says which of the two curves is off its own exponent: a kernel that is
# still steeper than its asymptote takes from the gap what a network that is steeper adds to it.
#
# ### Does one number explain the network?
#
# As on the stripe, we give the Laplace machine the $\lambda$ that each network reached on its sample, at $t^*$, at its
# largest and at the end, and compare errors at the same $p$, over the window of the exponents:

# %% tags=["hide-input"]
squeezed = {name: store.load(f"cylinder-measured-{name}", missing_ok=True) for name in comparisons.READINGS}
squeezed = {name: told for name, told in squeezed.items() if len(told)}
metric = comparisons.metric_table(nets, squeezed) if len(nets) else pd.DataFrame()
titles = {"star": "$\\lambda(t^*)$", "max": "$\\max_t\\lambda$", "end": "$\\lambda$ at the end"}
Markdown(tables.markdown(tables.metric_in_words(metric, titles)) if len(metric) else "Not yet run.")

# %% tags=["hide-input"]
for name in ("max", "end"):
    told = [tables.interval(*line) for line in growth[[name, f"{name}_low", f"{name}_high"]].to_numpy()]
    told = ", ".join(f"{text} in d = {dim}" for text, dim in zip(told, growth.d, strict=True)) or "not yet run"
    glue(f"cylinder_growth_{name}", told, display=False)
told = metric[metric.told == "star"] if len(metric) else metric
told = [f"{tables.interval(t.trend, t.trend_low, t.trend_high)} in d = {t.d}, {t.verdict}" for t in told.itertuples()]
glue("cylinder_told_star", "; ".join(told) or "not yet run", display=False)
Markdown(f"Do these machines make the network's errors? {sentences.metric(metric, titles)}")

# %% [markdown]
# ## What we saw
#
# - Two directions are compressed as one was. The network drops $x_\perp$ before it fits more than a few points. At the
#   largest $p$, $\lambda/\sqrt p$ at the first fit is {glue:text}`cylinder_wide_first:.2f`
#   ({glue:text}`cylinder_wide_low:.2f` to {glue:text}`cylinder_wide_high:.2f`); $R/\pi =$ {glue:text}`cylinder_force:.2f` was
#   predicted without a free parameter.
# - In the plane itself nothing is preferred in the end: the isotropy ends near
#   {glue:text}`cylinder_live_isotropy:.2f`. On the way there, a sample of few points chooses some angles, and how many points it takes to keep
#   the ring whole follows from the same neuron.
# - Compressing by $\sqrt p$ turns the cylinder into the disk, for a kernel machine visibly so. The disk has
#   $\beta = 1/2$, whatever $d$ was.
# - Published exponents against their predictions, in brackets how far each is off. {glue:text}`cylinder_verdicts_nets`.
#   {glue:text}`cylinder_verdicts_squeezed`. {glue:text}`cylinder_verdicts_raw`. {glue:text}`cylinder_verdicts_star` (against 1/2).
#
# **Where it departs and why.** The networks' range of $p$ is shorter than that of the machines, whose local slopes show how
# slowly a curve comes to its exponent. Is a network that is steeper than 1/2 still nothing but a change of metric? Held
# against the machine that was told its $\lambda(t^*)$, sample by sample, its errors go as $p$ to these powers, with the
# verdict against 0: {glue:text}`cylinder_told_star`. Where that agrees, the network does
# what the theory says, a kernel in the metric of the time when fitting began, up to a factor in the error that does not
# depend on $p$. What is off 1/2 is then off for the kernel too: because it is not at its asymptote yet, or because
# $\lambda(t^*)$ does not follow $\sqrt p$ closely enough. These rows do not tell the two apart, and no number of this page
# explains the factor. One guess, untested: the compression of a network is not one number, the same for all neurons and
# directions, as it is for the machine. Where the power is not 0, the network's exponent is not explained by its
# $\lambda(t^*)$ alone.
#
# Between $t^*$ and the end $\lambda$ grows on and comes down again. The exponents of $\max_t \lambda$ are
# {glue:text}`cylinder_growth_max`, those of $\lambda$ at the end {glue:text}`cylinder_growth_end`. And
# $\lambda = \sqrt p$, which we imposed on the machines, is {glue:text}`cylinder_imposed:.1f` times a network's $\lambda(t^*)$
# at $p =$ {glue:text}`cylinder_wide_p`: an exponent does not see a factor, an error does. Below
# $p_\circ =$ {glue:text}`cylinder_even:.0f` samples also lose $\lambda(t^*)$ to accidental directions.
#
# ## Try it
#
# Each of these runs as it stands.
#
# - Another dimension: `python -m geocompress run cylinder -p d 3`. With a single $x_\perp$, why does $\lambda$ scatter so much
#   more from sample to sample?
# - Another sample: `-p seed 1`. Which angles win at first? Are there as many petals at the end?
# - Towards the ring: `-p p_fitting "[1024, 4096, 16384]"`. Does the isotropy at $t^*$ reach that of the start?
# - Half-way to lazy: `-p alpha 1.0`. What becomes of the petals when the weights need not grow?
# - A label of three directions: `python -c "from geocompress import exponents as e; print(e.beta_feature(10, 3), e.beta_lazy(3))"`.
#   Could a network that compresses as $\sqrt p$ do better than a machine that sees nothing but $x_\parallel$? What must have gone
#   wrong, and at which $\lambda$? (The section *Why one half* has the argument.)
