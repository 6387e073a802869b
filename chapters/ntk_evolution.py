# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# (ntk-evolution)=
# # The kernel in motion
#
# A network in the lazy regime is a kernel machine, and its kernel never changes. In the feature regime the kernel moves.
# What does it learn? And is that all the network learns? If so, we could stop the network, freeze its kernel, train a
# plain kernel machine with it, and lose nothing.
#
# The task and the networks are those of {doc}`stripe`. That the tangent kernel becomes aligned with the label, and that the
# kernel frozen at the end beats the one at the start, was found by {cite:t}`paccolat2021geometric`. We repeat this, freeze
# the kernel at other moments too, and find that the end is not the best of them.

# %% tags=["parameters"]
d = 5
p = 256  # training points of the runs that are watched
width = 1000  # of the two nets whose spectra are shown
alpha = 1e-6
alpha_lazy = 1e6
seed = 0
n_watched = 4
width_live = 300  # of the nets whose frozen kernels are put to work
p_grid = [64, 128, 256, 512]
n_seeds = 5
test_size = 20000
device = "cpu"
published = "stripe-ntk"
published_networks = "stripe-network"
published_measured = "stripe-measured-star"

# %% tags=["hide-cell"]
from geocompress import notebooks

notebooks.check_parameters("ntk_evolution")

# %% tags=["hide-input"]
import dataclasses

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import torch
from IPython.display import HTML, Markdown
from myst_nb import glue

from geocompress import animations, comparisons, compression, curves, experiments, exponents, figures
from geocompress import kernel_experiments, ntk_experiments, spectra_animations, spectra_figures, spectrum, states
from geocompress import sentences, store, sweep, tables
from geocompress.tangents import TangentKernel

figures.use_style()

# %% [markdown]
# ## The kernel has two parts
#
# The network is $f(x) = \frac1h \sum_n \beta_n\, \sigma(z_n)$ with $z_n = \omega_n \cdot x/\sqrt d + b_n$ and
# $\sigma(z) = \sqrt2 \max(0, z)$. When its parameters $W$ move by a little, $f$ changes at $x$ because of what training
# point $x'$ asks for, in proportion to the *neural tangent kernel* (NTK) {cite:p}`jacot2018neural`
#
# $$
# \Theta(x, x') = h\, \nabla_W f(x) \cdot \nabla_W f(x') .
# $$ (ntk-definition)
#
# For one hidden layer the gradients can be written down, and the sum over parameters falls into two parts:
#
# $$
# \Theta = \underbrace{\frac1h \sum_n \sigma(z_n)\, \sigma(z_n')}_{\Theta_\beta:\ \text{readout}}
# \;+\; \underbrace{\frac1h \sum_n \beta_n^2\, \sigma'(z_n)\, \sigma'(z_n')
# \left(\frac{x \cdot x'}d + 1\right)}_{\Theta_{\omega b}:\ \text{hidden layer}} .
# $$ (ntk-parts)
#
# The readout part compares what the hidden neurons say about the two points. The hidden part counts the neurons that are
# active on both, each with the weight $\beta_n^2$, and multiplies by the plain scalar product of the points. At the
# start both have the same trace, on average over the weights: $\E\,\sigma(z)^2 = 1 + |x|^2/d$ is also the mean of the other.

# %% tags=["nbval-check-output"]
# tolerance: 0.02
config = experiments.NetworkConfig(task="stripe", d=d, p=p, width=width, alpha=alpha, seed=seed, device=device)
replica = experiments.Replica(config)
kernel = TangentKernel(replica.network, replica.params, replica.x)
unit_vectors = torch.eye(p, dtype=replica.x.dtype, device=device)[:5]
by_gradients = torch.stack([kernel.function(one, replica.x) for one in unit_vectors])
gap = float((by_gradients - kernel.gram[:5]).abs().max() / kernel.gram.abs().max())
print(f"the sum of both parts against products of gradients, largest relative difference: {gap:.10f}")
print(f"readout share of the trace at t = 0: {kernel.readout_share():.2f}")

# %% [markdown]
# ## Its eigenvectors, in pictures
#
# Take the Gram matrix $\Theta(x_\mu, x_\nu)$ of the training points. Its eigenvectors $u_r$, ordered by their eigenvalues
# $\mu_1 \ge \mu_2 \ge \dots$, are the functions that the kernel learns most easily, and
#
# $$
# \varphi_r(x) = \frac1{\mu_r} \sum_\nu \Theta(x, x_\nu)\, u_{r\nu}
# $$ (ntk-nystrom)
#
# continues them to any other point (Nyström's formula; on the training points $\varphi_r = u_r$). We train one network in the feature regime,
# $\alpha = 10^{-6}$, and the same one in the lazy regime, $\alpha = 10^6$, to the end, and look at their kernels on the way.

