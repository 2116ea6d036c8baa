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
# # 01 · Collecting: what does a real search engine answer, and when does it help?
#
# | | |
# |---|---|
# | reads | `questions.jsonl`, `corpus.jsonl` (00), the base policy |
# | writes | `trajectories.parquet`, `pairs.parquet`, `label_stats.csv`, `label_agreement.csv`, a figure |
# | | with a model as judge: `verdicts.parquet` |
# | time and memory | `smoke`: about 20 s, 1 GB · `laptop`: about two minutes, 1.5 GB |

# %% [markdown]
# ## What you will see
#
# 1. An untrained policy makes little of a search engine: made to begin with a search, it asks sensible
#    queries and still seldom answers rightly (table *behaviour*).
# 2. Every search leaves a pair of a query and its passages. Two ways of calling a pair useful or misleading,
#    by the outcome of the whole trajectory or by a judge of the passages, disagree often (figure *labels*).
# 3. The outcome mostly errs in one direction: it calls passages misleading that hold just what was asked
#    for, because the policy failed later (table *agreement*).

# %% tags=["parameters"]
run: str = "notebook"  # name of the run: files go to outputs/<run>
profile: str = "smoke"  # which profile set these values
seed: int = 0  # seed of the run
threads: int = 1  # CPU threads of this notebook
n_questions: int = 300  # training questions asked
samples_per_question: int = 2  # trajectories per question
force_search_share: float = 0.5  # share of trajectories whose first turn is made to search
temperature: float = 1.0  # sampling temperature of the policy (paper: 1)
passages_per_query: int = 5  # passages an engine returns (paper: 5)
max_searches: int = 5  # searches per trajectory
max_turn_tokens: int = 48  # tokens per policy message (paper: 500)
max_observation_tokens: int = 160  # tokens of retrieved text per turn
batch_size: int = 256  # trajectories generated at a time
policy_model: str = "micro/llama-base"  # base policy (paper: Qwen2.5-3B)
retriever: str = "bm25"  # the real engine: bm25, dense, wikipedia or serpapi (paper: Google)
retriever_url: str = ""  # where it is: a server's address, for dense the encoder
retriever_corpus: str = ""  # name of what a server searches, empty for its address
retriever_mode: str = "live"  # live, or replay, which asks nobody
retriever_per_second: float = 0.0  # requests to a remote engine, 0 for no limit
retriever_workers: int = 4  # requests to a remote engine under way at once
max_failed_searches: float = 0.1  # share of searches that may fail
max_usd: float = 0.0  # most that paid searches and a paid judge may cost, 0 for no limit
judge_url: str = ""  # server of a model that labels passages, empty for the rule
judge_model: str = ""  # the model's name on that server (paper: Qwen-Max)
judge_key_variable: str = "JUDGE_API_KEY"  # environment variable with its key
judge_prompt_usd: float = -1.0  # USD per million tokens it reads, below 0 for the price book
judge_generated_usd: float = -1.0  # USD per million tokens it writes, below 0 for the price book
judge_per_second: float = 0.0  # requests to it, 0 for no limit
judge_workers: int = 4  # requests to it under way at once

# %%
from dataclasses import fields

import pandas as pd
import torch
from IPython.display import Markdown, display

from zerosearch import artifacts, collection, display as show, figures, labels, labels_judge
from zerosearch.engines.transformers_engine import TransformersEngine
from zerosearch.microworld import models
from zerosearch.prices import PriceBook
from zerosearch.prompts import Prompts
from zerosearch.questions import read_questions
from zerosearch.retrievers import EngineOptions, base, corpus, open_engine
from zerosearch.rollout import RolloutSettings
from zerosearch.schema import Passage, SearchRequest
from zerosearch.spending import Spending
from zerosearch.stage_parameters import Stage01

torch.set_num_threads(threads)

# %% [markdown]
# The stage folder is `outputs/<run>/01_collect`. What is read from other stages is hashed into its manifest.

# %%
parameters = {field.name: globals()[field.name] for field in fields(Stage01)}
stage = artifacts.open_stage(run, "01", parameters)
print(f"files go to {stage.dir.name} of run {run!r}")

# %% [markdown]
# ## What goes in
#
# Questions and passages of notebook 00. Only *training* questions are asked here: what the simulator will
# learn from must not contain anything that is evaluated later.

# %%
questions = read_questions(stage.require("00", "questions.jsonl"))
passages = corpus.of_run(stage, retriever)
asked = collection.draw_questions(questions, n_questions, seed)
print(f"{len(passages):,} passages; {len(asked):,} training questions will be asked, for example")
for question in asked[:3]:
    show.say(f"  {question.id:<22} {question.question}  ->  {question.golden_answers[0]}")

