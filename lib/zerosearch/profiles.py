"""Profile plus overrides -> one validated settings object; unknown or mistyped keys are refused.

A profile is a YAML file in ``profiles/``: which arms and seeds, what the machine must have, and the
parameters of every stage.  Nothing else in the library reads these files.
"""

from __future__ import annotations

from dataclasses import MISSING, asdict, dataclass, field, fields, replace
from functools import lru_cache
from pathlib import Path
from typing import Any, Mapping, Sequence, get_args, get_type_hints

import yaml
from pydantic import TypeAdapter, ValidationError

from zerosearch import artifacts
from zerosearch.errors import ConfigError, did_you_mean, unknown_name
from zerosearch.layouts import Layout
from zerosearch.stage_parameters import (
    STAGE_CLASSES,
    Common,
    Loss,
    Packing,
    Positive,
    Stage00,
    Stage01,
    Stage02,
    Stage03,
    Stage04,
    Stage05,
)

__all__ = [
    "Needs",
    "Profile",
    "Settings",
    "Stage00",
    "Stage01",
    "Stage02",
    "Stage03",
    "Stage04",
    "Stage05",
    "defaults",
    "load",
    "names",
]

FOLDER = artifacts.REPO / "profiles"
LAYOUT = "layout"  # block of a profile, and what stands in the place of a stage in --set
# Parameters that options of the command line set: they stand in no profile and take no --set.
_OPTIONS = {
    "run": "--run",
    "profile": "--profile",
    "arm": "--arms",
    "arms": "--arms",
    "seeds": "--seeds",
    "questions_dir": "--questions",
    "corpus_file": "--corpus",
}


@dataclass(frozen=True)
class Needs:
    """What a machine must have: memory and free disk in GiB, GPUs; minutes: how long it takes there.

    gpu: the card that the numbers of the profile are made for, a name of ``data/gpus.yaml``.
    """

    memory_gib: float
    disk_gib: float
    gpus: int
    minutes: float
    gpu: str = ""


@dataclass(frozen=True)
class Profile:
    """One file of ``profiles/``.  expected_seconds: per stage, on the machine the profile names.

    cores: jobs at a time.  threads: CPU threads per notebook.  offline: nothing is downloaded.  loss: how the
    trainers compute theirs, see ``training.losses``.  packing: how trajectories share a pass, see ``training.packing``.
    stall_minutes: how long a stage may say nothing before it is called stalled.  grace_seconds: that
    notebooks have for saving when the run is asked to stop.  layout: how models lie on GPUs, see ``layouts``.
    """

    name: str
    description: str
    arms: list[str]
    seeds: list[int]
    cores: int
    threads: int
    offline: bool
    loss: Loss
    packing: Packing
    needs: Needs
    stall_minutes: Positive
    grace_seconds: Positive
    expected_seconds: dict[str, float]
    stages: dict[str, dict[str, Any]]
    layout: Layout = Layout()


@dataclass(frozen=True)
class Settings:
    """Everything a run needs to know, validated.  stages: the values of each stage's own parameters.

    layout: how models lie on GPUs, overrides included.
    """

    profile: str
    arms: tuple[str, ...]
    seeds: tuple[int, ...]
    source: Profile
    run: str = "notebook"
    stages: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    layout: Layout = Layout()

    def stage(self, stage: str, arm: str | None = None, seed: int | None = None) -> dict[str, Any]:
        """Return all parameters of a stage's notebook, in the order of its parameters cell.

        arm, seed: for stage 03 only; the first of the run where they are left out.
        """
        if stage not in STAGE_CLASSES:
            raise unknown_name("stage", stage, tuple(STAGE_CLASSES))
        given = {
            "run": self.run,
            "profile": self.profile,
            "threads": self.source.threads,
            **self.stages[stage],
        }
        names_here = _hints(stage)
        if stage in artifacts.PER_ARM:
            given |= {"arm": arm or self.arms[0], "seed": self.seeds[0] if seed is None else seed}
        if "arms" in names_here:
            given |= {"arms": ",".join(self.arms), "seeds": ",".join(map(str, self.seeds))}
        return asdict(STAGE_CLASSES[stage](**given))


def names() -> tuple[str, ...]:
    """Return the names of all profiles, the smallest machine first."""
    found = [path.stem for path in FOLDER.glob("*.yaml")]
    known = ("smoke", "laptop", "full_table", "single_gpu", "a100_node")
    return tuple(sorted(found, key=lambda name: (known.index(name) if name in known else len(known), name)))


