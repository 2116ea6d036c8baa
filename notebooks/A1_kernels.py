# ---
# jupyter:
#   jupytext:
#     text_representation:
#       extension: .py
#       format_name: percent
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # A1 · Kernels: what does a loss over 150,000 words cost, and which half of it is for nothing?
#
# | | |
# |---|---|
# | reads | no run and no stage; `benchmarks/policy_loss.csv` for the last figure |
# | writes | nothing |
# | time and memory | under 30 s, 0.5 GB; no GPU: kernels run in Triton's interpreter |

# %% [markdown]
# ## What you will see
#
# 1. Loss, statistics and the gradient of the logits come from two walks over the logits, a block at a time; by hand
#    and by the library they are the same numbers (table *agreements*, at the end).
# 2. Memory does not have to grow with the tokens, and masked tokens cost nothing (figure *memory*).
# 3. What is left is matrix products, three instead of four; on a CPU and a small vocabulary that is no gain (figure
#    *times*, measured; the same measurement on a GPU is one command).

# %%
import os

os.environ.setdefault("TRITON_INTERPRET", "1")  # before triton is imported: kernels run without a GPU

import importlib.util
from dataclasses import replace

import numpy as np
import pandas as pd
import torch
from IPython.display import Markdown, display

from zerosearch import artifacts, display as views, figures, kernels
from zerosearch.kernels import Head, PolicySettings, PolicyTokens, torch_tiles
from zerosearch.kernels.chunked import chunk_rows
from zerosearch.kernels.preparation import STATISTICS, Formula, TokenVectors

# %% [markdown]
# A helper as in appendix A2: it stops the notebook where two ways of computing a number differ. Triton has packages
# for Linux only; without it the walks below are made by the torch implementation, which has the same arithmetic.

# %%
agreed = []
HAS_TRITON = importlib.util.find_spec("triton") is not None
IMPL = "triton" if HAS_TRITON else "torch"


def agree(what, by_hand, by_library, within=1e-5):
    """Assert that both ways give the same numbers; print them and keep them for the summary."""
    hand, library = (np.atleast_1d(np.asarray(x, dtype=float)) for x in (by_hand, by_library))
    texts = [", ".join(f"{x:.4g}" for x in np.round(numbers.ravel()[:5], 6)) for numbers in (hand, library)]
    assert np.allclose(hand, library, rtol=0, atol=within), f"{what}: by hand {texts[0]}, library {texts[1]}"
    agreed.append((what, *texts))
    print(f"{what}: by hand {texts[0]}, by the library {texts[1]}")


print("walks are made by", "Triton's interpreter" if HAS_TRITON else "torch; for Triton run `pip install triton`")

# %% [markdown]
# ## Which tokens?
#
# A trajectory is prompt, policy, passages, policy. Only what the policy wrote is trained. Here are twelve tokens:
# a search of three, seven of a passage, an answer of two. For how many of the twelve does a loss need logits?

# %%
mask = torch.tensor([True] * 3 + [False] * 7 + [True] * 2)
print(f"{int(mask.sum())} of {len(mask)}: {mask.float().mean():.0%}")

# %% [markdown]
# Five. The others are read by the model, not scored. In long trajectories with five passages per search the share
# is 20 to 60 %. Whoever projects all completion tokens on the vocabulary and masks the *loss* afterwards has paid
# for the rest.
#
# ## One token, by hand
#
# A vocabulary of four words. The head gives the logits $z$; the policy had written word 2. Its log-probability is
#
# $$\log p_t = z_t - m - \log s, \qquad m = \max_j z_j, \quad s = \sum_j e^{z_j - m}$$
#
# and the entropy $H = m + \log s - \sum_j p_j z_j$. Before running: which word is the most likely one?

# %%
z, target = np.array([1.0, 3.0, 2.0, -1.0]), 2
m = z.max()
s = np.exp(z - m).sum()
logp, p = z[target] - m - np.log(s), np.exp(z - m) / s
entropy = m + np.log(s) - (p * z).sum()
state, head = torch.ones(1, 1), Head(torch.tensor(z, dtype=torch.float32).unsqueeze(1))
found = kernels.token_logps(state, head, torch.tensor([target]), impl=IMPL)
agree("log-probability and entropy", [logp, entropy], [t.item() for t in found])