# %%
feature = ntk_experiments.record_spectra(config, times=16)
lazy = ntk_experiments.record_spectra(dataclasses.replace(config, alpha=alpha_lazy), times=16)
spectra = {"feature": feature, "lazy": lazy}
stars = {name: float(run.series.t[run.series.fitted >= experiments.FIT_SHARE].iloc[0]) for name, run in spectra.items()}
at = {name: feature.series[feature.series.t == t].iloc[0] for name, t in (("init", 0.0), ("star", stars["feature"]))}
at["final"] = feature.series.iloc[-1]

# %% tags=["hide-input"] mystnb={"image": {"alt": "Coloured maps of the plane, three rows for t = 0, t star and the end, one column for each eigenfunction. In the first row colours vary evenly in all directions over the whole plane. In the other rows the colours stop at vertical lines, and most maps are blank to the right of them."}, "figure": {"name": "fig-ntk-pictures", "caption": "The first eigenfunctions of the tangent kernel of the network in the feature regime, over the plane of the informative $x_1$ (to the right) and one $x_\\perp$ (upwards), all other coordinates zero: at the start, when a tenth of the points is fitted, at the end. Blue is negative, red positive, each picture in its own unit. Black lines: where the label flips."}}
words = {"init": "$t = 0$", "star": "$t^*$", "final": "end"}
fig, axes = plt.subplots(3, min(d + 2, 8), figsize=(8.2, 4.1))
pictures = {words[name]: picture for name, picture in feature.pictures.items()}
spectra_figures.eigenfunctions(axes, feature.axis, pictures, replica.task.edges)

# %% tags=["nbval-check-output"]
# tolerance: 0.03
for name in ("init", "star"):
    shares = feature.eigenvalues[at[name].name] / feature.eigenvalues[at[name].name].sum()
    print(
        f"share of the first d + 1 = {d + 1} in the sum of the ten largest eigenvalues, {name}: {shares[: d + 1].sum():.3f}"
    )

# %% [markdown]
# At the start ({numref}`fig-ntk-pictures`, top) no direction is special. The first eigenfunction hardly varies. The next $d$
# are nearly linear functions, in directions that the sample picks by accident. The kernel is close to a function of
# $x \cdot x'/d + 1$, the scalar product of the points with a 1 appended, and these $d + 1$ functions are what it likes best.
#
# At $t^*$ the plane is cut by a vertical line. The neurons have turned, so their switches $1[z_n > 0]$ depend on $x_1$
# alone. That is what the kernel has learned first. But look again: on the side where the neurons are active there are
# still $d + 1$ functions, and most of them are linear in $x_\perp$. The hidden part of {eq}`ntk-parts` switches by $x_1$ and
# multiplies by the scalar product of *all* coordinates, which no training can change. The seventh picture is the first
# of the other side. By the end there is a second line, and the stripe can be drawn.
#
# ### What they know of the label
#
# Three numbers say what a kernel knows.
#
# - The *label projection* $\langle u_r, y\rangle^2/|y|^2$ of an eigenvector: the share of the label that a linear
#   function of this one component explains. All $p$ of them add up to 1.
# - The *mutual information* $I(\varphi_r; y)$: how much the component tells about the label if any function of it may be used.
#   An eigenvector that grows steadily with $x_1$ has little projection on a label that flips twice, but plenty of
#   information. It is estimated by the $k$-nearest-neighbour formula of {cite:t}`ross2014mutual` with $k = 5$,
#   on components standardised to mean 0 and variance 1. At most $\ln 2 = 0.69$ nats are to be had, and the estimate from
#   $p$ points has noise of order $1/\sqrt p$, here {glue:text}`ntk_noise:.2f`.
# - The *centred alignment* of the whole kernel with the label,
#
# $$
# A = \frac{\tilde y^{\mathsf T} \Theta\, \tilde y}{\lVert H \Theta H \rVert_F\; |\tilde y|^2}, \qquad
# \tilde y = H y, \quad H = 1 - \tfrac1p\, \mathbf 1 \mathbf 1^{\mathsf T},
# $$ (ntk-alignment)
#
# which is 1 for the perfect kernel $y y^{\mathsf T}$ and near 0 for one that ignores the label.
#
# Drag the slider of {numref}`fig-ntk-spectrum`. Above is the eigenvector that knows most. It turns from a cloud into a curve over $x_1$.

