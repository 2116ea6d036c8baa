"""The parameters of the six notebooks: names, types, limits, smoke defaults, one line of help each.

A test holds these classes, ``profiles/smoke.yaml`` and the notebooks' parameter cells together.
The first four parameters are common to all stages and come from the command line.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import Field

Count = Annotated[int, Field(ge=1)]
CountOrNone = Annotated[int, Field(ge=0)]
Seed = Annotated[int, Field(ge=0)]
Share = Annotated[float, Field(ge=0.0, le=1.0, allow_inf_nan=False)]
Positive = Annotated[float, Field(gt=0.0, allow_inf_nan=False)]
Number = Annotated[float, Field(allow_inf_nan=False)]
NotNegative = Annotated[float, Field(ge=0.0, allow_inf_nan=False)]
Name = Annotated[str, Field(min_length=1)]
EngineKind = Literal["transformers", "vllm"]
Loss = Literal["plain", "fused"]  # how trainers compute theirs, see ``training.losses``
AlgorithmName = Literal["grpo", "reinforce", "reinforce-loo", "ppo"]  # of policy RL, see ``training.algorithms``
KlIn = Literal["", "loss", "reward"]  # where its KL stands
LOSS_VARIABLE = "ZEROSEARCH_LOSS"  # tells a notebook which of them its profile says
Packing = Literal["padded", "packed", "auto"]  # how a policy's trajectories share a pass, see ``training.packing``
PACKING_VARIABLE = "ZEROSEARCH_PACKING"
RetrieverName = Literal["bm25", "bm25_plain", "serpapi", "wikipedia", "dense"]
METHODS = (  # ways to use the untrained policy
    "direct", "cot", "rag", "search", "forced", "ra-agent", "search-o1", "own-search",
)
# Searches under which the policies are tried besides the clean ones of the headline.
CONDITIONS = ("homonyms", "corrupt-0.25", "corrupt-0.5", "corrupt-0.75", "random", "empty", "later")
MIX = r"^([^\s,:]+(:\d+(\.\d+)?)?(, ?[^\s,:]+(:\d+(\.\d+)?)?)*)?$"  # sets, with shares or without
SERVED_MODELS = ("judge_model",)  # parameters that name a model on somebody's server: nothing to find on the disk
_METHOD = f"({'|'.join(METHODS)})"
_CONDITION = f"({'|'.join(CONDITIONS)})".replace(".", r"\.")


@dataclass(frozen=True)
class Common:
    """What every notebook takes first."""

    run: Name = "notebook"  # name of the run: files go to outputs/<run>
    profile: Name = "smoke"  # which profile set these values
    seed: Seed = 0  # seed of the run
    threads: Count = 1  # CPU threads of this notebook


@dataclass(frozen=True)
class Stage00(Common):
    """The micro-world, or the reader's own questions and passages."""

    world_seed: Seed = 7  # which world
    n_eval_questions: Count = 40  # questions per family that are only evaluated
    n_train_questions: Count = 400  # questions per training family
    rebuild_models: bool = False  # pretrain the base models again
    questions_dir: str = ""  # folder with question files, empty for the micro-world
    corpus_file: str = ""  # passages file, empty for the micro-world
    questions_source: Literal["", "flashrag", "zerosearch", "search-r1"] = ""  # collection of the hub
    questions_format: str = ""  # format of the question files, empty to tell it from their keys
    train_fraction: Share = 0.2  # share of nq and hotpotqa that trains when no file does
    eval_per_set: CountOrNone = 0  # evaluated questions per real set, 0 for all
    train_mix: Annotated[str, Field(pattern=MIX)] = ""  # real sets that train, such as nq:1,hotpotqa:1
    train_size: CountOrNone = 0  # real training questions, 0 for all
    drop_overlap: bool = False  # leave out training questions that are evaluated, in place of an error