# %% [markdown]
# ### The policy
#
# The untrained base model, and the prompts it knows.

# %%
model, tokenizer = models.load(policy_model)
prompts = Prompts.load(models.prompt_template(tokenizer), tokenizer)
policy = TransformersEngine(model, tokenizer, policy_model, batch_size)
print(f"{policy_model}: {model.num_parameters():,} parameters")
show.say(prompts.policy_prompt(asked[0].question))

# %% [markdown]
# ### The engine
#
# BM25 in this process, unless the parameter names another one: `dense` (embeddings, in this process),
# `wikipedia` (a server that speaks Search-R1's protocol) or `serpapi` (Google, for money). Two layers lie
# around it: a *record* of every answer, so that a repeated query is replayed and an interrupted run asks
# nothing twice; and a *limit* on failures, which stops the run when too many searches fail. With an engine
# that costs money both pay for themselves. (Mode `replay` asks nobody: no key, no network, only the record.)
# `max_usd` is kept before it is passed: what the requests under way can still cost is set aside first.

# %%
spending = Spending(stage.ledger, PriceBook.load(artifacts.REPO / "data" / "prices.yaml"), max_usd)
options = EngineOptions(
    retriever_url, retriever_corpus, retriever_mode, retriever_per_second, retriever_workers,
    spending.purse_for_searches(retriever),
)
record = stage.path("cache") / retriever  # a remote engine's answers are kept for all runs instead
recorded = open_engine(retriever, passages, passages_per_query, record, options, stage.ledger)
engine = base.FailureLimit(recorded, max_failed_searches)
print(f"{retriever}: {len(recorded):,} answers on record from earlier attempts")

# %% [markdown]
# ## One search by hand
#
# A search is a *request*: the query together with the question it was asked for. What comes back carries
# the request with it, so nobody has to remember which answer belongs to which question. Every search, this
# one too, is written into the run's ledger: notebook 05 makes the bill from it.

# %%
example = next((q for q in asked if len(labels.gold_hops(q)) == 2), asked[0])
hops = labels.gold_hops(example)
query = f"{hops[0].relation} of {hops[0].subject}" if hops else example.question
found = engine.search([SearchRequest(query, example)])[0]
stage.ledger.event("queries", **base.count_queries([found])[0])
show.say(f"question: {found.request.question.question}\nquery:    {found.request.query}")
for passage in found.passages:
    show.say(f"  {passage.id}  {passage.text[:100]}")

# %% [markdown]
# Read the five passages. Which of them answer *the query*? And does any of them answer *the question*?
#
# ## A judge for passages
#
# The judge calls a passage useful when it states the fact that the query asks for. In the micro-world this
# is decided exactly, since every question carries its gold facts. With your own corpus nobody knows the facts;
# there the judge looks for a golden answer in the passage, a coarser rule.

# %%
verdicts = labels.judge_passages(query, example, found.passages)
display(show.table(pd.DataFrame({"passage": [p.text[:100] for p in found.passages], "judge": verdicts})))

# %% [markdown]
# Before trusting a rule, try it on cases whose answer you know. Four passages written by hand, for the
# query above. The third is about the right thing and says something false. What will the judge say?

# %%
if hops:
    right, wrong = hops[0].sentence, hops[0].sentence.replace(hops[0].object, "Nobody Known")
    texts = [right, "It rained all day.", wrong, *(hop.sentence for hop in hops[1:2])]
    by_hand = [Passage(f"hand-{i}", "", text) for i, text in enumerate(texts)]
    said = labels.judge_passages(query, example, by_hand)
    display(show.table(pd.DataFrame({"written by hand": texts, "judge": said})))

# %% [markdown]
# The last one is true, and even needed to answer the question, but it is not what *this query* asked for. A
# simulator learns from (query, passages) pairs, so the query decides.
#
# ### A model as the judge
#
# For real text the published labels come from a language model that reads every passage. `judge_url` names its
# server. It gets the texts as fields of a JSON object and must repeat a mark, so that a passage cannot dictate
# its own verdict; what it leaves unclear is counted as *unparsable* and not guessed. This is what it is told:

# %%
judge = None
if judge_url:
    judge = labels_judge.open_judge(
        judge_url, judge_model, judge_key_variable, stage.path("cache") / "judge.jsonl",
        workers=judge_workers, per_second=judge_per_second,
    )
    prices = (judge_prompt_usd, judge_generated_usd)
    judge.chat.remote.purse = spending.purse_for_tokens("judge", judge_model, *prices)