def load(
    profile: str,
    overrides: Mapping[str, str] | None = None,
    *,
    run: str = "notebook",
    arms: Sequence[str] | None = None,
    seeds: Sequence[int] | None = None,
    questions_dir: str = "",
    corpus_file: str = "",
    questions_source: str = "",
) -> Settings:
    """Return the settings of a profile with some values replaced.

    overrides: ``{"03.learning_rate": "1.0e-3"}``, texts as typed by a user (or values of the right
    type).  arms, seeds: in place of the profile's, and so the folder of questions, or their collection on the hub,
    in place of the collection that the profile names.  Raises ConfigError, with the nearest name, for
    anything unknown, and for values of a wrong type or out of range.
    """
    source = read_profile(profile)
    stages = {stage: dict(values) for stage, values in source.stages.items()}
    layout: dict[str, Any] = {}
    problems: list[str] = []
    for key, value in (overrides or {}).items():
        try:
            stage, name = _split_key(key)
            where = f"--set {key}={value}"
            chosen = layout if stage == LAYOUT else stages[stage]
            chosen[name] = _checked(stage, name, value, where, as_text=isinstance(value, str))
        except ConfigError as error:
            problems.append(str(error))
    _raise_all(problems)
    if questions_dir or questions_source:
        stages["00"] |= {"questions_dir": questions_dir, "questions_source": questions_source}
    if corpus_file:
        stages["00"]["corpus_file"] = corpus_file
    chosen_seeds = source.seeds if seeds is None else seeds
    chosen_layout = replace(source.layout, **layout)
    return Settings(profile, tuple(arms or source.arms), tuple(chosen_seeds), source, run, stages, chosen_layout)


def read_profile(name: str) -> Profile:
    """Return one profile; every key and value of its file is checked."""
    if name not in names():
        raise unknown_name("profile", name, names())
    path = FOLDER / f"{name}.yaml"
    content = _content(path)
    checked = {**content, "name": name}
    stages = content.get("stages")
    problems = _key_problems(content) or _type_problems(checked)
    problems += _stage_problems(stages) if isinstance(stages, dict) else []
    if problems:
        count = "1 problem" if len(problems) == 1 else f"{len(problems)} problems"
        head = f"{path}: expected a profile like profiles/smoke.yaml, found {count}; edit the file"
        raise ConfigError("\n".join([head, *(f"  {problem}" for problem in problems)]))
    return TypeAdapter(Profile).validate_python(checked)


def defaults(stage: str) -> dict[str, Any]:
    """Return the smoke defaults of a stage: what its parameters cell must say."""
    return asdict(STAGE_CLASSES[stage]())


def settable(stage: str) -> tuple[str, ...]:
    """Return the parameters of a stage that a profile or ``--set`` may change."""
    fixed = {*_OPTIONS, *(("seed",) if stage in artifacts.PER_ARM else ())}
    return tuple(name for name in _hints(stage) if name not in fixed)


def _content(path: Path) -> dict[Any, Any]:
    """Return the YAML mapping of a profile; a key that stands twice is refused, of which YAML keeps the last."""
    try:
        content = yaml.load(path.read_text(encoding="utf-8"), _OnceEach)
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise ConfigError(f"{path}: expected YAML in UTF-8, found {error}; edit the file") from error
    except OSError as error:
        raise ConfigError(
            f"{path}: expected a profile that can be read, found: {error.strerror}; restore it with "
            f"`git checkout profiles` or run `chmod u+r {path}`"
        ) from error
    if not isinstance(content, dict):
        raise ConfigError(
            f"{path}: expected keys such as `arms:` and `stages:`, found {type(content).__name__}; edit the file, or "
            "restore it with `git checkout profiles`"
        )
    return content


