"""A simulator with weights as they are, in int8 and in w4a16: seconds, memory, and whether it still does what it is asked.

    PYTHONPATH=lib .venv/bin/python benchmarks/quantised_simulator.py [--run laptop]

Needs the extra quant, and a finished stage 02 of the run.  Two models.  ``tuned``: the run's simulator, with held-out
searches of its stage 01; quality as in notebook 02 (useful passages with the golden answer, misleading ones without
it, another golden answer followed, the asked-for form).  ``random``: 168 million untrained parameters in the shape of
Qwen2, prompts as long as the micro-world's, which says something about speed alone; there w4a16, nine times as slow as
plain weights on a CPU, is measured on a GPU only.  Ways take turns, after a short call that is not measured; the median
of the repeats is written.  Seconds are the process's CPU time on one thread (other work beside it counts little), on a
GPU the wall's.  There fp8 comes along, and weights as they are in bfloat16; not yet measured there.
Writes benchmarks/quantised_simulator.csv.
"""

from __future__ import annotations

import argparse
import copy
import statistics
import time
from datetime import datetime, timezone
from typing import Any, Callable, Sequence

import pandas as pd
import torch
from transformers import PreTrainedModel, Qwen2Config, Qwen2ForCausalLM

from zerosearch import artifacts, environment, files, seeds
from zerosearch.engines import quantised
from zerosearch.engines.base import GenerationRequest
from zerosearch.engines.transformers_engine import TransformersEngine
from zerosearch.labels import table_to_pairs
from zerosearch.microworld import models
from zerosearch.prompts import Prompts
from zerosearch.simulator_weights import AS_IS, possible
from zerosearch.training import simulator_quality as quality
from zerosearch.training.arm_setup import SIMULATOR_TEMPERATURE
from zerosearch.training.simulator_data import drop_leaks, examples_from_pairs, hold_out

QUALITY = [(kind, "answer_present") for kind in quality.KINDS] + [("useful", "format_valid")]
RANDOM = dict(
    vocab_size=32000, hidden_size=1024, intermediate_size=2816, num_hidden_layers=12, num_attention_heads=16,
    num_key_value_heads=4, tie_word_embeddings=True,
)
PROMPT, WRITTEN, BATCH = 100, 16, 16  # tokens of a prompt and of an answer, queries at once, of the random model
FEW = 4  # requests of a call that is not measured


def ways() -> list[str]:
    """Return the kinds of weights that this machine can compute with, as they are first."""
    return [AS_IS, *possible(quantised.place_here())]


def variants(model: PreTrainedModel, kinds: Sequence[str]) -> dict[str, PreTrainedModel]:
    """Return copies of a model, kind of weights -> copy."""
    made = {kind: copy.deepcopy(model) for kind in kinds}
    for kind, one in made.items():
        quantised.quantise(one, kind)
    return made


def seconds(asked: Callable[[str, int | None], None], kinds: Sequence[str], repeats: int) -> dict[str, list[float]]:
    """Return the seconds of asking each kind everything, in turns, after a few questions that are not counted."""
    clock = time.perf_counter if torch.cuda.is_available() else time.process_time
    found: dict[str, list[float]] = {kind: [] for kind in kinds}
    for turn in range(repeats + 1):
        for kind in kinds:
            started = clock()
            asked(kind, None if turn else FEW)
            if turn:
                found[kind].append(clock() - started)
    return found


def rows(name: str, variant: dict[str, PreTrainedModel], taken: dict[str, list[float]], queries: int) -> list[dict[str, Any]]:
    """Return a row per kind of weights: its seconds per 1,000 queries, its gain over as they are, its memory."""
    plain = statistics.median(taken[AS_IS])
    return [{
        "model": name, "parameters": sum(p.numel() for p in model.parameters()), "weights": kind, "queries": queries,
        "seconds_per_1000_queries": 1000 * statistics.median(taken[kind]) / queries,
        "lowest": 1000 * min(taken[kind]) / queries, "highest": 1000 * max(taken[kind]) / queries,
        "speed_gain": plain / statistics.median(taken[kind]),
        "weights_mib": quantised.weight_bytes(model) / 2**20,
    } for kind, model in variant.items()]


