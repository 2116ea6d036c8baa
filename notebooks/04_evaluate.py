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
# # 04 · Evaluation: does a policy that practised with a simulator answer questions with a real engine?
#
# | | |
# |---|---|
# | reads | `questions.jsonl`, `corpus.jsonl` (00), one `policy/` per arm and seed (03), the base policy |
# | | `later_corpus.jsonl`, `later_questions.jsonl` (00), where there are any |
# | writes | `predictions.parquet`, `kept_trajectories.parquet`, `scores.parquet`, `averages.csv`, `verdicts.csv` |
# | and | `comparisons.csv`, `outcomes.csv`, `search_calibration.csv`, `retrieval.csv`, `overlap.csv` |
# | and | `condition_predictions.parquet`, `condition_averages.csv`, `freshness.csv`, figures |
# | if asked for | `samples.parquet`, `pass_at_k.csv`; `judged.parquet`, `judge_agreement.csv` |
# | time and memory | `smoke`: under a minute, 1 GB · `laptop`: several minutes, 1.5 GB |
#
# Each statistic below is worked out by hand on four numbers in `A2_statistics`.

# %% [markdown]
# ## What you will see
#
# 1. Reading is not enough, searching once is not enough: where questions have several hops, the policies
#    that learned to search stand apart (figure *scores by set*).
# 2. Whether practice with a simulator is as good as practice with the real engine is decided by a
#    paired interval and a corrected test, not by two bars of different height (table *verdicts*).
# 3. Trained policies search as often as a question needs, untrained ones hardly at all (figure *searches*).
# 4. How much each of them loses when searches mislead or find nothing, beside two scripted policies: one
#    notices every miss, one notices none (figure *scores by condition*).

# %% tags=["parameters"]
run: str = "notebook"  # name of the run: files go to outputs/<run>
profile: str = "smoke"  # which profile set these values
seed: int = 0  # seed of the run
threads: int = 1  # CPU threads of this notebook
arms: str = "zerosearch"  # trained arms, separated by commas
seeds: str = "0"  # their seeds, separated by commas
methods: str = "direct,cot,rag,search,forced"  # untrained methods, separated by commas
conditions: str = "homonyms,corrupt-0.5,later"  # other searches than clean ones, separated by commas, or none
questions_per_set: int = 0  # questions per set, 0 for all (paper: 500, Bamboogle 125)
questions_per_condition: int = 6  # the same for each of the conditions
passages_per_query: int = 5  # passages per search (paper: 5)
max_searches: int = 5  # searches per trajectory
max_turn_tokens: int = 48  # tokens per policy message (paper: 500)
max_observation_tokens: int = 160  # tokens of retrieved text per turn
temperature: float = 0.0  # 0 is greedy
batch_size: int = 256  # trajectories generated at a time
policy_model: str = "micro/llama-base"  # the untrained policy
n_bootstrap: int = 1000  # resamples of each interval
samples_per_question: int = 0  # answers to sample beside the scored one, for pass@k, or none
sampling_temperature: float = 1.0  # of these samples
judge_url: str = ""  # OpenAI-compatible endpoint of a second judge, up to /v1, empty for none
judge_model: str = ""  # the model it is asked for; its key comes from JUDGE_API_KEY
retriever: str = "bm25"  # the real engine: bm25, dense, wikipedia or serpapi (paper: Google)
retriever_url: str = ""  # where it is: a server's address, for dense the encoder
retriever_corpus: str = ""  # name of what a server searches, empty for its address
retriever_mode: str = "live"  # live, or replay, which asks nobody
retriever_per_second: float = 0.0  # requests to a remote engine, 0 for no limit
retriever_workers: int = 4  # requests to a remote engine under way at once
max_failed_searches: float = 0.1  # share of searches that may fail

# %%
from dataclasses import fields

import evaluate
import numpy as np
import pandas as pd
import torch
from IPython.display import Markdown, display