# %% tags=["hide-input", "remove-output"]
glue("ntk_noise", float(p**-0.5), display=False)
x_1, y = feature.replica.x[:, 0].cpu().numpy(), feature.replica.y.cpu().numpy()
moving = spectra_animations.moving_spectrum(
    feature.series, feature.vectors, feature.projections, feature.information, x_1, y
)
text = "Above: the most informative eigenvector against the informative coordinate; a cloud at first, a curve later. Below: bars of label projection and mutual information of ten eigenvectors."
glue("ntk_spectrum", HTML(animations.embed(moving, "ntk-spectrum", text)), display=False)

# %% [markdown]
# :::{glue:figure} ntk_spectrum
# :name: fig-ntk-spectrum
#
# The spectrum of the tangent kernel during one training in the feature regime. Above: components of the eigenvector with
# the largest mutual information, one dot for each training point, against $x_1$. Below: label projection and mutual information of
# the ten eigenvectors of largest eigenvalue. A rank is not a mode that is followed: eigenvalues cross.
# :::

# %% tags=["nbval-check-output"]
# tolerance: 5%
print(f"t* = {stars['feature']:.1f}, lambda(t*) = {at['star'].amplification:.1f}")
for name in ("init", "star"):
    print(f"alignment, {name}: {at[name].alignment:.3f}")
print(f"readout share of the trace at t*: {at['star'].readout_share:.3f}")

# %% tags=["hide-input"]
for name, line in at.items():
    for column in ("alignment", "alignment_readout", "alignment_hidden", "readout_share"):
        glue(f"ntk_{column}_{name}", float(line[column]), display=False)
    best = feature.information[line.name]
    glue(f"ntk_best_{name}", float(best.max()), display=False)
    if line.t:  # at t = 0 there is nothing to be wrong
        glue(f"ntk_test_error_{name}", float(line.test_error), display=False)
top = feature.series.loc[feature.series.alignment.idxmax()]
glue("ntk_alignment_top", float(top.alignment), display=False)
glue("ntk_lazy_error", float(lazy.series.test_error.iloc[-1]), display=False)

# %% [markdown]
# From the start to $t^*$ the largest mutual information of an eigenvector rises from {glue:text}`ntk_best_init:.2f` to
# {glue:text}`ntk_best_star:.2f`, and the alignment from {glue:text}`ntk_alignment_init:.2f` to
# {glue:text}`ntk_alignment_star:.2f`. At $t^*$ the network itself still has a test error of {glue:text}`ntk_test_error_star:.2f`. It has hardly
# begun to fit, and its kernel already knows where the label lives. The alignment grows further while points are fitted, to
# {glue:text}`ntk_alignment_top:.2f`, and *falls* to {glue:text}`ntk_alignment_final:.2f` by the end.
#
# ### Feature and lazy, layer by layer

# %% tags=["hide-input"] mystnb={"image": {"alt": "Four rows of panels against time, two columns. Left, feature regime: alignment rises, the readout part more than the hidden part; the readout share of the trace falls; projections and information of several eigenvectors darken. Right, lazy regime: nothing changes."}, "figure": {"name": "fig-ntk-time", "caption": "Two trainings of one network on the same points, in the feature regime (left) and in the lazy regime (right; its mean-field times are tiny because α is huge). From above: centred alignment with the label of the kernel and of its two parts; their shares of the trace; label projection and mutual information of the ten first eigenvectors. Grey line: t*."}}
fig, axes = plt.subplots(4, 2, figsize=(8.2, 9), sharex="col", sharey="row")
for (name, run), column in zip(spectra.items(), axes.T, strict=True):
    spectra_figures.alignment_in_time(column[0], run.series, stars[name]).set(title=f"{name} regime", xlabel="")
    spectra_figures.readout_share_in_time(column[1], run.series, stars[name]).set(xlabel="")
    meshes = [
        spectra_figures.by_rank_in_time(ax, run.series.t, values, stars[name], largest=most)
        for ax, values, most in zip(column[2:], (run.projections, run.information), (0.35, np.log(2)), strict=True)
    ]
    column[3].set(xlabel="mean-field time $t$")
for ax in axes[:, 1]:
    ax.set(ylabel="")
for mesh, row, text in zip(meshes, axes[2:], ("projection", "information (nats)"), strict=True):
    fig.colorbar(mesh, ax=row, label=text, aspect=12)
axes[0, 1].legend(loc="upper left", fontsize=9)
_ = axes[1, 1].legend(loc="center", fontsize=9)

# %% tags=["nbval-check-output"]
# tolerance: 0.002
change = spectrum.kernel_alignment(kernel.gram, TangentKernel(replica.network, lazy.end.params, replica.x).gram)
print(f"alignment of the lazy kernel at the end with the one at the start: {change:.5f}")

