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
# # A2 · Statistics: what does every number of notebook 04 mean, on four numbers?
#
# | | |
# |---|---|
# | reads | no run and no stage; `data/published/main_results.csv` for the last section |
# | writes | nothing |
# | time and memory | under 20 s, 0.3 GB |

# %% [markdown]
# ## What you will see
#
# 1. Every statistic of notebook 04 can be had by hand: on four numbers all cases can be listed, and the library
#    gives the same numbers (table *agreements*, at the end).
# 2. What counts as luck decides how sure you are: the same eight numbers have a narrow interval or one from 0
#    to 1, depending on what is drawn again (figure *resamples*). And a verdict needs more than a large difference
#    (figure *verdicts*).
# 3. The published gap of 1.7 points is smaller than what its questions could show, unless the two methods answered
#    nearly alike (figure *published gap*).

# %%
from itertools import combinations, product

import numpy as np
import pandas as pd
from IPython.display import Markdown, display
from scipy.stats import norm, t, ttest_1samp

from zerosearch import display as views, figures, published, scoring
from zerosearch.evaluation import calibration, comparison, judge, paired_tests, precision, statistics, subsets
from zerosearch.evaluation.pass_at_k import pass_at_k

# %% [markdown]
# Each section asks first, then computes by hand, then calls the library. Say your guess before you run the cell.
# Two small helpers: `agree` stops the notebook where the two ways differ; `rows` makes a table of predictions
# from a list of scores, as notebook 04 has it (one row per question, here with the same score for all metrics).

# %%
ENDS, LOOSE = [0.025, 0.975], 0.01  # the ends of a 95 % interval; the tolerance where the library draws
agreed = []


def agree(statistic, by_hand, by_library, within=1e-9):
    """Assert that both ways give the same numbers; print them and keep them for the summary."""
    hand, library = np.atleast_1d(by_hand).astype(float), np.atleast_1d(by_library).astype(float)
    texts = [", ".join(f"{x:.4g}" for x in np.round(numbers, 6)) for numbers in (hand, library)]
    assert np.allclose(hand, library, rtol=0, atol=within), f"{statistic}: by hand {texts[0]}, library {texts[1]}"
    agreed.append((statistic, *texts))
    print(f"{statistic}: by hand {texts[0]}, by the library {texts[1]}")


def rows(method, values, seed=0, dataset="toy"):
    """Return predictions of one training: a score for each question."""
    table = pd.DataFrame({"em": np.asarray(values, dtype=float)})
    table["question_id"] = [f"{dataset}/{i}" for i in range(len(table))]
    return table.assign(method=method, arm="", seed=seed, dataset=dataset, cover_em=table["em"], f1=table["em"])

# %% [markdown]
# ## A score is a mean
#
# Four predictions: *Paris*, *It is Paris*, *Rome*, *Oslo*; golden answers: *Paris*, *Paris*, *Rome*, *Bergen*. EM
# asks for equality, cover EM for containment, F1 for shared words (*It is Paris* has one right word of three, and
# it is the whole golden answer: F1 = 2 · 1 / (3 + 1)). What are the three scores?

# %%
by_hand = [(1 + 0 + 1 + 0) / 4, (1 + 1 + 1 + 0) / 4, (1 + 0.5 + 1 + 0) / 4]
pairs = [("Paris", "Paris"), ("It is Paris", "Paris"), ("Rome", "Rome"), ("Oslo", "Bergen")]
scored = [scoring.score(prediction, [golden]) for prediction, golden in pairs]
columns = {name: [getattr(one, name) for one in scored] for name in ("em", "cover_em", "f1")}
table = statistics.score_table(rows("A", [0] * 4).assign(**columns), n_resamples=0)
agree("EM, cover EM, F1", by_hand, table.query("dataset == 'toy'").set_index("metric")["value"][list(columns)])

# %% [markdown]
# All three are means over questions. Four *other* questions of the same kind would have given another mean, and it
# is the kind that we ask about: so a mean needs an error bar.
#
# ## The bootstrap of a mean
#
# We have no other questions. The bootstrap takes the ones we have for the whole world and draws four of them again,
# with replacement: 4 · 4 · 4 · 4 = 256 equally likely draws. The error bar is the range of the middle 95 % of
# their means. For the scores 1, 1, 1, 0: which means can come up? How often is it 0?