from zerosearch import artifacts, display as views, explorer, explorer_records, figures, published
from zerosearch.evaluation import QA_METRIC, calibration, comparison, judge, judged, kept, methods as ways
from zerosearch.evaluation import overlap, pass_at_k, robustness, row_facts, runner, sampling, statistics, subsets
from zerosearch.evaluation.conditions import open_condition, open_real, possible
from zerosearch.microworld import models
from zerosearch.prompts import Prompts
from zerosearch.questions import read_questions, training_questions
from zerosearch.retrievers import EngineOptions, corpus
from zerosearch.rollout import RolloutSettings
from zerosearch.stage_parameters import Stage04

torch.set_num_threads(threads)
names = [name.strip() for name in methods.split(",")]
trained = [(arm.strip(), int(k)) for arm in arms.split(",") for k in str(seeds).split(",")]
parameters = {field.name: globals()[field.name] for field in fields(Stage04)}
stage = artifacts.open_stage(run, "04", parameters)
print("methods:", ", ".join(names), "| trained:", ", ".join(f"{arm}/seed{k}" for arm, k in trained))

# %% [markdown]
# The stage folder is `outputs/<run>/04_evaluate`. What is read from other stages is hashed into its manifest.
#
# ## Three metrics, one prediction
#
# An answer is judged by three questions, always about the *same* prediction and after the same
# normalisation (lower case, no punctuation, no articles):
#
# - **EM**: is it equal to a golden answer?
# - **cover EM**: does it contain a golden answer, as whole words?
# - **F1**: how many words do they share?
#
# They live in one local module of the `evaluate` library, which works without a network. Before
# running, fill in the table in your head: which predictions score 1 under which metric?

# %%
metric = evaluate.load(str(QA_METRIC), keep_in_memory=True)
told, golden = ["paris.", "It is Paris", "Rota", "1935", "", ""], ["Paris", "Paris", "Nino Rota", "35", "Paris", "---"]
toy_scores = metric.compute(predictions=told, references=[[answer] for answer in golden], per_question=True)
toy = pd.DataFrame({"prediction": told, "golden": golden, **toy_scores})
display(views.table(toy, digits=2))

# %% [markdown]
# `It is Paris` is no exact match, though a reader would accept it; cover EM accepts it; F1 lies between.
# `1935` does not contain the *word* `35`. And the golden answer `---` has no words at all: after
# normalisation it is empty, and a scorer that compares strings would call an empty prediction correct.
# Here it matches nothing.
#
# The published code calls a containment test "EM". With three columns there is nothing to confuse.
#
# ## Who counts as the author of an answer?
#
# Only tokens that the policy wrote are searched for an answer. Tags in a question, in a prompt's example
# or in a passage are no answers. A trajectory without an answer scores 0, as in the fifth row: it is
# never left out.
#
# ## The questions, each exactly once
#
# Evaluation questions were never trained on. All of them are scored, or a seeded draw of
# `questions_per_set`; no batch is dropped at the end. (In the published results Bamboogle has 125
# questions in some rows and 72 in others: 3,125 questions in batches of 64 lost the last 53.)
#
# And does a training question come back, word for word or nearly? (A near one has the same words in another
# order, or a few more: *who directed A* and *who directed B* may look alike and are not the same.)

# %%
every = read_questions(stage.require("00", "questions.jsonl"))
questions = runner.pick(every, questions_per_set, seed)
repeated = overlap.overlap_counts(overlap.overlap_table(training_questions(every), questions), questions)
stage.write_table(repeated, "overlap.csv")
display(views.table(repeated, "Evaluation questions that have a training question like them"))
print(f"{len(questions)} questions to be scored once per method and seed")

# %% [markdown]
# ## The real engine
#
# Whatever a policy practised with, here everyone searches with the same engine: BM25, unless the parameter
# names another one. The headline is measured with **clean** searches, over the passages that state facts;
# passages that the world made to mislead come in further down, as conditions. (Your own passages carry no
# such tags and are all searched.) No simulator takes part in evaluation.