# %% [markdown]
# ## The loss of a token
#
# With advantage $A$, ratio $r = e^{\log p - \log p_\mathrm{old}}$ and a reference, the token's loss is
#
# $$-\min(r A,\ \mathrm{clip}(r) A) + \beta\,(e^{d} - d - 1), \qquad d = \log p_\mathrm{ref} - \log p$$
#
# It depends on the logits through $\log p$ alone. So one number says how the token pulls,
#
# $$g = \frac{\partial\,\mathrm{loss}}{\partial \log p} = -r A\ [\text{not clipped}]\ - \beta\,(e^{d} - 1)$$
#
# The KL is *added*: where the reference is more likely ($d > 0$), $g$ is more negative, and descent raises $\log p$.

# %%
advantage, old, ref, clip, beta = 1.5, logp - 0.1, logp + 0.3, 0.2, 0.05
r, d = np.exp(logp - old), ref - logp
loss = -min(r * advantage, np.clip(r, 1 - clip, 1 + clip) * advantage) + beta * (np.exp(d) - d - 1)
g = -r * advantage - beta * (np.exp(d) - 1)
numbers = [torch.tensor([x], dtype=torch.float32) for x in (advantage, old, ref)]
tokens = PolicyTokens(torch.tensor([target]), numbers[0], old_logp=numbers[1], ref_logp=numbers[2])
made = kernels.policy_loss(state, head, tokens, PolicySettings(clip=clip, kl_weight=beta), impl=IMPL)
agree("loss of one token", loss, made.loss.item())

# %% [markdown]
# ## The gradient of the logits needs no autograd
#
# $\partial \log p_t / \partial z_j = [j = t] - p_j$. The gradient of the loss is that, times $g$. Which entry is
# negative, and what do the four sum to?

# %%
gradient = g * ((np.arange(4) == target) - p)
weight = head.weight.clone().requires_grad_()
loss_again = kernels.policy_loss(state, replace(head, weight=weight), tokens, PolicySettings(clip=clip, kl_weight=beta),
                                 impl="reference").loss
agree("gradient of the logits", gradient, torch.autograd.grad(loss_again, weight)[0].flatten())
print("sum:", gradient.sum().round(12))

# %% [markdown]
# Only the target's is negative (its logit will rise), and the sum is 0: what one word gains the others lose.
#
# Everything is there in the forward pass. So the gradient can be written *over the logits* as soon as the row's $g$
# is known; nothing is kept for a backward pass, and nothing is computed twice.
#
# ## A walk, a block at a time
#
# A GPU program cannot hold 150,000 logits. It walks over them with a running maximum $m$, and rescales its sums
# whenever $m$ grows:
#
# $$m' = \max(m, \max_{\mathrm{block}} z), \qquad s' = s\,e^{m - m'} + \sum_{\mathrm{block}} e^{z - m'}$$
#
# Eleven logits in blocks of four. After which block does the rescaling matter for the last time?

# %%
rng = np.random.default_rng(3)
row, block = rng.normal(size=11).astype(np.float32) * 2, 4
m, s, steps = -np.inf, 0.0, []
for start in range(0, len(row), block):
    part = row[start : start + block]
    grown = max(m, part.max())
    rescale = float(np.exp(m - grown))
    m, s = grown, s * rescale + np.exp(part - grown).sum()
    steps.append({"from": start, "block": np.round(part, 2).tolist(), "rescale": rescale, "m": m, "s": s})
display(views.table(pd.DataFrame(steps).round(3)))
agree("m + log s", m + np.log(s), torch.logsumexp(torch.tensor(row), 0).item())

# %% [markdown]
# Where `rescale` is 1 the maximum stayed. The last block is ragged: three logits, and a masked load for the fourth.
#
# ## The same walk in Triton
#
# One program per row. `lib/zerosearch/kernels/triton_tiles.py` holds it; this is its first walk:

# %%
source = (artifacts.REPO / "lib" / "zerosearch" / "kernels" / "triton_tiles.py").read_text(encoding="utf-8")
first_walk = source.split("    m = -float(\"inf\")\n")[1].split("    at_target")[0]
print(first_walk)

# %% [markdown]
# `x` is the sum that the entropy needs. Now three rows go through the kernel, in blocks of four; it overwrites the
# logits with their gradient and leaves six numbers per row. What is the gradient of a row whose weight is 0?

