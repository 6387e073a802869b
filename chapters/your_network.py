# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# (your-network)=
# # Your own network
#
# So far the task was made up, the informative directions were known, and training was a flow followed to its very end.
# Your network is not like that. It was trained with Adam on mini-batches, nobody knows which directions matter, and all
# that is left of the training is a folder of saved states. Can one still tell whether it learned features, or only fitted
# its last layer to the features it was born with?
#
# One call does: `geocompress.diagnose(module, x, y, checkpoints=…, holdout=…)`. This chapter tries it on two networks that
# you could have written, and says what each number is worth. One of them turns out to have learned features that it
# hardly needed.

# %% tags=["parameters"]
p_digits = 400  # training points
p_motifs = 400
q_motifs = 1000  # held out
epochs_digits = 40
epochs_motifs = 30
seed = 0

# %% tags=["hide-cell"]
from geocompress import notebooks

notebooks.check_parameters("your_network")

# %% tags=["hide-input"]
import tempfile
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import torch
from IPython.display import Markdown
from myst_nb import glue

import geocompress
from geocompress import diagnosis_figures, diagnosis_page, examples, figures, tables

figures.use_style()
folder = Path(tempfile.mkdtemp())

# %% [markdown]
# ## What is measured
#
# Take the tangent kernel of the network in one of its saved states, $\Theta(x, z) = \langle \nabla_W f(x), \nabla_W f(z) \rangle$,
# on the training points. Four questions go to it, and one to the network itself.
#
# - **Alignment.** Is the kernel large between points of one label, and small between others? With
#   $\tilde y = y - \langle y \rangle$ and $\tilde\Theta$ the kernel centred likewise,
#
# $$
# A = \frac{\tilde y^{\mathsf T}\, \tilde\Theta\, \tilde y}{\|\tilde\Theta\|\, |\tilde y|^2}
# $$ (your-network-alignment)
#
# - **Information.** What does each of its first ten eigenvectors, taken alone, tell about the label, in nats?
# - **Frozen error.** How well does a plain kernel machine with this kernel do on new points, having seen the same training
#   points? What it gains between the first and the last state is what the features gained.
# - **Effective dimension** $(\operatorname{tr}\Theta)^2 / \operatorname{tr}\Theta^2$: how many eigenvalues count.
# - **Input gradients.** Which directions of the input does the output feel? The covariance
#   $C = \langle \nabla_x f\, \nabla_x f^{\mathsf T} \rangle$ has them as its leading eigenvectors.
#
# The kernel and what its machine does are those of {doc}`ntk_evolution`. There the network had one hidden layer. Nothing
# here depends on that.
#
# ## Digits
#
# The first network is a perceptron with two hidden layers of 64 ReLUs. It looks at the 8 × 8 digits that come with
# scikit-learn and says whether a digit is even. Training is what everyone does: Adam, batches of 32, the logistic loss.
# Some of its states are saved as `state_dict` files, the first one before any training.

# %%
digits = examples.digits(p_digits, seed)
module = examples.digits_net()
epochs = [epoch for epoch in (0, 1, 2, 5, 10) if epoch < epochs_digits] + [epochs_digits]
(folder / "digits").mkdir()
files = examples.train(module, digits, folder / "digits", epochs=epochs_digits, save_at=epochs, seed=seed)

# %% [markdown]
# From here on only the files count. They are read with `weights_only=True`, which runs nothing that is in them.

# %%
report = geocompress.diagnose(
    module.eval(),
    digits.x,
    digits.y,
    checkpoints=files,
    times=epochs,
    holdout=(digits.x_test, digits.y_test),
)
first, last = report.table.iloc[0], report.table.iloc[-1]
for name in ("net_error", "kernel_error"):
    glue(f"your_digits_{name}", 100 * float(last[name]), display=False)
    glue(f"your_digits_{name}_first", 100 * float(first[name]), display=False)
glue("your_digits_noise", 100 * float(np.sqrt(last.net_error * (1 - last.net_error) / report.holdout)), display=False)

