"""The planned memory of a training step beside what a GPU really held: random-weight Qwen2.5-1.5B, no download.

    python benchmarks/memory_plan.py [--model Qwen/Qwen2.5-1.5B] [--tokens 8192] [--out FILE]

One line per case: arithmetic, adapters, checkpointing; planned bytes, torch.cuda.max_memory_allocated over the second
of two steps (weights, gradients, AdamW and one pass), their ratio, GPU, versions, date.  35 % of the tokens are
trained; the loss is the plain one of ``training.objective``.  Not yet measured on a GPU.
"""

from __future__ import annotations

import argparse
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel

from zerosearch import environment
from zerosearch.layouts import Layout
from zerosearch.planning import activations, memory, shapes
from zerosearch.training.objective import token_logprobs

LIBRARIES = ("torch", "transformers")
CASES = [
    Layout(precision=precision, gradient_checkpointing=checkpointing)
    for precision in ("float32", "bf16") for checkpointing in (False, True)
]
ROWS = 4


def main() -> None:
    """Measure every case and write the table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--model", default="Qwen/Qwen2.5-1.5B", help="a name of data/model_shapes.yaml")
    parser.add_argument("--tokens", type=int, default=8192, help="tokens of one pass")
    parser.add_argument("--out", type=Path, default=Path(__file__).with_suffix(".csv"), help="the CSV to write")
    options = parser.parse_args()
    if not torch.cuda.is_available():
        raise SystemExit("expected an NVIDIA GPU, found none; run this on a machine that has one")
    table = pd.DataFrame([measure(options.model, layout, options.tokens) for layout in CASES])
    table.to_csv(options.out, index=False)
    print(table[["precision", "checkpointing", "planned_gib", "measured_gib", "ratio"]].to_string(index=False))
    print("written to", options.out)


def measure(model: str, layout: Layout, tokens: int, device: str = "cuda") -> dict[str, Any]:
    """Return one row: planned and measured peak of a step on one GPU."""
    shape = shapes.from_config(shapes.table()[model]["config"])
    trained = int(0.35 * tokens)
    work = activations.Pass(
        tokens, trained, memory.arithmetic(layout, 1), layout.lora_rank, layout.gradient_checkpointing
    )
    planned = sum(memory.training_pass(shape, work, layout, 1).values())
    measured = peak(build(model, layout, device), work, device)
    return {
        "model": model, "precision": layout.precision, "checkpointing": layout.gradient_checkpointing,
        "tokens": tokens, "trained": trained, "planned_gib": planned / memory.GIB,
        "measured_gib": measured / memory.GIB, "ratio": planned / measured,
        "gpu": torch.cuda.get_device_name() if device == "cuda" else device,
        **{name: environment.installed_version(name) for name in LIBRARIES},
        "date": datetime.now(UTC).date().isoformat(),
    }


def build(model: str, layout: Layout, device: str) -> PreTrainedModel:
    """Return the model with random float32 weights on a device."""
    config = AutoConfig.for_model(**shapes.table()[model]["config"])
    with torch.device(device):
        made = AutoModelForCausalLM.from_config(config, dtype=torch.float32).train()
    if layout.gradient_checkpointing:
        made.gradient_checkpointing_enable({"use_reentrant": False})
    return made


def peak(model: PreTrainedModel, work: activations.Pass, device: str) -> int:
    """Return the most bytes that the second of two steps held on the GPU."""
    optimiser = torch.optim.AdamW(model.parameters(), lr=1e-6, fused=True)
    words, length = model.config.vocab_size, work.tokens // ROWS
    ids = torch.randint(words, (ROWS, length), device=device)
    positions = torch.randperm(ROWS * length, device=device)[: work.trained]
    targets = torch.randint(words, (work.trained,), device=device)
    for _ in range(2):
        torch.cuda.reset_peak_memory_stats()
        for _ in range(2):  # two micro-batches: gradients are there when the second one begins
            with torch.autocast(device, torch.bfloat16, enabled=work.arithmetic == "autocast"):
                logp, _ = token_logprobs(model, ids, positions, targets, 1.0, work.entropy)
                loss = -logp.mean()
            loss.backward()
        optimiser.step()
        optimiser.zero_grad()
    return torch.cuda.max_memory_allocated()


if __name__ == "__main__":
    main()