# %%
passages = corpus.of_run(stage, retriever)
options = EngineOptions(retriever_url, retriever_corpus, retriever_mode, retriever_per_second, retriever_workers)
real = open_real(retriever, passages, passages_per_query, options, max_failed_searches, stage)
engine = open_condition("clean", passages, passages_per_query, seed, engine=real)
settings = RolloutSettings(
    max_searches, max_turn_tokens, max_observation_tokens, temperature=temperature, run_seed=seed,
    max_total_tokens=512 + (max_searches + 1) * max_turn_tokens + max_searches * (max_observation_tokens + 8),
)

# %% [markdown]
# ## Ways to answer
#
# | method | policy | what it is shown |
# |---|---|---|
# | `direct`, `cot` | untrained | the question; answers at once, or thinks first |
# | `rag` | untrained | the question and the passages found for it |
# | `search` | untrained | the question; it may search |
# | `forced` | untrained | the same, and its first message is made to begin as a search does |
# | `ra-agent` | untrained | thought, action, observation, step by step |
# | `search-o1` | untrained | as `search`, but it condenses what was found before it goes on |
# | `own-search` | untrained | as `search`, but it writes the passages itself, from memory |
# | `search-r1`, `rejection` | trained on the real engine, by rewards or on its own right trajectories | as `search` |
# | `zerosearch` | trained on the simulator | as `search` |
# | `untuned`, `prompted` | trained on the simulator's base, without or with examples | as `search` |
# | `self-search` | trained on passages that it writes itself | as `search`, with the real engine |
# | `sft`, `r1` | trained without searches, on golden answers or by rewards | as `direct`; as `cot` |
#
# The parameters `methods` and `arms` say which of them take part.
#
# The row `forced` matters most: if forcing the untrained policy to search gave the same score, training
# would only have brought out what was there. `untuned` asks the same of the simulator: how much of its
# worth comes from the tuning?
#
# The trained policies come from notebook 03, one per arm and training seed. They are loaded one after
# the other, so that only the policy at work is in memory.

# %%
folders = {place: stage.require("03", "policy", *place) for place in trained}


def everyone(engine):
    """Return all methods, with one engine on their benches."""
    def bench(name, place):
        return ways.make_bench(name, place, engine, settings, passages_per_query, batch_size)

    trained_benches = {(arm, k): bench(f"{arm}/seed{k}", folder) for (arm, k), folder in folders.items()}
    return ways.make_methods(names, bench(policy_model, policy_model), trained_benches, seed)

# %% [markdown]
# One question, as each method shows it to the policy:

# %%
_, tokenizer = models.load(policy_model)
prompts = Prompts.load(models.prompt_template(tokenizer), tokenizer)
for method in everyone(engine)[: len(names)]:
    if method.name != "rag":
        request = method.requests(questions[:1], prompts)[0]
        shown = request.prompt or prompts.policy_prompt(questions[0].question)
        views.say(f"{method.name:>7} | {shown.strip()} | {request.forced_prefix or request.turn_prefix or ''}")

# %% [markdown]
# ## Answering
#
# Greedy decoding unless the parameter says otherwise. The settings stand in every row of the result. A
# finished batch is kept on disk, so a run that was cut off goes on with the next one.
#
# The counts, asserted by the runner and shown here: every cell of a column must be the same.

# %%
parts = stage.path("checkpoints")
to_keep = {q.id for q in runner.pick(questions, 10, seed)}  # whole trajectories of some questions, for reading
predictions = runner.evaluate_all(
    everyone(engine), questions, parts, batch_size, stage.ledger,
    lambda label, done, total: stage.progress(done, total, label), kept=to_keep,
)
predictions, whole = kept.split(predictions)
stage.write_table(predictions, "predictions.parquet")
stage.write_table(whole, kept.TRAJECTORIES)
shown = ["method", "seed", "policy", "temperature", "max_searches", "passages_per_query"]
display(views.table(predictions[shown].drop_duplicates(), "Decoding settings, as stored in the rows"))
counts = runner.count_table(predictions)
display(views.table(counts.reset_index(), "Questions scored"))
assert counts.nunique().eq(1).all(), "expected the same questions for every method, found other counts"
print(real.counts() if real else "every search was answered in this process")