# %% tags=["hide-input"]
columns = {
    "checkpoint": ("state", ""),
    "net_error": ("error of the net", ".3f"),
    "kernel_error": ("of its frozen kernel", ".3f"),
    "alignment": ("alignment", ".2f"),
    "information": ("best information", ".2f"),
    "effective_dimension": ("dimension of the kernel", ".1f"),
    "gradient_dimension": ("directions felt", ".1f"),
    "compression": ("compression", ".0f"),
}
Markdown(tables.markdown(report.table, columns))

# %% tags=["hide-input"] mystnb={"image": {"alt": "Two panels against epochs. Left: the error of the network falls from one half, the error of the frozen kernel is low from the start. Right: alignment rises within the first epochs."}, "figure": {"name": "fig-your-digits", "caption": "The digits. Left: test error of the network, and of a kernel machine on its tangent kernel frozen at each saved state. Right: alignment of that kernel with the label."}}
fig, (left, right) = plt.subplots(1, 2, figsize=(7.6, 3.4))
diagnosis_figures.errors(left, report, time="epoch")
_ = diagnosis_figures.alignment(right, report, time="epoch")

# %% [markdown]
# {numref}`fig-your-digits` tells a story that the learning curve of the network alone does not. The kernel turned to the
# label: its alignment went from {glue:text}`your_digits_alignment_first:.2f` to {glue:text}`your_digits_alignment:.2f`,
# most of the way in the first few epochs. And yet the features were of little use. A machine on the kernel of the
# *untrained* network has an error of {glue:text}`your_digits_kernel_error_first:.1f` %, against
# {glue:text}`your_digits_kernel_error:.1f` % with the kernel of the last state and {glue:text}`your_digits_net_error:.1f` %
# of the network itself. One standard error of such a number is {glue:text}`your_digits_noise:.1f` %. For this task, at this
# number of points, the features that a random network has are nearly good enough.

# %% tags=["nbval-check-output"]
# tolerance: 0.15
glue("your_digits_alignment_first", float(first.alignment), display=False)
glue("your_digits_alignment", float(last.alignment), display=False)
print(f"alignment with the label: {first.alignment:.2f} at the start, {last.alignment:.2f} at the end")

# %% tags=["nbval-check-output"]
# tolerance: 0.02
print(f"test error of the kernel: {first.kernel_error:.3f} at the start, {last.kernel_error:.3f} at the end")

# %% [markdown]
# Where does the network look? {numref}`fig-your-digits-directions` draws the leading eigenvectors of $C$ as images. They are
# rough: nobody told the network that its inputs are images. And part of what they show was never trained. The pixels that
# hold less than a hundredth of the mean variance of a pixel are {glue:text}`your_digits_dead:.0f` of 64, and
# {glue:text}`your_digits_dead_share:.0f` % of the squared gradient of these three directions lies on them. A pixel that
# does not vary trains no weights, so the network feels there what it was born with. Gradients say what a network would
# react to, not what it is ever shown.

# %% tags=["hide-input"] mystnb={"image": {"alt": "Three rough images of eight by eight pixels in red and blue, with strong single pixels in the middle and at the rim."}, "figure": {"name": "fig-your-digits-directions", "caption": "The three directions of the input that the trained digits network feels most, in the shape of a digit, each with its share of the squared input gradient. Red and blue pull the output in opposite ways; which is which means nothing."}}
fig, axes = plt.subplots(1, 3, figsize=(6.5, 2.4))
_ = diagnosis_figures.directions(list(axes), report)
variance = digits.x.flatten(1).var(0).numpy()
dead = variance < 0.01 * variance.mean()
felt = report.covariances[-1].values[:3, None] * report.covariances[-1].vectors[:3] ** 2
glue("your_digits_dead", float(dead.sum()), display=False)
glue("your_digits_dead_share", float(100 * felt[:, dead].sum() / felt.sum()), display=False)

# %% [markdown]
# ## A motif in a sequence
#
# The second network is a small convolution net on sequences: three channels of 24 numbers, noise of unit variance, and in
# each channel a ramp of five steps hidden at a random place. The label says whether the ramp of channel 0 rises or falls.
# The ramps of channels 1 and 2 rise or fall by chance. So a third of the input matters, and here we know which. The call
# takes that as `directions` (it does not have to be told).