# %%
logits = torch.tensor(rng.normal(size=(3, 11)), dtype=torch.float32)
weights, advantages = torch.tensor([0.5, 0.5, 0.0]), torch.tensor([1.0, -1.0, 1.0])
vectors = TokenVectors(torch.tensor([2, 0, 10]), weights, advantages=advantages)
wanted, d_wanted = torch_tiles.tile(logits.clone(), vectors, Formula(), True)
if HAS_TRITON:
    from zerosearch.kernels import triton_tiles

    tile, statistics = logits.clone(), torch.empty(6, 3)
    given = triton_tiles.arguments(tile, vectors, Formula(), statistics)
    triton_tiles.sweep_kernel[(3,)](**given, WITH_GRADIENT=True, **triton_tiles.flags(vectors, Formula()), BLOCK=block)
else:
    statistics, tile = torch_tiles.tile(logits.clone(), vectors, Formula(), True)
agree("statistics of three rows", wanted, statistics)
agree("gradient in the place of the logits", d_wanted, tile)
display(views.table(pd.DataFrame(statistics.numpy().T.round(3) + 0.0, columns=list(STATISTICS))))

# %% [markdown]
# The third row is all zeros: weight 0, gradient 0. The second has a negative advantage, so its target's logit goes
# down.
#
# ## Memory: what grows with the tokens
#
# Qwen2.5-3B: hidden size 2,048, vocabulary 151,936. Plain torch keeps, for every token, logits in bfloat16 (2 bytes),
# a float32 copy (4), their log-softmax (4) and, going backward, gradients of the same sizes. Say 14 bytes a logit at
# the worst moment. How many gigabytes are that for 16,384 completion tokens, and for the policy's 35 % of them?

# %%
WIDTH, VOCABULARY, SHARE = 2048, 151_936, 0.35


def gigabytes(n_tokens):
    """Return {way: gigabytes beyond states and weights} of one loss."""
    policy = int(SHARE * n_tokens)
    learning, frozen = (
        chunk_rows(policy, VOCABULARY, 2, kernels.BUDGET_BYTES, frozen=f, on_cpu=False) for f in (False, True))
    of_states, of_weight = 2 * 2 * n_tokens * WIDTH, 4 * VOCABULARY * WIDTH
    return {
        "plain torch": 14 * n_tokens * VOCABULARY / 1e9, "plain torch, policy tokens": 14 * policy * VOCABULARY / 1e9,
        "one sweep": (2 * learning * VOCABULARY + of_states + of_weight) / 1e9,
        "one sweep, frozen head": (2 * frozen * VOCABULARY + of_states) / 1e9,
    }


sizes = [(way, n, gb) for n in (4096, 8192, 16_384, 32_768) for way, gb in gigabytes(n).items()]
memory = pd.DataFrame(sizes, columns=["way", "n_tokens", "gb"])
figures.loss_memory(memory)

# %% [markdown]
# The sweep holds one chunk of logits (at most 1 GiB; a quarter of that where the head is frozen), the gradient of
# the states, and for a head that learns its gradient in float32: 1.24 GB, the larger part. These are computed
# numbers; measured ones come from the benchmark.
#
# ## Chunks change nothing
#
# A chunk is some rows. Every row is finished within its chunk; the weight's gradient is added up in float32. Sixty
# rows in one chunk, or in twenty:

# %%
torch.manual_seed(0)
hidden, weight = torch.randn(60, 16, requires_grad=True), torch.randn(200, 16, requires_grad=True)
batch = PolicyTokens(torch.randint(0, 200, (60,)), torch.randn(60), mask=torch.rand(60) < SHARE)
gradients = {}
for budget in (1 << 30, 3 * 200 * 4):
    out = kernels.policy_loss(hidden, Head(weight), batch, impl="torch", budget_bytes=budget)
    gradients[budget] = torch.autograd.grad(out.loss, (hidden, weight))
agree("one chunk or twenty", *[g[1].detach().numpy() for g in gradients.values()])
print("gradient of masked rows, largest entry:", gradients[1 << 30][0][~batch.mask].abs().max().item())

# %% [markdown]
# Masked rows get exactly 0, not something small: they never enter.
#
# ## Three products instead of four
#
# Whoever recomputes logits in the backward pass (TRL's head, liger's) needs four matrix products: logits, logits
# again, gradient of the states, gradient of the weight. One sweep needs three, a frozen head two. Each has
# $2 N V H$ operations. How many tera-operations are that for 16,384 tokens, a third of them the policy's?

