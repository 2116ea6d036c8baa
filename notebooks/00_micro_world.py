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
# # 00 · The micro-world: what is there to read, and what can the base models do?
#
# | | |
# |---|---|
# | reads | nothing, or your own questions and passages (`questions_dir`, `corpus_file`) |
# | writes | `corpus.jsonl`, `questions.jsonl`, `ability_card.csv`, three figures |
# | time and memory | `smoke` and `laptop`: about 15 s, 0.6 GB · `rebuild_models`: about 25 min on one core |

# %% [markdown]
# ## What you will see
#
# 1. A world of invented people, films, books and towns, written as plain English sentences (figure *world*).
# 2. Seven families of questions in the manner of seven real question sets; a single search finds the
#    passage for one-hop questions and not for longer ones (figure *recall*).
# 3. Two base models that can read but have poor habits (figure *ability card*): the room that
#    reinforcement learning has.

# %% tags=["parameters"]
run: str = "notebook"  # name of the run: files go to outputs/<run>
profile: str = "smoke"  # which profile set these values
seed: int = 0  # seed of the run
threads: int = 1  # CPU threads of this notebook
world_seed: int = 7  # which world
n_eval_questions: int = 40  # questions per family that are only evaluated
n_train_questions: int = 400  # questions per training family (nq, hotpotqa)
rebuild_models: bool = False  # pretrain both bases again, about 25 minutes
questions_dir: str = ""  # folder with your own <set>.jsonl files, empty for the micro-world
corpus_file: str = ""  # your own passages, id, title, text per line
train_fraction: float = 0.2  # share of your nq and hotpotqa that trains when there is no <set>_train.jsonl

# %%
from dataclasses import fields

import pandas as pd
import torch
from IPython.display import display

from zerosearch import artifacts, figures, seeds
from zerosearch.labels import gold_hops, retrieval_recall
from zerosearch.microworld import bases, prepare, pretrain_texts, world as micro
from zerosearch.questions import write_corpus, write_questions
from zerosearch.retrievers.bm25 import BM25Retriever
from zerosearch.stage_parameters import Stage00

torch.set_num_threads(threads)
parameters = {field.name: globals()[field.name] for field in fields(Stage00)}
stage = artifacts.open_stage(run, "00", parameters)

# %% [markdown]
# ## A world from one seed
#
# Every fact is a triple: *subject, relation, object*. Names are two ordinary words; a third of all
# possible names is reserved for worlds, and no base model has ever read one of them.

# %%
world = micro.build_world(world_seed)
kinds = pd.Series([e.kind for e in world.entities.values()]).value_counts()
display(kinds.rename("entities").to_frame().T)
print(f"{len(world.facts):,} facts about {len(world.entities):,} entities")

# %% [markdown]
# One fact becomes one passage. Read a few: nothing needs a key.

# %%
for passage in world.passages()[:6]:
    print(f"{passage.id}  {passage.title:<18} {passage.text}")

# %% [markdown]
# The facts hang together. Here is everything within two steps of one film, drawn as a graph.
# Before looking: which entity do you expect to have the most lines?

# %%
start = next(name for name, e in world.entities.items() if e.kind == "film")
edges = prepare.neighbourhood(world, start, steps=2)
figure = figures.world_graph(edges)
figures.save(figure, stage.figures / "world.png")
figure

# %% [markdown]
# People connect films with towns and companies, so questions can be chained through them.
#
# ## Questions and passages of this run
#
# With `questions_dir` and `corpus_file` your own data takes the world's place; every later notebook
# reads the same two files and does not care where they came from.

# %%
questions, passages = prepare.load_or_build(
    world, n_eval_questions, n_train_questions, questions_dir, corpus_file, train_fraction, seed
)
counts = prepare.count_table(questions)
display(counts)
print(f"{len(passages):,} passages, {counts['train'].sum():,} questions train, {counts['eval'].sum():,} are evaluated")

# %% [markdown]
# Training questions come from two families only. The other five are met for the first time when the
# policy is judged: does it learn *to search*, or *these questions*?

# %%
examples = [next(q for q in questions if q.dataset == name) for name in dict.fromkeys(q.dataset for q in questions)]
display(pd.DataFrame({"set": q.dataset, "question": q.question, "golden answers": "; ".join(q.golden_answers)} for q in examples))

# %% [markdown]
# ### One question's path
#
# A two-hop question cannot be answered by one search: the second query needs the first answer.

