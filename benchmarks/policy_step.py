"""One optimiser step of the policy on ragged search trajectories: our switches one by one, beside TRL's trainer.

    PYTHONPATH=lib .venv/bin/python benchmarks/policy_step.py
    PYTHONPATH=lib .venv/bin/python benchmarks/policy_step.py --device cuda --model random:Qwen2.5-1.5B \
        --lengths log-normal --median 1000 --trajectories 64 --max-tokens 16384

A step is the forward passes, the backward passes, the clipping of the gradient and AdamW (with a rate of 0, so that
all have the same weights throughout); nothing is sampled in it.
All ways have the same trajectories, advantages and precision (float32 on a CPU, one core; bfloat16 on a GPU).
They take turns, after one round that is not measured and in which their gradients are compared; the median of
the repeats is written.  On a CPU, time is that of the process, so that other work does not count.

TRL as shipped: GRPOTrainer with its defaults, tool mask given, gradient checkpointing on (its default), but in the
precision of the others.  TRL, activations kept: the same without checkpointing, as ours.  With a KL it has a pass over the
reference, as ours has.  Writes benchmarks/policy_step.csv and .png.
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch is imported: on a CPU one core is what is measured

import argparse  # noqa: E402
import statistics  # noqa: E402
import tempfile  # noqa: E402
import time  # noqa: E402
from datetime import datetime, timezone  # noqa: E402
from pathlib import Path  # noqa: E402
from typing import Any, Callable, Mapping  # noqa: E402

import pandas as pd  # noqa: E402
import torch  # noqa: E402
from policy_step_batches import log_normal, on_policy, open_model, recorded  # noqa: E402
from policy_step_ways import OURS, TRL, TRL_KEPT, TRL_LIGER, Case, TrlWay  # noqa: E402

from zerosearch import artifacts, environment, figures, files  # noqa: E402
from zerosearch.training.laying import frozen_copy  # noqa: E402

CASES = [("micro/llama-base", "recorded", 64), ("random:small", "log-normal", 32)]  # model, lengths, trajectories
LIBRARIES = ("torch", "transformers", "trl")
NO_LIGER = "not measured: liger-kernel's layers are Triton programs and need a GPU"


def main() -> None:
    """Measure, print and write."""
    chosen = _options()
    torch.set_num_threads(1 if chosen.device == "cpu" else torch.get_num_threads())
    cases = [(chosen.model, chosen.lengths, chosen.trajectories)] if chosen.model else CASES
    made: list[pd.DataFrame] = []
    for case in cases:
        made.append(measure(chosen, *case))
        table = pd.concat(made, ignore_index=True).assign(**about(chosen.device))
        files.write_atomic(chosen.out, table.to_csv(index=False))
    figures.save(figures.step_times(table), chosen.out.with_suffix(".png"))
    shown = ["model", "kl_weight", "way", "median_seconds", "tokens_per_second", "ratio", "ratio_kept", "gradient_gap"]
    print(table[shown].to_string(index=False))


def measure(chosen: argparse.Namespace, name: str, lengths: str, count: int) -> pd.DataFrame:
    """Return the rows of one model on one batch, without a KL and with it."""
    device = torch.device(chosen.device)
    model = open_model(name, device)
    drawn = lengths == "log-normal"
    made = log_normal(count, chosen.median, model.config.vocab_size) if drawn else recorded(count)
    batch = on_policy(made, model)
    tables = []
    for kl_weight in chosen.kl_weights:
        reference = _moved(frozen_copy(model)) if kl_weight > 0 else None
        case = Case(model, reference, batch, kl_weight, chosen.max_tokens)
        tables.append(with_ratios(measure_case(case, ways(), chosen.repeats)))
    facts = {
        "model": name, "parameters": sum(p.numel() for p in model.parameters()), "lengths": lengths,
        "trajectories": len(batch.trajectories), "tokens": int(batch.lengths.sum()),
        "longest": int(batch.lengths.max()), "policy_share": round(batch.policy_share, 3),
        "padding_share": round(1 - float(batch.lengths.mean() / batch.lengths.max()), 3),
        "idle_share": round(batch.idle_share, 3), "max_tokens": chosen.max_tokens,
    }
    return pd.concat(tables, ignore_index=True).assign(**facts)


def ways() -> dict[str, Callable[[Case], None]]:
    """Return all ways, TRL's first."""
    folder = tempfile.mkdtemp(prefix="zerosearch-trl-")
    return {TRL: TrlWay(folder, recompute=True), TRL_KEPT: TrlWay(folder, recompute=False), **OURS}


