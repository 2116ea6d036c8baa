"""The Triton kernel: its arithmetic under the interpreter against float64, and what the compiler makes of it.

No GPU is needed.  Speed and races are not tested here; ``benchmarks/policy_loss.py`` runs on a real one.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from kernel_toys import no_worse_than_torch, random_case, run

from zerosearch import artifacts, kernels
from zerosearch.kernels import PolicySettings, PolicyTokens

EVERYTHING = PolicySettings(
    clip=0.2, clip_high=0.3, kl_weight=0.1, entropy_weight=0.02, temperature=0.7, importance="token"
)
SCRIPT = artifacts.REPO / "scripts" / "kernel_resources.py"
MOST_REGISTERS = {80: 128, 90: 128}  # per thread; 65,536 per multiprocessor then hold two programs of 256 threads
MOST_SHARED_BYTES = 48 * 1024  # what every GPU grants without asking


@pytest.fixture(autouse=True)
def small_blocks(triton: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Blocks far below the vocabularies of these tests, so that walks have several steps and a ragged end."""
    from zerosearch.kernels import triton_tiles

    monkeypatch.setattr(triton_tiles, "BLOCK", 64)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize(("n", "width", "vocabulary"), [(1, 1, 1), (5, 16, 255), (4, 8, 507), (3, 123, 64)])
def test_no_worse_than_torch_at_any_type(n: int, width: int, vocabulary: int, dtype: torch.dtype) -> None:
    # Triton's interpreter cuts off what a GPU rounds when it shortens to bfloat16: up to twice the error.
    times = 2.0 if dtype == torch.bfloat16 and "TRITON_INTERPRET" in os.environ else 1.0
    no_worse_than_torch(random_case(n, width, vocabulary, share=0.9), EVERYTHING, "triton", dtype, times)


@pytest.mark.parametrize("extra", [{"bias": True}, {"softcap": 5.0, "scale": 1.7}])
def test_heads_of_every_kind(extra: dict) -> None:
    no_worse_than_torch(random_case(6, 16, 123, **extra), replace(EVERYTHING, kl_weight=0.0), "triton", torch.float32)


def test_extreme_logits() -> None:
    case = random_case(6, 16, 123, size=300.0)
    tokens = replace(case.tokens, old_logp=None, ref_logp=None, sampler_logp=None)
    settings = PolicySettings(entropy_weight=0.1)
    no_worse_than_torch(replace(case, tokens=tokens), settings, "triton", torch.float32)


@pytest.mark.parametrize("settings", [
    PolicySettings(), PolicySettings(kl_weight=0.1), PolicySettings(entropy_weight=0.1),
    PolicySettings(normalisation="sequence", importance="sequence"), PolicySettings(importance="none", temperature=1.3),
])
def test_every_part_alone(settings: PolicySettings) -> None:
    no_worse_than_torch(random_case(8, 8, 100), settings, "triton", torch.float32)


@pytest.mark.parametrize("absent", [("old_logp",), ("sampler_logp",), ("ref_logp",), ("old_logp", "ref_logp")])
def test_vectors_that_are_not_given(absent: tuple[str, ...]) -> None:
    case = random_case(8, 8, 100)
    case = replace(case, tokens=replace(case.tokens, **dict.fromkeys(absent)))
    settings = replace(EVERYTHING, importance="none") if "sampler_logp" in absent else EVERYTHING
    no_worse_than_torch(case, settings, "triton", torch.float32)


