"""What a run says about itself: its manifests, the machine it was made on, its parameters, comparable hashes.

Nothing here judges.  Called by ``reference`` (which records these facts), ``verify`` and ``compare_runs``.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, Iterable, Mapping

from zerosearch import artifacts, files
from zerosearch.errors import BadInput, ConfigError, did_you_mean

Manifest = dict[str, Any]
MACHINE_FACTS = ("versions", "python", "platform", "cpu", "device")  # what can change the last bit of a number
MACHINE_COLUMNS = ("wall_seconds", "seconds", "peak_rss_mib", "usd")  # and every column seconds_...
_MAY_HOLD: files.Kinds = {
    "versions": dict, "python": str, "platform": str, "cpu": str, "device": str, "commit": (str, type(None)),
    "dirty": bool, "layout": dict, "wall_seconds": (int, float), "peak_rss_mib": (int, float),
}
_NAMES_OF_A_RUN = ("run", "arm", "seed")
_KERNEL_RELEASE = re.compile(r"^(\w+)-\d\S*?-(?=x86_64|aarch64|arm64|amd64)", re.IGNORECASE)


def is_machine_column(name: str) -> bool:
    """Say whether a column tells about the machine (time, memory, money) and not about the method."""
    return name in MACHINE_COLUMNS or name.startswith("seconds_")


def run_names() -> list[str]:
    """Return the names of all runs below outputs/ that hold at least one stage."""
    folders = (path for path in sorted(artifacts.outputs_dir().glob("*")) if path.name not in ("latest", "reference"))
    return [path.name for path in folders if any((path / stage).is_dir() for stage in artifacts.STAGES.values())]


def run_folder(run: str) -> Path:
    """Return the folder of an existing run; ConfigError with the nearest name for one that is not there."""
    known = run_names()
    if run not in known:
        artifacts.run_dir(run)  # says so when it cannot be the name of a run at all
        raise ConfigError(
            f"run: expected one of {', '.join(known) or '(none yet)'}, found {run!r}{did_you_mean(run, known)}; "
            f"make it with `./run_all.sh --run {run} --profile NAME`"
        )
    return artifacts.run_dir(run)


def manifests(run: str) -> dict[str, Manifest]:
    """Return the manifests of all finished stages by folder, e.g. ``03_rl/zerosearch/seed0``, in stage order."""
    root = artifacts.run_dir(run)
    paths = [path for stage in artifacts.STAGES.values() for path in sorted((root / stage).rglob(artifacts.MANIFEST))]
    return {path.parent.relative_to(root).as_posix(): _manifest(run, path) for path in paths}


def _manifest(run: str, path: Path) -> Manifest:
    """Return one manifest; BadInput with the command that makes a new one when it is damaged or too old."""
    stage = path.relative_to(artifacts.run_dir(run)).parts[0][:2]
    fix = artifacts.rerun_command(run, stage)
    found: Manifest = files.read_object(path, artifacts.MANIFEST_KEYS, fix, _MAY_HOLD)
    for name in ("inputs", "outputs"):
        if not all(isinstance(digest, str) for digest in found[name].values()):
            raise BadInput(f"{path}: expected hashes as texts under {name}, found others; {fix}")
    return found


def require_finished(run: str) -> dict[str, Manifest]:
    """Return the manifests of a finished run; ConfigError or MissingInput names what is not there.

    A run is finished when stages 00 to 05 are, and every training that was begun.
    """
    root = run_folder(run)
    for stage in artifacts.STAGES:
        if stage not in artifacts.PER_ARM:
            artifacts.require(run, stage, artifacts.MANIFEST)
    for folder in sorted((root / artifacts.STAGES["03"]).glob("*/seed*")):
        if not (number := folder.name.removeprefix("seed")).isdecimal():
            continue  # not made by a training
        seed = int(number)
        artifacts.require(run, "03", artifacts.MANIFEST, folder.parent.name, seed)
    return manifests(run)


def machine(made: Mapping[str, Manifest]) -> dict[str, Any]:
    """Return MACHINE_FACTS of a run, from its last stage; a fact that was not recorded is left out.

    device: the GPU, if any stage used one (a stage without torch says ``cpu``).
    """
    last = list(made.values())[-1]
    known = {name: last[name] for name in MACHINE_FACTS if last.get(name)}
    gpus = [m["device"] for m in made.values() if m.get("device", "cpu") != "cpu"]
    return {**known, "device": gpus[0]} if gpus else known


def machines(made: Mapping[str, Manifest]) -> int:
    """Return on how many machines or installations the stages of a run were made."""
    found = {str([_plain(name, m.get(name)) for name in MACHINE_FACTS if name != "device"]) for m in made.values()}
    return len(found)


def machine_differences(a: Mapping[str, Any], b: Mapping[str, Any]) -> list[str]:
    """Return one sentence for every fact in which two machines differ or that one of them does not record."""
    found = []
    for name in MACHINE_FACTS:
        if not a.get(name) or not b.get(name):
            found.append(f"{name} is not recorded {'there' if b.get(name) else 'here' if a.get(name) else 'at all'}")
        elif name == "versions":
            found += differing(a[name], b[name])
        elif _plain(name, a[name]) != _plain(name, b[name]):
            found.append(f"{name} {a[name]} / {b[name]}")
    return found


def _plain(name: str, value: Any) -> Any:
    """Return a fact as it is compared: the release of the kernel changes no number."""
    return _KERNEL_RELEASE.sub(r"\1-", value) if name == "platform" and value else value


def differing(a: Mapping[str, Any], b: Mapping[str, Any], prefix: str = "") -> list[str]:
    """Return ``name value / value`` for every key in which two mappings differ."""
    names = [name for name in dict.fromkeys([*a, *b]) if a.get(name) != b.get(name)]
    return [f"{prefix}{name} {_shown(a, name)} / {_shown(b, name)}" for name in names]


def _shown(values: Mapping[str, Any], name: str) -> str:
    return str(values[name]) if name in values else "(none)"


def parameters(made: Mapping[str, Manifest]) -> dict[str, dict[str, Any]]:
    """Return the parameters of every stage by its number, without those that name a run, an arm or its seed.

    With what its layout says beyond the default.  The trainings share theirs: the arms and seeds of a run stand among
    the parameters of stage 04.
    """
    found: dict[str, dict[str, Any]] = {}
    for folder, manifest in made.items():
        left_out = _NAMES_OF_A_RUN if folder[:2] in artifacts.PER_ARM else ("run",)
        own = {name: value for name, value in manifest["parameters"].items() if name not in left_out}
        laid_out = {f"layout.{name}": value for name, value in manifest.get("layout", {}).items()}
        found.setdefault(folder[:2], own | laid_out)
    return found


def shipped_models(made: Mapping[str, Manifest]) -> dict[str, str]:
    """Return SHA-256 of the weights of each shipped model that a run used, as its stages recorded them."""
    return {name: digest for manifest in made.values() for name, digest in manifest.get("models", {}).items()}


def hashes(made: Mapping[str, Manifest]) -> dict[str, str]:
    """Return SHA-256 by name: files that the seed alone decides, shipped base models, trained weights.

    The first come from the manifests; a base model is hashed as it lies in ``data/micro_lm`` now.
    """
    found = {}
    for folder, manifest in made.items():
        for name, digest in manifest["outputs"].items():
            if (folder[:2] == "00" and name.endswith(".jsonl")) or is_trained(f"{folder}/{name}"):
                found[f"{folder}/{name}"] = digest
    return {**found, **_base_models(value for m in made.values() for value in m["parameters"].values())}


def is_trained(name: str) -> bool:
    """Say whether a hash is that of weights trained in the run: they agree on one machine only."""
    return name.startswith(("02_", "03_")) and name.endswith(".safetensors")


def _base_models(values: Iterable[Any]) -> dict[str, str]:
    from zerosearch.microworld.models import resolve  # brings torch: only when hashes are asked for

    names = sorted({value for value in values if isinstance(value, str) and value.startswith("micro/")})
    folders = {name: Path(resolve(name)) for name in names}
    return {name: files.sha256(folder) for name, folder in folders.items() if folder.is_dir()}