show.say(f"prompt {labels_judge.VERSION}: {labels_judge.INSTRUCTION}")
print("labels by", judge.identity if judge else "the rule above, no model is asked")

# %% [markdown]
# ## The plan
#
# An untrained policy has poor habits. If we only watched it, there might be too few searches to learn from.
# So a share of the trajectories is made to begin as a search does; the policy writes the rest. Forced text
# was not sampled by the policy and is never trained.

# %%
requests = collection.plan(asked, samples_per_question, force_search_share, prompts.forced_prefix, seed)
forced = sum(bool(request.forced_prefix) for request in requests)
print(f"{len(requests):,} trajectories, {forced:,} of them begin with {prompts.forced_prefix!r}")

# %% [markdown]
# The limits of a trajectory: searches, tokens of one message, tokens of one set of passages (these are cut
# first and wrapped in tags after), and tokens of everything together.

# %%
limits = RolloutSettings(
    max_searches, max_turn_tokens, max_observation_tokens, temperature=temperature, run_seed=seed,
    max_total_tokens=512 + (max_searches + 1) * max_turn_tokens + max_searches * (max_observation_tokens + 8),
)
trajectories = collection.collect(requests, policy, engine, prompts, limits, batch_size, stage, spending)
print(engine.counts(), *([f"{spending.usd:.2f} USD"] if spending.usd else []), sep="; ")

# %% [markdown]
# ## What the policy did
#
# Prediction: which row has more right answers, and by how much?

# %%
table = collection.collected_table(requests, trajectories)
behaviour = collection.behaviour(table)
display(show.table(behaviour.reset_index(), "behaviour of the untrained policy"))

# %% [markdown]
# `searches` are per trajectory, `answered` and `em` are shares, and the last columns say why trajectories
# ended. A trajectory that ran out of tokens or never answered is kept: it is data too.
#
# ### One trajectory, token by token
#
# Colours tell who wrote a token. Only the policy's own tokens will ever be trained, and only they are
# searched for a query or an answer: a passage cannot earn a reward by containing an answer tag.

# %%
most = max(trajectories, key=lambda t: (t.n_searches, -len(t.token_ids)))
display(show.trajectory(most, tokenizer))

# %% [markdown]
# ### Why every query carries its question
#
# Not every trajectory searches. A program that gathers the queries into a shorter list, and then looks up
# question and answer *by position in that list*, hands most of them somebody else's. How many of the first
# queries would that have been here?

# %%
searching = [t for t in trajectories if t.n_searches]
strangers = [t for i, t in enumerate(searching) if t.question.id != trajectories[i].question.id]
print(f"{len(searching):,} of {len(trajectories):,} trajectories search")
print(f"{len(strangers) / max(len(searching), 1):.0%} of their queries would get another question's golden answer")

# %% [markdown]
# A simulator that is told a stranger's golden answer writes passages about the stranger. No error is raised
# and no curve looks odd; the policy just learns that searching is no use.
#
# ## Pairs
#
# One row per search that was answered: the query, the passages, and two labels.
#
# - **trajectory**: useful if the *final answer of the whole trajectory* was right. Cheap, and unfair: a perfect
#   search followed by a blunder counts as misleading, a useless one followed by a lucky guess as useful.
# - **judge**: useful if *a passage of this search* states what the query asks for.

# %%
by_rule = labels.make_pairs(trajectories)
verdicts = judge.judge(by_rule, lambda *done: stage.progress(*done, "judge", usd=spending.usd)) if judge else []
pairs = labels.pairs_to_table(labels_judge.relabelled(by_rule, verdicts) if judge else by_rule)
columns = ["query", "golden_answers", "label_trajectory", "label_judge"]
display(show.table(pairs[columns].head(8), f"the first of {len(pairs):,} pairs"))

# %% [markdown]
# Where a model judged, the rule has a word on the same passages. Every row of `verdicts.parquet` holds what it
# rests on: the model, the version of its prompt, its reply.

# %%
if judge:
    by_passage = labels_judge.verdict_table(by_rule, verdicts, judge_model)
    stage.write_table(by_passage, "verdicts.parquet")
    display(show.table(labels_judge.rule_table(by_passage), "passages by the model (label) and by the rule"))
    undecided = by_passage["label"].isin(labels.NO_VERDICT).mean()
    print(f"{undecided:.1%} of {len(by_passage):,} passages without a verdict; {spending.usd:.2f} USD so far")
decided = pairs[~pairs["label_judge"].isin(labels.NO_VERDICT)]

# %% [markdown]
# Prediction before drawing: which of the two labels calls more pairs useful?

# %%
stats = labels.label_stats(pairs)
display(show.table(stats, "agreed: share of these pairs that the other label calls the same"))
figure = figures.label_stats(stats)
figures.save(figure, stage.figures / "labels.png")
figure

