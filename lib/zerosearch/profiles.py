"""Profile plus overrides -> one validated settings object; unknown or mistyped keys are refused.

A profile is a YAML file in ``profiles/``: which arms and seeds, what the machine must have, and the
parameters of every stage.  Nothing else in the library reads these files.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, Mapping, Sequence, get_type_hints

import yaml
from pydantic import TypeAdapter, ValidationError

from zerosearch import artifacts
from zerosearch.errors import ConfigError, MissingInput, unknown_name
from zerosearch.stage_parameters import (
    STAGE_CLASSES,
    Common,
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
    """What a machine must have: memory and free disk in GiB, GPUs; minutes: how long it takes there."""

    memory_gib: float
    disk_gib: float
    gpus: int
    minutes: float


@dataclass(frozen=True)
class Profile:
    """One file of ``profiles/``.  expected_seconds: per stage, on the machine the profile names.

    stall_minutes: how long a stage may say nothing before it is called stalled.  cores: jobs at a time.  threads: CPU threads per notebook.  offline: nothing is downloaded.
    """

    name: str
    description: str
    arms: list[str]
    seeds: list[int]
    cores: int
    threads: int
    offline: bool
    needs: Needs
    stall_minutes: Positive
    expected_seconds: dict[str, float]
    stages: dict[str, dict[str, Any]]


@dataclass(frozen=True)
class Settings:
    """Everything a run needs to know, validated.  stages: the values of each stage's own parameters."""

    profile: str
    arms: tuple[str, ...]
    seeds: tuple[int, ...]
    source: Profile
    run: str = "notebook"
    stages: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)

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
    known = ("smoke", "laptop", "single_gpu", "a100_node")
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
) -> Settings:
    """Return the settings of a profile with some values replaced.

    overrides: ``{"03.learning_rate": "1.0e-3"}``, texts as typed by a user (or values of the right
    type).  arms, seeds: in place of the profile's.  Raises ConfigError, with the nearest name, for
    anything unknown, and for values of a wrong type or out of range.
    """
    source = read_profile(profile)
    stages = {stage: dict(values) for stage, values in source.stages.items()}
    for key, value in (overrides or {}).items():
        stage, name = _split_key(key)
        stages[stage][name] = _checked(
            stage, name, value, f"--set {key}={value}", as_text=isinstance(value, str)
        )
    if questions_dir or corpus_file:
        stages["00"] |= {"questions_dir": questions_dir, "corpus_file": corpus_file}
    chosen_seeds = source.seeds if seeds is None else seeds
    return Settings(profile, tuple(arms or source.arms), tuple(chosen_seeds), source, run, stages)


def read_profile(name: str) -> Profile:
    """Return one profile; every key and value of its file is checked."""
    if name not in names():
        raise unknown_name("profile", name, names())
    path = FOLDER / f"{name}.yaml"
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except yaml.YAMLError as error:
        raise ConfigError(f"{path}: expected YAML, found {error}") from error
    if not isinstance(content, dict):
        raise ConfigError(
            f"{path}: expected keys such as `arms:` and `stages:`, found {type(content).__name__}"
        )
    wanted = [f.name for f in fields(Profile)]
    for key in content:
        if key not in wanted:
            raise _at(path, unknown_name("key", str(key), wanted))
    for stage in artifacts.STAGES:
        if not isinstance((content.get("stages") or {}).get(stage), dict):
            raise MissingInput(
                f"{path}: expected parameters of stage {stage} under `stages:`, found none; add them"
            )
    try:
        profile = TypeAdapter(Profile).validate_python({**content, "name": name})
    except ValidationError as error:
        problem = error.errors()[0]
        raise ConfigError(f"{path}: {'.'.join(map(str, problem['loc']))}: {problem['msg']}") from error
    return _with_checked_stages(profile, path)


def defaults(stage: str) -> dict[str, Any]:
    """Return the smoke defaults of a stage: what its parameters cell must say."""
    return asdict(STAGE_CLASSES[stage]())


def settable(stage: str) -> tuple[str, ...]:
    """Return the parameters of a stage that a profile or ``--set`` may change."""
    fixed = {*_OPTIONS, *(("seed",) if stage in artifacts.PER_ARM else ())}
    return tuple(name for name in _hints(stage) if name not in fixed)


def _with_checked_stages(profile: Profile, path: Path) -> Profile:
    for stage, values in profile.stages.items():
        if stage not in artifacts.STAGES:
            raise _at(path, unknown_name("stage", stage, tuple(artifacts.STAGES)))
        for name, value in values.items():
            if name not in settable(stage):
                raise _at(path, unknown_name(f"parameter of stage {stage}", name, settable(stage)))
            values[name] = _checked(stage, name, value, f"{path}: {stage}.{name}", as_text=False)
        missing = [
            f.name for f in fields(STAGE_CLASSES[stage]) if f.name in settable(stage) and f.name not in values
        ]
        missing = [name for name in missing if name not in {f.name for f in fields(Common)}]
        if missing:
            raise ConfigError(
                f"{path}: expected every parameter of stage {stage}, found none for {', '.join(missing)}"
            )
    return profile


def _split_key(key: str) -> tuple[str, str]:
    """Return (stage, name) of ``03.learning_rate``; ConfigError for anything else."""
    stage, dot, name = key.partition(".")
    if not dot:
        raise ConfigError(f"--set: expected STAGE.NAME=VALUE such as 03.learning_rate=1.0e-3, found {key!r}")
    if stage not in STAGE_CLASSES:
        raise unknown_name("--set: stage", stage, tuple(STAGE_CLASSES))
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
        wanted = type(getattr(STAGE_CLASSES[stage], name)).__name__
        is_yaml_text = wanted == "float" and isinstance(value, str) and not as_text
        hint = "; in YAML write 1.0e-6, since 1e-6 is a text there" if is_yaml_text else ""
        message = problem["msg"][0].lower() + problem["msg"][1:]
        raise ConfigError(f"{where}: expected {wanted}: {message}; found {value!r}{hint}") from None


def _hints(stage: str) -> dict[str, Any]:
    return get_type_hints(STAGE_CLASSES[stage], include_extras=True)


def _at(path: Path, error: ConfigError) -> ConfigError:
    return ConfigError(f"{path}: {error}")