# %%
motifs = examples.motifs(p_motifs, q_motifs, seed)
module = examples.motif_net()
epochs = [epoch for epoch in (0, 1, 2, 5, 10) if epoch < epochs_motifs] + [epochs_motifs]
(folder / "motifs").mkdir()
files = examples.train(module, motifs, folder / "motifs", epochs=epochs_motifs, save_at=epochs, seed=seed, rate=3e-3)
entries = motifs.x[0].numel()
report = geocompress.diagnose(
    module.eval(),
    motifs.x,
    motifs.y,
    checkpoints=files,
    times=epochs,
    holdout=(motifs.x_test, motifs.y_test),
    directions=torch.eye(entries)[: examples.LENGTH],
)

# %% tags=["hide-input"] mystnb={"image": {"alt": "Two panels. Left: errors of the network and of its frozen kernel both fall during training. Right: bars of mutual information for ten eigenvectors; at the start none knows the label, at the end one of the first does."}, "figure": {"name": "fig-your-motifs", "caption": "The sequences. Left: test error of the network and of its frozen kernel at each saved state. Right: information on the label in the first ten eigenvectors of the kernel, at the first and last state."}}
fig, (left, right) = plt.subplots(1, 2, figsize=(7.6, 3.4))
diagnosis_figures.errors(left, report, time="epoch")
_ = diagnosis_figures.information(right, report)

# %% tags=["hide-input"]
columns |= {"compression_along": ("along channel 0", ".1f")}
Markdown(tables.markdown(report.table, columns))

# %%
first, last = report.table.iloc[0], report.table.iloc[-1]
for name in ("net_error", "kernel_error"):
    glue(f"your_motifs_{name}", 100 * float(last[name]), display=False)
    glue(f"your_motifs_{name}_first", 100 * float(first[name]), display=False)
for name in ("information", "compression_along", "compression"):
    glue(f"your_motifs_{name}", float(last[name]), display=False)
    glue(f"your_motifs_{name}_first", float(first[name]), display=False)
glue("your_motifs_ceiling", report.ceiling, display=False)

# %% [markdown]
# This time the features matter. With the kernel of the untrained network a machine has an error of
# {glue:text}`your_motifs_kernel_error_first:.0f` %, with that of the last state {glue:text}`your_motifs_kernel_error:.1f` %,
# which is about what the network itself has, {glue:text}`your_motifs_net_error:.1f` %. At the start none of the first ten
# eigenvectors knows anything about the label (at best {glue:text}`your_motifs_information_first:.2f` nats, the noise of the
# estimate); at the end one of them alone knows {glue:text}`your_motifs_information:.2f` of
# {glue:text}`your_motifs_ceiling:.2f` nats ({numref}`fig-your-motifs`).

# %% tags=["nbval-check-output"]
# tolerance: 0.3
print(f"kernel error at the start over that at the end is above 2: {int(first.kernel_error > 2 * last.kernel_error)}")
print(
    f"best information of an eigenvector: {first.information:.2f} nats at the start, {last.information:.2f} at the end"
)

# %% [markdown]
# ### Compression, without a plane to look at
#
# The stripe had an amplification factor $\lambda$, a property of its first layer. A general network has no such layer, but
# it has input gradients, and two ratios can be made of their covariance $C$.
#
# - **Along known directions**: the mean of $C$ over the informative directions, over its mean along the others. For one
#   hidden layer, $\nabla_x f = \frac{\sqrt 2}{h \sqrt d} \sum_n \beta_n \omega_n \mathbb 1[z_n > 0]$. Where all
#   $\omega_n$ lie on one line, as they do on the stripe before fitting starts, this ratio *is* $\lambda^2$. Later it
#   differs by a factor of order one, because it weighs a neuron by what it does to the output, and $\lambda$ does not.
# - **By its own eigenvalues**: the mean of the largest few over the mean of the rest. It needs no knowledge, and it is at
#   least as large as the first ratio for any directions of that number. It is *not* $\lambda^2$, and it does not start at 1.
#   When all neurons of the stripe tilt alike, a little away from the informative direction, the network ignores everything
#   perpendicular to its *own* direction, and this ratio has no bound. It says how few directions are felt, not how well
#   they are aimed.
#
# For the sequences, the first ratio went from {glue:text}`your_motifs_compression_along_first:.1f` to
# {glue:text}`your_motifs_compression_along:.0f`: the network has learned to ignore the channels that do not matter. The
# second went from {glue:text}`your_motifs_compression_first:.0f` to {glue:text}`your_motifs_compression:.0f`.

