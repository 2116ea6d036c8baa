"""Our policy loss beside its peers: time, peak memory, error and share of the floor, all in one run.

    python benchmarks/policy_loss.py [--shapes ...] [--tokens ...] [--shares ...] [--heads ...] [--out FILE]

Without options it measures, on a GPU, the heads of three models in bfloat16 (4k to 32k completion tokens); without
one, two small heads in float32 on one core.  Each line is one contender on one case: forward and backward together.
The floor is the time that the products of the loss need at the rate measured here on a large product: logits and
gradient of the states, and of the weight unless it is frozen, for the policy's tokens alone.

Needs torch and this library; peers (trl 1.16, liger-kernel 0.8.5, cut-cross-entropy) are measured where installed.
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch is imported: on a CPU one core is what is measured

import argparse  # noqa: E402
import itertools  # noqa: E402
import platform  # noqa: E402
import statistics  # noqa: E402
import time  # noqa: E402
from dataclasses import asdict, dataclass  # noqa: E402
from datetime import UTC, datetime  # noqa: E402
from importlib.metadata import PackageNotFoundError, version  # noqa: E402
from pathlib import Path  # noqa: E402
from typing import Any, Callable  # noqa: E402

import pandas as pd  # noqa: E402
import torch  # noqa: E402
from policy_loss_peers import CONTENDERS, GPU_ONLY, Inputs, ours  # noqa: E402

SHAPES = {  # model -> (hidden size, vocabulary)
    "Qwen2.5-3B": (2048, 151_936), "Qwen2.5-7B": (3584, 152_064), "Llama-3.2-3B": (3072, 128_256),
    "micro": (128, 869), "medium": (256, 16_384),
}
ON_GPU = {"shapes": list(SHAPES)[:3], "tokens": [4096, 8192, 16_384, 32_768]}
ON_CPU = {"shapes": ["micro", "medium"], "tokens": [1024]}
ROW_TOKENS = 512  # of one trajectory
LIBRARIES = ("torch", "triton", "trl", "liger-kernel", "cut-cross-entropy", "transformers")


@dataclass(frozen=True)
class Case:
    """What is measured: a head, completion tokens, the policy's share of them, whether the head learns."""

    shape: str
    n_tokens: int
    policy_share: float
    head: str


def main() -> None:
    """Measure all cases and write the table, line by line, so that a run that is cut off keeps what it has."""
    options = _options()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    rate = matmul_rate(device)
    cases = [Case(*c) for c in itertools.product(options.shapes, options.tokens, options.shares, options.heads)]
    rows: list[dict[str, Any]] = []
    for case in cases:
        for name in options.contenders:
            rows.append({**asdict(case), **measure(case, name, device, rate, options.repeats), **about(device, rate)})
            pd.DataFrame(rows).to_csv(options.out, index=False)
            shown = {k: rows[-1][k] for k in ("contender", "median_ms", "peak_gb", "share_of_floor", "state")}
            print(*asdict(case).values(), *shown.values(), flush=True)
    print("written to", options.out)


def measure(case: Case, name: str, device: torch.device, rate: float, repeats: int) -> dict[str, Any]:
    """Return the row of one contender on one case; ``state`` says why there are no numbers, if there are none."""
    row: dict[str, Any] = {"contender": name, "state": "measured"}
    empty = dict.fromkeys(("median_ms", "p20_ms", "p80_ms", "peak_gb", "grad_error", "share_of_floor"), float("nan"))
    if name in GPU_ONLY and device.type != "cuda":
        return {**row, **empty, "state": "needs a GPU"}
    inputs = make_inputs(case, device)
    try:
        loss = CONTENDERS[name]()
        error = gradient_error(loss, inputs)
        times, peak = timed(loss, inputs, device, repeats)
    except ImportError as missing:
        return {**row, **empty, "state": f"not installed: {missing.name}"}
    except torch.OutOfMemoryError:
        return {**row, **empty, "state": "out of memory"}
    p20, _, _, p80 = statistics.quantiles(times, n=5)
    median = statistics.median(times)
    return {
        **row, "median_ms": round(median, 3), "p20_ms": round(p20, 3), "p80_ms": round(p80, 3),
        "peak_gb": round(peak / 1e9, 3), "grad_error": error,
        "share_of_floor": round(1e3 * floor_seconds(case, inputs, rate) / median, 3),
    }