# %% [markdown]
# The lazy network fits the same points, and its kernel stays what it was. It ends at a test error of
# {glue:text}`ntk_lazy_error:.3f`, the feature network at {glue:text}`ntk_test_error_final:.3f`.
#
# In the feature regime the two layers do not share the work evenly. The readout part knows more: at $t^*$ its alignment is
# {glue:text}`ntk_alignment_readout_star:.2f` against {glue:text}`ntk_alignment_hidden_star:.2f` for the hidden part. It
# compares outputs of neurons that have turned towards $x_1$; the hidden part carries the scalar product of all
# coordinates along. Yet the hidden part is most of the kernel. The readout's share of the trace falls from
# {glue:text}`ntk_readout_share_init:.2f` to {glue:text}`ntk_readout_share_star:.2f`, and the reason is geometry. The flow
# conserves $|\omega_n|^2 + b_n^2 - \beta_n^2$, so a neuron that has grown has $\beta_n^2 \approx |\omega_n|^2 + b_n^2$, and
# of a point on which it is active it adds $z_n^2$ to one part and $(|\omega_n|^2 + b_n^2)(|x|^2/d + 1)$ to the other. The
# first is the second times the squared cosine between $(\omega_n, b_n)$ and $(x/\sqrt d, 1)$. A neuron that looks along $x_1$
# sees one coordinate of $d$, and the cosine is small.
#
# ## The kernel, frozen and put to work
#
# Freeze the kernel at time $t$ and give it to a machine that knows nothing else: the hard-margin support vector machine,
# on the same training points. Its test error says what the kernel of that moment is good for. {numref}`fig-ntk-frozen`
# compares it with the test error of the network at that moment.

# %%
watched = []
for run in range(n_watched):
    replica = experiments.Replica(dataclasses.replace(config, seed=run, width=width_live, test_size=test_size))
    path = list(replica.states())
    fitted = [compression.fitted_fraction(state.margins) for state in path]
    star = path[int((np.array(fitted) >= experiments.FIT_SHARE).argmax())].t
    moments = sorted({star, *np.geomspace(path[1].t, path[-1].t, 14).tolist()})
    for state in states.at_times(path, moments):
        kernel = TangentKernel(replica.network, state.params, replica.x)
        machine, charges = kernel.svc(replica.y)
        wrong = replica.y_test * (kernel.function(charges, replica.x_test) + machine.bias) <= 0
        errors = {"net": replica.test_error(state.params), "machine": float(wrong.double().mean())}
        watched.append({"run": run, "t": state.t, "t_star": star, **errors})
watched = pd.DataFrame(watched)

# %% tags=["hide-input"] mystnb={"image": {"alt": "Four panels, one for each training: the test error of the machine on the frozen kernel falls before t star and stays low; that of the network falls long after t star, passes below the machine and rises again at the end."}, "figure": {"name": "fig-ntk-frozen", "caption": "Test error of the network at time t, and of the hard-margin machine with the network's kernel frozen at time t, for networks that differ in data and initial weights. Grey line: t*, the first time at which a tenth of the points has reached its margin."}}
fig, axes = plt.subplots(1, n_watched, figsize=(8.2, 3.4), sharey=True, squeeze=False)
for ax, (_, run) in zip(axes[0], watched.groupby("run"), strict=True):
    spectra_figures.machines_in_time(ax, run, run.t_star.iloc[0])
    ax.label_outer()
_ = fig.legend(*axes[0, 0].get_legend_handles_labels(), ncols=2, loc="outside upper center")

# %% tags=["hide-input"]
runs = watched.groupby("run")
frozen = watched[watched.t == watched.t_star].set_index("run").machine
found = {
    "start": runs.machine.first() / frozen,  # of the first step: the kernel has hardly moved
    "end": runs.machine.last() / frozen,
    "net_star": watched[watched.t == watched.t_star].set_index("run").net / frozen,
    "net_best": runs.net.min() / frozen,
    "net_end": runs.net.last() / frozen,
    "machine_best": runs.machine.min() / frozen,
}
for name, ratio in found.items():
    glue(f"ntk_watched_{name}", f"{ratio.min():.2f} to {ratio.max():.2f}", display=False)

# %% [markdown]
# In units of the error of the machine at $t^*$, over these {glue:text}`ntk_n_watched:.0f` runs:
#
# | | smallest to largest |
# |---|---|
# | machine, kernel of the start | {glue:text}`ntk_watched_start` |
# | machine, best moment | {glue:text}`ntk_watched_machine_best` |
# | machine, kernel of the end | {glue:text}`ntk_watched_end` |
# | network at $t^*$ | {glue:text}`ntk_watched_net_star` |
# | network, best moment | {glue:text}`ntk_watched_net_best` |
# | network at the end | {glue:text}`ntk_watched_net_end` |
#
# So the kernel is ready long before the network is. It gains little after $t^*$ and loses towards the end. The network
# needs the fitting period to make use of its features, but then it passes the machine: at its best moment it makes fewer
# errors than the machine on the kernel of $t^*$. (To know the best moment takes test points. It is no recipe, but it shows
# what the weights held.) What the network learns while it fits is more than a kernel of its past, and it loses
# this again by the end.
#
# ## Learning curves
#
# One sample size is one point of a curve. We train {glue:text}`ntk_n_seeds:.0f` networks at each $p$, freeze each kernel at the start, at
# $t^*$ and at the end, and train the machines.

