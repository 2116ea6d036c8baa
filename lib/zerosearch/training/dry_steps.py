"""What a process of a dry start does: one step of a tiny recorded batch with a model that is spread, and who holds what.

``zero1`` to ``zero3`` are DeepSpeed's, by the configuration that ``deepspeed_config`` makes.  Called by ``process``; the
command is ``zerosearch.dry_start``.
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from typing import Any, Iterable, Sequence, get_args

import torch
from torch.distributed.tensor import DTensor
from transformers import PreTrainedModel

from zerosearch import files, layouts
from zerosearch.arithmetic import computing
from zerosearch.microworld import models
from zerosearch.schema import Question, Trajectory
from zerosearch.training import launching, sharding
from zerosearch.training.batching import MicroBatch, make_micro_batches, weightless
from zerosearch.training.laying import lay_out, without_dropout
from zerosearch.training.losses import micro_batch_loss
from zerosearch.training.team import Team
from zerosearch.training.worker import join

_LENGTHS = (24, 17, 9, 30)  # tokens of the recorded trajectories
_CLIP = 1.0


def work(arguments: Sequence[str]) -> int:
    """Be one of the processes: spread, step, tell."""
    options = parser().parse_args(arguments)
    team = join()
    return launching.telling(lambda: _step(options, team), options.folder, team.rank)


def _step(options: argparse.Namespace, team: Team) -> int:
    torch.manual_seed(0)
    model, _ = models.load(options.model)
    without_dropout(model)
    lay_out(model, 0)
    batches = recorded_batches(model.config.get_text_config().vocab_size)
    step = _deepspeed_step if options.sharding in layouts.DRY else _own_step
    rows = team.gather({"rank": team.rank, "device": str(model.device), **step(model, batches, options.sharding, team)})
    if team.leads:
        files.write_json(options.folder / launching.DONE, {"kind": "dry", "rows": rows})
    team.first(None)
    return 0


def recorded_batches(vocabulary: int) -> list[MicroBatch]:
    """Return trajectories of given tokens, one to a micro-batch: the same on every machine."""
    draws, made = torch.Generator().manual_seed(0), []
    for number, length in enumerate(_LENGTHS):
        ids = tuple(torch.randint(2, vocabulary, (length,), generator=draws).tolist())
        question = Question(f"dry/{number}", "dry", "what is held", ("nothing",), "train")
        made.append(Trajectory(
            question, ids[:4], ids[4:], (True,) * (length - 4), (-3.0,) * (length - 4), (), "answer", sample=number
        ))
    advantages = torch.tensor([1.0, -1.0, 0.5, -0.5]).numpy()
    return make_micro_batches(made, advantages, pad_id=0, max_tokens=1)


def deepspeed_config(sharding_: str) -> dict[str, Any]:
    """Return DeepSpeed's configuration of ``zero1``, ``zero2`` or ``zero3``; the file that accelerate takes too.

    Weights keep the type in which they are laid out.  Buckets are DeepSpeed's own.
    """
    stage = int(sharding_.removeprefix("zero"))
    more = {"stage3_gather_16bit_weights_on_model_save": True} if stage == 3 else {}
    return {
        "train_micro_batch_size_per_gpu": 1, "gradient_accumulation_steps": 1, "gradient_clipping": _CLIP,
        "zero_optimization": {"stage": stage, "overlap_comm": False, **more},
        "zero_allow_untested_optimizer": True, "zero_force_ds_cpu_optimizer": False, "wall_clock_breakdown": False,
    }


def _own_step(model: PreTrainedModel, batches: Sequence[MicroBatch], kind: str, team: Team) -> dict[str, Any]:
    """Take a step as a training does; return what this process held."""
    if kind == "fsdp":
        sharding.spread(model, team.size)
    trained = [p for p in model.parameters() if p.requires_grad]
    optimiser, made = torch.optim.AdamW(trained, lr=1e-3), []
    for index in team.deal([batch.input_ids.numel() for batch in batches]):
        loss = _loss(model, weightless(batches[-1]) if index is None else batches[index])
        loss.backward()
        made += [] if index is None else [(index, float(loss.detach()))]
    if not sharding.is_spread(model):
        team.sum_gradients(trained)
    norm = sharding.whole(torch.nn.utils.clip_grad_norm_(trained, _CLIP))
    optimiser.step()
    states = [value for state in optimiser.state.values() for value in state.values()]
    return {
        "parameters": _numbers(model.parameters()), "weights MiB": _mib(model.parameters()),
        "gradients MiB": _mib(p.grad for p in trained if p.grad is not None), "optimiser MiB": _mib(states),
        "loss": sum(team.in_order(made)), "gradient norm": float(norm),
    }


def _deepspeed_step(model: PreTrainedModel, batches: Sequence[MicroBatch], kind: str, team: Team) -> dict[str, Any]:
    """Take a step by DeepSpeed's engine, whose gradients are means over the processes."""
    import deepspeed
    from deepspeed.utils import safe_get_full_grad

    os.environ |= {"RANK": str(team.rank), "WORLD_SIZE": str(team.size), "LOCAL_RANK": "0"}  # each sees one card
    trained = [p for p in model.parameters() if p.requires_grad]
    optimiser, own = torch.optim.AdamW(trained, lr=1e-3), team.deal([batch.input_ids.numel() for batch in batches])
    settings = deepspeed_config(kind) | {"gradient_accumulation_steps": len(own)}
    engine, *_ = deepspeed.initialize(
        model=_WithLoss(model), model_parameters=trained, optimizer=optimiser, config=settings, dist_init_required=False
    )
    made = []
    for index in own:
        loss = engine(weightless(batches[-1]) if index is None else batches[index])
        engine.backward(loss * team.size * len(own))  # it divides by both
        found = [safe_get_full_grad(p) for p in trained] if engine.is_gradient_accumulation_boundary() else []
        engine.step()
        made += [] if index is None else [(index, float(loss.detach()))]
    held = [getattr(p, "ds_tensor", p) for p in model.parameters()]
    states = [value for state in optimiser.state.values() for value in state.values()]
    masters = [p for group in optimiser.param_groups for p in group["params"]]  # DeepSpeed's own parts of the weights
    return {
        "parameters": _numbers(held), "weights MiB": _mib(held), "gradients MiB": None,
        "optimiser MiB": _mib([*states, *masters]), "loss": sum(team.in_order(made)),
        "gradient norm": float(torch.stack([gradient.float().norm() for gradient in found if gradient is not None]).norm()),
    }


