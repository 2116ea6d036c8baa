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
# # 03 · Curriculum RL: does a policy learn to search when its search engine is imitated?
#
# | | |
# |---|---|
# | reads | `questions.jsonl`, `corpus.jsonl` (00), `simulator/` (02, arm `zerosearch`), the base models |
# | writes | `policy/`, `metrics.jsonl`, `trajectories.parquet` (a sample of every step), three figures |
# | time and memory | `smoke`: about 90 s, 1 GB · `laptop`: about 4 minutes, 1.5 GB (each arm and seed) |

# %% [markdown]
# ## What you will see
#
# 1. The mean reward rises although nobody shows the policy a single search (figure *reward*).
# 2. The policy begins to search: searches per trajectory go up before the reward does (figure *training*).
# 3. The planned share of misleading answers is what the policy really met (figure *training*, noise).

# %% tags=["parameters"]
run: str = "notebook"  # name of the run: files go to outputs/<run>
profile: str = "smoke"  # which profile set these values
seed: int = 0  # seed of the run
threads: int = 1  # CPU threads of this notebook
arm: str = "zerosearch"  # zerosearch (simulator, curriculum), search-r1 (real engine, no noise) or untuned
policy_model: str = "micro/llama-base"  # base policy, also the reference of the KL
simulator_model: str = "micro/simulator-medium"  # what the arm "untuned" searches
simulator_url: str = ""  # server that simulates searches instead, e.g. http://localhost:6001/v1 (several: with commas)
simulator_name: str = ""  # the model's name on that server (published: the tuned Qwen2.5-14B)
simulator_protocol: str = "chat"  # how it is asked: chat (published code) or completions
simulator_key_variable: str = "SIMULATOR_API_KEY"  # environment variable with its key
simulator_workers: int = 16  # requests under way at once
simulator_replicas: int = 0  # vLLM servers started for the simulator, 0 for a model in this process
algorithm: str = "grpo"  # how rewards teach: grpo, reinforce, reinforce-loo or ppo (paper: all but reinforce-loo)
steps: int = 12  # optimiser updates (paper: 200)
questions_per_step: int = 32  # questions per update (paper: 64)
group_size: int = 8  # trajectories per question (paper: 5)
learning_rate: float = 5.0e-4  # constant after a short rise (paper: 1.0e-6 for 3 to 7 billion parameters)
critic_learning_rate: float = 1.0e-3  # of the critic, for ppo alone (paper: 1.0e-5, ten times the policy's)
kl_weight: float = 1.0e-3  # weight of the KL to the base (published code: 1.0e-3)
kl_in: str = ""  # loss or reward, empty for what suits the algorithm (published code: reward for ppo alone)
clip: float = 0.2  # of the probability ratio (published code: 0.2)
temperature: float = 1.0  # sampling temperature of the policy (published code: 1)
noise_start: float = 0.0  # noise probability at the first step (published: 0 or 0.25)
noise_end: float = 0.5  # noise probability at the last step (published: 0.25, 0.5 or 0.75)
noise_base: float = 4.0  # how late the noise rises (published: 4)
passages_per_query: int = 5  # passages per search (paper: 5)
max_searches: int = 5  # searches per trajectory (published: 2 turns, later 5)
max_turn_tokens: int = 48  # tokens per policy message (published code: 500)
max_observation_tokens: int = 160  # tokens of retrieved text per turn (published code: 2048)
save_every: int = 15  # steps between checkpoints
share_passages_in_group: bool = False  # identical simulator requests of a group are sent once
correction: str = "none"  # of differences between sampler and trainer: none, token or sequence
watch: str = "stop"  # what a collapse of the training does: stop, warn (only say it) or off
rollout_engine: str = "transformers"  # what writes the trajectories: transformers, or on a GPU vllm

# %%
from dataclasses import fields

import numpy as np
import pandas as pd
import torch
from IPython.display import Markdown, display

from zerosearch import artifacts, display as show, explorer, explorer_records, figures
from zerosearch.curriculum import Curriculum, mean_rise
from zerosearch.engines.opening import open_text_engine
from zerosearch.labels import table_to_pairs
from zerosearch.microworld import models
from zerosearch.prompts import Prompts
from zerosearch.questions import read_questions
from zerosearch.retrievers import corpus
from zerosearch.rollout import RolloutSettings, rollout
from zerosearch.scoring import f1
from zerosearch.stage_parameters import Stage03
from zerosearch.training import arm_setup, arm_training, arms, asking, health, objective, policy_rl
from zerosearch.training.advantages import group_advantages
from zerosearch.training.correction import Correction
from zerosearch.training.policy_trainer import RLSettings
from zerosearch.waiting import compare_loops

