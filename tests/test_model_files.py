"""model_files.py: whole model folders pass, every kind of damage is named, and torch is not needed."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import huggingface_hub.constants
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from zerosearch import artifacts, model_files
from zerosearch.errors import BadInput

MODEL = artifacts.MICRO_LM / "simulator-small"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A copy of a shipped model, its weights as 32-bit numbers (NumPy knows no bfloat16)."""
    made = Path(shutil.copytree(MODEL, tmp_path / "model"))
    save_file({"a": np.zeros((2, 3), np.float32), "b": np.ones(4, np.float32)}, made / "model.safetensors")
    return made


def test_the_shipped_models_are_whole() -> None:
    names = model_files.shipped()
    assert "micro/llama-base" in names and len(names) == 7
    assert [problem for name in names for problem in model_files.name_problems(name, offline=True)] == []


def test_it_needs_no_torch() -> None:
    program = (
        "import sys; from zerosearch import model_files\n"
        "assert model_files.name_problems('micro/llama-base', True) == []\n"
        "assert model_files.name_problems('Nobody/Nothing', True); print('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"


def test_shards_are_looked_at_one_by_one(folder: Path) -> None:
    weights = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    for name, tensor in weights.items():
        save_file({name: tensor}, folder / f"{name}.safetensors")
    index = {"weight_map": {name: f"{name}.safetensors" for name in weights}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    assert model_files.folder_problems(folder) == []
    (folder / "b.safetensors").write_bytes((folder / "b.safetensors").read_bytes()[:-1])
    (folder / "a.safetensors").unlink()
    first, second = model_files.folder_problems(folder)
    assert first.startswith(f"{folder / 'a.safetensors'}: expected the weights of the model, found no such file")
    assert second.startswith(f"{folder / 'b.safetensors'}: expected a whole safetensors file, found ")


@pytest.mark.parametrize("missing", [-1, 1, 7])
def test_data_of_another_length_than_the_header_says(folder: Path, missing: int) -> None:
    path = folder / "model.safetensors"
    content = path.read_bytes()
    path.write_bytes(content[:-missing] if missing > 0 else content + b"x")
    (problem,) = model_files.folder_problems(folder)
    assert problem.startswith(f"{path}: expected a whole safetensors file") and problem.endswith("came from")


def test_other_forms_of_weights_and_tokenizers_are_accepted(folder: Path) -> None:
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    shutil.rmtree(folder / "tokenizer")
    (folder / "vocab.json").write_text("{}")
    assert "tokenizer.json: expected the files of a tokenizer" in model_files.folder_problems(folder)[0]
    (folder / "merges.txt").write_text("")
    assert model_files.folder_problems(folder) == []


def test_all_problems_at_once(folder: Path) -> None:
    (folder / "config.json").write_text("{")
    (folder / "tokenizer" / "tokenizer.json").write_text("[]")
    (folder / "model.safetensors").write_bytes(b"")
    problems = model_files.folder_problems(folder)
    damaged = [Path(problem.split(": ")[0]).name.split(":")[0] for problem in problems]
    assert damaged == ["config.json", "tokenizer.json", "model.safetensors"]


@pytest.fixture
def cached(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The snapshot of the model Some/Model in a hub cache of its own."""
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    repository = tmp_path / "hub" / "models--Some--Model"
    (repository / "refs").mkdir(parents=True)
    (repository / "refs" / "main").write_text("abc")
    return Path(shutil.copytree(folder, repository / "snapshots" / "abc"))


def test_a_hub_model_in_the_cache(cached: Path) -> None:
    assert model_files.name_problems("Some/Model", offline=True) == []
    (cached / "model.safetensors").unlink()
    assert model_files.name_problems("Some/Model", offline=False) == [], "what is missing is downloaded"
    (problem,) = model_files.name_problems("Some/Model", offline=True)
    assert "model.safetensors" in problem and "`hf download Some/Model`" in problem


def test_a_damaged_hub_model_is_not_downloaded_again_by_itself(cached: Path) -> None:
    (cached / "model.safetensors").write_bytes(b"\0" * 20)
    for offline in (True, False):
        (problem,) = model_files.name_problems("Some/Model", offline)
        assert f"delete {cached.parents[1]} and download it" in problem


def test_a_hub_model_that_is_nowhere(cached: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert model_files.name_problems("Other/Model", offline=False) == []
    assert "`hf download Other/Model`" in model_files.name_problems("Other/Model", offline=True)[0]
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert "`hf download Other/Model`" in model_files.name_problems("Other/Model", offline=False)[0]


def test_a_model_with_a_layer_without_weights_is_not_filled_with_random_numbers(tmp_path: Path) -> None:
    from zerosearch.microworld import models

    folder = Path(shutil.copytree(artifacts.MICRO_LM / "llama-base", tmp_path / "model"))
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "num_hidden_layers": config["num_hidden_layers"] + 1}))
    with pytest.raises(BadInput, match=r"expected weights for every layer .* found none for model\.layers"):
        models.load(str(folder))