# %% [markdown]
# ### Read before you count
#
# Ten questions of each set were kept with every token, the same ones for every method (`g` puts the methods
# side by side, `?` shows all keys). Take a question with several hops: where does each query come from, and
# does the answer stand in a passage? Filter for what went wrong: did it not search, not find, or not read?

# %%
records = explorer_records.of_table(whole, explorer_records.Speller(tokenizer))
display(explorer.embed(records, title="Evaluation"))

# %% [markdown]
# ### Where answers are lost
#
# Every row has one outcome: right; or wrong for the first reason that holds: no search, a query that cannot
# lead to the answer, the answer missed in the passages, a passage misread, no answer in a form that can be
# parsed. (`engine failed` would be ours, not the policy's.) Which share should training move?

# %%
outcomes = row_facts.outcome_table(predictions)
stage.write_table(outcomes, "outcomes.csv")
figure = figures.outcomes(outcomes)
figures.save(figure, stage.figures / "outcomes.png")
figure

# %% [markdown]
# ## Scores with error bars
#
# A score is the mean over questions. Other questions of the same kind would have given another one: the
# bootstrap draws the questions again and again with replacement and reports the middle 95 % of the means.
# For 150 questions and a true score of 0.5 that is about 0.08 to either side: two methods can differ by 0.05
# on one set and be equally good. That is why there are seven sets, an average, and *paired* differences
# further down. (Where no question at all was answered the interval has no width, though for 0 of *n* the
# truth may be as high as 3/*n*.)
#
# **A second kind of luck is the training seed.** `scores` has one row per seed, whose interval is about
# questions only. In `averages` the bootstrap draws both: first which trainings, then which questions (the
# same ones for every training, since all of them answered the same). What will that do to the width?

# %%
scores = statistics.score_table(predictions, n_bootstrap, seed)
averages = statistics.average_table(predictions, n_bootstrap, seed)
for table, name in ((scores, "scores.parquet"), (scores, "scores.csv"), (averages, "averages.csv")):
    stage.write_table(table, name)
display(views.table(views.scores_wide(averages), "EM, mean over training seeds, 95 % intervals of both"))

# %% [markdown]
# The average is the unweighted mean of the sets, as in the paper; its interval resamples each set
# separately. Before looking at the figure: on which sets should `rag` come close to the trained policies?

# %%
figure = figures.scores_by_dataset(scores, averages=averages)
figures.save(figure, stage.figures / "scores_by_dataset.png")
figure

# %% [markdown]
# `rag` makes one search with the question itself. Where a question needs one fact that is a fair deal;
# where the second query depends on what the first brought up, it cannot work.
#
# ### EM, cover EM and F1 side by side, and a second judge
#
# The same predictions, three columns, through the metric module. If cover EM stood far above EM, the
# policy would be paid by it for wrapping or listing answers; a reward made of it invites exactly that.
#
# With `judge_url` a language model judges every answer as well. It accepts other wordings, and can be fooled:
# its table says how often it agrees with EM (kappa: 0 is chance, 1 is perfect). It changes no score.

# %%
side_by_side = {
    run_name: metric.compute(
        predictions=list(part["prediction"].fillna("")), references=[list(g) for g in part["golden_answers"]]
    )
    for run_name, part in predictions.groupby(["method", "seed"], sort=False)
}
columns = pd.DataFrame(side_by_side).T
by_row = predictions.groupby(["method", "seed"], sort=False)[list(statistics.METRICS)].mean()
assert np.allclose(columns.to_numpy(), by_row.to_numpy()), "expected the module and the rows to agree"
display(views.table(columns.rename_axis(["method", "seed"]).reset_index()))
if judge_url:
    seen = judged.judge_predictions(predictions, judge.JudgeSettings(judge_url, judge_model), stage.path("verdicts.jsonl"))
    stage.write_table(seen[0], "judged.parquet")
    stage.write_table(seen[1], "judge_agreement.csv")
    display(views.table(seen[1], "The judge beside EM", digits=2))

