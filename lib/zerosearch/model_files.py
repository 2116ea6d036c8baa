"""Is a folder a whole model?  Answered from its files alone, in moments and without torch.

Every complaint names the damaged file and what mends it.  Called by the check before a run, and by
``microworld.models.load`` so that a notebook says the same.
"""

from __future__ import annotations

import os
from pathlib import Path

from zerosearch import artifacts, files
from zerosearch.errors import WorkbookError, did_you_mean

TOKENIZER_FOLDER = "tokenizer"
WEIGHTS, INDEX = "model.safetensors", "model.safetensors.index.json"
OTHER_WEIGHTS = ("pytorch_model.bin", "pytorch_model.bin.index.json")  # pickles, which nothing can check quickly
_TOKENIZERS = (("tokenizer.json",), ("tokenizer.model",), ("vocab.json", "merges.txt"), ("vocab.txt",))
_SHIPPED = "restore it with `git checkout data/micro_lm`"


def shipped() -> list[str]:
    """Return the names of the models that lie in ``data/micro_lm``, as ``micro/NAME``."""
    return [f"micro/{path.name}" for path in sorted(artifacts.MICRO_LM.glob("*")) if path.is_dir()]


def is_path(name: str) -> bool:
    """Say whether a model's name means a folder on this machine and not one of the hub."""
    return name.startswith(("/", "./", "../", "~")) or Path(name).is_dir() or name.count("/") > 1


def name_problems(name: str, offline: bool) -> list[str]:
    """Return what is wrong with the model of this name: ``micro/NAME``, a folder, or a name of the hub.

    offline: nothing may be downloaded, so that a model of the hub must be in the local cache.
    """
    if name.startswith("micro/"):
        folder = artifacts.MICRO_LM / name.removeprefix("micro/")
        if not folder.is_dir():
            known = shipped()
            return [f"model {name!r}: expected one of {', '.join(known) or '(none)'} in {artifacts.MICRO_LM}, found no "
                    f"such folder{did_you_mean(name, known)}; choose one of these, or {_SHIPPED}"]
        return folder_problems(folder, _SHIPPED)
    if is_path(name):
        folder = Path(name).expanduser()
        if not folder.is_dir():
            return [f"model {name!r}: expected a model folder at {folder}, found none; give the folder that holds "
                    "config.json"]
        return folder_problems(folder)
    return _hub_problems(name, offline)


def folder_problems(folder: Path, fix: str = "copy it again from where the model came from") -> list[str]:
    """Return what is damaged or missing in a model folder, each with its file and ``fix``."""
    problems = _json_problems(folder / "config.json", {"model_type": str}, fix)
    return problems + _tokenizer_problems(folder, fix) + _weight_problems(folder, fix)


def _damaged_files(folder: Path, fix: str) -> list[str]:
    """Return what is damaged in a folder that need not be complete: the rest of it is downloaded when wanted."""
    weights = [p for path in sorted(folder.glob("*.safetensors")) for p in _safetensors_problems(path, fix)]
    documents = [p for path in sorted(folder.glob("*.json")) for p in _json_problems(path, {}, fix)]
    return documents + weights


def _json_problems(path: Path, keys: dict[str, type], fix: str) -> list[str]:
    if not path.is_file():
        return [f"{path}: expected this file of the model, found none; {fix}"]
    try:
        files.read_object(path, keys, fix)
    except WorkbookError as error:
        return [str(error)]
    return []


def _tokenizer_problems(folder: Path, fix: str) -> list[str]:
    own = folder / TOKENIZER_FOLDER
    place = own if own.is_dir() else folder
    if not any(all((place / name).is_file() for name in names) for names in _TOKENIZERS):
        return [f"{place / 'tokenizer.json'}: expected the files of a tokenizer, found none; {fix}"]
    present = [name for name in ("tokenizer.json", "tokenizer_config.json") if (place / name).is_file()]
    keys: dict[str, dict[str, type]] = {"tokenizer.json": {"model": dict}}
    return [problem for name in present for problem in _json_problems(place / name, keys.get(name, {}), fix)]


def _weight_problems(folder: Path, fix: str) -> list[str]:
    """Return the weights that are missing or cut short: one file, or all shards that the index names."""
    if (folder / INDEX).is_file():
        problems = _json_problems(folder / INDEX, {"weight_map": dict}, fix)
        if problems:
            return problems
        named = files.read_json(folder / INDEX)["weight_map"].values()
        shards = sorted({str(name) for name in named})
        return [problem for name in shards for problem in _safetensors_problems(folder / name, fix)] or (
            [] if shards else [f"{folder / INDEX}: expected the names of weight files, found none; {fix}"]
        )
    if (folder / WEIGHTS).exists() or not any((folder / name).is_file() for name in OTHER_WEIGHTS):
        return _safetensors_problems(folder / WEIGHTS, fix)
    return []


def _safetensors_problems(path: Path, fix: str) -> list[str]:
    """Return the complaint about a file whose header does not parse or whose data are not as long as it says."""
    from safetensors import SafetensorError, safe_open

    if not path.is_file():
        return [f"{path}: expected the weights of the model, found no such file; {fix}"]
    try:
        with safe_open(path, framework="numpy") as weights:
            n_tensors = len(list(weights.keys()))
    except (SafetensorError, OSError, ValueError) as error:
        found = f"{path.stat().st_size:,} bytes, {error}"
        return [f"{path}: expected a whole safetensors file, found {found}; {fix}"]
    return [] if n_tensors else [f"{path}: expected the weights of the model, found an empty list; {fix}"]


def _hub_problems(name: str, offline: bool) -> list[str]:
    """Return the complaint about a model of the hub that may not be downloaded and is not in the cache."""
    from huggingface_hub import try_to_load_from_cache
    from huggingface_hub.errors import HFValidationError

    download = f"download it once on a machine with network: `hf download {name}`"
    try:
        found = try_to_load_from_cache(name, "config.json")
    except HFValidationError:
        return [f"model {name!r}: expected micro/NAME, a folder or a name on the hub such as Qwen/Qwen2.5-3B, found "
                f"another text{did_you_mean(name, shipped())}; choose one of {', '.join(shipped())}"]
    may_download = not offline and not os.environ.get("HF_HUB_OFFLINE")
    if isinstance(found, str):
        again = f"delete {Path(found).parents[2]} and {download}"
        return _damaged_files(Path(found).parent, again) or (
            [] if may_download else folder_problems(Path(found).parent, download)
        )
    if may_download:
        return []
    return [f"model {name!r}: expected it in the local cache, since nothing may be downloaded, found none"
            f"{did_you_mean(name, shipped())}; choose one of {', '.join(shipped())}, or {download}"]