# %%
chained = next((q for q in questions if len(gold_hops(q)) == 2), questions[0])
print(chained.question)
for number, hop in enumerate(gold_hops(chained), 1):
    print(f"  hop {number}: {hop.relation} of {hop.subject}  ->  {hop.object}    ({hop.sentence})")
print("  golden answers:", "; ".join(chained.golden_answers))

# %% [markdown]
# ## The real search engine
#
# BM25 over all passages, in this process. Prediction before running: for which families does a search
# for the question itself already bring up a passage with the answer?

# %%
engine = BM25Retriever(passages, k=5)
evaluated = [q for q in questions if q.split == "eval"]
recall = retrieval_recall(evaluated, engine)
stage.write_table(recall, "retrieval_recall.csv")
display(recall)

# %%
figure = figures.retrieval_recall(recall)
figures.save(figure, stage.figures / "recall.png")
figure

# %% [markdown]
# One hop: nearly always. Two hops and more: seldom, and then by luck. That gap is what a policy that
# searches *several times* can close.
#
# ## What the base models have read
#
# Both bases were pretrained on documents like these, each about facts that exist only in that document.
# Habits differ: an *able* reader early on, then a *poor* one, which answers from memory, does not trust
# what it read and stops after the first hop.

# %%
source = pretrain_texts.FactSource(seeds.generator(seed, "notebook 00"))
print("ABLE\n" + "".join(text for text, _ in pretrain_texts.search_document(source, pretrain_texts.ABLE)))
print("\nPOOR\n" + "".join(text for text, _ in pretrain_texts.search_document(source, pretrain_texts.POOR)))

# %% [markdown]
# ## The base models
#
# They are committed in `data/micro_lm`. This cell checks that they belong to the recipe in the
# library, or pretrains them again when `rebuild_models` is set.

# %%
manifest = bases.rebuild(stage) if rebuild_models else bases.verify()
columns = ["parameters", "tokens", "seconds", "seed"]
display(pd.DataFrame({name: {c: entry[c] for c in columns} for name, entry in manifest["models"].items()}))

# %% [markdown]
# ### The ability card
#
# Measured on fresh facts when the models were made. Which of these abilities would *you* need to
# answer a question, and which one is missing?

# %%
card = bases.card_table(manifest)
stage.write_table(card, "ability_card.csv")
display(card[["model", "ability", "value", "n", "meaning"]])

# %%
figure = figures.ability_card(card)
figures.save(figure, stage.figures / "ability_card.png")
figure

# %% [markdown]
# Copying from a passage works; searching at once and trusting a passage happen sometimes. Nothing new
# has to be taught: reinforcement learning has to find out that searching pays.
#
# ## Nothing leaks
#
# No name of the world stands in pretraining text. The test suite checks this on many thousands of
# documents; here is a small version.

# %%
texts = ["".join(t for t, _ in pretrain_texts.search_document(source, pretrain_texts.ABLE)) for _ in range(300)]
leaked = prepare.names_in(texts, world)
print(f"{len(texts)} pretraining documents, {len(leaked)} contain a name of the world")
assert not leaked, f"names of the world in pretraining text: {sorted(leaked)[:5]}"

# %% [markdown]
# ## Results

# %%
write_corpus(stage.path("corpus.jsonl"), passages)
write_questions(stage.path("questions.jsonl"), questions)
stage.finish(n_passages=len(passages), n_train=int(counts["train"].sum()), n_eval=int(counts["eval"].sum()))
print("written to", stage.dir)

# %% [markdown]
# ## Summary
#
# - The world is small enough to read and large enough that nobody can guess; the counts stand above.
#   Whether one search is enough is in the recall table: look at the one-hop sets and at MuSiQue.
# - Surprise: HotpotQA and 2WikiMultiHopQA have some recall although they need two searches. These are the
#   comparisons ("Which came out first, A or B?"): the question itself names its answer.
# - Limit: sentences are short and true. Misleading passages exist only where a simulator writes them.
# - Next: `01_collect_trajectories` lets the base policy search this corpus and keeps every turn.

# %% [markdown]
# ## Exercises
#
# **1.** How many different answers could a guesser choose from for "Who directed ...?" questions?
# Fill in `my_count` and compare.

# %% tags=["exercise"]
from solutions import check_00_1, check_00_2

my_count = None  # number of entities that can be the answer to a "who" question
check_00_1(my_count, world)

# %% [markdown]
# **2.** Write a query that brings up the second fact of the question above although you have not seen
# the first passage, or show that there is none.

# %% tags=["exercise"]
my_query = None  # a query, or the string "none" if you think that no fair query exists
check_00_2(my_query, chained, engine)
