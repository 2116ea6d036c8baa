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
# # 00 · The micro-world: what is there to read, what misleads, and what can the base models do?
#
# | | |
# |---|---|
# | reads | nothing, or real questions (`questions_dir` or `questions_source`) and passages (`corpus_file`) |
# | writes | `corpus.jsonl`, `questions.jsonl`, their later edition, `ability_card.csv`, `sentinels.csv`, six figures |
# | time and memory | `smoke` and `laptop`: about 30 s, 0.6 GB · `rebuild_models`: under an hour on two cores |

# %% [markdown]
# ## What you will see
#
# 1. A world of invented people, films, books and towns, written as plain English sentences, some of which
#    mislead (figures *world* and *path*).
# 2. Seven families of questions in the manner of seven real question sets; a single search finds the
#    passage for one-hop questions and not for longer ones (figure *recall*).
# 3. How much it is worth to notice a miss: two scripted policies, far apart (figure *sentinels*). Without
#    such a gap no comparison made in this world would mean anything.
# 4. Base models that can read but have poor habits (figure *ability card*): the room that reinforcement
#    learning has.

# %% tags=["parameters"]
run: str = "notebook"  # name of the run: files go to outputs/<run>
profile: str = "smoke"  # which profile set these values
seed: int = 0  # seed of the run
threads: int = 1  # CPU threads of this notebook
world_seed: int = 7  # which world
n_eval_questions: int = 40  # questions per family that are only evaluated
n_train_questions: int = 400  # questions per training family (nq, hotpotqa)
rebuild_models: bool = False  # pretrain all bases again, up to an hour
questions_dir: str = ""  # folder with your own question files, empty for the micro-world
corpus_file: str = ""  # your own passages, in any of the known forms
questions_source: str = ""  # collection of the hub in place of a folder, flashrag, zerosearch or search-r1
questions_format: str = ""  # format of the question files, empty to tell it from their keys
train_fraction: float = 0.2  # share of your nq and hotpotqa that trains when no file does
eval_per_set: int = 0  # evaluated questions of each real set, 0 for all, 500 in the paper
train_mix: str = ""  # real sets that train, such as nq:1,hotpotqa:1, empty for all
train_size: int = 0  # real training questions, 0 for all
drop_overlap: bool = False  # leave out training questions that are evaluated, in place of an error

# %%
from dataclasses import fields

import pandas as pd
import torch
from IPython.display import display

from zerosearch import artifacts, display as show, figures, seeds
from zerosearch.labels import gold_hops, retrieval_recall
from zerosearch.microworld import bases, prepare, pretrain, pretrain_texts, sentinels, world as micro
from zerosearch.microworld.tokenizer import build_tokenizer
from zerosearch.question_sets.own import Choice
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
# A fact becomes one or two passages: every relation has two nouns that mean the same, and a fact is
# stated with one of them or with both. An engine that goes by words may therefore miss with one query
# and hit with the other. Read a few passages: nothing needs a key.

# %%
for passage in world.passages()[:8]:
    print(f"{passage.metadata['kind']:<12} {passage.text}")

# %% [markdown]
# ### Six ways to be misled
#
# | kind | what it says |
# |---|---|
# | other relation | the right entity, another relation: true, and no answer |
# | look-alike | the right relation of an entity that shares a word of its name |
# | namesake | the right relation of an entity with the whole name and one word more |
# | superseded | what was true until a year |
# | contradicted | a wrong value, worded like a right one: only other passages unmask it |
# | non-answer | fluent, on the topic, and empty |
#
# The first two need no passages of their own: facts play these parts for other queries. The rest stands
# in the corpus, tagged. No model sees the tags.

# %%
kind_table = prepare.kind_counts(world.passages())
stage.write_table(kind_table, "passage_kinds.csv")
display(kind_table)

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
# With `questions_dir` or `questions_source`, and `corpus_file`, real data takes the world's place; every later
# notebook reads the same two files and does not care where they came from. What was loaded goes into the manifest
# with its checksums.

# %%
choice = Choice.of(parameters)
data = prepare.load_or_build(world, n_eval_questions, n_train_questions, choice)
questions, passages = data.questions, data.passages
for path in data.files:
    stage.reads(path)
for note in data.notes:
    show.say("note:", note)