# %%
grid = sweep.grid(
    experiments.NetworkConfig,
    task="stripe", d=d, p=p_grid, width=width_live, alpha=alpha, seed=range(n_seeds), test_size=test_size, device=device,
)  # fmt: skip
live = sweep.run(ntk_experiments.train_frozen, grid, name="ntk-live")
methods = ["network", "ntk_init", "ntk_star", "ntk_final"]
every = ntk_experiments.by_method(live)
glue("ntk_n_seeds", float(n_seeds), display=False)
glue("ntk_n_watched", float(n_watched), display=False)
glue("ntk_p_last", float(max(p_grid)), display=False)
glue("ntk_p_first", float(min(p_grid)), display=False)

# %% tags=["nbval-check-output"]
# tolerance: 4%
for points, runs in live.groupby("p"):
    print(f"p = {points}: alignment {runs.alignment_init.mean():.3f} at the start, ", end="")
    print(f"{runs.alignment_star.mean():.3f} at t*; error of the initial kernel {runs.svc_init.mean():.3f}")

# %% tags=["hide-input"] mystnb={"image": {"alt": "Left: learning curves of the network and of three frozen kernels on logarithmic axes; the kernel of the start is far above the others. Right: ratios of the errors of the frozen kernels to that of the network: the kernel of the end rises above one, that of t star falls below one."}, "figure": {"name": "fig-ntk-learning", "caption": "Computed while this page was built. Left: test error of the network and of hard-margin machines with its tangent kernel frozen at the start, at t* and at the end; means over replicas with 95 % intervals; lines: fits. Right: error of a frozen kernel over that of the network on the same points, geometric means over replicas, bars two standard errors."}}
fig, axes = plt.subplots(1, 2, figsize=(8.2, 4.2))
curves.draw_errors(axes[0], every, methods)
ratios = {}
for name in methods[1:]:
    ratios[name] = comparisons.paired_ratio(every[every.method == name], every[every.method == "network"])
    line, look = ratios[name], curves.STYLES[name]
    figures.scaling(axes[1], line.p, line.ratio, line.low, line.high, marker=look.marker, colour=look.colour)
spectra_figures.against_one(axes[1], "error, frozen kernel / network")
for ax in axes:
    figures.plain_powers(ax, p_grid)
_ = fig.legend(*axes[0].get_legend_handles_labels(), ncols=2, loc="outside upper center")

# %% tags=["hide-input"]
ratios["gain"] = comparisons.paired_ratio(every[every.method == "ntk_init"], every[every.method == "ntk_final"])
ratios["ends"] = comparisons.paired_ratio(every[every.method == "ntk_star"], every[every.method == "ntk_final"])
for name, line in ratios.items():
    for place, row in (("first", line.iloc[0]), ("last", line.iloc[-1])):
        glue(f"ntk_{name}_{place}", f"{row.ratio:.2f} ({row.low:.2f} to {row.high:.2f})", display=False)
means = every.groupby(["p", "method"]).test_error.mean().unstack()
flows = [(means[f"ntk_{m}_flow"] / means[f"ntk_{m}"] - 1).abs().max() for m in ntk_experiments.MOMENTS]
for moment in ("star", "final"):
    glue(f"ntk_live_alignment_{moment}", float(live[f"alignment_{moment}"].mean()), display=False)
glue("ntk_flow_gap", float(100 * max(flows)), display=False)
table = curves.exponent_table(every[every.method.isin(methods)])

# %% tags=["hide-input"]
Markdown(tables.markdown(tables.in_words(table).drop(columns=["task", "last octave"])))