# %% tags=["hide-input"] mystnb={"image": {"alt": "Left: eigenvalues of the gradient covariance by rank, falling faster after training. Right: three pictures of three rows by 24 columns; only the first row has structure, waves along the places."}, "figure": {"name": "fig-your-motifs-directions", "caption": "The sequences. Left: eigenvalues of the input-gradient covariance, as shares of their sum, at the first and last state. Right: the three directions that the trained network feels most; rows are the channels 0 to 2 from the top, columns are places."}}
fig = plt.figure(figsize=(7.6, 3.4))
left, right = fig.subfigures(1, 2)
diagnosis_figures.gradient_spectrum(left.subplots(), report)
_ = diagnosis_figures.directions(list(right.subplots(3, 1)), report)

# %% tags=["nbval-check-output"]
# tolerance: 0
print(
    f"at the end the network feels channel 0 at least 5 times more than the others: {int(last.compression_along > 5)}"
)
print(
    f"eigenvalues claim at least what known directions do: {int(all(report.table.compression >= report.table.compression_along))}"
)

# %% [markdown]
# {numref}`fig-your-motifs-directions` shows what it feels: waves along channel 0, at all places. A network that treats all
# places alike has no single informative direction, and one number cannot say so; the pictures can.
#
# ## The page
#
# All of this fits on one page of HTML, with sentences, figures and the table, in one file that can be mailed.

# %% tags=["nbval-check-output"]
# tolerance: 50%
page = diagnosis_page.write_html(report, folder / "report.html")
print(f"{page.name}: {page.stat().st_size / 1000:.0f} kB")

# %% [markdown]
# The same from a shell, with the module named by its file and a function without arguments, and the points in a `.npz`:
#
# ```sh
# python -m geocompress diagnose net.py:make data.npz --checkpoints epoch_*.pt -o report.html
# ```
#
# ## What we saw
#
# - From saved states alone one can tell a network that needed its features from one that did not. The frozen kernel is the
#   judge: on the sequences its error fell from {glue:text}`your_motifs_kernel_error_first:.0f` % to
#   {glue:text}`your_motifs_kernel_error:.1f` %, on the digits from {glue:text}`your_digits_kernel_error_first:.1f` % to
#   {glue:text}`your_digits_kernel_error:.1f` %.
# - Alignment alone does not decide it. It rose in both.
# - Input gradients name the directions that a network feels.
#
# **Where it departs, and limits.** Theory speaks of gradient flow and of one hidden layer; Adam moves the parameters in
# another metric, and its kernel is not the tangent kernel. The frozen kernel is still a fair judge of features, but the
# network need not follow it. Compression by eigenvalues depends on the units of the inputs and on how many directions
# count as informative; compare it with the first state, never with 1. Mutual information looks at one eigenvector at a
# time and cannot see what two of them say together. A kernel matrix takes $8 p^2$ bytes: for large data pass a few thousand
# of the training points. And where inputs are whole numbers (words), there are no input gradients.
#
# ## Try it
#
# - Fewer digits: `python -m geocompress run your_network -p p_digits 60`. Do the features matter now?
# - Stop early: `-p epochs_motifs 6`. Does the kernel know the label before the network does?
# - Another start: `-p seed 1`. Which of the numbers are those of the task, and which those of one run?
# - Your own network: save its `state_dict` before the first step and every few epochs, and call `geocompress.diagnose`.