# %%
everything = 2 * 16_384 * VOCABULARY * WIDTH / 1e12
one = SHARE * everything
ways = {"one sweep": 3 * one, "frozen head": 2 * one, "recomputed": 4 * one, "recomputed, unmasked": 4 * everything}
print({way: round(tera, 1) for way, tera in ways.items()})
agree("tera-operations of one product", 3.57, one, within=0.005)

# %% [markdown]
# 10.7 against 40.8: most of the difference is the mask, not the fusing. And all of it is the head, 8 to 15 % of the
# operations of a training step: the body reads every token, retrieved ones included. This saves memory, and a few
# per cent of a step.
#
# ## Is it the same loss?
#
# The trainers have both: `loss: plain` and `loss: fused` in a profile. On the same tokens:

# %%
results = {}
for impl in ("reference", "torch", IMPL):
    out = kernels.policy_loss(hidden, Head(weight), batch, PolicySettings(temperature=0.9), impl=impl)
    results[impl] = (out.loss.item(), *torch.autograd.grad(out.loss, (hidden, weight)))
for impl in results:
    agree(f"loss, {impl}", results["reference"][0], results[impl][0])
    agree(f"gradient, {impl}", results["reference"][2], results[impl][2])

# %% [markdown]
# `tests/test_losses.py` asks the same of recorded trajectories, through whole models, in all trainers.
#
# ## How long does it take?
#
# Measured by `python benchmarks/policy_loss.py`, which writes its table beside itself. Guess first: on a CPU core,
# does fusing win over plain torch on the policy's tokens alone?

# %%
measured = pd.read_csv(artifacts.REPO / "benchmarks" / "policy_loss.csv")
case = measured.query("policy_share == 0.35 and head == 'trainable'")
case = case[case["shape"] == case["shape"].iloc[0]]
figures.loss_times(case)

# %% [markdown]
# With a few hundred words in a vocabulary it does not: the logits fit a cache, and the products are what they are.
# It wins over everyone who scores masked tokens. So the CPU profiles stay `plain`, those with a GPU are `fused`.
#
# ## Summary

# %%
display(views.table(pd.DataFrame(agreed, columns=["what", "by hand", "by the library"])))
at = memory[memory["n_tokens"] == 16_384].set_index("way")["gb"]
times = case.set_index("contender")["median_ms"]
display(Markdown(
    f"1. {len(agreed)} numbers were computed both ways and agree.\n"
    f"2. Memory at 16,384 tokens, computed: {at['plain torch']:.1f} GB in plain torch, {at['one sweep']:.1f} GB in one "
    f"sweep, {at['one sweep, frozen head']:.2f} GB with a frozen head.\n"
    f"3. Measured on {case['device'].iloc[0]}: TRL as shipped takes "
    f"{times['TRL as shipped'] / times['ours (torch)']:.1f} times as long as one sweep; plain torch on the policy's "
    f"tokens alone {times['torch eager, compacted'] / times['ours (torch)']:.2f} times."
))

# %% [markdown]
# - Surprise: the mask saves more than the fusing.
# - Limit: the interpreter shows that the arithmetic is right, not that it is fast, nor that threads do not race.
# - Next: `lib/zerosearch/kernels/chunked.py`, two screens, is the whole sweep.
#
# ## Exercises
#
# **1.** Fill in one step of the walk: from `(m, s)` and a block of logits to the new `(m, s)`. It must survive a first
# block with `m = -inf` and logits of 1,000. (5 minutes)

# %% tags=["exercise"]
from solutions import check_a1_1, check_a1_2, check_a1_3


def my_step(m, s, block):
    return None  # the new (m, s); block: one-dimensional numpy array


check_a1_1(my_step)

# %% [markdown]
# **2.** A budget of 1 GiB, Llama-3.2's vocabulary of 128,256, logits in bfloat16. How many rows may a chunk have?
# (2 minutes)

# %% tags=["exercise"]
my_rows = None  # a whole number
check_a1_2(my_rows)

# %% [markdown]
# **3.** Fill in the second walk, a Triton kernel that runs here in the interpreter: for a block of logits `z` of one
# row it knows `log_total` ($m + \log s$), `g` and the target's column. (10 minutes; needs Triton)

# %% tags=["exercise"]
def my_gradient(tl, z, columns, target, g, log_total):
    """Return the gradient of a block of logits; tl has exp and where."""
    return None


check_a1_3(my_gradient)
