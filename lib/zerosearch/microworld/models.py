"""Loading any causal LM by name, and building the tiny bases that the project ships.

The model zoo, ``micro/llama-base`` and the other names of ``RECIPES``, stands in ``data/micro_lm`` as
bfloat16 safetensors with a manifest (see ``bases``); every other name is a folder or a hub id.
"""

from __future__ import annotations

import copy
import time
from pathlib import Path
from typing import Any, Callable

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase
from transformers.utils import logging as transformers_logging

from zerosearch import artifacts, files, model_files
from zerosearch.arithmetic import held_in
from zerosearch.errors import BadInput, MissingInput
from zerosearch.microworld.pretrain import RECIPES, Recipe, Trunk, pretrain
from zerosearch.microworld.tokenizer import build_tokenizer
from zerosearch.model_files import TOKENIZER_FOLDER

__all__ = [
    "MICRO_FOLDER", "REBUILD_COMMAND", "RECIPES", "Measure", "build", "load", "load_tokenizer", "manifest",
    "prompt_template", "resolve", "save",
]
MICRO_FOLDER = artifacts.MICRO_LM
REBUILD_COMMAND = "./run_all.sh --run rebuild --only 00 --set 00.rebuild_models=true"
STORED_DTYPE = torch.bfloat16  # of the shipped models: half the size, and their abilities are measured so
Measure = Callable[[PreTrainedModel, PreTrainedTokenizerBase], dict[str, Any]]


def resolve(name: str) -> str:
    """Return the folder of a ``micro/...`` model, or the name itself (folder or hub id)."""
    return str(MICRO_FOLDER / name.removeprefix("micro/")) if name.startswith("micro/") else name


def load(name: str, dtype: torch.dtype | None = None) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """Return (model in eval mode on the best device, tokenizer) for ``micro/...``, a folder or a hub id.

    dtype: of the weights, None for what the profile's layout says (float32 where it says nothing).
    A tokenizer without a pad token (Llama's) pads with end of text; masks come from lengths everywhere.
    Raises MissingInput when the folder or the cached hub model is not there, BadInput when it is no
    model folder or a file of it is damaged.
    """
    transformers_logging.disable_progress_bar()  # one bar per file would hide our own progress
    folder = resolve(name)
    if name.startswith(("micro/", "/", "./", "../")) and not (Path(folder) / "config.json").is_file():
        raise MissingInput(
            f"model {name!r}: expected a model folder with config.json at {folder}, found none; rebuild the shipped "
            f"models ({', '.join(RECIPES)}) with `{REBUILD_COMMAND}` or name another model"
        )
    problems = model_files.folder_problems(Path(folder), _fix(name)) if Path(folder).is_dir() else []
    if problems:
        raise BadInput(f"model {name!r}: expected a whole model folder, found damaged files", problems)
    try:
        tokenizer = AutoTokenizer.from_pretrained(_tokenizer_folder(folder))
        model, loaded = AutoModelForCausalLM.from_pretrained(folder, dtype=dtype or held_in(), output_loading_info=True)
    except (MemoryError, torch.OutOfMemoryError):
        raise
    except Exception as error:  # the libraries have no common one: a wrong shape is RuntimeError, a wrong key KeyError
        reason = f"{type(error).__name__}: {error}".strip().splitlines()[0][:300]
        raise BadInput(
            f"model {name!r}: expected a Hugging Face causal LM in {folder}, found: {reason}; {_fix(name)}"
        ) from error
    if loaded["missing_keys"]:  # the library would put random numbers in their place
        some = ", ".join(sorted(loaded["missing_keys"])[:3])
        raise BadInput(
            f"model {name!r}: expected weights for every layer of its config.json in {folder}, found none for {some}; "
            f"{_fix(name)}"
        )
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    if getattr(model.config.get_text_config(), "attn_logit_softcapping", None):
        model.set_attn_implementation("eager")  # Gemma 2: the others leave the cap of its scores out
    return model.to("cuda" if torch.cuda.is_available() else "cpu").eval(), tokenizer


def _fix(name: str) -> str:
    """Return what mends a damaged model."""
    if name.startswith("micro/"):
        return f"restore it with `git checkout data/micro_lm`, or rebuild it with `{REBUILD_COMMAND}`"
    if model_files.is_path(name):
        return "copy the folder again from where the model came from"
    return f"check the name, or download it once on a machine with network: `hf download {name}`"