class _WithLoss(torch.nn.Module):
    """A model whose forward pass ends in the loss: DeepSpeed's hooks must see all of it."""

    def __init__(self, model: PreTrainedModel):
        super().__init__()
        self.model = model

    def forward(self, batch: MicroBatch) -> torch.Tensor:
        """Return the loss of a micro-batch."""
        return _loss(self.model, batch)


def _loss(model: PreTrainedModel, batch: MicroBatch) -> torch.Tensor:
    there = batch.to(model.device)
    with computing(model.device):
        return sharding.entered(model, lambda: micro_batch_loss(
            model, None, there, clip=0.2, kl_weight=0.0, temperature=1.0, loss="plain"
        ))[0]


def _local(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


def _numbers(tensors: Iterable[torch.Tensor]) -> int:
    return sum(_local(tensor).numel() for tensor in tensors)


def _mib(tensors: Iterable[Any]) -> float:
    found = (_local(tensor) for tensor in tensors if isinstance(tensor, torch.Tensor))
    return sum(tensor.numel() * tensor.element_size() for tensor in found) / 2**20


def parser() -> argparse.ArgumentParser:
    """Return what reads the options of a dry start; the last two are its own affair."""
    made = argparse.ArgumentParser(prog="python -m zerosearch.dry_start")
    made.add_argument("--sharding", choices=get_args(layouts.Sharding), default="none")
    made.add_argument("--processes", type=int, default=2)
    made.add_argument("--model", default="micro/llama-base")
    made.add_argument("--dry-start", action="store_true", help=argparse.SUPPRESS)
    made.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    return made