# %% [markdown]
# (Means over all questions here, not over sets, so the numbers differ a little from the table above.)
#
# ## Comparisons: who wins, and may we say so?
#
# Both methods answered the same questions, so we look at the *difference* per question. A method is called
# better only where the 95 % interval excludes 0 **and** the p-value, corrected by Holm for all the questions
# that this table asks, is below 0.05. "Matches" is a claim too: it means smaller than two points for certain.
# Everywhere else the honest word is "undecided", and `detectable` says which difference these questions and
# seeds would have shown four times in five. Where a method has several trainings, they are its luck as well.

# %%
pairs = statistics.arms_against_the_rest(predictions)
comparisons = statistics.comparison_table(predictions, pairs, n_bootstrap, seed)
stage.write_table(comparisons, "comparisons.csv")
average = comparisons.query("dataset == 'average' and metric == 'em'").drop(columns=["dataset", "metric"])
rules = comparison.Rules(n_resamples=n_bootstrap, seed=seed)
verdicts = comparison.comparison_report(predictions, pairs, rules=rules)
stage.write_table(verdicts, "verdicts.csv")
shown = ["method_a", "method_b", "difference", "low", "high", "p_holm", "detectable", "verdict"]
on_average = verdicts.query("dataset == 'average' and metric == 'em'")
display(views.table(on_average[shown], "Differences of average EM"))
spread = statistics.seed_spread(scores).query("dataset == 'average' and metric == 'em'")
display(views.table(spread.drop(columns=["dataset", "metric"]), "Spread of average EM over training seeds"))

# %% [markdown]
# ## How often do they search?
#
# A question with one hop needs one search, one with three hops at least three. Nothing in the reward
# says so. Nor does anything say that a search is idle where the policy knows the answer: the second figure
# compares the questions that it answers right without one (method `direct`) with the others. The third asks
# what searches and tokens bring.

# %%
searched = predictions.groupby("method", sort=False)["n_searches"].mean()
drawn_figures = {"efficiency": figures.efficiency(averages, predictions)}
if searched.sum():
    drawn_figures["searches"] = figures.searches_histogram(predictions)
if searched.sum() and "direct" in names:
    needed = calibration.search_calibration(predictions)
    stage.write_table(needed, "search_calibration.csv")
    drawn_figures["search_calibration"] = figures.search_calibration(needed)
for name, figure in reversed(drawn_figures.items()):
    figures.save(figure, stage.figures / f"{name}.png")
    display(figure)

# %% [markdown]
# ### What the searches brought up
#
# `recall`: share of questions whose golden answer stands in a retrieved passage. `shown`: still there
# after the cut to the token budget. `unsupported`: share of given answers that stand in no passage, that
# is, guesses (or answers such as *yes*, which no passage has to contain).

# %%
retrieval = runner.retrieval_table(predictions)
stage.write_table(retrieval, "retrieval.csv")
for column in ("recall", "shown", "unsupported"):
    wide = retrieval.pivot(index="method", columns="dataset", values=column)
    wide = wide.loc[retrieval["method"].unique(), retrieval["dataset"].unique()]
    display(views.table(wide.reset_index(), column, digits=2))

# %% [markdown]
# A right answer needs a retrieved fact first: no method can have a higher EM than recall on questions
# that cannot be guessed. Where a trained policy scores below its recall, the fact was on the table and
# was not used.
#
# ## With more than one try
#
# pass@k: the chance that one of k *sampled* answers is right. Did training teach something new, or did it only
# make likely what the base did now and then? If the base came near with more tries, it was the latter.
# (`samples_per_question` says how many are sampled of the questions drawn for the conditions; 0 for none.)