counts = prepare.count_table(questions)
display(show.table(counts.reset_index()))
print(f"{len(passages):,} passages, {counts['train'].sum():,} questions train, {counts['eval'].sum():,} are evaluated")

# %% [markdown]
# Training questions come from two families only. The other five are met for the first time when the
# policy is judged: does it learn *to search*, or *these questions*?

# %%
examples = [next(q for q in questions if q.dataset == name) for name in dict.fromkeys(q.dataset for q in questions)]
rows = [{"set": q.dataset, "question": q.question, "golden answers": "; ".join(q.golden_answers)} for q in examples]
display(show.table(pd.DataFrame(rows)))

# %% [markdown]
# ### One question's path
#
# A two-hop question cannot be answered by one search: the second query needs the first answer.

# %%
chained = next((q for q in questions if len(gold_hops(q)) == 2), questions[0])
show.say(chained.question)
for number, hop in enumerate(gold_hops(chained), 1):
    show.say(f"  hop {number}: {hop.relation} of {hop.subject}  ->  {hop.object}    ({hop.sentence})")
show.say("  golden answers:", "; ".join(chained.golden_answers))

# %% [markdown]
# ## The real search engine
#
# BM25 over all passages, in this process. Prediction before running: for which families does a search
# for the question itself already bring up a passage with the answer?

# %%
engine = BM25Retriever(passages, k=5) if passages else None  # some engines bring passages of their own
evaluated = [q for q in questions if q.split == "eval"]
if engine:
    recall = retrieval_recall(evaluated, engine)
    stage.write_table(recall, "retrieval_recall.csv")
    display(show.table(recall))

# %%
if engine:
    figure = figures.retrieval_recall(recall)
    figures.save(figure, stage.figures / "recall.png")
    display(figure)

# %% [markdown]
# One hop: nearly always. Two hops and more: seldom, and then by luck. That gap is what a policy that
# searches *several times* can close.
#
# ### The path through the passages
#
# The same question with the right queries. Look at what stands *beside* the fact: these passages were
# not put there by us; the engine returns them because they share its words.

# %%
path = prepare.question_path(chained, engine) if engine else ()
if len(path):  # your own questions do not say which facts they need
    figure = figures.question_path(chained.question, path)
    figures.save(figure, stage.figures / "path.png")
    display(figure)

# %% [markdown]
# ### A second search that pays
#
# For every fact of the world: at which rank does the first query find it, and does the rephrased one find
# what the first one missed? Recall at k is the share of facts among the first k passages.

# %%
if not choice.brought:
    ranks = prepare.fact_ranks(world, BM25Retriever(passages, k=20))
    depths = [1, 5, 10, 20]
    both = ranks[["rank_0", "rank_1"]].min(axis=1)
    columns = {"first query": ranks["rank_0"], "rephrased query": ranks["rank_1"], "either": both}
    second_search = pd.DataFrame({name: [(column <= k).mean() for k in depths] for name, column in columns.items()}, index=depths)
    stage.write_table(second_search.rename_axis("k").reset_index(), "second_search.csv")
    display(second_search.rename_axis("k").round(3))

# %% [markdown]
# ## How much is it worth to notice a miss?
#
# Two scripted policies go through the same loop and the same conditions as any model. One takes a passage
# only if it states the truth, and searches again otherwise; the other takes whatever looks best and goes
# on. *Corrupt* means that every search, with that probability and independently of the others, returns
# misleading passages only. Before running: two hops, five searches, corruption 0.5. What do you expect of
# the one that never notices?

# %%
two_hop = [q for q in evaluated if len(gold_hops(q)) == 2 and q.metadata.get("kind") == "chain"]
if two_hop:
    table = sentinels.sentinel_table(two_hop, passages, build_tokenizer(), k=5, max_searches=5, seed=seed)
    stage.write_table(table, "sentinels.csv")
    display(table.pivot(index="condition", columns="sentinel", values="em").loc[table["condition"].unique()])

# %% [markdown]
# It needs two hits in a row, 0.5 · 0.5 = 0.25. The other one needs two hits in five: 1 - 0.5⁵ - 5 · 0.5⁵ = 0.81.
# The room between the lines is what noise, curriculum and loss mask can be about.

