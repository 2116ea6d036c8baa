"""The phases of a run and what each of its GPUs holds in them, from the run's settings."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Mapping, Sequence

from zerosearch.layouts import Layout
from zerosearch.planning import memory
from zerosearch.planning.activations import Pass
from zerosearch.planning.memory import Conversations, Phase, together
from zerosearch.planning.shapes import Shape, shape_of
from zerosearch.planning.workload import LEARNED_SHARE, TRAINED_SHARE, Talk, Workload, lengths
from zerosearch.profiles import Settings
from zerosearch.training.arms import ARMS

ROWS = 256  # that our own engine generates at once where a notebook gives no batch size


@dataclass(frozen=True, slots=True)
class Models:
    """The models of a run by place (stage and parameter): names, sizes, and names whose sizes are not known here."""

    names: Mapping[str, str]
    shapes: Mapping[str, Shape]
    unknown: tuple[str, ...]


def models(settings: Settings) -> Models:
    """Return the sizes of the models that stages 01 to 04 name; simulators only where an arm asks one here."""
    places = ("01.policy_model", "02.simulator_model", "03.policy_model", "04.policy_model")
    names = {place: str(settings.stage(place[:2])[place[3:]]) for place in places}
    if simulator_here(settings):
        names["03.simulator_model"] = _searched(settings)
    found = {place: shape_of(name) for place, name in names.items()}
    unknown = sorted({names[place] for place, shape in found.items() if shape is None})
    return Models(names, {place: shape for place, shape in found.items() if shape is not None}, tuple(unknown))


def simulator_here(settings: Settings) -> bool:
    """Say whether an arm searches a simulator that this run itself serves."""
    return any(ARMS[name].simulated for name in settings.arms) and not settings.stage("03")["simulator_url"]


def _searched(settings: Settings) -> str:
    """Return the model that simulates searches in stage 03: the tuned one has the sizes of its base."""
    tuned = any(ARMS[name].retriever == "simulator" for name in settings.arms)
    return settings.stage("02" if tuned else "03")["simulator_model"]


def phases(settings: Settings, sizes: Mapping[str, Shape], work: Workload) -> list[Phase]:
    """Return the phases of a run in their order; those of models of unknown size are left out."""
    makers = {
        "01.policy_model": lambda: [_collect(settings, sizes["01.policy_model"], work)],
        "02.simulator_model": lambda: [_tuning(settings, sizes["02.simulator_model"])],
        "03.policy_model": lambda: _training(settings, sizes, work),
        "04.policy_model": lambda: [_evaluation(settings, sizes["04.policy_model"], work)],
    }
    found = [phase for place, make in makers.items() if place in sizes for phase in make()]
    return [replace(phase, on_gpu=settings.source.needs.gpus > 0) for phase in found]


def _collect(settings: Settings, shape: Shape, work: Workload) -> Phase:
    values = settings.stage("01")
    rows = min(values["batch_size"], work.collected)
    return _generating("01", "collect", values, shape, _rows(work.collect, rows, values), settings.layout)


def _evaluation(settings: Settings, shape: Shape, work: Workload) -> Phase:
    values = settings.stage("04")
    talk = _rows(work.evaluate, values["batch_size"], values)
    return _generating("04", "evaluation", values, shape, talk, settings.layout)


def _generating(
    stage: str, name: str, values: Mapping[str, Any], shape: Shape, talk: Conversations, layout: Layout
) -> Phase:
    """Return a phase in which one card holds one model that only writes."""
    cache, wanted = _engine(values.get("engine", "transformers"), shape, talk, layout)
    return Phase(stage, name, 1, together({"weights": memory.frozen_weights(shape, layout)}, cache), wanted)


def _engine(
    engine: str, shape: Shape, talk: Conversations, layout: Layout, gpus: int = 1
) -> tuple[Mapping[str, int], int]:
    if engine == "vllm":
        return memory.paged_cache(shape, talk, layout, gpus)
    return memory.own_cache(shape, talk, layout), 0


def _rows(talk: Talk, rows: int, values: Mapping[str, Any]) -> Conversations:
    """Return what an engine holds of so many trajectories; at most a prompt or one observation is read at once."""
    new = int(max(talk.observation, talk.prompt))
    return Conversations(rows, int(talk.mean), talk.longest, new, values["max_turn_tokens"])


def _tuning(settings: Settings, shape: Shape) -> Phase:
    """Return stage 02, on all cards of the run."""
    values, layout = settings.stage("02"), settings.layout
    gpus = layout.policy_gpus + layout.simulator_gpus
    rows = min(layout.sft_rows or values["batch_size"], -(-values["batch_size"] // gpus))
    tokens = rows * values["max_length"]
    work = Pass(
        tokens, int(tokens * LEARNED_SHARE), memory.arithmetic(layout, gpus), layout.lora_rank,
        layout.gradient_checkpointing, _fused(settings), entropy=False,
    )
    return Phase("02", "simulator SFT", gpus, memory.training_pass(shape, work, layout, gpus))


def _fused(settings: Settings) -> bool:
    """Say whether the profile's losses sweep over the trained tokens."""
    return getattr(settings.source, "loss", "plain") == "fused"