def _tokenizer_folder(folder: str) -> str:
    """Return folder/tokenizer where there is one, else the folder.

    transformers 5 gives every ``qwen2`` folder Qwen's own BPE tokenizer, whatever its files say; ours
    therefore stands in a folder without a config.json, where it is loaded as it is.
    """
    own = Path(folder) / TOKENIZER_FOLDER
    return str(own) if own.is_dir() else folder


def save(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, folder: Path, dtype: torch.dtype | None = None
) -> None:
    """Save both so that ``load(folder)`` gives them back; the folder appears whole or not at all.

    dtype: of the saved weights, None for that of the model, which itself is not changed.
    """

    def write(temporary: Path) -> None:
        (model if dtype is None else copy.deepcopy(model).to(dtype)).save_pretrained(temporary)
        tokenizer.save_pretrained(temporary / TOKENIZER_FOLDER if prompt_template(tokenizer) == "micro" else temporary)

    files.save_folder(folder, write)


def prompt_template(tokenizer: PreTrainedTokenizerBase) -> str:
    """Return ``micro`` for the micro-world's tokenizers (tags are single tokens), else ``paper``.

    Whether a prompt also stands in a chat template is the tokenizer's own affair (``prompts.prompt_ids``).
    """
    ids = tokenizer("<search>", add_special_tokens=False).input_ids
    return "micro" if len(ids) == 1 and len(tokenizer) < 5000 else "paper"


def load_tokenizer(name: str) -> PreTrainedTokenizerBase:
    """Return the tokenizer of ``micro/...``, a folder or a hub id, without its model; BadInput if it has none."""
    try:
        return AutoTokenizer.from_pretrained(_tokenizer_folder(resolve(name)))
    except MemoryError:
        raise
    except Exception as error:  # the libraries have no common one
        reason = f"{type(error).__name__}: {error}".splitlines()[0][:300]
        raise BadInput(
            f"model {name!r}: expected a tokenizer, found: {reason}; check the folder, or run the stage that made it "
            "again (stage 03 for a trained policy: notebooks/03_curriculum_rl.ipynb)"
        ) from error


def manifest() -> dict:
    """Return data/micro_lm/manifest.json, or an empty dict where there is none."""
    path = MICRO_FOLDER / "manifest.json"
    fix = "restore it with `git checkout data/micro_lm`"
    return files.read_object(path, {"models": dict}, fix) if path.is_file() else {}


def build(
    recipe: Recipe, folder: Path, measure: Measure,
    on_progress: Callable[[float, float, float], None] | None = None, trunk: Trunk | None = None,
) -> tuple[dict[str, Any], Trunk]:
    """Pretrain a base into folder; return its manifest entry, and what others of its family go on from.

    measure(model, tokenizer) -> ability figures; it is given the model as it was stored.  trunk: see
    ``pretrain``; the entry's seconds are then those of the last phase alone.
    """
    tokenizer, started = build_tokenizer(recipe.family, recipe.chat), time.perf_counter()
    model, trunk = pretrain(recipe, tokenizer, on_progress, trunk)
    seconds = time.perf_counter() - started
    _name_special_tokens(model, tokenizer)
    save(model, tokenizer, folder, STORED_DTYPE)
    entry = {
        "recipe_sha256": recipe.digest(), "family": recipe.family, "chat": recipe.chat, "seed": recipe.seed,
        "tokens": recipe.tokens, "trajectory_share": round(recipe.trajectory_share, 4),
        "parameters": sum(p.numel() for p in model.parameters()), "seconds": round(seconds, 1),
        "threads": torch.get_num_threads(), "torch": torch.__version__.split("+")[0],
        "abilities": measure(*load(str(folder.resolve()), torch.float32)),
    }
    return entry, trunk


def _name_special_tokens(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> None:
    """Write the tokenizer's special tokens into the model's settings.

    A model that grew from its family's trunk still has those of the trunk.  A pad token that is the end
    of text is left out, as in Llama's own settings: the input embedding of a pad token never learns.
    """
    pad = tokenizer.pad_token_id if tokenizer.pad_token_id != tokenizer.eos_token_id else None
    for settings in (model.config, model.generation_config):
        settings.bos_token_id, settings.eos_token_id = tokenizer.bos_token_id, tokenizer.eos_token_id
        settings.pad_token_id = pad