torch.set_num_threads(threads)

# %% [markdown]
# An **arm** is one way to train. The arms differ in *what answers the searches* (or whether there are any), two
# also in what is learned from (`trainer`), and in nothing else: same base policy, same questions in the same
# order, same number of steps. `untuned` shows what the tuning of notebook 02 is worth: its simulator is the
# base, which was never told what is useful. `rejection` asks what is left of reinforcement learning when the
# base's own right trajectories are simply copied.

# %%
chosen = arms.get_arm(arm)
parameters = {field.name: globals()[field.name] for field in fields(Stage03)}
stage = artifacts.open_stage(run, "03", parameters, arm=arm, seed=seed)
display(show.table(pd.DataFrame(arms.ARMS.values())[["name", "retriever", "curriculum", "trainer", "description"]]))
print(f"this run: {chosen.label}, seed {seed}; files go to {stage.dir.name} of {stage.dir.parent.name}")

# %% [markdown]
# The stage's folder remembers its parameters and the hashes of its inputs: a training that was cut off
# goes on, a changed one starts afresh.
#
# ## What goes in
#
# Training questions only; the questions of notebook 04 are other ones. The policy is the untrained base:
# it can read, and it has poor habits.

# %%
questions = [q for q in read_questions(stage.require("00", "questions.jsonl")) if q.split == "train"]
policy, tokenizer = models.load(policy_model)
prompts = Prompts.load(models.prompt_template(tokenizer), tokenizer)
engine = open_text_engine(rollout_engine, policy, tokenizer, rollout_engine)
one = questions[0]
print(f"{len(questions):,} training questions, e.g. {one.question!r} -> {one.golden_answers[0]!r}")
print(f"policy: {policy.num_parameters():,} parameters, vocabulary of {len(tokenizer):,} tokens")

# %% [markdown]
# ## The curriculum
#
# At step $i$ of $m$ each search is answered misleadingly with probability
#
# $$p_i = p_s + \frac{b^{i/m} - 1}{b - 1}\,(p_e - p_s)$$
#
# Every search draws for itself, also within one trajectory. Before looking: with $p_s = 0$ and
# $p_e = 0.5$, what is the mean noise over the whole training: more than 0.25, or less?

# %%
shapes = {
    f"this run's schedule (b {noise_base:g})": Curriculum(noise_start, noise_end, steps, noise_base),
    "straight line": Curriculum(noise_start, noise_end, steps, 1.0),
    "reversed": Curriculum(noise_end, noise_start, steps, noise_base),
}
curves = pd.DataFrame(
    [(name, i, p) for name, c in shapes.items() for i, p in enumerate(c.schedule(), 1)],
    columns=["curve", "step", "noise_probability"],
)
dose = noise_start + mean_rise(noise_base) * (noise_end - noise_start)
print(f"an average step has seen {mean_rise(noise_base):.3f} of the rise: noise {dose:.3f}, not {noise_end}")
figure = figures.curriculum_curves(curves)
figures.save(figure, stage.figures / "curriculum.png")
figure

# %% [markdown]
# Less. The curve is steep at the end, so most steps see little noise. The mean share of the rise has a
# closed form, $1/\ln b - 1/(b - 1)$; for the published $b = 4$ it is 0.388.
#
# Whoever compares a curriculum with "always 0.5" compares two *doses* as well as two *orders*. A fair
# opponent of the curriculum is a constant noise of the same mean.
#
# ## The reward, on four toy answers
#
# The reward is the F1 between the answer and the golden answer. There is no reward for format or for
# searching: a trajectory without an answer simply gets 0.

# %%
toy_answers = ["Port Amber", "Amber", "Port", None]
toy_rewards = np.array([f1(answer, ["Port Amber"]) for answer in toy_answers])
print(dict(zip(map(str, toy_answers), toy_rewards.round(3).tolist())))

# %% [markdown]
# Half an answer is worth two thirds, because precision is 1 and recall one half. An empty promise
# (`None`) is worth nothing.
#
# ## Advantages: better than the others of the same group?
#
# All trajectories of a question form a **group**. What the rewards $r$ of a group teach depends on `algorithm`:
#
# - `grpo`: $A = (r - \bar r) / \sigma_r$, with mean and standard deviation of the group.
# - `reinforce`: $A = r$, as published: no baseline, nothing is ever pushed down.
# - `reinforce-loo`: $A = r - \bar r_{others}$, the mean of the *other* trajectories of the group.
# - `ppo`: no group. A second model, the critic, learns what a trajectory may still expect, $V$, and every token has
#   $A_t = \sum_{u \ge t} r_u - V_t$ (GAE with $\lambda = \gamma = 1$), set to mean 0 and deviation 1 over the batch.
#   The last token earns $r$, and each one pays for the KL: $-\beta\,(\log\pi_{now} - \log\pi_{base})$.
#
# Before running: which of these three groups gives no gradient at all?

