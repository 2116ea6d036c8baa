"""Hours of a run on GPUs, from operations and bytes: writing is bound by memory, reading and training by arithmetic.

Operations per token (arXiv 2001.08361, section 2.1): 2 for each parameter that multiplies it going forward, 4 going
back (2 with frozen weights), 2 more where blocks are computed again; attention adds 2 per layer, query number and
token seen, half of which the causal mask leaves (arXiv 2204.02311, appendix B).  The shares of a card's peak that are
reached are assumptions, printed with the plan.  Runs without a GPU take the seconds that their profile states.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Mapping, Sequence

from zerosearch.layouts import Layout
from zerosearch.planning.machines import Card
from zerosearch.planning.phases import ROWS
from zerosearch.planning.shapes import BYTES, Shape
from zerosearch.planning.workload import Talk, Workload, lengths
from zerosearch.profiles import Settings

TRAINING_SHARE = 0.35  # of peak operations; 38 to 46 % are reported for large runs (2204.02311, 2407.21783)
READING_SHARE = 0.4  # of peak operations while prompts are read
WRITING_SHARE = 0.5  # of the memory's peak while text is written, token by token
ASSUMED = (
    f"of a card's peak are reached: {TRAINING_SHARE:.0%} of operations in training, {READING_SHARE:.0%} in reading, "
    f"{WRITING_SHARE:.0%} of bandwidth in writing; loading, saving and waiting are not counted"
)


@dataclass(frozen=True, slots=True)
class Writer:
    """A model that writes on ``gpus`` cards, each with ``rows`` conversations at once.

    shards: cards that one copy of the model is spread over.
    """

    shape: Shape
    layout: Layout
    card: Card
    rows: int
    gpus: int = 1
    shards: int = 1

    def seconds(self, read: float, written: float, seen: float) -> float:
        """Return the seconds that so many tokens take in all; seen: tokens of a conversation on average."""
        size = BYTES[self.layout.precision]
        peak = operations(self.card, self.layout) * READING_SHARE * self.gpus
        reading = read * forward(self.shape, seen) / peak
        bandwidth = self.card.gb_per_second * 1e9 * WRITING_SHARE * self.gpus
        weights = self.shape.multiplied * size * self.gpus / self.shards / (self.rows * self.gpus / self.shards)
        each = weights + seen * self.shape.kv_token(size)  # bytes for one token of one conversation
        computing = written * forward(self.shape, seen) / peak
        return reading + max(written * each / bandwidth, computing)


def operations(card: Card, layout: Layout) -> float:
    """Return the peak operations a second of a card in the layout's arithmetic."""
    return (card.tflops32 if layout.precision == "float32" else card.tflops) * 1e12


def forward(shape: Shape, seen: float) -> float:
    """Return the operations of one token on its way forward, in a text of ``seen`` tokens on average."""
    return 2.0 * shape.multiplied + 2.0 * shape.layers * shape.queries * seen


def training_seconds(shape: Shape, layout: Layout, card: Card, gpus: int, tokens: float, length: float) -> float:
    """Return the seconds of forward and backward passes over so many tokens, in texts of ``length``."""
    times = 1 + (1 if layout.lora_rank else 2) + layout.gradient_checkpointing
    return times * tokens * forward(shape, length) / (operations(card, layout) * TRAINING_SHARE * gpus)


def hours(settings: Settings, sizes: Mapping[str, Shape], work: Workload, card: Card) -> dict[str, float]:
    """Return the hours of stages 01 to 04 whose models' sizes are known; all arms and seeds of 03 together."""
    found: dict[str, float] = {}
    if "01.policy_model" in sizes:
        writer = Writer(sizes["01.policy_model"], settings.layout, card, settings.stage("01")["batch_size"])
        found["01"] = _talking(writer, work.collect, work.collected)
    if "02.simulator_model" in sizes:
        found["02"] = _tuning(settings, sizes["02.simulator_model"], work, card)
    if "03.policy_model" in sizes:
        found["03"] = _training(settings, sizes, work, card)
    if "04.policy_model" in sizes:
        writer = Writer(sizes["04.policy_model"], settings.layout, card, settings.stage("04")["batch_size"])
        found["04"] = _talking(writer, work.evaluate, work.evaluated)
    return {stage: seconds / 3600 for stage, seconds in found.items()}


def _talking(writer: Writer, talk: Talk, count: float) -> float:
    return writer.seconds(count * talk.read, count * talk.written, talk.mean)


def _tuning(settings: Settings, shape: Shape, work: Workload, card: Card) -> float:
    length = settings.stage("02")["max_length"]
    gpus = settings.layout.policy_gpus + settings.layout.simulator_gpus
    return training_seconds(shape, settings.layout, card, gpus, work.lessons * length, length)


def _training(settings: Settings, sizes: Mapping[str, Shape], work: Workload, card: Card) -> float:
    """Return the seconds of all trainings: each step writes, searches, reads again for the KL, and updates."""
    values, layout, policy = settings.stage("03"), settings.layout, sizes["03.policy_model"]
    gpus, talk = layout.policy_gpus, work.train
    together = values["questions_per_step"] * values["group_size"]
    rows = min(-(-together // gpus), ROWS)
    one = _talking(Writer(policy, layout, card, rows, gpus), talk, work.trained)
    tokens = work.trained * talk.mean
    one += training_seconds(policy, layout, card, gpus, tokens, talk.mean)
    if values["kl_weight"] > 0:
        one += tokens * forward(policy, talk.mean) / (operations(card, layout) * READING_SHARE * gpus)
    total = one * work.jobs
    simulator = sizes.get("03.simulator_model")
    if simulator is not None:
        own = layout.simulator_gpus or 1
        writer = Writer(simulator, layout, card, min(together, ROWS), own, own)
        asked, searches = lengths(values["policy_model"]).simulator_prompt, work.trained * talk.searches
        seen = asked + talk.observation
        total += work.simulated * writer.seconds(searches * asked, searches * talk.observation, seen)
    return total


def stated_hours(settings: Settings, stages: Sequence[str]) -> dict[str, float]:
    """Return the hours that a profile states for these stages, jobs that run side by side counted so."""
    seconds = settings.source.expected_seconds
    jobs = len(settings.arms) * len(settings.seeds)
    rounds = -(-jobs // settings.source.cores)
    return {stage: seconds[stage] * (rounds if stage == "03" else 1) / 3600 for stage in stages}