def _moved(model: torch.nn.Module) -> Any:
    """Return a reference that is not quite the policy, so that the KL has a gradient."""
    torch.manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.003 * torch.randn_like(parameter))
    return model


def measure_case(case: Case, ways: Mapping[str, Callable[[Case], None]], repeats: int) -> pd.DataFrame:
    """Return one row per way: seconds of its steps, and the gap of its gradient to that of our plainest way."""
    optimiser = torch.optim.AdamW(case.model.parameters(), lr=0.0, weight_decay=0.0)
    case.model.train()
    gradients = {name: _gradient(case, way) for name, way in ways.items()}
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    peaks = dict.fromkeys(ways, float("nan"))
    for _ in range(repeats):
        for name, way in ways.items():
            took, peaks[name] = timed_step(case, way, optimiser)
            seconds[name].append(took)
    case.model.eval()
    wanted = gradients["all logits"]
    tokens = float(case.batch.lengths.sum())
    rows = [
        {
            "way": name, "kl_weight": case.kl_weight, "state": "measured", "repeats": repeats,
            "median_seconds": round(statistics.median(took), 4), "lowest": round(min(took), 4),
            "highest": round(max(took), 4), "tokens_per_second": round(tokens / statistics.median(took), 1),
            "peak_gb": peaks[name], "gradient_gap": float((gradients[name] - wanted).norm() / wanted.norm()),
        }
        for name, took in seconds.items()
    ]
    return pd.DataFrame([*rows, {"way": TRL_LIGER, "kl_weight": case.kl_weight, "state": NO_LIGER}])


def _gradient(case: Case, way: Callable[[Case], None]) -> torch.Tensor:
    """Return the gradient of one step on the CPU, float32; nothing is learned from it."""
    case.model.zero_grad()
    way(case)
    return torch.cat([p.grad.flatten().float().cpu() for p in case.model.parameters()])


def timed_step(case: Case, way: Callable[[Case], None], optimiser: torch.optim.Optimizer) -> tuple[float, float]:
    """Return (seconds of one step, peak GB of a GPU beyond what it held before, NaN on a CPU)."""
    on_gpu = case.model.device.type == "cuda"
    optimiser.zero_grad()
    if on_gpu:
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated() if on_gpu else 0
    clock = time.perf_counter if on_gpu else time.process_time
    started = clock()
    way(case)
    torch.nn.utils.clip_grad_norm_(case.model.parameters(), 1.0)
    optimiser.step()
    if on_gpu:
        torch.cuda.synchronize()
    took = clock() - started
    return took, round((torch.cuda.max_memory_allocated() - before) / 1e9, 3) if on_gpu else float("nan")


def with_ratios(rows: pd.DataFrame) -> pd.DataFrame:
    """Return the rows with how many times faster than TRL each is: as shipped, and with activations kept."""
    median = rows.set_index("way")["median_seconds"]
    return rows.assign(
        ratio=(median[TRL] / rows["median_seconds"]).round(2),
        ratio_kept=(median[TRL_KEPT] / rows["median_seconds"]).round(2),
    )


def about(device: str) -> dict[str, Any]:
    """Return what made the rows: machine, versions, commit, date."""
    facts = environment.machine()
    return {
        "cpu": facts["cpu"], "device": facts["device"] if device == "cuda" else "cpu, one core",
        **{name: environment.installed_version(name) for name in LIBRARIES},
        "commit": environment.source_version(artifacts.REPO)["commit"],
        "date": datetime.now(timezone.utc).date().isoformat(),
    }


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--model", default="", help="micro/NAME, random:small or random:NAME; empty for two of them")
    parser.add_argument("--lengths", choices=("recorded", "log-normal"), default="recorded", help="with --model")
    parser.add_argument("--trajectories", type=int, default=64, help="with --model: a multiple of 8")
    parser.add_argument("--median", type=int, default=200, help="tokens of a completion, with log-normal lengths")
    parser.add_argument("--max-tokens", type=int, default=4096, help="of one of our passes")
    parser.add_argument("--kl-weights", type=float, nargs="+", default=[0.0, 1e-3])
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--out", type=Path, default=artifacts.REPO / "benchmarks" / "policy_step.csv")
    return parser.parse_args()


if __name__ == "__main__":
    main()
