"""A head that FSDP has spread over two processes: gathered once, its gradient averaged and back in shards."""

from __future__ import annotations

from pathlib import Path

import torch
import torch.distributed as dist
from kernel_toys import Case, random_case, run
from torch.distributed.tensor import DTensor, Shard, distribute_tensor, init_device_mesh

from zerosearch import kernels
from zerosearch.kernels import Head, PolicySettings


def own_case(rank: int) -> Case:
    """Return other tokens for each process, and the same head."""
    made, same = (random_case(20, 8, 31, seed=seed).to(torch.float32) for seed in (rank, 0))
    return Case(made.hidden, same.head, made.tokens)


def work(rank: int, folder: str) -> None:
    """Compute the loss of this process's own tokens with half a head; write what came of it."""
    dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2)
    mesh = init_device_mesh("cpu", (2,))
    case = own_case(rank)
    weight = distribute_tensor(case.head.weight.detach(), mesh, [Shard(0)]).requires_grad_()
    gathered, original = [], DTensor.full_tensor
    DTensor.full_tensor = lambda self, **options: gathered.append(1) or original(self, **options)
    loss = kernels.policy_loss(case.hidden, Head(weight), case.tokens, impl="torch", budget_bytes=31 * 4 * 3).loss
    loss.backward()
    assert len(gathered) == 1 and isinstance(weight.grad, DTensor)
    torch.save((loss.detach(), case.hidden.grad, weight.grad.to_local()), f"{folder}/rank{rank}.pt")
    dist.destroy_process_group()


def test_a_head_on_two_processes(tmp_path: Path) -> None:
    torch.multiprocessing.spawn(work, (str(tmp_path),), nprocs=2)
    made = [torch.load(tmp_path / f"rank{rank}.pt") for rank in (0, 1)]
    truths = [run(own_case(rank), PolicySettings(), "reference") for rank in (0, 1)]
    for (loss, by_state, _), (truth, (state_truth, _)) in zip(made, truths, strict=True):
        torch.testing.assert_close(loss, truth.loss.detach())
        torch.testing.assert_close(by_state, state_truth)
    mean = sum(gradients[1] for _, gradients in truths) / 2
    torch.testing.assert_close(torch.cat([shard for _, _, shard in made]), mean)