@dataclass(frozen=True)
class Stage01(Common):
    """Collecting trajectories with the real engine."""

    n_questions: Count = 300  # training questions asked
    samples_per_question: Count = 2  # trajectories per question
    force_search_share: Share = 0.5  # share of trajectories whose first turn is made to search
    temperature: NotNegative = 1.0  # sampling temperature of the policy
    passages_per_query: Count = 5  # passages an engine returns
    max_searches: Count = 5  # searches per trajectory
    max_turn_tokens: Count = 48  # tokens per policy message
    max_observation_tokens: Count = 160  # tokens of retrieved text per turn
    batch_size: Count = 256  # trajectories generated at a time
    policy_model: Name = "micro/llama-base"  # base policy
    retriever: RetrieverName = "bm25"  # the real engine
    retriever_url: str = ""  # where it is: a server's address, for dense the encoder
    retriever_corpus: str = ""  # name of what a server searches, empty for its address
    retriever_mode: Literal["live", "replay"] = "live"  # replay asks nobody
    retriever_per_second: NotNegative = 0.0  # requests to a remote engine, 0 for no limit
    retriever_workers: Count = 4  # requests to a remote engine under way at once
    max_failed_searches: Share = 0.1  # share of searches that may fail
    max_usd: NotNegative = 0.0  # most that paid searches and a paid judge may cost, 0 for no limit
    judge_url: str = ""  # server of a model that labels passages, empty for the rule
    judge_model: str = ""  # the model's name on that server
    judge_key_variable: Name = "JUDGE_API_KEY"  # environment variable with its key
    judge_prompt_usd: Number = -1.0  # USD per million tokens it reads, below 0 for the price book
    judge_generated_usd: Number = -1.0  # USD per million tokens it writes, below 0 for the price book
    judge_per_second: NotNegative = 0.0  # requests to it, 0 for no limit
    judge_workers: Count = 4  # requests to it under way at once
    engine: EngineKind = "transformers"  # what generates text: transformers or vllm


@dataclass(frozen=True)
class Stage02(Common):
    """Fine-tuning the simulator."""

    simulator_model: Name = "micro/simulator-medium"  # base of the simulator
    label_kind: Literal["judge", "trajectory"] = "judge"  # which label says useful or misleading
    balance: bool = False  # as many useful as misleading examples, drawn from the more frequent kind
    steps: Count = 120  # optimiser updates
    batch_size: Count = 32  # pairs per update
    learning_rate: Positive = 1.5e-3  # peak
    golden_weight: NotNegative = 4.0  # loss weight of golden-answer tokens
    rename_share: Share = 0.8  # share of samples whose entities are renamed
    n_quality_requests: Count = 100  # queries of the quality report
    max_length: Count = 256  # tokens per training text
    engine: EngineKind = "transformers"  # what generates passages for the quality report: transformers or vllm


@dataclass(frozen=True)
class Stage03(Common):
    """Training the policy, one run per arm and seed."""

    arm: Name = "zerosearch"  # what answers the searches, see training/arms.py
    policy_model: Name = "micro/llama-base"  # base policy, also the reference of the KL
    simulator_model: Name = "micro/simulator-medium"  # what the arm "untuned" searches
    simulator_url: str = ""  # server that simulates searches instead (several: with commas), empty for none
    simulator_name: str = ""  # the model's name on that server
    simulator_protocol: Literal["chat", "completions"] = "chat"  # how it is asked
    simulator_key_variable: Name = "SIMULATOR_API_KEY"  # environment variable with its key
    simulator_workers: Count = 16  # requests under way at once
    simulator_replicas: CountOrNone = 0  # vLLM servers started for the simulator, 0 for a model in this process
    algorithm: AlgorithmName = "grpo"  # how rewards teach: grpo, reinforce, reinforce-loo or ppo
    steps: Count = 12  # optimiser updates
    questions_per_step: Count = 32  # questions per update
    group_size: Count = 8  # trajectories per question
    learning_rate: Positive = 5.0e-4  # constant
    critic_learning_rate: Positive = 1.0e-3  # of the critic, for ppo alone
    kl_weight: NotNegative = 1.0e-3  # weight of the KL to the base
    kl_in: KlIn = ""  # loss or reward, empty for what suits the algorithm
    clip: Positive = 0.2  # of the probability ratio
    temperature: Positive = 1.0  # sampling temperature
    noise_start: Share = 0.0  # noise probability at the first step
    noise_end: Share = 0.5  # noise probability at the last step
    noise_base: Annotated[float, Field(gt=1.0, allow_inf_nan=False)] = 4.0  # how late it rises
    passages_per_query: Count = 5  # passages per search
    max_searches: Count = 5  # searches per trajectory
    max_turn_tokens: Count = 48  # tokens per policy message
    max_observation_tokens: Count = 160  # tokens of retrieved text per turn
    save_every: Count = 15  # steps between checkpoints
    share_passages_in_group: bool = False  # identical simulator requests of a group are sent once
    correction: Literal["none", "token", "sequence"] = "none"  # of differences between sampler and trainer
    watch: Literal["stop", "warn", "off"] = "stop"  # what a collapse of the training does
    rollout_engine: EngineKind = "transformers"  # what writes the trajectories; vllm needs a GPU here


