"""Loading any causal LM by name, and building the two tiny bases that the project ships.

``micro/policy`` and ``micro/simulator`` stand in ``data/micro_lm`` as safetensors with a manifest
(recipe digest, seed, tokens, seconds, abilities); every other name is a folder or a hub id.
"""

from __future__ import annotations

import json
import shutil
import time
from pathlib import Path
from typing import Callable

import torch
from safetensors import SafetensorError
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase
from transformers.utils import logging as transformers_logging

from zerosearch import artifacts
from zerosearch.errors import BadInput, MissingInput
from zerosearch.microworld.pretrain import POLICY_RECIPE, SIMULATOR_RECIPE, Recipe, pretrain
from zerosearch.microworld.tokenizer import build_tokenizer

TOKENIZER_FOLDER = "tokenizer"
MICRO_FOLDER = artifacts.REPO / "data" / "micro_lm"
RECIPES: dict[str, Recipe] = {"policy": POLICY_RECIPE, "simulator": SIMULATOR_RECIPE}
REBUILD_COMMAND = "./run_all.sh --run rebuild --only 00 --set 00.rebuild_models=true"


def resolve(name: str) -> str:
    """Return the folder of a ``micro/...`` model, or the name itself (folder or hub id)."""
    return str(MICRO_FOLDER / name.removeprefix("micro/")) if name.startswith("micro/") else name


def load(name: str, dtype: torch.dtype = torch.float32) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """Return (model in eval mode on the best device, tokenizer) for ``micro/...``, a folder or a hub id.

    Raises MissingInput when the folder or the cached hub model is not there, BadInput when it is no
    model folder or a file of it is damaged.
    """
    transformers_logging.disable_progress_bar()  # one bar per file would hide our own progress
    folder = resolve(name)
    if name.startswith(("micro/", "/", "./", "../")) and not (Path(folder) / "config.json").is_file():
        raise MissingInput(
            f"model {name!r}: expected a model folder with config.json at {folder}, found none; rebuild the shipped "
            f"models with `{REBUILD_COMMAND}` or name another model"
        )
    try:
        tokenizer = AutoTokenizer.from_pretrained(_tokenizer_folder(folder))
        model = AutoModelForCausalLM.from_pretrained(folder, dtype=dtype)
    except (OSError, ValueError, SafetensorError) as error:
        reason = str(error).splitlines()[0][:300]
        raise BadInput(
            f"model {name!r}: expected a Hugging Face causal LM, found: {reason}. Check the folder, or download it "
            f"once on a machine with network: `hf download {name}`"
        ) from error
    return model.to("cuda" if torch.cuda.is_available() else "cpu").eval(), tokenizer


def _tokenizer_folder(folder: str) -> str:
    """Return folder/tokenizer where there is one, else the folder.

    transformers 5 gives every ``qwen2`` folder Qwen's own BPE tokenizer, whatever its files say; ours
    therefore stands in a folder without a config.json, where it is loaded as it is.
    """
    own = Path(folder) / TOKENIZER_FOLDER
    return str(own) if own.is_dir() else folder


def save(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, folder: Path) -> None:
    """Save both so that ``load(folder)`` gives them back; the folder appears whole or not at all."""
    temporary = folder.with_name(folder.name + ".part")
    shutil.rmtree(temporary, ignore_errors=True)
    model.save_pretrained(temporary)
    tokenizer.save_pretrained(temporary / TOKENIZER_FOLDER if prompt_template(tokenizer) == "micro" else temporary)
    artifacts.replace_folder(temporary, folder)


def prompt_template(tokenizer: PreTrainedTokenizerBase) -> str:
    """Return ``micro`` for the micro-world's tokenizer (tags are single tokens), else ``paper``."""
    ids = tokenizer("<search>", add_special_tokens=False).input_ids
    return "micro" if len(ids) == 1 and len(tokenizer) < 5000 else "paper"


def manifest() -> dict:
    """Return data/micro_lm/manifest.json, or an empty dict where there is none."""
    path = MICRO_FOLDER / "manifest.json"
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}


def build(
    which: str, folder: Path, measure: Callable[[PreTrainedModel, PreTrainedTokenizerBase], dict],
    on_progress: Callable[[float, float, float], None] | None = None,
) -> dict:
    """Pretrain the base ``policy`` or ``simulator`` into folder and return its manifest entry.

    measure(model, tokenizer) -> ability figures.  The folder appears whole or not at all.
    """
    recipe, tokenizer, started = RECIPES[which], build_tokenizer(), time.perf_counter()
    model = pretrain(recipe, tokenizer, on_progress)
    seconds = time.perf_counter() - started
    save(model, tokenizer, folder)
    return {
        "recipe_sha256": recipe.digest(), "seed": recipe.seed, "tokens": recipe.tokens,
        "seconds": round(seconds, 1), "threads": torch.get_num_threads(), "torch": torch.__version__.split("+")[0],
        "parameters": sum(p.numel() for p in model.parameters()), "abilities": measure(model, tokenizer),
    }