# %%
draws = [list(draw) for draw in product(range(4), repeat=4)]
a = np.array([1, 1, 1, 0])
means = [a[draw].mean() for draw in draws]
print("draws by their mean:", pd.Series(means).value_counts().sort_index().to_dict())
row = statistics.score_table(rows("A", a)).iloc[0]
agree("bootstrap of a mean", np.quantile(means, ENDS), row[["low", "high"]])

# %% [markdown]
# Once in 256 it is 0; 12 draws give 0.25, and so 0.25 to 1 holds the middle 95 %. The library draws 10,000 times
# instead of listing all: with 150 questions there are more draws than atoms.
#
# ## Two intervals, or one of the difference?
#
# F1 of method A on four questions: 1, 0.75, 0.5, 0.25. Of method B on the *same* questions: 0.75, 0.5, 0.25, 0.25.
# A hard question is hard for both. Is the interval of the difference narrower when each draw takes the same
# questions for both, or when A and B draw for themselves? Which of the two excludes 0?

# %%
a, b = np.array([1, 0.75, 0.5, 0.25]), np.array([0.75, 0.5, 0.25, 0.25])
mean_a, mean_b = (np.array([scores[draw].mean() for draw in draws]) for scores in (a, b))
drawn = {("A minus B", "drawn apart"): np.subtract.outer(mean_a, mean_b).ravel(),
         ("A minus B", "drawn as pairs"): mean_a - mean_b}
print("drawn apart:", np.quantile(drawn["A minus B", "drawn apart"], ENDS))
row = statistics.comparison_table(pd.concat([rows("A", a), rows("B", b)]), [("A", "B")]).iloc[0]
agree("paired difference", np.quantile(drawn["A minus B", "drawn as pairs"], ENDS), row[["low", "high"]])

# %% [markdown]
# Drawn apart, the difference has an interval from -0.125 to 0.5; as pairs from 0.0625 to 0.25. Pairing takes out
# how hard the questions are, and leaves only where the two differ. Two intervals that overlap settle nothing.
#
# ## Seeds and questions: the hierarchical bootstrap
#
# Method A was trained twice. Training 0 answers all four questions (1, 1, 1, 1), training 1 only the first
# (1, 0, 0, 0): on average 0.625. Guess the interval when only questions are drawn again; and when the draw takes
# first two of the two trainings, with replacement, then four questions, the same ones for both (4 · 256 draws).

# %%
cells = np.array([[1, 1, 1, 1], [1, 0, 0, 0]])  # trainings x questions
trainings = list(product((0, 1), repeat=2))
drawn["Score of A", "from questions"] = [cells[:, draw].mean() for draw in draws]
crossed = [cells[np.ix_(taken, draw)].mean() for taken in trainings for draw in draws]
drawn["Score of A", "from seeds and questions"] = crossed
both = pd.concat([rows("A", own, seed) for seed, own in enumerate(cells)])
row = statistics.average_table(both).iloc[0]
agree("hierarchical bootstrap", np.quantile(crossed, ENDS), row[["low", "high"]])
spread = statistics.seed_spread(statistics.score_table(both)).iloc[0]
agree("spread over seeds: lowest, highest, sd", [0.25, 1, 0.75 / np.sqrt(2)], spread[["lowest", "highest", "sd"]])

# %% [markdown]
# One draw in four takes training 0 twice, and one takes training 1 twice: nothing between 0 and 1 can be ruled
# out. All four distributions side by side:

# %%
panels = [pd.DataFrame({"what": what, "drawn": way, "value": values}) for (what, way), values in drawn.items()]
figures.resampled_means(pd.concat(panels))

# %% [markdown]
# ## When is the seed the unit?
#
# *This policy answers 70 % of such questions* is a claim about one checkpoint: questions are the unit. *This method
# gives policies that answer 70 %* is a claim about trainings: the seed is the unit, and a million questions do
# not make up for having trained twice. Notebook 04 compares methods.
#
# With so few seeds the bootstrap is too narrow: it cannot leave the range of what it saw. So the verdicts use a t
# interval. Four trainings of A: 0.70, 0.74, 0.78, 0.82; B was not trained and has 0.70. A is never below B. Is A
# better, at 5 %?