def make_inputs(case: Case, device: torch.device) -> Inputs:
    """Return random inputs with runs of policy tokens between retrieved ones, the same for every contender."""
    width, vocabulary = SHAPES[case.shape]
    rng = torch.Generator(device).manual_seed(0)
    b, t = -(-case.n_tokens // ROW_TOKENS), min(case.n_tokens, ROW_TOKENS)
    dtype = torch.bfloat16 if device.type == "cuda" else torch.float32

    def normal(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=rng, device=device)

    hidden = normal(b, t, width).to(dtype).requires_grad_()
    weight = (3.0 * normal(vocabulary, width) / width**0.5).to(dtype).requires_grad_(case.head == "trainable")
    targets = torch.randint(0, vocabulary, (b, t), generator=rng, device=device)
    runs = torch.rand(b, -(-t // 32), generator=rng, device=device).argsort(1) < case.policy_share * (t / 32)
    old = torch.stack([_logps(h, weight, row) for h, row in zip(hidden.detach(), targets, strict=True)])
    return Inputs(
        hidden, weight, targets, runs.repeat_interleave(32, 1)[:, :t], normal(b), old + 0.1 * normal(b, t),
        old + 0.1 * normal(b, t),
    )


def _logps(hidden: torch.Tensor, weight: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    from policy_loss_peers import TEMPERATURE

    from zerosearch import kernels

    head = kernels.Head(weight.detach())
    return kernels.token_logps(hidden, head, targets, temperature=TEMPERATURE, impl="torch")[0]


def gradient_error(loss: Callable[[Inputs], torch.Tensor], inputs: Inputs) -> float:
    """Return the error of the gradient of the states of one trajectory against float64, relative to its norm."""
    few = [t[:1].detach() if i != 1 else t.detach() for i, t in enumerate(vars(inputs).values())]
    found, wanted = [], []
    for kept, function, exact in ((found, loss, False), (wanted, ours("torch"), True)):
        given = [t.double() if exact and t.is_floating_point() else t for t in few]
        case = Inputs(given[0].requires_grad_(), *given[1:])
        kept.append(torch.autograd.grad(function(case), case.hidden)[0].double())
    return ((found[0] - wanted[0]).norm() / wanted[0].norm()).item()


def timed(
    loss: Callable[[Inputs], torch.Tensor], inputs: Inputs, device: torch.device, repeats: int
) -> tuple[list[float], float]:
    """Return (milliseconds of forward and backward, peak bytes beyond the inputs, NaN on a CPU)."""
    on_gpu = device.type == "cuda"
    for _ in range(3 if on_gpu else 1):
        _step(loss, inputs)
    if on_gpu:
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated() if on_gpu else 0
    times = [_gpu_ms(loss, inputs) if on_gpu else _cpu_ms(loss, inputs) for _ in range(repeats)]
    peak = torch.cuda.max_memory_allocated() - before if on_gpu else float("nan")
    return times, peak


def _step(loss: Callable[[Inputs], torch.Tensor], inputs: Inputs) -> None:
    inputs.hidden.grad = inputs.weight.grad = None
    loss(inputs).backward()
    inputs.hidden.grad = inputs.weight.grad = None


def _gpu_ms(loss: Callable[[Inputs], torch.Tensor], inputs: Inputs) -> float:
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    start.record()
    _step(loss, inputs)
    end.record()
    torch.cuda.synchronize()
    return start.elapsed_time(end)


def _cpu_ms(loss: Callable[[Inputs], torch.Tensor], inputs: Inputs) -> float:
    started = time.process_time()  # other work on the machine does not count
    _step(loss, inputs)
    return 1e3 * (time.process_time() - started)


def matmul_rate(device: torch.device) -> float:
    """Return the operations per second of a large product of random numbers: the best of some, after a warm-up."""
    n, dtype = (8192, torch.bfloat16) if device.type == "cuda" else (1024, torch.float32)
    a, b = (torch.randn(n, n, device=device, dtype=dtype) for _ in range(2))
    seconds = []
    for _ in range(13):
        started = time.perf_counter() if device.type == "cuda" else time.process_time()
        a @ b
        if device.type == "cuda":
            torch.cuda.synchronize()
        ended = time.perf_counter() if device.type == "cuda" else time.process_time()
        seconds.append(ended - started)
    return 2 * n**3 / min(seconds[3:])


def floor_seconds(case: Case, inputs: Inputs, rate: float) -> float:
    """Return the seconds that the products alone need: three with a learning head, two with a frozen one."""
    products = 3 if case.head == "trainable" else 2
    return products * 2.0 * int(inputs.mask.sum()) * inputs.weight.numel() / rate


def about(device: torch.device, rate: float) -> dict[str, Any]:
    """Return what made a row: machine, versions, date."""
    def installed(name: str) -> str:
        try:
            return version(name)
        except PackageNotFoundError:
            return "none"

    machine = torch.cuda.get_device_name() if device.type == "cuda" else f"{_cpu()}, one core"
    return {
        "device": machine, "matmul_tflops": round(rate / 1e12, 3), **{name: installed(name) for name in LIBRARIES},
        "date": datetime.now(UTC).date().isoformat(),
    }


def _cpu() -> str:
    """Return the name of the processor, or of its architecture where the system does not say."""
    listed = Path("/proc/cpuinfo").read_text(encoding="utf-8") if Path("/proc/cpuinfo").exists() else ""
    names = [line.split(":")[1].strip() for line in listed.splitlines() if line.startswith("model name")]
    return names[0] if names else platform.machine()


def _options() -> argparse.Namespace:
    usual = ON_GPU if torch.cuda.is_available() else ON_CPU
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--shapes", nargs="+", choices=SHAPES, default=usual["shapes"], help="heads")
    parser.add_argument("--tokens", nargs="+", type=int, default=usual["tokens"], help="completion tokens")
    parser.add_argument("--shares", nargs="+", type=float, default=[0.2, 0.35, 0.6, 1.0], help="of policy tokens")
    parser.add_argument("--heads", nargs="+", choices=("trainable", "frozen"), default=["trainable", "frozen"])
    parser.add_argument("--contenders", nargs="+", choices=CONTENDERS, default=list(CONTENDERS))
    parser.add_argument("--repeats", type=int, default=10, help="times that every case is measured")
    parser.add_argument("--out", type=Path, default=Path(__file__).with_suffix(".csv"), help="the CSV to write")
    return parser.parse_args()


if __name__ == "__main__":
    main()