# %%
drawn = runner.pick(questions, questions_per_condition, seed)
if samples_per_question:
    samples = sampling.evaluate_samples(
        everyone(engine), drawn, samples_per_question, sampling_temperature, parts / "samples", batch_size,
        stage.ledger, lambda label, done, total: stage.progress(done, total, label),
    )
    stage.write_table(samples, "samples.parquet")
    tries = pass_at_k.pass_at_k_table(samples, n_resamples=n_bootstrap, seed=seed)
    stage.write_table(tries, "pass_at_k.csv")
    figure = figures.pass_curves(tries)
    figures.save(figure, stage.figures / "pass_at_k.png")
    display(figure)

# %% [markdown]
# ## When searches mislead
#
# | condition | what a search brings |
# |---|---|
# | `clean` | BM25 over the facts: the headline's engine |
# | `homonyms` | BM25 over everything: namesakes, superseded and contradicted passages, non-answers |
# | `corrupt-p` | as clean, but each search by itself is replaced with probability p by passages that mislead |
# | `random`, `empty` | passages that have nothing to do with the query; none |
# | `later` | BM25 over a later world, in which some facts have changed; other questions, see below |
#
# A draw of the same questions is answered again under each condition by the trained policies and by
# `forced`. The draws of a corrupted search are keyed by question and turn: every policy meets the same bad
# luck. Which policy should suffer least, the one that practised with noise or the one without?

# %%
wanted = [name.strip() for name in conditions.split(",") if name.strip()]
later_files = stage.find("00", "later_corpus.jsonl"), stage.find("00", "later_questions.jsonl")
later_passages, changed = robustness.later_part(*later_files, questions_per_condition, seed)
wanted, left_out = possible(wanted, bool(passages), bool(changed and later_passages), real)
for sentence in left_out:
    print(sentence)
trials = []
for name in wanted:
    other = everyone(open_condition(name, passages, passages_per_query, seed, later_passages, real))
    asked = changed if name == "later" else drawn
    trials.append(robustness.Trial(name, [m for m in other if robustness.is_tried(m)], asked))
answered = robustness.evaluate_conditions(
    trials, parts, batch_size, stage.ledger, lambda label, done, total: stage.progress(done, total, label)
)

# %% [markdown]
# The clean column is no new measurement: it is the same questions, taken out of the predictions above. So
# from column to column nothing changes but the searches. (`later` apart: it asks other questions.)

# %%
tried = pd.concat([robustness.clean_rows(predictions, drawn), *answered], ignore_index=True)
stage.write_table(tried, "condition_predictions.parquet")
by_seed, by_condition = robustness.condition_scores(tried, n_bootstrap, seed)
stage.write_table(by_seed, "condition_scores.csv")
stage.write_table(by_condition, "condition_averages.csv")
sentinels = models.manifest().get("sentinels") if all(later_files) else None  # they are of the micro-world
figure = figures.scores_by_condition(by_condition, pd.DataFrame(sentinels) if sentinels else None)
figures.save(figure, stage.figures / "scores_by_condition.png")
lost = figure.get_suptitle().replace("\n", " ")
figure

# %% [markdown]
# The dashed lines are no models but scripts that follow the gold path: one takes only passages that state
# what it asked for and searches again otherwise, one believes whatever comes. Between them lies the room
# in which noticing a miss can matter at all. (They were run on two-hop questions only: compare slopes.)
#
# ### Freshness: does it know that the world went on?
#
# Both kinds of training are over when the world changes; only the real engine is asked today. `then`: EM
# of these questions before the change, clean searches. `now`: EM against today's answers. `past`: share of
# answers that were right in the past. Old pages stay in the later corpus, and say until when they held.

# %%
if "later" in wanted:
    fresh = robustness.freshness_table(predictions, changed, by_condition)
    stage.write_table(fresh, "freshness.csv")
    display(views.table(fresh, "Questions whose answer changed after training"))