# %%
trained, untrained = np.array([0.70, 0.74, 0.78, 0.82]), 0.70
difference, error = trained.mean() - untrained, trained.std(ddof=1) / np.sqrt(4)
agree("t over seeds", 2 * t.sf(difference / error, df=3), paired_tests.welch_seeds(trained, [untrained]))
of_seeds = precision.combine([precision.seed_term(trained)])
agree("t interval over seeds", difference + t.ppf(ENDS, df=3) * error, of_seeds.interval(difference))
print("bootstrap:", np.quantile([np.mean(four) for four in product(trained, repeat=4)], ENDS) - untrained)
of_both = precision.combine([precision.seed_term(trained), precision.Term(variance=0.03**2, df=99)])  # 100 questions
agree("standard error of seeds and questions", np.sqrt(error**2 + 0.03**2), of_both.error)

# %% [markdown]
# p is 0.10 and the t interval holds 0; the bootstrap's does not. Where both kinds of luck count, the variances of
# seeds and questions are added (last line, for questions with a standard error of 0.03).
#
# ## McNemar: only the questions that tell the two apart
#
# Now one training each, and right or wrong only. A is right on all four questions, B on none. If luck alone
# decided, each of the four would be a coin: which share of the 16 outcomes is as one-sided as this, for A or for
# B? And what changes if both are right on 400 questions more?

# %%
a, b, more = np.ones(4), np.zeros(4), np.ones(400)
won = np.array([sum(coins) for coins in product((0, 1), repeat=4)])  # questions that A wins, in all 16 outcomes
by_hand = np.mean(np.abs(won - 2) >= 2)
agree("McNemar", by_hand, paired_tests.mcnemar(a, b))
agree("McNemar, 400 ties more", by_hand, paired_tests.mcnemar(np.append(a, more), np.append(b, more)))

# %% [markdown]
# 2 of 16: p = 0.125. Four questions can never give a p below 0.05, six can (2/64). And the 400 ties say nothing.
#
# ## Sign flips: the same for any score
#
# F1 is no coin. But if A and B are equally good, each difference might as well have the other sign. The paired
# differences from above are 0.25, 0.25, 0.25, 0. The bootstrap's interval excluded 0. In how many of the 16 sign
# patterns is the sum as far from 0 as 0.75?

# %%
differences = np.array([0.25, 0.25, 0.25, 0.0])
sums = [np.dot(signs, differences) for signs in product((1, -1), repeat=4)]
by_hand = np.mean(np.abs(sums) >= differences.sum() - 1e-12)
agree("sign flips", by_hand, paired_tests.sign_flips({"toy": differences[:, None]})["toy"])
wins = paired_tests.sign_flips({"toy": np.ones((4, 1))})["toy"]
agree("sign flips of four wins: McNemar", paired_tests.mcnemar(a, b), wins)

# %% [markdown]
# p = 0.25, although the interval excluded 0: on few numbers a bootstrap is too sure of itself. That is why a
# verdict of notebook 04 asks for both, interval and p.
#
# ## Holm: four questions asked at once
#
# Four comparisons have p = 0.03, 0.01, 0.04, 0.02. Each alone is below 0.05. If none of the four differences were
# real and they had nothing to do with each other, how likely would at least one p below 0.05 be? Holm multiplies
# the smallest p by 4, the next by 3, then 2, then 1, and lets none fall below an earlier one. How many of the four
# survive?

# %%
p = np.array([0.03, 0.01, 0.04, 0.02])
print(f"at least one false alarm in four: {1 - 0.95**4:.3f}")
order = np.argsort(p)
by_hand = np.empty(4)
by_hand[order] = np.minimum(1, np.maximum.accumulate(p[order] * [4, 3, 2, 1]))
agree("Holm", by_hand, paired_tests.holm(p))

# %% [markdown]
# One of four. The chance of *any* false claim in the table stays below 5 %, and unlike Bonferroni (all times 4)
# Holm gives some of it back.
#
# ## "Matches" is a claim too: two one-sided tests
#
# Two methods answer four questions exactly alike. Are they equally good? The bootstrap says 0 to 0, which cannot
# be. The library adds two pseudo-questions (half a question won by each side, one tied) before it takes the standard
# error. *Matches* needs a margin, fixed before looking: here 2 points. Then two tests: "A is worse by 2 points or
# more" and "A is better by 2 points or more"; both must be refused. How small is the larger p?

# %%
alike, margin = np.zeros(4), 0.02
error = np.sqrt(((alike**2).sum() + 1) / 6 / 6)  # mean square of four questions and two pseudo-questions
of_four = precision.combine([precision.question_term(alike)])
agree("standard error of four ties", error, of_four.error)
larger = max(t.sf((0 + margin) / error, df=3), t.sf((margin - 0) / error, df=3))
agree("equivalence (TOST)", larger, of_four.p_equivalence(0.0, margin))

