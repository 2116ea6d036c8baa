"""Opening what an arm needs: its retriever and its noise schedule."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Callable, Sequence
from weakref import WeakKeyDictionary

from zerosearch import layouts
from zerosearch.chat import Chat, Protocol, model_service
from zerosearch.curriculum import Curriculum, constant
from zerosearch.engines.base import Engine
from zerosearch.engines.opening import open_text_engine
from zerosearch.engines.quantised import asked_here, quantise
from zerosearch.engines.served_engine import ServedEngine
from zerosearch.engines.serving import serve_until_exit
from zerosearch.errors import ConfigError
from zerosearch.labels import Pair
from zerosearch.microworld import models
from zerosearch.prompts import Prompts
from zerosearch.retrievers import open_engine
from zerosearch.retrievers.base import FailureLimit, NoRetriever, Retriever, writing_engine
from zerosearch.retrievers.by_policy import PolicyWriter, SelfRetriever
from zerosearch.retrievers.prompted import PromptedSimulatorRetriever, Shown
from zerosearch.retrievers.sharing import SharedSimulator
from zerosearch.retrievers.simulator import SimulatorRetriever
from zerosearch.retrievers.writers import ServedWriter, Writer
from zerosearch.schema import Passage
from zerosearch.training.arms import Arm
from zerosearch.training.simulator_data import drop_leaks, examples_from_pairs

SIMULATOR_TEMPERATURE = 0.8  # as in the published code


@dataclass(frozen=True, slots=True)
class Served:
    """A simulator on a server of the OpenAI protocol, or on several.

    url: version included; of several servers, separated by commas.  model: its name there; one that begins with ``micro/`` is asked in the words of the
    micro-world, any other in the published ones.  protocol: ``chat``, or ``completions`` for a base without a
    chat template.  key_variable: environment variable with the key.  workers: requests under way at once.
    """

    url: str
    model: str
    protocol: Protocol = "chat"
    key_variable: str = "SIMULATOR_API_KEY"
    workers: int = 16

    def __post_init__(self) -> None:
        if not self.model:
            raise ConfigError(
                f"simulator at {self.url}: expected the name of the model that is served there, found none; add "
                "--set 03.simulator_name=NAME"
            )
        self.chats()

    def chats(self) -> list[Chat]:
        """Return the clients, one for each server; ConfigError where an address is none."""
        services = [
            model_service("simulator", url.strip(), self.model, self.key_variable, workers=self.workers)
            for url in self.url.split(",")
        ]
        return [Chat(service, self.model, self.protocol) for service in services]


@dataclass(frozen=True, slots=True)
class Needs:
    """What may be asked for when a retriever is opened; see ``open_retriever``."""

    k: int
    seed: int
    passages: Sequence[Passage]
    simulator: Path | str | None
    max_new_tokens: int
    pairs: Sequence[Pair]
    policy: tuple[Engine, Prompts] | None
    temperature: float
    served: Served | None
    share: bool
    replicas: int
    log: Path | None
    servers: tuple[str, ...] = ()  # addresses of replicas that run already
    ends: tuple[int, ...] = ()  # tokens that end a text of theirs


def open_retriever(
    arm: Arm, *, k: int, seed: int, passages: Sequence[Passage] = (), simulator: Path | str | None = None,
    max_new_tokens: int = 160, pairs: Sequence[Pair] = (), policy: tuple[Engine, Prompts] | None = None,
    temperature: float = 1.0, served: Served | None = None, share_passages_in_group: bool = False,
    replicas: int = 0, log: Path | None = None,
) -> Retriever:
    """Return what an arm's policy searches while it learns, k passages per query.

    Training stops with the reason when more than a tenth of its searches fail (rule 10).

    passages: the corpus, for a real engine.  simulator: the model that writes passages, for an arm that
    searches one: the folder of the tuned one, or for the others the name of its base.  pairs: searches of
    stage 01, for the examples of a prompted simulator.  policy: (engine, prompts) of the policy that is
    trained, and its sampling temperature, for an arm whose policy searches itself.  served: in place of
    simulator, one on a server; its examples are measured with the policy's tokenizer.
    share_passages_in_group: whether a tuned or untuned simulator is sent identical searches of a group once.
    replicas: vLLM servers that are started for the simulator and end with this process, 0 for a model in it (or for one
    server where the layout gives the simulator cards of its own); log: file for what they say.
    seed: of the run, keys the draws of whoever writes.  max_new_tokens: budget for all passages together.
    """
    needs = Needs(
        k, seed, passages, simulator, max_new_tokens, pairs, policy, temperature, served, share_passages_in_group,
        replicas or int(layouts.in_force().simulator_gpus > 0), log,
    )
    retriever = OPENERS[arm.retriever](arm, needs)
    _opened[retriever] = Opening(arm, needs)
    return retriever


@dataclass(frozen=True, slots=True)
class Opening:
    """How a retriever was opened: what another process needs to open its own, see ``open_again``."""

    arm: Arm
    needs: Needs


_opened: WeakKeyDictionary[Retriever, Opening] = WeakKeyDictionary()


def opened_with(retriever: Retriever) -> Opening | None:
    """Return how ``open_retriever`` opened a retriever, to be sent to another process; None for one of other origin.

    The policy is left out: every process has its own.  Servers that were started for it are named, not started again.
    """
    found, writer = _opened.get(retriever), writing_engine(retriever)
    if found is None:
        return None
    alone = replace(found.needs, policy=None)
    if found.needs.replicas and isinstance(writer, ServedEngine):
        alone = replace(alone, servers=tuple(writer.urls), ends=writer.end_ids)
    return Opening(found.arm, alone)


def open_again(opening: Opening, policy: tuple[Engine, Prompts]) -> Retriever:
    """Return a retriever as it was opened in another process, for this process's policy."""
    return OPENERS[opening.arm.retriever](opening.arm, replace(opening.needs, policy=policy))