# %% [markdown]
# A policy that learned *how to search* loses little; one that had learned facts would answer from the past.
#
# ## The published table, beside ours
#
# **Published, not measured here**: printed numbers for language models of three to seven thousand million
# parameters with Google. Ours: a policy a few thousand times smaller in an invented world. Only the
# *order* of the rows can be compared, never the height.

# %%
theirs = published.main_results().query("policy == 'Qwen2.5-3B'")
theirs = theirs.pivot_table(index="method", columns="dataset", values="value", sort=False).reset_index()
display(views.table(theirs, f"PUBLISHED, not measured here: EM as printed, Qwen2.5-3B. {published.CITATION}"))
ours = f"OURS, measured in run {run!r} with {engine.name}: EM, 95 % intervals"
display(views.table(views.scores_wide(averages), ours))
figure = figures.published_beside_ours(averages, published.main_results())
figures.save(figure, stage.figures / "published_beside_ours.png")
display(figure)
n_bamboogle = sum(q.dataset == "bamboogle" for q in questions)
if n_bamboogle >= 125:
    draws = subsets.subset_draws(predictions, "bamboogle", 72, 1000, seed)
    stage.write_table(draws, "bamboogle_72.csv")
    display(views.table(draws, f"Our Bamboogle, {n_bamboogle} questions, if only 72 of them had been scored"))

# %% [markdown]
# In the published table ZeroSearch leads Search-R1 by 1.7 points of EM on average. With 500 questions per
# set an interval of about 2.5 points goes with such a difference: it is inside the noise of one run. And a
# Bamboogle of 72 questions moves by several points with the choice of the 72.
#
# ## Results

# %%
best = averages.query("dataset == 'average' and metric == 'em'").set_index("method")["value"]
stage.finish(
    n_questions=len(questions), n_predictions=len(predictions), average_em=best.round(4).to_dict(),
    retriever_errors=int((predictions["stop_reason"] == "retriever_error").sum()),
)
print("written to", stage.dir)

# %% [markdown]
# ## Summary
#
# The claims again, with the numbers of this run:

# %%
untrained = best[[name for name in best.index if name in names]]
decided = average[average["winner"] != ""]
display(Markdown(
    f"1. Best untrained method: `{untrained.idxmax()}` with average EM {untrained.max():.3f}; trained: "
    + ", ".join(f"`{arm}` {best[arm]:.3f}" for arm in dict.fromkeys(arm for arm, _ in trained))
    + f".\n2. {len(decided)} of {len(average)} comparisons of the average are decided.\n"
    + f"3. Searches per question: {', '.join(f'`{name}` {mean:.2f}' for name, mean in searched.items())}.\n"
    + f"4. {lost}."))

# %% [markdown]
# - Surprise: a difference of 0.05 on one set of 150 questions is undecided; the same difference over seven
#   sets, paired by question, usually is not.
# - Limit: with a single training seed the intervals cover the choice of questions only, and with three the
#   part that comes from the seeds is rough.
# - Next: `05_cost_comparison` reads the ledgers of all stages, this one included, and asks what each of
#   these numbers cost.
#
# ## Exercises
#
# **1.** Cover EM as a reward can be cheated. Write one prediction for the golden answer *Paris* that has
# cover EM 1, EM 0 and an F1 below 0.2. (5 minutes)

# %% tags=["exercise"]
from solutions import check_04_1, check_04_2

my_prediction = None  # a string
check_04_1(my_prediction)

# %% [markdown]
# **2.** On 150 questions method A answers 30 that B misses, B answers 25 that A misses, the rest is equal:
# a difference of 0.033. About how many questions of this kind are needed until the 95 % interval of the
# paired difference excludes 0? Hint: half its width is 1.96 standard deviations of the difference per
# question, divided by the root of the number of questions. (10 minutes)

# %% tags=["exercise"]
my_number_of_questions = None  # a whole number
check_04_2(my_number_of_questions)