def test_masked_rows_get_exact_zeros_and_statistics_agree() -> None:
    case = random_case(20, 8, 100).to(torch.float32)
    found, gradients = run(case, EVERYTHING, "triton")
    wanted, _ = run(case, EVERYTHING, "torch")
    off = ~case.tokens.mask
    assert (gradients[0][off] == 0.0).all() and (found.logp[off] == 0.0).all() and off.sum() > 5
    torch.testing.assert_close(found.sums, wanted.sums, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(found.entropy, wanted.entropy, rtol=1e-4, atol=1e-5)
    assert wanted.sums[2] > 0  # some were clipped


def test_all_masked() -> None:
    found, gradients = run(random_case(5, 8, 100, share=0.0).to(torch.float32), EVERYTHING, "triton")
    assert found.loss.item() == 0.0 and all((g == 0.0).all() for g in gradients)


def test_the_other_two_operators() -> None:
    case = random_case(7, 8, 100).to(torch.float32)
    hidden, head, targets, mask = case.hidden, case.head, case.tokens.targets, case.tokens.mask
    for impl in ("torch", "triton"):
        loss, *rest = kernels.masked_cross_entropy(hidden, head, targets, mask=mask, impl=impl)
        scored = kernels.token_logps(hidden, head, targets, mask=mask, temperature=0.7, impl=impl)
        found = [loss, *rest, *scored, *torch.autograd.grad(loss, (hidden, head.weight))]
        if impl == "torch":
            wanted = found
    torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-6)


def test_rows_that_do_not_touch() -> None:
    """A tile that is a view of a wider buffer: rows lie further apart than they are long."""
    from zerosearch.kernels import torch_tiles, triton_tiles
    from zerosearch.kernels.preparation import Formula, TokenVectors

    wide = torch.randn(3, 90)
    tokens = TokenVectors(torch.tensor([0, 5, 69]), torch.ones(3))
    wanted = torch_tiles.tile(wide[:, :70].clone(), tokens, Formula(), True)
    rest = wide[:, 70:].clone()
    torch.testing.assert_close(triton_tiles.tile(wide[:, :70], tokens, Formula(), True), wanted)
    assert torch.equal(wide[:, 70:], rest)


def test_vectors_with_gaps() -> None:
    """Targets that are every second entry of a longer vector, advantages that are one number shown often."""
    case = random_case(12, 8, 100, share=None).to(torch.float32)
    spread_out = torch.stack([case.tokens.targets, torch.full((12,), 99)], dim=1).flatten()[::2]
    shown = torch.tensor([1.5]).expand(12)
    gaps = PolicyTokens(spread_out, shown, old_logp=case.tokens.old_logp)
    tight = PolicyTokens(case.tokens.targets, shown.contiguous(), old_logp=case.tokens.old_logp)
    assert not spread_out.is_contiguous() and not shown.is_contiguous()
    found, wanted = (
        run(replace(case, tokens=t), PolicySettings(), "triton")[0] for t in (gaps, tight)
    )
    assert found.loss.item() == wanted.loss.item() and torch.equal(found.logp, wanted.logp)


def test_targets_outside_the_vocabulary_and_float64_are_refused() -> None:
    case = random_case(4, 8, 100, share=None).to(torch.float32)
    tokens = replace(case.tokens, targets=torch.tensor([0, 1, 2, 100]))
    with pytest.raises(RuntimeError, match="targets outside 0 to 99"):
        kernels.policy_loss(case.hidden, case.head, tokens, impl="triton")
    with pytest.raises(TypeError, match="found float64; use impl='torch'"):
        run(case.to(torch.float64), PolicySettings(), "triton")


@pytest.fixture(scope="module")
def resources(triton: None, tmp_path_factory: pytest.TempPathFactory) -> list[dict]:
    """What ptxas says of every variant, compiled in a process of its own, where kernels are not interpreted."""
    environment = {k: v for k, v in os.environ.items() if k != "TRITON_INTERPRET"}
    environment |= {"TRITON_CACHE_DIR": str(tmp_path_factory.mktemp("triton")),
                    "PYTHONPATH": str(Path(kernels.__file__).parents[2])}
    done = subprocess.run([sys.executable, str(SCRIPT)], env=environment, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_cubins_fit_both_generations(resources: list[dict]) -> None:
    assert {(row["capability"], row["dtype"]) for row in resources} == {(c, d) for c in (80, 90) for d in (
        "bf16", "fp16", "fp32")}
    for row in resources:
        assert row["spill_bytes"] == 0 and row["cubin_bytes"] > 0, row
        assert 16 <= row["registers"] <= MOST_REGISTERS[row["capability"]], row
        assert 0 < row["shared_bytes"] <= MOST_SHARED_BYTES, row