# %% [markdown]
# The engine is the same and the searches are the same; only the question asked about them differs. The
# outcome asks "was the policy right in the end?", the judge asks "did the engine answer?".
#
# ### Where they disagree
#
# Four combinations. The share of agreement alone is misleading when one label is rare: two labels that are
# nearly always *misleading* agree nearly always. Cohen's kappa takes out what chance would give.

# %%
agreement = labels.agreement_table(pairs)
share, kappa = labels.agreement(pairs)
display(show.table(agreement))
print(f"both labels agree on {share:.1%} of the pairs; kappa {kappa:.2f} (0 is chance, 1 is perfect)")

# %% [markdown]
# A few of the disagreements, to see with your own eyes who is right:

# %%
disagree = pairs[pairs["label_trajectory"] != pairs["label_judge"]]
for row in disagree.drop_duplicates("label_judge").itertuples():
    show.say(f"trajectory says {row.label_trajectory}, judge says {row.label_judge}: {row.query!r} for {row.question!r}")
    for text, verdict in zip(row.passages, row.passage_labels):
        show.say(f"   {verdict:<10} {text[:90]}")

# %% [markdown]
# ### Are the queries any good?
#
# In the micro-world we know whether a query asks for one of the question's gold facts. If it does and the
# passages still do not state it, the *engine* failed; if it does not, the *policy* did.

# %%
path = decided["asks_gold_hop"].map({True: "asks for a gold fact", False: "leaves the path"}).fillna("not known")
blame = decided.assign(useful=decided["label_judge"] == "useful").groupby(path)["useful"].agg(["mean", "size"])
blame = blame.rename(columns={"mean": "judged_useful", "size": "pairs"}).rename_axis("query").reset_index()
display(show.table(blame))

# %% [markdown]
# A query that leaves the path can still be answered well: it asked for something true about somebody else.
# For the simulator that is a good lesson (answer what was asked), for the question it is no help.
#
# ## Results
#
# Trajectories with every turn and token, pairs with whole passages, and the label statistics.

# %%
stage.write_table(table, "trajectories.parquet")
stage.write_table(pairs, "pairs.parquet")
stage.write_table(stats, "label_stats.csv")
stage.write_table(agreement, "label_agreement.csv")
judged = float((decided["label_judge"] == "useful").mean())
by_outcome = float((pairs["label_trajectory"] == "useful").mean())
stage.finish(
    n_trajectories=len(table), n_pairs=len(pairs), em=behaviour["em"].to_dict(), useful_by_judge=judged,
    useful_by_outcome=by_outcome, label_agreement=share, n_failed_searches=engine.n_failures,
    judge=judge.identity if judge else "rule", n_undecided=len(pairs) - len(decided), usd=spending.usd,
);

# %% [markdown]
# ## Summary

# %%
missed = agreement.set_index(["label_trajectory", "label_judge"])["n"]
starts = [f"{row.searches:.2f} searches and EM {row.em:.3f} when {row.Index}" for row in behaviour.itertuples()]
display(Markdown(f"""
1. The untrained policy, per trajectory: **{"; ".join(starts)}**.
2. Useful by the judge: **{judged:.0%}** of {len(pairs):,} pairs; by the outcome: **{by_outcome:.0%}**. They agree
   on {share:.0%}.
3. The outcome calls **{missed["misleading", "useful"]:,}** pairs misleading that the judge calls useful, and
   **{missed["useful", "misleading"]:,}** useful that the judge calls misleading.

A surprise for many readers: the more often the *policy* fails, the worse the outcome describes the *engine*.

A limit: the micro-world's judge is exact; any judge for real text errs, and the simulator learns its errors.

Next: `02_simulator_sft` teaches a small model to write such passages on request, useful or misleading.
"""))

# %% [markdown]
# ## Exercises
#
# **1.** Some trajectories search and some do not. Given one entry per trajectory, `None` where it did not
# search, return `(query, golden answer)` for those that did, each with *its own* golden answer. (5 minutes)

# %% tags=["exercise"]
from solutions import check_01_1, check_01_2


def my_requests(queries, golden_answers):
    """Return a list of (query, golden answer) of the trajectories that search."""
    return None


check_01_1(my_requests)

# %% [markdown]
# **2.** Write Cohen's kappa of two lists of labels: (agreement - chance) / (1 - chance), where chance is the
# agreement of two raters who use each label as often as these, but blindly. (10 minutes)

# %% tags=["exercise"]
def my_kappa(first, second):
    """Return kappa of two equally long lists of labels."""
    return None


check_01_2(my_kappa)