def _none(arm: Arm, needs: Needs) -> Retriever:
    return NoRetriever()


def _real(arm: Arm, needs: Needs) -> Retriever:
    return FailureLimit(open_engine(arm.retriever, needs.passages, needs.k))


def _itself(arm: Arm, needs: Needs) -> Retriever:
    if needs.policy is None:
        raise ValueError(f"arm {arm.name!r}: expected the engine and the prompts of its policy, found none")
    writer = PolicyWriter(*needs.policy, needs.seed, needs.temperature, needs.max_new_tokens)
    return SelfRetriever(writer, needs.k)


def _simulator(arm: Arm, needs: Needs) -> Retriever:
    writer, prompts = _simulator_writer(arm, needs)
    retriever = SimulatorRetriever(writer, prompts, needs.k, needs.seed, SIMULATOR_TEMPERATURE, needs.max_new_tokens)
    limited = _limited(retriever, arm, needs)
    return SharedSimulator(retriever, limited) if needs.share else limited


def _prompted(arm: Arm, needs: Needs) -> Retriever:
    writer, prompts = _simulator_writer(arm, needs)
    retriever = PromptedSimulatorRetriever(
        writer, prompts, shown_examples(needs.pairs), needs.k, needs.seed, SIMULATOR_TEMPERATURE, needs.max_new_tokens
    )
    return _limited(retriever, arm, needs)


def _limited(retriever: SimulatorRetriever, arm: Arm, needs: Needs) -> FailureLimit:
    retriever.name = arm.retriever  # the ledger tells the tuned one, which cost a tuning, from its base
    retriever.served_model = needs.served.model if needs.served else ""
    return FailureLimit(retriever)


def _simulator_writer(arm: Arm, needs: Needs) -> tuple[Engine | Writer, Prompts]:
    if needs.served is not None:
        if needs.policy is None:
            raise ValueError(f"arm {arm.name!r}: expected the prompts of its policy, for their tokenizer, found none")
        template = "micro" if needs.served.model.startswith("micro/") else "paper"
        return ServedWriter(*needs.served.chats()), Prompts.load(template, needs.policy[1].tokenizer)
    if needs.simulator is None:
        raise ValueError(f"arm {arm.name!r}: expected the folder or name of its simulator, found none")
    if needs.servers:  # another process has the model
        tokenizer = models.load_tokenizer(str(needs.simulator))
        prompts = Prompts.load(models.prompt_template(tokenizer), tokenizer)
        return ServedEngine(needs.servers, arm.retriever, tokenizer, needs.ends, arm.retriever, ()), prompts
    weights = asked_here(served=needs.replicas > 0)
    model, tokenizer = models.load(str(needs.simulator))
    prompts = Prompts.load(models.prompt_template(tokenizer), tokenizer)
    if needs.replicas:
        log, own = needs.log or Path("server.log"), layouts.in_force().simulator_cards
        return serve_until_exit(
            model, tokenizer, log, arm.retriever, replicas=needs.replicas, weights=weights, cards=own
        ), prompts
    engine = open_text_engine("transformers", model, tokenizer, arm.retriever, stop_strings=())
    quantise(model, weights)  # after the engine was compared with the model: rounding depends on what is in a batch
    return engine, prompts


OPENERS: dict[str, Callable[[Arm, Needs], Retriever]] = {
    "bm25": _real, "simulator": _simulator, "simulator-base": _simulator, "simulator-prompted": _prompted,
    "self": _itself, "none": _none,
}
"""An arm's ``retriever`` -> what opens it."""


def shown_examples(pairs: Sequence[Pair]) -> list[Shown]:
    """Return what a prompted simulator is shown of the searches of stage 01: the judge's labels, and no leaks."""
    examples, _ = drop_leaks(examples_from_pairs(pairs))
    return [Shown(e.query, e.question, e.golden_answer, e.useful, e.passages) for e in examples]


def open_curriculum(arm: Arm, steps: int, start: float, end: float, base: float) -> Curriculum:
    """Return the arm's noise schedule: the given one, or no noise for an arm without a curriculum."""
    return Curriculum(start, end, steps, base) if arm.curriculum else constant(0.0, steps)