def measure_tuned(run: str, n_requests: int, repeats: int) -> list[dict[str, Any]]:
    """Return the rows of a run's tuned simulator, with its quality."""
    values = files.read_json(artifacts.stage_dir(run, "02") / artifacts.MANIFEST)["parameters"]
    pairs = table_to_pairs(artifacts.read_table(artifacts.stage_dir(run, "01") / "pairs.parquet"))
    examples, _ = drop_leaks(examples_from_pairs(pairs, values["label_kind"], values["seed"]))
    training, held_out = hold_out(examples, share=0.15, seed=values["seed"])  # as notebook 02 holds them out
    requests = quality.quality_requests(held_out, n_requests, values["seed"], names=training)
    model, tokenizer = models.load(str(artifacts.stage_dir(run, "02") / "simulator"))
    prompts, variant = Prompts.load(models.prompt_template(tokenizer), tokenizer), variants(model, ways())
    reports: dict[str, pd.DataFrame] = {}

    def asked(kind: str, n: int | None) -> None:
        engine = TransformersEngine(variant[kind], tokenizer, "simulator", stop_strings=())
        reports[kind] = quality.quality_report(
            requests[:n], engine, prompts, kind, seed=values["seed"], temperature=SIMULATOR_TEMPERATURE,
            max_new_tokens=values["max_length"],
        )

    taken = seconds(asked, list(variant), repeats)
    found = rows("tuned", variant, taken, len(quality.KINDS) * len(requests))
    for row in found:
        measured = reports[row["weights"]].set_index(["kind", "metric"])
        for kind, metric in QUALITY:
            one = measured.loc[(kind, metric)]
            row |= {f"{kind}_{metric}": one["value"], f"{kind}_{metric}_low": one["low"], f"{kind}_{metric}_high": one["high"]}
    return found


def measure_random(queries: int, repeats: int, sizes: dict[str, Any] = RANDOM) -> list[dict[str, Any]]:
    """Return the rows of an untrained model, which writes as many tokens for every query."""
    torch.manual_seed(0)
    plain = Qwen2ForCausalLM(Qwen2Config(**sizes, eos_token_id=None)).eval()
    if torch.cuda.is_available():
        plain = plain.to("cuda", torch.bfloat16)
    variant = variants(plain, [kind for kind in ways() if torch.cuda.is_available() or kind != "w4a16"])
    drawn = seeds.generator("quantised", queries).integers(0, sizes["vocab_size"], (queries, PROMPT))
    requests = [GenerationRequest(tuple(ids), number, WRITTEN) for number, ids in enumerate(drawn.tolist())]
    _, tokenizer = models.load("micro/qwen2-base")  # only its end of text is looked at, which ends nothing here

    def asked(kind: str, n: int | None) -> None:
        TransformersEngine(variant[kind], tokenizer, "simulator", BATCH, stop_strings=()).generate(requests[:n])

    return rows("random", variant, seconds(asked, list(variant), repeats), queries)


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", default="laptop", help="with a finished stage 02")
    parser.add_argument("--requests", type=int, default=60, help="held-out searches, each asked three times")
    parser.add_argument("--queries", type=int, default=16, help="of the untrained model")
    parser.add_argument("--repeats", type=int, default=2)
    options = parser.parse_args(arguments)
    found = measure_tuned(options.run, options.requests, options.repeats)
    found += measure_random(options.queries, options.repeats)
    machine, versions = environment.machine(), environment.library_versions()
    table = pd.DataFrame(found).assign(
        threads=torch.get_num_threads(), cpu=machine["cpu"], device=machine["device"], torch=versions["torch"],
        torchao=versions["torchao"], date=datetime.now(timezone.utc).date().isoformat(),
        commit=environment.source_version(artifacts.REPO)["commit"],
    )
    files.write_table(artifacts.REPO / "benchmarks" / "quantised_simulator.csv", table.round(4))
    print(table.T.to_string())


if __name__ == "__main__":
    main()