# %%
if two_hop:
    figure = figures.sentinel_gap(table)
    figures.save(figure, stage.figures / "sentinels.png")
    display(figure)

# %% [markdown]
# ## What the base models have read
#
# All bases were pretrained on documents like these, each about facts that exist only in that document.
# Habits differ: an *able* reader early on, then a *poor* one, which answers from memory, does not trust
# what it read and stops after the first hop. The able one is never shown a miss: "Not here." teaches it to
# search in other words, not to notice. About half of what a policy base reads are searches (the share
# stands below): the paper's claim that no warm-up is needed is about real language models, not about these.

# %%
source = pretrain_texts.FactSource(seeds.generator(seed, "notebook 00"))
print("ABLE\n" + "".join(text for text, _ in pretrain_texts.search_document(source, pretrain.ABLE)))
print("\nPOOR\n" + "".join(text for text, _ in pretrain_texts.search_document(source, pretrain.POOR)))

# %% [markdown]
# ## The base models
#
# They are committed in `data/micro_lm`: policies of two architectures, as base and as instruct model (with
# a chat template), and simulator bases in three sizes. This cell checks that they belong to the recipes
# in the library, or pretrains them again when `rebuild_models` is set.

# %%
manifest = bases.rebuild(stage) if rebuild_models else bases.verify()
columns = ["parameters", "tokens", "trajectory_share", "seconds", "seed"]
display(pd.DataFrame({name: {c: entry[c] for c in columns} for name, entry in manifest["models"].items()}).T)
print(f"world version {manifest['world_version']}")

# %% [markdown]
# ### The ability card
#
# Measured on fresh facts when the models were made. Which of these abilities would *you* need to
# answer a question, and which one is missing?

# %%
card = bases.card_table(manifest)
stage.write_table(card, "ability_card.csv")
wide = card.pivot(index="ability", columns="model", values="value")
display(wide.loc[card["ability"].unique(), card["model"].unique()])
gate = pd.DataFrame(manifest["card"])
display(gate)

# %%
figure = figures.ability_gate(card, gate)
figures.save(figure, stage.figures / "ability_card.png")
figure

# %% [markdown]
# The bounds were fixed before any policy was trained in this world, the probes before two arms were
# compared. Copying works; telling hits from misses is a faint ability; searching first happens sometimes. Nothing new has to be taught: reinforcement
# learning has to find out what pays.
#
# ## Nothing leaks
#
# No name of the world stands in pretraining text. The test suite checks this on many thousands of
# documents; here is a small version.

# %%
texts = ["".join(t for t, _ in pretrain_texts.search_document(source, pretrain.ABLE)) for _ in range(300)]
leaked = prepare.names_in(texts, world)
print(f"{len(texts)} pretraining documents, {len(leaked)} contain a name of the world")
assert not leaked, f"names of the world in pretraining text: {sorted(leaked)[:5]}"

# %% [markdown]
# ## Results

# %%
if passages:
    write_corpus(stage.path("corpus.jsonl"), passages)
write_questions(stage.path("questions.jsonl"), questions)
if not choice.brought:  # the same world some years later: the simulator will know only the past
    later_passages, later_questions = prepare.later_files(world, questions)
    write_corpus(stage.path("later_corpus.jsonl"), later_passages)
    write_questions(stage.path("later_questions.jsonl"), later_questions)
    print(f"{len(later_questions)} evaluation questions have another answer in the later world")
loaded = {"sources": data.sources} if choice.brought else {}  # revisions and checksums of what was loaded
n_train, n_eval = int(counts["train"].sum()), int(counts["eval"].sum())
stage.finish(n_passages=len(passages), n_train=n_train, n_eval=n_eval, **loaded)
print("written to", stage.dir)

# %% [markdown]
# ## Summary
#
# - The world is small enough to read and large enough that nobody can guess; the counts stand above.
#   Whether one search is enough is in the recall table: look at the one-hop sets and at MuSiQue.
# - Surprise: HotpotQA and 2WikiMultiHopQA have some recall although they need two searches. These are the
#   comparisons ("Which came out first, A or B?"): the question itself names its answer.
# - The instrument can tell policies apart: the gap between the two sentinels stands in `sentinels.csv`.
# - Limit: sentences are short, and a contradiction is rare (6 % of the facts).
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