# %% [markdown]
# - **The final kernel beats the initial one**, by a factor of {glue:text}`ntk_gain_first` at $p =$ {glue:text}`ntk_p_first:.0f` and
#   {glue:text}`ntk_gain_last` at $p =$ {glue:text}`ntk_p_last:.0f` (in brackets: two standard errors).
# - **Against the network** its error is {glue:text}`ntk_ntk_final_first` and {glue:text}`ntk_ntk_final_last` times the
#   network's at the two ends.
# - **The kernel of $t^*$ overtakes both.** At $p =$ {glue:text}`ntk_p_first:.0f` it makes {glue:text}`ntk_ntk_star_first` times the
#   network's errors, at $p =$ {glue:text}`ntk_p_last:.0f` {glue:text}`ntk_ntk_star_last` times, and there
#   {glue:text}`ntk_ends_last` times those of the final kernel.
#
# It does not matter how the frozen kernel is used. Gradient flow on it from $F = 0$, which has no bias and is what the
# network would have done had its kernel stopped, changes the mean errors by {glue:text}`ntk_flow_gap:.0f` % at most.
#
# ### Far out
#
# The published runs have wider networks and more points.

# %% tags=["hide-input"]
rows = store.load(published, missing_ok=True)
rows = rows[rows.alpha == alpha] if len(rows) else rows
split = ntk_experiments.by_method(rows) if len(rows) else rows
by_d = {number: part for number, part in split.groupby("d") if part.p.nunique() > 1} if len(rows) else {}
glue("ntk_made", store.origin(rows) if len(rows) else "not yet run", display=False)
told = f"{len(rows)} networks of {rows.width.max()} neurons" if len(rows) else "none"
glue("ntk_runs", told, display=False)

# %% tags=["hide-input"] mystnb={"image": {"alt": "Published learning curves of the network and of three frozen kernels, one row for each dimension, with local exponents beside them."}, "figure": {"name": "fig-ntk-published", "caption": "Published runs, one row for each dimension. Left: test error, means over replicas with 95 % intervals; lines: fits to the three largest octaves. Right: local exponent of each octave with 95 % intervals; dashed: predictions for the network and for the kernel of the start (theory says nothing about the others)."}}
if by_d:
    fig, axes = plt.subplots(len(by_d), 2, figsize=(8.2, 0.8 + 3.5 * len(by_d)), squeeze=False)
    for pair, (number, part) in zip(axes, by_d.items(), strict=True):
        curves.draw_errors(pair[0], part, methods)
        curves.draw_slopes(pair[1], part, methods)
        pair[0].set_title(f"$d = {number}$")
        for ax in pair:
            figures.plain_powers(ax, part.p)
    fig.legend(*axes[0, 0].get_legend_handles_labels(), ncols=2, loc="outside upper center")

# %% tags=["hide-input"]
fitted = curves.exponent_table(split[split.method.isin(methods)]) if len(rows) else pd.DataFrame()
not_yet = "Not yet run."
Markdown(tables.markdown(tables.in_words(fitted).drop(columns="task")) if len(fitted) else not_yet)

# %% [markdown]
# Published: {glue:text}`ntk_runs`; made {glue:text}`ntk_made`. Exponents of curves that bend compare badly. Errors at the
# same $p$ and on the same points compare well; here are those of the frozen kernels over the network's (geometric means,
# two standard errors):

# %% tags=["hide-input"]
lines = []
for number, part in split.groupby("d") if len(rows) else ():
    runs = {name: part[part.method == name] for name in methods}
    pairs = [comparisons.paired_ratio(runs[name], runs["network"]) for name in methods[1:]]
    for i in range(len(pairs[0])):
        cells = {"$d$": f"{number}", "$p$": f"{pairs[0].p[i]}", "replicas": f"{pairs[0].pairs[i]}"}
        for name, line in zip(methods[1:], pairs, strict=True):
            cells[curves.STYLES[name].label] = f"{line.ratio[i]:.2f} ({line.low[i]:.2f} – {line.high[i]:.2f})"
        lines.append(cells)
far = "not yet run"
if lines:
    far = f"{lines[-1][curves.STYLES['ntk_star'].label]} at p = {lines[-1]['$p$']}, d = {lines[-1]['$d$']}"
glue("ntk_far", far, display=False)
Markdown(tables.markdown(pd.DataFrame(lines)) if lines else not_yet)

# %% tags=["hide-input"]
told, flows = [], []
for number, part in by_d.items():
    final, init = (part[part.method == f"ntk_{moment}"] for moment in ("final", "init"))
    told.append(f"d = {number}: {sentences.trend(final, init)}")
    means = part.groupby(["p", "method"]).test_error.mean().unstack()
    flows += [(means[f"ntk_{m}_flow"] / means[f"ntk_{m}"] - 1).abs().max() for m in ntk_experiments.MOMENTS]
glue("ntk_far_gain", "; ".join(told) if told else "not yet run", display=False)
glue("ntk_far_flow", f"{100 * max(flows):.0f} %" if flows else "not yet run", display=False)
glue("ntk_far_flow_limit", float(ntk_experiments.FLOW_LIMIT), display=False)

