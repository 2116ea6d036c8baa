"""The phases of a run and what each of its GPUs holds in them, from the run's settings."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Mapping

from zerosearch.engines.gpu_memory import ENGINE_SHARE, SERVERS_SHARE
from zerosearch.layouts import Layout
from zerosearch.planning import memory
from zerosearch.planning.activations import Pass
from zerosearch.planning.memory import Conversations, Engine, Phase, together
from zerosearch.planning.shapes import BYTES, Shape, shape_of
from zerosearch.planning.workload import LEARNED_SHARE, TRAINED_SHARE, Talk, Workload, lengths
from zerosearch.profiles import Settings
from zerosearch.training.arms import ARMS

ROWS = 256  # that an engine generates at once where a notebook gives no batch size


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


def phases(settings: Settings, sizes: Mapping[str, Shape], work: Workload, card_gib: float = 0.0) -> list[Phase]:
    """Return the phases of a run in their order; those of models of unknown size are left out.

    card_gib: memory of one card, 0 without: vLLM takes shares of it.
    """
    card = int(card_gib * memory.GIB)
    makers = {
        "01.policy_model": lambda: [_collect(settings, sizes["01.policy_model"], work, card)],
        "02.simulator_model": lambda: [_tuning(settings, sizes["02.simulator_model"], card)],
        "03.policy_model": lambda: _training(settings, sizes, work, card),
        "04.policy_model": lambda: [_evaluation(settings, sizes["04.policy_model"], work, card)],
    }
    found = [phase for place, make in makers.items() if place in sizes for phase in make()]
    return [replace(phase, on_gpu=settings.source.needs.gpus > 0) for phase in found]


def _phase(stage: str, name: str, gpus: int, parts: Mapping[str, int], *engines: Engine) -> Phase:
    """Return a phase of these parts and of engines that write one after the other."""
    most = max((engine.parts.get("activations", 0) for engine in engines), default=0)
    others = [{name: size for name, size in engine.parts.items() if name != "activations"} for engine in engines]
    return Phase(
        stage, name, gpus, together(parts, *others, {"activations": most}), sum(engine.wanted for engine in engines),
        engines=together(*(engine.engines for engine in engines)), room=sum(engine.room for engine in engines),
    )


def _collect(settings: Settings, shape: Shape, work: Workload, card: int) -> Phase:
    values = settings.stage("01")
    talk = _rows(work.collect, min(values["batch_size"], work.collected), values)
    return _generating("01", "collect", settings, shape, talk, card)


def _evaluation(settings: Settings, shape: Shape, work: Workload, card: int) -> Phase:
    values = settings.stage("04")
    talk = _rows(work.evaluate, values["batch_size"], values)
    return _generating("04", "evaluation", settings, shape, talk, card)


def _generating(stage: str, name: str, settings: Settings, shape: Shape, talk: Conversations, card: int) -> Phase:
    """Return a phase in which one card holds one model that only writes; vLLM has a copy of its own."""
    engine = _engine(settings.stage(stage)["engine"], shape, talk, settings.layout, int(ENGINE_SHARE * card))
    return _phase(stage, name, 1, {"weights": memory.frozen_weights(shape, settings.layout)}, engine)


def _engine(kind: str, shape: Shape, talk: Conversations, layout: Layout, room: int) -> Engine:
    """Return what an engine in a notebook takes besides the notebook's own weights."""
    if kind == "vllm":
        return memory.vllm(shape, talk, layout, room=room)
    return Engine(memory.own_cache(shape, talk, layout))


def _rows(talk: Talk, rows: int, values: Mapping[str, Any]) -> Conversations:
    """Return what an engine holds of so many trajectories; at most a prompt or one observation is read at once."""
    new = int(max(talk.observation, talk.prompt))
    return Conversations(rows, int(talk.mean), talk.longest, new, values["max_turn_tokens"])


