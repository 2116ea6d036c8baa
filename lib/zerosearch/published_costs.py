"""The published cost table rebuilt from prices and counts, and what it leaves out.

Where the published numbers come from, to the cent:

    $586.67, printed as 586.7   64,000 searches x $275 / 30,000    (SerpAPI's Big Data plan, in proportion)
    $17.70 / $35.40 / $70.80    1 / 2 / 4 GPUs x 12 h x $1.475     (rented A100s serving the simulator)
    87.9 % saved                1 - 70.80 / 586.70

64,000 = 64 questions x 5 trajectories x 200 steps are *trajectories*: the table counts one search in
each.  It leaves out the policy's own GPUs, the simulator's fine-tuning, collection, judging and
evaluation; ``full_costs`` adds them, with every assumption named.  Called by notebook 05.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Mapping

import pandas as pd

from zerosearch import published
from zerosearch.costs import GOOGLE, with_break_even
from zerosearch.prices import PriceBook, Rates


@dataclass(frozen=True, slots=True)
class PublishedSetup:
    """The counts behind the published cost table.

    questions_per_step x group_size x steps = 64,000 trajectories, which the table calls queries: it
    counts one search a trajectory.  hours: wall time of the RL run.  gpus: A100s serving each simulator.
    """

    questions_per_step: int = 64
    group_size: int = 5
    steps: int = 200
    searches_per_trajectory: float = 1.0
    hours: float = 12.0
    gpus: Mapping[str, int] = field(default_factory=lambda: {"SFT-3B": 1, "SFT-7B": 2, "SFT-14B": 4})

    @property
    def trajectories(self) -> int:
        """Number of trajectories sampled during training."""
        return self.questions_per_step * self.group_size * self.steps

    @property
    def queries(self) -> float:
        """Number of searches of the whole training run."""
        return self.trajectories * self.searches_per_trajectory


def published_costs(
    book: PriceBook, setup: PublishedSetup = PublishedSetup(), rates: Rates = Rates()
) -> pd.DataFrame:
    """Rebuild the published cost table: one row an engine.

    Columns: engine, queries, hours, gpus, api_usd, gpu_usd, total_usd (exact), rebuilt_usd (rounded
    to ten cents, as the paper prints it), published_usd (NaN when the setup is not the published
    one), saved_share (of the Google bill, in [0, 1]) and formula.
    """
    search, gpu = book.price(rates.search, "USD/search"), book.price(rates.gpu, "USD/GPU-hour")
    formula = f"{setup.queries:,.0f} searches x ${search.value:g}/{search.per:,.0f}"
    rows = [_engine_row(GOOGLE, setup, 0, setup.queries * search.each, 0.0, formula)]
    for engine, n_gpus in setup.gpus.items():
        formula = f"{n_gpus} GPU x {setup.hours:g} h x ${gpu.each:.3f}/GPU-hour"
        rows.append(_engine_row(engine, setup, n_gpus, 0.0, n_gpus * setup.hours * gpu.each, formula))
    table = pd.DataFrame(rows)
    table["rebuilt_usd"] = table["total_usd"].round(1)
    printed = published.cost_table().set_index("engine")["total_usd"]
    same = setup == PublishedSetup()
    table["published_usd"] = table["engine"].map(printed) if same else float("nan")
    table["saved_share"] = 1.0 - table["total_usd"] / table.loc[0, "total_usd"]
    return table


def _engine_row(
    engine: str, setup: PublishedSetup, gpus: int, api: float, gpu: float, formula: str
) -> dict[str, object]:
    return {"engine": engine, "queries": setup.queries, "hours": setup.hours, "gpus": gpus,
            "api_usd": api, "gpu_usd": gpu, "total_usd": api + gpu, "formula": formula}


def as_options(table: pd.DataFrame) -> pd.DataFrame:
    """Return the rebuilt table as option, item, usd, basis ("published"), for ``figures.cost_bars``."""
    parts = {"searches in training": "api_usd", "simulator GPUs": "gpu_usd"}
    rows = [(row["engine"], item, row[column], "published")
            for row in table.to_dict("records") for item, column in parts.items() if row[column] > 0]
    return pd.DataFrame(rows, columns=["option", "item", "usd", "basis"])


@dataclass(frozen=True, slots=True)
class LeftOut:
    """What the published table leaves out, with our assumption for each amount.

    policy_gpus: GPUs of the policy (paper: 4, beside the simulator's 4).  sft_hours: SFT of the
    simulator (about half an hour was reported for 7B).  judged_passages: about 20,000 judged by
    Qwen-Max; five stand behind one collected search.  judge_tokens: prompt and generated tokens a
    judgement (assumption).  evaluation_questions: the seven sets, searched with Google.
    """

    policy_gpus: int = 4
    sft_hours: float = 0.5
    judged_passages: int = 20_000
    passages_per_query: int = 5
    judge_tokens: tuple[int, int] = (300, 5)
    evaluation_questions: int = 3_125


def full_costs(
    book: PriceBook, setup: PublishedSetup = PublishedSetup(searches_per_trajectory=2.0),
    left_out: LeftOut = LeftOut(), engine: str = "SFT-14B", rates: Rates = Rates(),
) -> pd.DataFrame:
    """Return the bill with what the published table leaves out: option, item, usd, basis.

    Two options: training on Google, and on the simulator ``engine``.  basis: "published" for the
    two amounts the paper counts (at the setup's searches per trajectory), "reported" for amounts
    the paper or its authors mention without pricing, "assumption" for ours.
    """
    search, gpu = book.each(rates.search, "USD/search"), book.each(rates.gpu, "USD/GPU-hour")
    n_gpus = setup.gpus[engine]
    policy = left_out.policy_gpus * setup.hours * gpu
    evaluation = left_out.evaluation_questions * setup.searches_per_trajectory * search
    collected = left_out.judged_passages / left_out.passages_per_query * search
    prompt, generated = left_out.judge_tokens
    judge = left_out.judged_passages * (prompt * book.each("qwen_max_prompt", "USD/token")
                                        + generated * book.each("qwen_max_generated", "USD/token"))
    rows = [
        (GOOGLE, "searches in training", setup.queries * search, "published"),
        (GOOGLE, "policy GPUs", policy, "reported"),
        (GOOGLE, "evaluation searches", evaluation, "assumption"),
        (engine, "simulator GPUs", n_gpus * setup.hours * gpu, "published"),
        (engine, "policy GPUs", policy, "reported"),
        (engine, "evaluation searches", evaluation, "assumption"),
        (engine, "collection and judge", collected + judge, "assumption"),
        (engine, "simulator SFT", n_gpus * left_out.sft_hours * gpu, "assumption"),
    ]
    return pd.DataFrame(rows, columns=["option", "item", "usd", "basis"])


def published_lines(
    book: PriceBook, setup: PublishedSetup = PublishedSetup(), rates: Rates = Rates()
) -> pd.DataFrame:
    """Return the published options as cost lines: option, fixed_usd, per_query_usd, kind, break_even.

    The simulators' GPUs are rented for the whole run, so their cost does not depend on queries.
    """
    table = published_costs(book, setup, rates)
    price = book.each(rates.search, "USD/search")
    rows = [(GOOGLE, 0.0, price, "engine")]
    rows += [(row.engine, row.gpu_usd, 0.0, "simulator") for row in table.iloc[1:].itertuples()]
    return with_break_even(rows, price)