# %% [markdown]
# The final kernel against the initial one, errors on the same points: {glue:text}`ntk_far_gain`. So what training does
# for the kernel is first of all a factor; whether it is an exponent too is what the brackets say. The kernel of $t^*$ over
# the network, furthest out: {glue:text}`ntk_far`. Gradient flow on the frozen kernels, followed up to
# $p =$ {glue:text}`ntk_far_flow_limit:.0f`, changes mean errors by {glue:text}`ntk_far_flow` at most. Theory says nothing
# about the exponents of kernels that are frozen on the way.
#
# ## What the end costs
#
# Why should the kernel be better before the network has finished? {doc}`stripe` has a suspect. In the over-fitting
# period the last points are fitted one by one, and the amplification $\lambda$ falls. We take the published networks
# and give their $\lambda$ to Laplace machines on the same points: $x_\perp$ is divided by $\lambda(t^*)$, or by the $\lambda$
# of the end. If the latter were all the network has left, its error should be that machine's.

# %%
nets = store.load(published_networks, missing_ok=True)
nets = nets[(nets.task == "stripe") & (nets.d == d) & (nets.alpha == alpha) & (nets.status == "FITTED")]
nets = curves.complete((nets if len(nets) else live)[lambda table: table.p >= 128])  # replicas at every p
measured = store.load(published_measured, missing_ok=True)
machines = {"star": measured[(measured.task == "stripe") & (measured.d == d)] if len(measured) else measured}
for moment in ("end",) if len(machines["star"]) else ("star", "end"):
    grid = [
        kernel_experiments.KernelConfig(
            task="stripe", d=d, p=row.p, method="svc_laplace_compressed", seed=row.seed, test_size=row.test_size,
            amplification=getattr(row, f"lambda_{moment}"), device=device,
        )
        for row in nets.itertuples()
    ]  # fmt: skip
    machines[moment] = sweep.run(kernel_experiments.train_kernel, grid, name=f"ntk-laplace-{moment}")

# %% tags=["hide-input"] mystnb={"image": {"alt": "Left: amplification at t star and at its maximum grow with the number of points, that of the end does not. Right: error of the network over that of two Laplace machines: it rises for the amplification of t star and falls below one for that of the end."}, "figure": {"name": "fig-ntk-cost", "caption": "Left: amplification of the published networks at t*, at its largest, and at the end, against the number of points (averages $\\langle\\lambda^{-2}\\rangle^{-1/2}$ over replicas, 95 % intervals). Right: test error of the networks over that of Laplace machines on the same points, compressed by the network's λ at t* and at the end (geometric means, two standard errors). The dashed line is a network as good as the machine."}}
fig, axes = plt.subplots(1, 2, figsize=(8.2, 3.9))
looks = {"star": ("at $t^*$", "orange", "<"), "max": ("largest", "blue", "o"), "end": ("at the end", "green", "^")}
reached, lines = {}, {}
for moment, (text, colour, marker) in looks.items():
    look = {"marker": marker, "colour": figures.COLOURS[colour], "label": f"$\\lambda$ {text}"}
    law = reached[moment] = exponents.fit_amplification(nets.p, nets[f"lambda_{moment}"], replica=nets.seed)
    figures.scaling(axes[0], law.p, law.mean_error, law.mean_low, law.mean_high, **look)
    if moment in machines:
        line = lines[moment] = comparisons.paired_ratio(nets, machines[moment])
        figures.scaling(axes[1], line.p, line.ratio, line.low, line.high, **look)
spectra_figures.against_one(axes[1], "error, network / machine")
axes[0].set(xlabel="number of training points $p$", ylabel="amplification $\\lambda$")
_ = fig.legend(*axes[0].get_legend_handles_labels(), ncols=3, loc="outside upper center")

# %% tags=["hide-input"]
betas = {"net": curves.fit(nets)}
for moment, line in lines.items():
    law, betas[moment] = comparisons.ratio_law(nets, machines[moment]), curves.fit(machines[moment])
    for name, power in (("reached", reached[moment]), ("ratio", law)):
        told = tables.interval(-power.beta, -power.beta_high, -power.beta_low)
        glue(f"ntk_{name}_{moment}", told, display=False)
    for place, row in (("from", line.iloc[0]), ("to", line.iloc[-1])):
        glue(f"ntk_cost_{moment}_{place}", f"{row.ratio:.2f} ({row.low:.2f} to {row.high:.2f})", display=False)
for name, law in betas.items():
    glue(f"ntk_beta_{name}", f"{law.beta:.2f} ({law.beta_low:.2f} to {law.beta_high:.2f})", display=False)

# %% tags=["hide-input"]
glue("ntk_cost_window", f"{nets.p.min()} to {nets.p.max()}", display=False)
glue("ntk_cost_runs", f"{nets.seed.nunique()} replicas of {nets.width.max()} neurons", display=False)
glue("ntk_lambda_end", float(nets.lambda_end[nets.p == nets.p.max()].mean()), display=False)