def _tuning(settings: Settings, shape: Shape, card: int) -> Phase:
    """Return stage 02, on all cards of the run; the engine that tried the base before stays beside the training."""
    values, layout = settings.stage("02"), settings.layout
    gpus = layout.policy_gpus + layout.simulator_gpus
    rows = min(layout.sft_rows or values["batch_size"], -(-values["batch_size"] // gpus))
    tokens = rows * values["max_length"]
    work = Pass(
        tokens, int(tokens * LEARNED_SHARE), memory.arithmetic(layout, gpus), layout.lora_rank,
        layout.gradient_checkpointing, _fused(settings), entropy=False,
    )
    before = Engine()
    if values["engine"] == "vllm":
        asked = Conversations(ROWS, *[values["max_length"]] * 4)
        before = replace(memory.vllm(shape, asked, layout, room=int(ENGINE_SHARE * card)), wanted=0)
    return _phase("02", "simulator SFT", gpus, memory.training_pass(shape, work, layout, gpus), before)


def _fused(settings: Settings) -> bool:
    """Say whether the profile's losses sweep over the trained tokens."""
    return settings.source.loss == "fused"


def _training(settings: Settings, sizes: Mapping[str, Shape], work: Workload, card: int) -> list[Phase]:
    """Return rollout, update, and the simulator's own cards where it has some."""
    simulator, values = sizes.get("03.simulator_model"), settings.stage("03")
    apart = simulator is not None and settings.layout.simulator_gpus > 0
    shared = None if apart else simulator
    policy, rows = sizes["03.policy_model"], _rows_of_a_card(settings)
    room = int(SERVERS_SHARE * card)
    answering = Engine() if shared is None else _simulating(settings, shared, work, rows, room)
    found = [
        _rollout(settings, policy, shared, answering, work, card),
        _update(settings, policy, shared, answering, work, card),
    ]
    if simulator is not None and apart:
        found.append(_serving(settings, simulator, work))
    return found


def _rows_of_a_card(settings: Settings) -> int:
    """Return the trajectories of a step that one card rolls out."""
    values = settings.stage("03")
    return -(-values["questions_per_step"] * values["group_size"] // settings.layout.policy_gpus)


def _standing(settings: Settings, policy: Shape) -> dict[str, int]:
    """Return what a policy in training holds all the time: weights, optimiser, the reference of the KL."""
    layout, gpus = settings.layout, settings.layout.policy_gpus
    parts = memory.trained(policy, layout, gpus)
    reference = 0
    if settings.stage("03")["kl_weight"] > 0 and not layout.lora_rank:  # adapters off are the reference
        spread = gpus if layout.sharding in memory.SPREAD else 1
        reference = memory.frozen_weights(policy, layout) // spread
    return {"weights": parts["weights"], "optimiser": parts["optimiser"], "reference": reference}


def _rollout(
    settings: Settings, policy: Shape, simulator: Shape | None, answering: Engine, work: Workload, card: int
) -> Phase:
    parts = together(_standing(settings, policy), _copy(settings, policy), _own_simulator(settings, simulator))
    writing = _writing(settings, policy, work, card)
    return _phase("03", "rollout", settings.layout.policy_gpus, parts, writing, answering)


def _writing(settings: Settings, policy: Shape, work: Workload, card: int) -> Engine:
    """Return what the policy's engine takes during rollouts."""
    values, rows = settings.stage("03"), _rows_of_a_card(settings)
    talk = _rows(work.train, min(rows, ROWS), values)
    return _engine(values["rollout_engine"], policy, talk, settings.layout, int(ENGINE_SHARE * card))


def _copy(settings: Settings, policy: Shape) -> dict[str, int]:
    """Return the weights that our own engine has besides the trainer's, which it uses otherwise.

    Where they are spread it gathers them all; where it writes during the update it has those that learn once more.
    """
    layout = settings.layout
    if settings.stage("03")["rollout_engine"] == "vllm":
        return {}
    if layout.policy_gpus > 1 and layout.sharding in memory.SPREAD:
        return {"weights": memory.frozen_weights(policy, layout)}
    learned = policy.lora(layout.lora_rank) if layout.lora_rank else policy.parameters
    return {"weights": BYTES["float32"] * learned} if layout.overlap else {}


def _own_simulator(settings: Settings, simulator: Shape | None) -> dict[str, int]:
    """Return the weights of a simulator in the notebook itself, none where vLLM's servers have them."""
    if simulator is None or _served(settings):
        return {}
    return {"simulator": memory.simulator_weights(simulator, settings.layout)}


def _served(settings: Settings) -> bool:
    """Say whether the simulator writes on servers that stage 03 starts."""
    return settings.stage("03")["simulator_replicas"] > 0


def _simulating(
    settings: Settings, simulator: Shape, work: Workload, rows: int, room: int = 0, gpus: int = 1
) -> Engine:
    """Return what a simulator takes while it answers so many searches at once, besides weights in the notebook."""
    values = settings.stage("03")
    asked = lengths(values["policy_model"]).simulator_prompt
    paged = _served(settings) or gpus > 1
    limit, mean = values["max_observation_tokens"], int(asked + work.train.observation)
    talk = Conversations(rows if paged else min(rows, ROWS), mean, asked + limit, asked, limit)
    if not paged:
        return Engine(memory.own_cache(simulator, talk, settings.layout))
    copies = max(1, values["simulator_replicas"]) if room else 1
    weights = memory.simulator_weights(simulator, settings.layout)
    return memory.vllm(simulator, talk, settings.layout, gpus=gpus, room=room, copies=copies, weights=weights)


def _serving(settings: Settings, simulator: Shape, work: Workload) -> Phase:
    """Return a simulator on its own cards, its weights spread over them (tensor parallelism)."""
    values, layout = settings.stage("03"), settings.layout
    gpus = layout.simulator_gpus
    written = _simulating(settings, simulator, work, values["questions_per_step"] * values["group_size"], gpus=gpus)
    weights = {} if "weights" in written.parts else {"weights": memory.simulator_weights(simulator, layout)}
    return _phase("03", "simulator", gpus, weights, written)


def _update(
    settings: Settings, policy: Shape, simulator: Shape | None, answering: Engine, work: Workload, card: int
) -> Phase:
    """Return the update: the policy's engine sleeps, servers of a simulator do not; with overlap nobody does."""
    layout, gpus = settings.layout, settings.layout.policy_gpus
    tokens = max(layout.micro_batch_tokens, work.train.longest)
    scored = int(tokens * TRAINED_SHARE)
    one = Pass(
        tokens, scored, memory.arithmetic(layout, gpus), layout.lora_rank, layout.gradient_checkpointing,
        _fused(settings),
    )
    training = memory.training_pass(policy, one, layout, gpus)
    parts = together(_standing(settings, policy), {name: training[name] for name in ("gradients", "activations")})
    if layout.overlap or not layout.sleep:
        parts = together(parts, _own_simulator(settings, simulator))
    if layout.overlap:
        parts = together(parts, _copy(settings, policy))
        return _phase("03", "update", gpus, parts, _writing(settings, policy, work, card), answering)
    servers = replace(answering, wanted=0) if _served(settings) else Engine()
    return _phase("03", "update", gpus, parts, servers)