class _OnceEach(yaml.SafeLoader):
    """YAML whose mappings hold every key once."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        """Return the mapping; a YAML error with its line for a key that stands in it twice."""
        seen: set[str] = set()
        for key, _ in node.value:
            if str(key.value) in seen:
                raise yaml.constructor.ConstructorError(None, None, f"the key {key.value!r} twice", key.start_mark)
            seen.add(str(key.value))
        return super().construct_mapping(node, deep)


def _key_problems(content: Mapping[Any, Any]) -> list[str]:
    """Return what is wrong with the keys of a profile: unknown ones with the nearest, absent ones."""
    wanted = [f.name for f in fields(Profile) if f.name != "name"]
    needed = [f.name for f in fields(Profile) if f.name != "name" and f.default is MISSING]
    problems = [str(unknown_name("key", str(key), wanted)) for key in content if key not in wanted]
    for block, kind in (("needs", Needs), (LAYOUT, Layout)):
        names = [f.name for f in fields(kind)]
        inner = content.get(block)
        keys = inner if isinstance(inner, dict) else ()
        problems += [str(unknown_name(f"{block}: key", str(key), names)) for key in keys if key not in names]
    return problems + [f"expected the key {key!r}, found none; add it" for key in needed if key not in content]


def _type_problems(content: Mapping[str, Any]) -> list[str]:
    """Return the values outside ``stages`` that have another type."""
    try:
        TypeAdapter(Profile).validate_python(content)
    except ValidationError as error:
        return [f"{'.'.join(map(str, problem['loc']))}: {problem['msg']}, found {problem['input']!r:.60}"
                for problem in error.errors()]
    return _value_problems(content)


def _value_problems(content: Mapping[str, Any]) -> list[str]:
    """Return the values of the right type that no run can use."""
    stages, seconds = tuple(artifacts.STAGES), content["expected_seconds"]
    problems = [str(unknown_name("expected_seconds: stage", stage, stages)) for stage in seconds if stage not in stages]
    problems += [f"expected_seconds: expected a number for stage {stage}, found none; add it"
                 for stage in stages if stage not in seconds]
    problems += [f"{name}: expected 1 or more, found {content[name]}" for name in ("cores", "threads")
                 if int(content[name]) < 1]
    for name in ("arms", "seeds"):
        if not content[name] or len(set(content[name])) < len(content[name]):
            problems.append(f"{name}: expected one or more, each once, found {content[name]}")
    problems += [f"seeds: expected 0 or more, found {seed}" for seed in content["seeds"] if int(seed) < 0]
    return problems


def _stage_problems(stages: dict[Any, Any]) -> list[str]:
    """Return what is wrong with the parameters of all stages; values are replaced by those of the right type."""
    problems = [str(unknown_name("stage", str(stage), tuple(artifacts.STAGES))) for stage in stages
                if stage not in artifacts.STAGES]
    for stage in artifacts.STAGES:
        values = stages.get(stage)
        if not isinstance(values, dict):
            problems.append(f"expected parameters of stage {stage} under `stages:`, found none; add them")
            continue
        for name, value in values.items():
            try:
                if name not in settable(stage):
                    raise unknown_name(f"parameter of stage {stage}", str(name), settable(stage))
                values[name] = _checked(stage, name, value, f"{stage}.{name}", as_text=False)
            except ConfigError as error:
                problems.append(str(error))
        common = {f.name for f in fields(Common)}
        missing = [name for name in settable(stage) if name not in values and name not in common]
        if missing:
            problems.append(f"expected every parameter of stage {stage}, found none for {', '.join(missing)}; add them")
    return problems


def _raise_all(problems: Sequence[str]) -> None:
    if problems:
        raise ConfigError("\n".join(problems))


def _split_key(key: str) -> tuple[str, str]:
    """Return (stage, name) of ``03.learning_rate``; ConfigError for anything else."""
    stage, dot, name = key.partition(".")
    if not dot:
        raise ConfigError(f"--set: expected STAGE.NAME=VALUE such as 03.learning_rate=1.0e-3, found {key!r}")
    if stage == LAYOUT:
        if name not in (names := tuple(f.name for f in fields(Layout))):
            raise unknown_name(f"--set: name of {LAYOUT}", name, names)
        return stage, name
    if stage not in STAGE_CLASSES:
        raise unknown_name("--set: stage", stage, (*STAGE_CLASSES, LAYOUT))
    if name not in settable(stage):
        if name in _OPTIONS or name == "seed":
            raise ConfigError(
                f"--set {key}: this value has its own option, use {_OPTIONS.get(name, '--seeds')}"
            )
        raise unknown_name(f"--set: parameter of stage {stage}", name, settable(stage))
    return stage, name


def _checked(stage: str, name: str, value: Any, where: str, *, as_text: bool) -> Any:
    """Return value as the parameter's type; texts are read, other values must have that type already."""
    adapter = TypeAdapter(_hints(stage)[name])
    try:
        return adapter.validate_strings(value) if as_text else adapter.validate_python(value, strict=True)
    except ValidationError as error:
        problem = error.errors()[0]
        if problem["type"] == "literal_error":
            raise ConfigError(_not_among(where, value, get_args(_hints(stage)[name]))) from None
        wanted = type(getattr(_holder(stage)(), name)).__name__
        is_yaml_text = wanted == "float" and isinstance(value, str) and not as_text
        hint = "; in YAML write 1.0e-6, since 1e-6 is a text there" if is_yaml_text else ""
        message = problem["msg"][0].lower() + problem["msg"][1:]
        raise ConfigError(f"{where}: expected {wanted}: {message}; found {value!r:.60}{hint}") from None


def _not_among(where: str, value: Any, choices: Sequence[str]) -> str:
    """Return the complaint about a value that is none of a parameter's choices, of which "" is one to leave out."""
    named = [choice for choice in choices if choice]
    empty = " (or nothing)" if "" in choices else ""
    near = did_you_mean(str(value), named)
    return f"{where}: expected one of {', '.join(named)}{empty}; found {value!r:.60}{near}"


@lru_cache(maxsize=None)
def _hints(stage: str) -> Mapping[str, Any]:
    return get_type_hints(_holder(stage), include_extras=True)


def _holder(stage: str) -> type[Any]:
    """Return the class whose fields are the names of a stage, or of the layout."""
    return Layout if stage == LAYOUT else STAGE_CLASSES[stage]