# %% [markdown]
# | machine compressed by | $\lambda$ grows as $p$ to the | $\beta$ of the machine | network / machine, smallest $p$ | largest $p$ | the ratio grows as $p$ to the |
# |---|---|---|---|---|---|
# | $\lambda(t^*)$ | {glue:text}`ntk_reached_star` | {glue:text}`ntk_beta_star` | {glue:text}`ntk_cost_star_from` | {glue:text}`ntk_cost_star_to` | {glue:text}`ntk_ratio_star` |
# | $\lambda$ of the end | {glue:text}`ntk_reached_end` | {glue:text}`ntk_beta_end` | {glue:text}`ntk_cost_end_from` | {glue:text}`ntk_cost_end_to` | {glue:text}`ntk_ratio_end` |
#
# Over $p =$ {glue:text}`ntk_cost_window`, {glue:text}`ntk_cost_runs`; exponents $\beta$ by the rule of the three largest
# octaves, powers of $p$ over the whole range, intervals 95 % over replicas. The network's own $\beta$ is
# {glue:text}`ntk_beta_net`.
#
# What follows:
#
# - The network falls behind the machine that was told its $\lambda(t^*)$, by a factor that grows with $p$. What happens after
#   $t^*$ costs it a part of its exponent, as long as this trend goes on.
# - At the end $\lambda$ no longer grows with $p$: it is {glue:text}`ntk_lambda_end:.1f` at the largest. If that one number were
#   the metric that the network ends with, its error would be the second machine's. With few points it is larger, with
#   many it is smaller, by a factor that grows. So the end is not a return to a weaker compression of everything. A likely
#   reason: $\lambda$ is a root mean square over neurons, and a few large ones that were turned to fit single points weigh
#   more in it than in the error.
# - Over the published runs {doc}`stripe` fits how the exponent of a machine changes from the kernel of the start to that of
#   $t^*$, and from there to the kernel of the end: {glue:text}`stripe.ipynb::stripe_frozen_kept:s` and then
#   {glue:text}`stripe.ipynb::stripe_frozen_lost:s`. Which part of the time after $t^*$ it is, the fitting of the many or of the
#   last few, is not shown.
#
# ## What we saw
#
# - The kernel of a network in the feature regime turns while next to nothing is fitted: its switches come to depend on
#   $x_1$ alone, and the largest mutual information of an eigenvector rises from {glue:text}`ntk_best_init:.2f` to
#   {glue:text}`ntk_best_star:.2f`. The lazy kernel does not move.
# - Frozen at the end, the kernel beats the initial one, as {cite:t}`paccolat2021geometric` found. It makes
#   {glue:text}`ntk_ntk_final_first` times the network's errors at the smallest $p$ of this page and
#   {glue:text}`ntk_ntk_final_last` times at the largest.
# - The kernel is at its best near $t^*$. With enough points, a plain machine with the kernel of $t^*$ beats both the machine
#   with the final kernel and the fully trained network.
# - It is not all the network learns. Between $t^*$ and the end there is a moment at which the network beats the machine on
#   that kernel ({glue:text}`ntk_watched_net_best` times its errors). The rest of the training takes this away.
#
# **Where it departs and why.** The alignment does not tell which kernel is best. Over the networks of this page it averages
# {glue:text}`ntk_live_alignment_star:.2f` at $t^*$ and {glue:text}`ntk_live_alignment_final:.2f` at the end, where the
# kernel is worse: alignment is a mean over all points, the machine's error is decided by those at the edges. Nor
# is $t^*$ a special time. In {numref}`fig-ntk-frozen` the machine's error is flat from before $t^*$ until long after.
#
# **What is not known.** Whether the network's loss of exponent goes on at larger $p$: the interval of its exponent overlaps
# that of the machine told $\lambda(t^*)$, and only the ratio on the same samples tells them apart. Whether it is a matter of
# the hinge loss, which asks for every single point to be fitted. Whether other tasks and deeper networks behave alike. And
# why, at the smallest $p$, the kernel of $t^*$ is worse than the network.
#
# ## Try it
#
# Each of these runs as it stands.
#
# - Another dimension: `python -m geocompress run ntk_evolution -p d 10`. From which $p$ on does the kernel of $t^*$ win?
# - Another sample: `-p seed 3`. Which eigenvector carries the label at $t^*$, and is it always the same rank?
# - Half-way to lazy: `-p alpha 1.0`. Does the kernel still move? Does freezing it at the end still help?
# - A narrow net: `-p width_live 50`. Whose error grows first, that of the network or that of its kernel?