# %% [markdown]
# 0.46: four equal answers are no evidence at all for *matches*. The same rule in other words: the 90 % interval of
# the difference must lie inside the margin. No significant difference is not the same as no difference.
#
# ## What could have been found?
#
# Before calling two methods undecided, ask which true difference these questions would have shown. With a
# standard error of 0.1 and many questions a test at 5 % needs 1.96 of them to speak, and 0.84 more to speak
# four times in five: 0.28. With four questions the standard error is itself a guess. Is the detectable difference
# then larger or smaller?

# %%
many, four = precision.Precision(error=0.1, df=np.inf), precision.Precision(error=0.1, df=3)
agree("detectable difference, many questions", (norm.ppf(0.975) + norm.ppf(0.8)) * 0.1, many.detectable())
print(f"four questions: {four.detectable():.3f}")
samples = np.random.default_rng(0).normal(four.detectable(), 0.2, (20_000, 4))  # 0.2 / root of 4 = 0.1
found = (ttest_1samp(samples, 0, axis=1).pvalue < 0.05).mean()
agree("its power, in 20,000 experiments", found, 0.8, within=LOOSE)

# %% [markdown]
# ## The verdict
#
# | verdict | what it needs |
# |---|---|
# | better, worse | the 95 % interval excludes 0, and Holm's p is below 0.05 |
# | matches | neither of these, and the p of equivalence (after Holm) is below 0.05 |
# | undecided | everything else |
#
# Four pairs, each made of four numbers: questions that both get right, only A, only B, neither. Guess the verdicts:
# (500, 80, 30, 390), (50, 20, 14, 16), (500, 25, 20, 455), (6, 0, 0, 4).

# %%
rules, reports = comparison.Rules(n_resamples=2_000), []
for counts in ((500, 80, 30, 390), (50, 20, 14, 16), (500, 25, 20, 455), (6, 0, 0, 4)):
    pair = pd.concat([rows("A", np.repeat([1, 1, 0, 0], counts)), rows("B", np.repeat([1, 0, 1, 0], counts))])
    own = comparison.comparison_report(pair, [("A", "B")], ["em"], rules).query("dataset == 'toy'")
    reports.append(own.assign(label=f"only A {counts[1]}, only B {counts[2]}, of {sum(counts):,}"))
report = pd.concat(reports, ignore_index=True)
clear = (report["p_holm"] < 0.05) & ((report["low"] > 0) | (report["high"] < 0))
equal = ~clear & (report["p_equivalence_holm"] < 0.05)
by_hand = np.select([clear & (report["difference"] > 0), clear, equal], ["better", "worse", rules.matches], "undecided")
assert list(by_hand) == list(report["verdict"]), "expected the rules of the table above"
figures.verdict_intervals(report, rules.margin)

# %% [markdown]
# Six points on 100 questions are undecided, five on 1,000 are not. Ten questions without any difference are
# undecided as well: so few would show a difference of 26 points four times in five, and smaller ones less often.
# (Each pair is a family of its own here, so Holm changes nothing.)
#
# ## The average: every set weighs the same
#
# Four NQ questions, all right; two Bamboogle questions, one right. Is the average 5/6? And which weighs more,
# a Bamboogle question or an NQ question?

# %%
both = pd.concat([rows("A", [1, 1, 1, 1], dataset="nq"), rows("A", [1, 0], dataset="bamboogle")])
average = statistics.score_table(both).query("dataset == 'average' and metric == 'em'").iloc[0]
agree("unweighted mean over sets", (4 / 4 + 1 / 2) / 2, average["value"])
of_draws = [(1 + other) / 2 for other in (0, 0.5, 0.5, 1)]  # the four draws of two Bamboogle questions
agree("its interval", [min(of_draws), max(of_draws)], average[["low", "high"]])  # either end once in four draws

# %% [markdown]
# 0.75, and a Bamboogle question weighs twice as much: the smallest set is the loudest. The draws keep each set at
# its own size.
#
# ## 72 of 125, in small
#
# Some published rows have 72 of Bamboogle's 125 questions. In small: two of four. A has 1, 1, 0, 0 and B has
# 0, 0, 1, 0, so A leads on all four. In which share of the six draws (without replacement) does B lead?