def _training(settings: Settings, sizes: Mapping[str, Shape], work: Workload) -> list[Phase]:
    """Return rollout, update, and the simulator's own cards where it has some."""
    simulator = sizes.get("03.simulator_model")
    apart = simulator is not None and settings.layout.simulator_gpus > 0
    shared = None if apart else simulator
    policy = sizes["03.policy_model"]
    found = [_rollout(settings, policy, shared, work), _update(settings, policy, shared, work)]
    if simulator is not None and apart:
        found.append(_serving(settings, simulator, work))
    return found


def _standing(settings: Settings, policy: Shape) -> dict[str, int]:
    """Return what a policy in training holds all the time: weights, optimiser, the reference of the KL."""
    layout, gpus = settings.layout, settings.layout.policy_gpus
    parts = memory.trained(policy, layout, gpus)
    reference = 0
    if settings.stage("03")["kl_weight"] > 0 and not layout.lora_rank:  # adapters off are the reference
        spread = gpus if layout.sharding in memory.SPREAD else 1
        reference = memory.frozen_weights(policy, layout) // spread
    return {"weights": parts["weights"], "optimiser": parts["optimiser"], "reference": reference}


def _rollout(settings: Settings, policy: Shape, simulator: Shape | None, work: Workload) -> Phase:
    values, layout = settings.stage("03"), settings.layout
    rows = -(-values["questions_per_step"] * values["group_size"] // layout.policy_gpus)
    engine = values.get("rollout_engine", "transformers")
    talk = _rows(work.train, rows if engine == "vllm" else min(rows, ROWS), values)
    cache, wanted = _engine(engine, policy, talk, layout)
    own = memory.frozen_weights(policy, layout)
    spread = layout.policy_gpus > 1 and layout.sharding in memory.SPREAD
    copy = {"weights": own if engine == "vllm" or spread else 0}  # our own engine uses the trainer's weights
    parts = together(_standing(settings, policy), copy, cache)
    if simulator is not None:
        written, more = _simulating(settings, simulator, work, rows)
        kept = {"simulator": memory.frozen_weights(simulator, layout), "KV cache": written["KV cache"]}
        in_turn = max(cache["activations"], written["activations"])  # they write one after the other
        parts, wanted = together(parts, kept) | {"activations": in_turn}, wanted + more
    return Phase("03", "rollout", layout.policy_gpus, parts, wanted)


def _simulating(
    settings: Settings, simulator: Shape, work: Workload, rows: int, gpus: int = 1
) -> tuple[Mapping[str, int], int]:
    """Return what a simulator needs besides weights while it answers so many searches at once."""
    values = settings.stage("03")
    asked = lengths(values["policy_model"]).simulator_prompt
    kind = "vllm" if values.get("simulator_replicas", 0) or gpus > 1 else "transformers"
    limit, mean = values["max_observation_tokens"], int(asked + work.train.observation)
    talk = Conversations(rows if kind == "vllm" else min(rows, ROWS), mean, asked + limit, asked, limit)
    return _engine(kind, simulator, talk, settings.layout, gpus)


def _serving(settings: Settings, simulator: Shape, work: Workload) -> Phase:
    """Return a simulator on its own cards, its weights spread over them (tensor parallelism)."""
    values, layout = settings.stage("03"), settings.layout
    gpus = layout.simulator_gpus
    written, wanted = _simulating(settings, simulator, work, values["questions_per_step"] * values["group_size"], gpus)
    weights = memory.frozen_weights(simulator, layout) // gpus
    return Phase("03", "simulator", gpus, together({"weights": weights}, written), wanted)


def _update(settings: Settings, policy: Shape, simulator: Shape | None, work: Workload) -> Phase:
    values, layout = settings.stage("03"), settings.layout
    gpus = layout.policy_gpus
    tokens = max(layout.micro_batch_tokens, work.train.longest)
    scored = int(tokens * TRAINED_SHARE)
    one = Pass(
        tokens, scored, memory.arithmetic(layout, gpus), layout.lora_rank, layout.gradient_checkpointing,
        _fused(settings),
    )
    training = memory.training_pass(policy, one, layout, gpus)
    parts = together(_standing(settings, policy), {name: training[name] for name in ("gradients", "activations")})
    if simulator is not None and not layout.sleep:
        parts = together(parts, {"simulator": memory.frozen_weights(simulator, layout)})
    return Phase("03", "update", gpus, parts)


def largest(found: Sequence[Phase]) -> Phase:
    """Return the phase that expects the most of one card."""
    return max(found, key=lambda phase: phase.gib)