@dataclass(frozen=True)
class Stage04(Common):
    """Evaluating policies and baselines with the real engine."""

    arms: Name = "zerosearch"  # trained arms, separated by commas
    seeds: Name = "0"  # their seeds, separated by commas
    methods: Annotated[str, Field(pattern=f"^{_METHOD}(, ?{_METHOD})*$")] = (
        "direct,cot,rag,search,forced"  # untrained methods, separated by commas
    )
    conditions: Annotated[str, Field(pattern=f"^({_CONDITION}(, ?{_CONDITION})*)?$")] = (
        "homonyms,corrupt-0.5,later"  # other searches than clean ones, separated by commas, or none
    )
    questions_per_set: CountOrNone = 0  # questions per set, 0 for all
    questions_per_condition: CountOrNone = 6  # the same for each of the conditions
    passages_per_query: Count = 5  # passages per search
    max_searches: Count = 5  # searches per trajectory
    max_turn_tokens: Count = 48  # tokens per policy message
    max_observation_tokens: Count = 160  # tokens of retrieved text per turn
    temperature: NotNegative = 0.0  # 0 is greedy
    batch_size: Count = 256  # trajectories generated at a time
    policy_model: Name = "micro/llama-base"  # the untrained policy
    n_bootstrap: Count = 1000  # resamples of each interval
    samples_per_question: CountOrNone = 0  # answers to sample beside the scored one, for pass@k, or none
    sampling_temperature: Positive = 1.0  # of these samples
    judge_url: str = ""  # OpenAI-compatible endpoint of a second judge, up to /v1, empty for none
    judge_model: str = ""  # the model it is asked for; its key comes from JUDGE_API_KEY
    retriever: RetrieverName = "bm25"  # the real engine
    retriever_url: str = ""  # where it is: a server's address, for dense the encoder
    retriever_corpus: str = ""  # name of what a server searches, empty for its address
    retriever_mode: Literal["live", "replay"] = "live"  # replay asks nobody
    retriever_per_second: NotNegative = 0.0  # requests to a remote engine, 0 for no limit
    retriever_workers: Count = 4  # requests to a remote engine under way at once
    max_failed_searches: Share = 0.1  # share of searches that may fail
    engine: EngineKind = "transformers"  # what generates text: transformers or vllm


@dataclass(frozen=True)
class Stage05(Common):
    """Pricing the run."""

    arms: Name = "zerosearch"  # trained arms, separated by commas
    seeds: Name = "0"  # their seeds, separated by commas
    price_book: Name = "data/prices.yaml"  # dated prices


STAGE_CLASSES: dict[str, type[Common]] = {
    "00": Stage00,
    "01": Stage01,
    "02": Stage02,
    "03": Stage03,
    "04": Stage04,
    "05": Stage05,
}