# %%
a, b, of_two = np.array([1, 1, 0, 0]), np.array([0, 0, 1, 0]), [list(two) for two in combinations(range(4), 2)]
leads, both = [(a - b)[two].mean() for two in of_two], pd.concat([rows("A", a), rows("B", b)])
row = subsets.subset_draws(both, "toy", size=2, n_draws=20_000).iloc[0]
agree("two of four: sd of A", np.std([a[two].mean() for two in of_two]), row["sd"], within=LOOSE)
order = subsets.subset_order(both, "toy", size=2, n_draws=20_000).iloc[0]
agree("two of four: B leads, ties", [np.mean(np.less(leads, 0)), np.mean(np.equal(leads, 0))], order[["flips", "ties"]],
      within=LOOSE)
row = subsets.subset_draws(rows("A", [1] * 50 + [0] * 75), "toy", size=72, n_draws=20_000).iloc[0]
agree("72 of 125: sd", np.sqrt(0.4 * 0.6 * 125 / 124 / 72 * (1 - 72 / 125)), row["sd"], within=LOOSE / 10)

# %% [markdown]
# Once in six the order is turned round, twice there is a tie. For 72 of 125 there is a formula: the variance of a
# mean of 72, times the share of questions left out. With 50 right the standard deviation is 3.8 points.
#
# ## pass@k: is one of k samples right?
#
# Four sampled answers to one question, two of them right. Draw two of the four: how likely is at least one right?
# The tempting formula 1 - (1 - 2/4)² says 0.75.

# %%
samples = [1, 1, 0, 0]
by_hand = np.mean([max(two) for two in combinations(samples, 2)])
agree("pass@2 of four samples", by_hand, pass_at_k(n=4, c=2, k=2))
weights = [(c, ways * 0.3**c * 0.7 ** (4 - c)) for c, ways in enumerate((1, 4, 6, 4, 1))]  # each right with chance 0.3
agree("its mean: unbiased", 1 - 0.7**2, sum(weight * pass_at_k(4, c, 2) for c, weight in weights))
print(f"mean of the tempting formula: {sum(weight * (1 - (1 - c / 4) ** 2) for c, weight in weights):.3f}")

# %% [markdown]
# Five of the six draws: 0.83. Over all that four samples can show, the estimate is right on average (0.51); the
# tempting formula is too low.
#
# ## Cohen's kappa: does the judge agree with EM?
#
# A judge accepts answers 1, 2 and 3 of four, EM accepts 1 and 2. They agree on three of four. How much of that
# would two strangers reach who accept three quarters and one half of the answers at random?

# %%
verdicts = [judge.Verdict(right) for right in (True, True, True, False)]
agreement, by_chance = 3 / 4, 3 / 4 * 2 / 4 + 1 / 4 * 2 / 4
row = judge.agreement_table(rows("A", [1, 1, 0, 0]), verdicts).iloc[0]
agree("agreement, Cohen's kappa", [agreement, (agreement - by_chance) / (1 - by_chance)], row[["agreement", "kappa"]])

# %% [markdown]
# Strangers would agree on half of the answers; of the other half these two reach a half again: kappa is 0.5.
#
# ## Does it search when it must?
#
# `direct` knows questions 1 and 2 of four. A policy was trained twice: after training 0 it searches for questions 2,
# 3 and 4, after training 1 never. Which share of the *unknown* questions does it search for, and how sure are we?
# And how far apart are unknown and known ones (the gap)? First with training 0 alone, then with both.

# %%
direct = rows("direct", [1, 1, 0, 0]).assign(policy="base", max_searches=0, n_searches=0)
runs = [rows("A", [0] * 4, seed).assign(policy=f"A{seed}", max_searches=3, n_searches=searches)
        for seed, searches in enumerate(([0, 1, 1, 1], [0, 0, 0, 0]))]
z = norm.ppf(0.975)
once, twice = (calibration.search_calibration(pd.concat([direct, *some])).iloc[-1] for some in (runs[:1], runs))
agree("searching, one training: Wilson's interval", [2 / (2 + z**2), 1], once[["unknown_low", "unknown_high"]])
agree("searching, two trainings: seeds and questions", [0, 1], twice[["unknown_low", "unknown_high"]])
agree("gap: one training, both", [2 / 2 - 1 / 2, 2 / 4 - 1 / 4], [once["gap"], twice["gap"]])

# %% [markdown]
# Two of two questions: Wilson's interval goes from n / (n + z²) = 0.34 to 1, where a bootstrap would have no width.
# With two trainings that differ, the seeds are the luck that counts, as above.
#
# ## The published gap: what would these questions have shown?
#
# **Published, not measured here**: average EM of ZeroSearch and Search-R1 (Qwen2.5-3B base), seven sets, 500
# questions each but 72 of Bamboogle, one training each, no intervals. The answers to single questions were not
# published, so we do not know on how many questions just one of the two is right. Suppose it were 20 %: the
# variance of a difference is then about 0.2. How large must a gap be to be found four times in five?