# %%
groups = {"mixed": toy_rewards, "all wrong": np.zeros(4), "all right": np.ones(4)}
table = pd.DataFrame([
    {"group": name, "estimator": kind, "advantages": group_advantages(r, np.zeros(4), kind).round(2).tolist()}
    for name, r in groups.items() for kind in ("grpo", "leave_one_out", "plain")
])
display(show.table(table))

# %% [markdown]
# Without contrast there is nothing to learn: *all wrong* and *all right* give zeros. Only `plain`
# (reward without a baseline: `reinforce`) still pushes when all are right, and never pushes down.
#
# ## The loss, on two tokens
#
# For each token that the policy wrote: $-\min(r A,\ \mathrm{clip}(r, 1 \pm 0.2)\, A) + \beta\, k_3$, with
# $r = \pi_{now} / \pi_{sampling}$. One token became 1.5 times as likely, one half as likely; both had
# a positive advantage. Which one still gets a gradient?

# %%
old = torch.log(torch.tensor([0.2, 0.2]))
now = torch.log(torch.tensor([0.3, 0.1])).requires_grad_()
loss, terms = objective.policy_loss(now, old, torch.ones(2), torch.full((2,), 0.5), clip=clip)
loss.backward()
print(f"loss {loss.item():.3f}, tokens cut by the clip: {terms.n_clipped}, gradients {now.grad.tolist()}")

# %% [markdown]
# The first has gained enough: its gradient is 0 until the next step. The second may still rise.
#
# ### The sign of the KL
#
# $k_3 = e^{d} - d - 1$ with $d = \log\pi_{base} - \log\pi_{now}$ is never negative and is **added**: drifting
# away from the base costs. (The published code subtracts it, which rewards drifting.)

# %%
drifts = torch.tensor([0.0, 0.1, 0.5, 1.0])
costs = objective.kl_estimate(-1.0 + drifts, torch.full((4,), -1.0))
print({f"drift {d:.1f}": round(k, 4) for d, k in zip(drifts.tolist(), costs.tolist())})

# %% [markdown]
# Small drifts are almost free (about half the square), large ones are not. With a weight of 0.001 the KL is
# a leash, not a wall. (With `kl_in` = `reward` it is paid out of the reward, before advantages are made, by the
# plain estimate $-d$: drifting lowers the reward. `ppo` does so unless told otherwise.)
#
# ## The search engine of this arm
#
# `zerosearch` asks the simulator that notebook 02 tuned; `search-r1` asks BM25 over the corpus; `untuned` asks
# the simulator's base and does not wait for notebook 02. With `simulator_url` a model on a server writes the
# passages instead, asked in the same words: a published simulator, or the one of notebook 02 on its own GPU.
# With `simulator_replicas` this notebook starts such servers itself; they end with it.

# %%
passages = corpus.of_run(stage, chosen.retriever)
how = (simulator_url, simulator_name, simulator_protocol, simulator_key_variable, simulator_workers)
served = arm_setup.Served(*how) if simulator_url and chosen.simulated else None
tuned = chosen.retriever == "simulator" and served is None
simulator = stage.require("02", "simulator") if tuned else simulator_model
prompted = chosen.retriever == "simulator-prompted"
pairs = table_to_pairs(pd.read_parquet(stage.require("01", "pairs.parquet"))) if prompted else ()
retriever = arm_setup.open_retriever(
    chosen, k=passages_per_query, seed=seed, passages=passages, simulator=simulator, pairs=pairs,
    policy=(engine, prompts), temperature=temperature, max_new_tokens=max_observation_tokens, served=served,
    share_passages_in_group=share_passages_in_group, replicas=simulator_replicas, log=stage.path("server.log"),
)
curriculum = arm_setup.open_curriculum(chosen, steps, noise_start, noise_end, noise_base)
print(f"{chosen.label} searches {retriever.name!r}; noise at the last step: {curriculum.noise(steps):.2f}")

# %% [markdown]
# ## One group before training
#
# A rollout is a conversation: the policy writes until it closes a search or an answer, the retriever
# answers a search, and so on until the answer, or until a limit ends it. The limits:

# %%
limits = RolloutSettings(
    max_searches, max_turn_tokens, max_observation_tokens, temperature=temperature, run_seed=seed,
    max_total_tokens=512 + (max_searches + 1) * max_turn_tokens + max_searches * (max_observation_tokens + 8),
)


def try_question(question, step: int):
    """Sample one group without noise and return its scored trajectories."""
    asked = asking.asking_of(chosen)
    requests = [asked.request(prompts, question, step, sample) for sample in range(group_size)]
    made = policy_rl.score_trajectories(rollout(requests, engine, retriever, prompts, limits))
    engine.counts.take()  # looking is no part of the training's account
    return made

# %% [markdown]
# One group of one question, sampled by the untrained policy. Prediction: how many of them search?

# %%
two_hops = [q for q in questions if q.metadata.get("kind") == "chain" and len(q.metadata["hops"]) == 2]
probe = (two_hops or questions)[0]
before = try_question(probe, step=0)
show.say(probe.question, "->", probe.golden_answers[0])
summary = pd.DataFrame(
    [(s.trajectory.stop_reason, s.trajectory.n_searches, s.trajectory.answer, s.reward) for s in before],
    columns=["stop reason", "searches", "answer", "reward"],
)
display(show.table(summary))

# %% [markdown]
# The untrained policy mostly answers from memory, and memory cannot help: the facts are in no text it
# has ever read. Here is the longest of them as it is trained: the tokens that the policy wrote enter the
# loss; everything else (prompt, passages) is read, masked, and never trained.

# %%
longest = max(before, key=lambda s: len(s.trajectory.token_ids))
display(show.trajectory(longest, tokenizer))
mask = longest.trajectory.loss_mask
print(f"{sum(mask)} of {len(mask)} tokens after the prompt are trained")

# %% [markdown]
# ## Training
#
# Each step: draw questions, sample a group for each, let the retriever answer, score, one update. The
# update is exactly on-policy (unless `layout.overlap` is on), so a step never reuses old trajectories. A run that is cut off goes on
# from its last complete checkpoint and ends with the same numbers.
#
# A run that goes wrong is not worth its hours: every step is held against healthy ranges (entropy, KL, well-formed
# messages, searches, spread of the rewards ...). Left for several steps in a row, the training stops here with the
# likely cause, the option to try and its worst trajectories. `watch = "warn"` only says it.
#
# Prediction: what moves first, the reward or the number of searches?

# %%
settings = RLSettings(
    steps=steps, questions_per_step=questions_per_step, group_size=group_size, learning_rate=learning_rate,
    kl_weight=kl_weight, clip=clip, seed=seed, save_every=save_every, correction=Correction(correction),
    watch=watch,
    algorithm=algorithm, kl_in=kl_in, critic_learning_rate=critic_learning_rate,
)
try:
    history = arm_training.train_arm(
        chosen, questions, policy, tokenizer, retriever, prompts, settings, stage, curriculum=curriculum,
        rollout_settings=limits, engine=engine, identity={"inputs": stage.inputs},
    )
except health.Collapsed as collapse:
    display(show.table(collapse.trajectories, "the last step's trajectories, the worst first"))
    raise

# %% [markdown]
# One row per step went to `metrics.jsonl` as it happened. A few of them:

# %%
columns = ["step", "reward_mean", "em", "searches_mean", "noise_planned", "noise_realised", "kl", "entropy"]
fifth = max(1, len(history) // 5)
some = pd.concat([history.head(2), history.iloc[2:-2:fifth], history.tail(2)]).drop_duplicates("step")
display(show.table(some[columns], digits=3))

# %% [markdown]
# ### Read what was learned from
#
# Some trajectories of every step were kept. Press `3` to colour what the policy wrote by its advantage and `g`
# to put the samples of one question side by side: same question, different luck, that is all the signal there
# is. (`?` shows all keys; the whole run in one page stands in `trajectories.html` after notebook 05.)

# %%
kept = artifacts.read_table(stage.path("trajectories.parquet"))
origin = explorer_records.Origin("03", arm, seed)
records = explorer_records.of_table(kept, explorer_records.Speller(tokenizer), origin)
display(explorer.embed(records, title=f"Training of {arm}, seed {seed}"))

# %% [markdown]
# ## Did it learn?

# %%
metrics = history.assign(arm=arm, seed=seed)
figure = figures.reward_curve(metrics)
figures.save(figure, stage.figures / "reward.png")
figure

# %% [markdown]
# ### What changed with it
#
# Four panels that one watches during training: reward, searches, noise planned against realised, and
# the distance to the base policy. Reward up with searches flat would mean guessing; KL shooting up with
# the reward falling would mean collapse.

# %%
figure = figures.training_panels(metrics)
figures.save(figure, stage.figures / "training.png")
figure

# %% [markdown]
# ### How trajectories end
#
# A trajectory earns a reward only by writing an answer. Failed searches (`retriever_error`) are masked
# from the loss and counted here.

# %%
stops = history.filter(like="stop_").rename(columns=lambda name: name.removeprefix("stop_"))
ends = pd.DataFrame({"first fifth": stops.head(fifth).mean(), "last fifth": stops.tail(fifth).mean()})
display(show.table(ends.rename_axis("stop reason").reset_index(), digits=3))

# %% [markdown]
# ### Where the time goes
#
# And a check that is not about learning: the log-probability of each token as the sampler saw it and as
# the trainer sees it must agree, or the ratio $r$ means nothing.
#
# Who waits for whom? Below, one group is rolled out twice, with searches as slow as a web engine's: by the loop
# of this notebook, where all trajectories take their turns together, and by one where each goes on as soon as
# its own passages are there. Prediction: which of the two leaves the policy idle? (What waits for the policy in the
# second panel waits for a batch under way: an engine that can be joined at any moment, vLLM, has no such gaps.)

# %%
times = history.filter(like="seconds_").mean().rename(lambda name: name.removeprefix("seconds_"))
print("seconds per step:", ", ".join(f"{name} {value:.2f}" for name, value in times.items()))
print(f"sampler against trainer: {history['logprob_gap'].max():.1e} nats per token at most")
asked = asking.asking_of(chosen)
again = [asked.request(prompts, probe, steps + 2, sample) for sample in range(group_size)]
figure = figures.waiting(compare_loops(again, engine, retriever, prompts, limits, 0.5, seed))
engine.counts.take()  # no part of the training's account either
figures.save(figure, stage.figures / "waiting.png")
figure

# %% [markdown]
# ## The same question after training
#
# Same retriever, no noise, new samples, and the best of them token by token. Compare it with the one before
# training: what did nobody teach it?

# %%
after = try_question(probe, step=steps + 1)
for name, group in (("before", before), ("after", after)):
    answers = ", ".join(str(s.trajectory.answer) for s in group[:4])
    reward, searches = np.mean([(s.reward, s.trajectory.n_searches) for s in group], axis=0)
    print(f"{name:>6}: reward {reward:.2f}, searches {searches:.1f}, answers {answers} …")
best = max(after, key=lambda s: (s.reward, -len(s.trajectory.token_ids)))
display(show.trajectory(best, tokenizer))

# %% [markdown]
# ## Keep the policy
#
# Weights and tokenizer together. The manifest records parameters, versions, seconds and the hashes of what was
# read and written; once it stands, the checkpoints have done their work and go.

# %%
stage.save_model(lambda folder: models.save(policy, tokenizer, folder), "policy")
first, last = history.head(fifth).mean(), history.tail(fifth).mean()
rewards = {"reward_first_fifth": first["reward_mean"], "reward_last_fifth": last["reward_mean"]}
asked_in = {"simulator_prompt": retriever.prompt_version} if chosen.simulated else {}
stage.finish(steps=len(history), **rewards, **asked_in, **health.manifest_results(stage));

# %% [markdown]
# ## Summary

# %%
noise = history[["noise_planned", "noise_realised"]].mean()
display(Markdown(f"""
1. Reward, first to last fifth of the steps: **{first["reward_mean"]:.2f} → {last["reward_mean"]:.2f}**.
2. Searches per trajectory: **{first["searches_mean"]:.2f} → {last["searches_mean"]:.2f}**.
3. Noise planned {noise["noise_planned"]:.3f}, met {noise["noise_realised"]:.3f}, averaged over the steps.

A limit: these rewards are earned on training questions, with this arm's own engine and its own noise.
What the policy is worth is measured by notebook 04, which reads `policy/`: other questions, the real
engine, greedy.
"""))

# %% [markdown]
# ## Exercises
#
# **1.** Write leave-one-out advantages: each reward minus the mean of the *others* in its group. Why is a
# baseline that contains the trajectory itself a little worse? (5 minutes)

# %% tags=["exercise"]
from solutions import check_03_1, check_03_2


def my_advantages(rewards):
    """Return one advantage per reward of a group."""
    return None


check_03_1(my_advantages)

# %% [markdown]
# **2.** A trajectory is a list of parts `(who wrote it, number of tokens)`. Write its loss mask. What would
# the policy learn if the mask were True everywhere? (5 minutes)

# %% tags=["exercise"]
def my_loss_mask(parts):
    """Return one bool per token: True where the policy wrote it."""
    return None


check_03_2(my_loss_mask)