# %%
theirs = published.main_results().query("policy == 'Qwen2.5-3B'")
theirs = theirs.pivot(index="method", columns="dataset", values="value")
zero, real = theirs.loc["ZeroSearch-base"], theirs.loc["Search-R1-base"]
gap = zero["average"] - real["average"]


def found_gap(disagreement, sizes):
    """Return the detectable difference of the average, for the share of questions that just one gets right."""
    terms = [precision.Term(disagreement / n, n - 1) for n in sizes]
    return precision.combine([precision.scaled(term, 1 / len(sizes)) for term in terms]).detectable()


by_hand = (norm.ppf(0.975) + norm.ppf(0.8)) * np.sqrt(0.2 / (7 * 500))
agree("detectable gap, 7 x 500, 20 % disagreement", by_hand, found_gap(0.2, [500] * 7))
print(f"PUBLISHED gap: {100 * gap:.1f} points; found: {100 * by_hand:.1f}, with 72 of Bamboogle "
      f"{100 * found_gap(0.2, [500] * 6 + [72]):.1f} points")

# %% [markdown]
# Not 1.7. Which disagreement would have been small enough? The dotted line is where it lies if the two answer
# independently, from their published scores: p (1 - q) + q (1 - p). Policies of the same base most likely lie
# to its left; how far is not known.

# %%
sets = list(published.DATASETS)
independent = (zero[sets] * (1 - real[sets]) + real[sets] * (1 - zero[sets])).mean()
layouts = {"500, of Bamboogle 72 (as published)": [500] * 6 + [72], "500 in every set": [500] * 7}
shares = np.arange(0.005, 0.451, 0.005)
lines = [(name, share, found_gap(share, sizes)) for name, sizes in layouts.items() for share in shares]
lines = pd.DataFrame(lines, columns=["questions", "disagreement", "detectable"])
figures.detectable_gap(lines, gap, independent)

# %% [markdown]
# ## Summary
#
# The claims again, with the numbers:

# %%
width = {way: np.ptp(np.quantile(values, ENDS)) for (_, way), values in drawn.items()}
display(views.table(pd.DataFrame(agreed, columns=["statistic", "by hand", "by the library"]), "Agreements"))
small_enough = lines[(lines["questions"] == next(iter(layouts))) & (lines["detectable"] <= gap)]["disagreement"].max()
open_, found = (report["verdict"] == "undecided").sum(), f"{100 * small_enough:.1f} %"
display(Markdown(
    f"1. {len(agreed)} numbers were computed both ways and agree.\n"
    f"2. Width of the interval: {width['from questions']:.2f} from questions, "
    f"{width['from seeds and questions']:.2f} from seeds and questions; of the difference "
    f"{width['drawn apart']:.2f} drawn apart, {width['drawn as pairs']:.2f} as pairs. {open_} of 4 verdicts are "
    "undecided.\n"
    f"3. Published gap, not measured here: {100 * gap:.1f} points. It would be found four times in five only if just "
    f"one of the two is right on {found} of the questions or fewer ({100 * independent:.0f} % if unrelated)."
))

# %% [markdown]
# - Surprise: an interval that excludes 0 and a p of 0.25 can come from the same four numbers.
# - Limit: four numbers show what a statistic means, not how well it works; that is tested by simulation in
#   `tests/test_statistics.py` and `tests/test_comparison_report.py`.
# - Next: read the tables of `04_evaluate` again, column by column.
#
# ## Exercises
#
# **1.** Two methods answer *n* questions exactly alike. From which *n* on may notebook 04 say that they match within
# 2 points (one comparison, no correction)? Hint: with two pseudo-questions the standard error is 1 / (n + 2).
# (10 minutes)

# %% tags=["exercise"]
from solutions import check_a2_1, check_a2_2

my_alike = None  # a whole number
check_a2_1(my_alike)

# %% [markdown]
# **2.** A and B are compared on seven sets. On one of them A wins *k* questions and B none, elsewhere they are
# equal. How large must *k* be until McNemar's p of that set, corrected by Holm for the seven, is below 0.05?
# (5 minutes)

# %% tags=["exercise"]
my_wins = None  # a whole number
check_a2_2(my_wins)
