"""The sizes of a causal LM from its config.json alone: parameters counted exactly, bytes on disk.

Decoders of the Llama family (Llama, Qwen2, Mistral without its window): grouped-query attention, gated MLP, RMS norms.
Called by the plan before a run; a test compares every count with the model that transformers builds.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Mapping

import yaml

from zerosearch import artifacts, files
from zerosearch.errors import WorkbookError

TABLE = artifacts.REPO / "data" / "model_shapes.yaml"
FAMILIES = ("llama", "qwen2", "mistral")
BYTES = {"float32": 4, "bf16": 2}  # of one number
_NEEDED = ("hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads", "vocab_size")


@dataclass(frozen=True, slots=True)
class Shape:
    """Sizes of one model.

    hidden, mlp: width of the states, of the MLP.  heads, kv_heads, head_dim: of the attention.  vocabulary: rows of
    the embedding.  tied: the head is the embedding.  qkv_bias, o_bias, mlp_bias: linear layers that have one.
    """

    hidden: int
    mlp: int
    layers: int
    heads: int
    kv_heads: int
    head_dim: int
    vocabulary: int
    tied: bool
    qkv_bias: bool = False
    o_bias: bool = False
    mlp_bias: bool = False

    @property
    def queries(self) -> int:
        """Width of all queries of a token."""
        return self.heads * self.head_dim

    @property
    def keys(self) -> int:
        """Width of all keys of a token; of all values as well."""
        return self.kv_heads * self.head_dim

    @property
    def linears(self) -> tuple[tuple[int, int], ...]:
        """(inputs, outputs) of the linear layers of one block: q, k, v, o, gate, up, down."""
        h, f = self.hidden, self.mlp
        return (h, self.queries), (h, self.keys), (h, self.keys), (self.queries, h), (h, f), (h, f), (f, h)

    @property
    def block(self) -> int:
        """Parameters of one block: linear layers, their biases, two norms."""
        biases = self.qkv_bias * (self.queries + 2 * self.keys) + self.o_bias * self.hidden
        biases += self.mlp_bias * (2 * self.mlp + self.hidden)
        return sum(inputs * outputs for inputs, outputs in self.linears) + biases + 2 * self.hidden

    @property
    def embedding(self) -> int:
        """Parameters of the embedding; of an untied head as well."""
        return self.vocabulary * self.hidden

    @property
    def parameters(self) -> int:
        """All parameters, a tied head once."""
        return self.layers * self.block + self.embedding * (1 if self.tied else 2) + self.hidden

    @property
    def multiplied(self) -> int:
        """Parameters that multiply a token on its way through, head included: an embedding is only looked up."""
        return self.layers * sum(inputs * outputs for inputs, outputs in self.linears) + self.embedding

    def lora(self, rank: int) -> int:
        """Parameters of adapters of this rank on all linear layers of the blocks (arXiv 2106.09685, section 4.1)."""
        return self.layers * sum(rank * (inputs + outputs) for inputs, outputs in self.linears)

    def kv_token(self, size: int) -> int:
        """Bytes of the keys and values of one token in all layers; size: bytes of one number."""
        return 2 * self.layers * self.keys * size

    def download(self, dtype: str = "bf16") -> int:
        """Bytes of the weights as files in ``dtype``; the hub has the models of the paper in bf16."""
        return self.parameters * BYTES[dtype]


def from_config(config: Mapping[str, Any]) -> Shape:
    """Return the sizes that a config.json states; WorkbookError for another family or a field that is missing.

    What a field says when it is absent is what transformers' configurations say.
    """
    kind = config.get("model_type")
    if kind not in FAMILIES:
        raise WorkbookError(f"config.json: expected a model of the families {', '.join(FAMILIES)}, found {kind!r}")
    missing = [name for name in _NEEDED if not isinstance(config.get(name), int)]
    if missing:
        raise WorkbookError(f"config.json: expected whole numbers for {', '.join(missing)}, found none")
    heads, hidden = config["num_attention_heads"], config["hidden_size"]
    bias = bool(config.get("attention_bias", False))
    return Shape(
        hidden, config["intermediate_size"], config["num_hidden_layers"], heads,
        config.get("num_key_value_heads") or heads, config.get("head_dim") or hidden // heads, config["vocab_size"],
        bool(config.get("tie_word_embeddings", False)), qkv_bias=kind == "qwen2" or bias, o_bias=bias,
        mlp_bias=bool(config.get("mlp_bias", False)),
    )


def shape_of(model: str) -> Shape | None:
    """Return the sizes of ``micro/NAME``, a folder or a model of the hub; None where they cannot be known here.

    Looked for in this order: config.json of the folder, of the hub's local cache, the committed table.  Nothing is
    downloaded.  A config.json of another family is None as well.
    """
    path = _config_file(model)
    try:
        if path is not None:
            return from_config(files.read_object(path, {"model_type": str}, "copy it again"))
    except WorkbookError:
        return None
    entry = table().get(model.removesuffix("-Instruct"))
    return from_config(entry["config"]) if entry else None


def _config_file(model: str) -> Path | None:
    """Return the config.json of a model that lies on this machine."""
    if model.startswith("micro/"):
        folder = artifacts.MICRO_LM / model.removeprefix("micro/")
    else:
        folder = Path(model).expanduser()
    if (folder / "config.json").is_file():
        return folder / "config.json"
    from huggingface_hub import try_to_load_from_cache
    from huggingface_hub.errors import HFValidationError

    try:
        found = try_to_load_from_cache(model, "config.json")
    except HFValidationError:
        return None
    return Path(found) if isinstance(found, str) else None


@lru_cache(maxsize=1)
def table() -> Mapping[str, Mapping[str, Any]]:
    """Return the committed table: name on the hub without ``-Instruct`` -> source, parameters, config."""
    return yaml.safe_load(TABLE.read_text(encoding="utf-8"))


def at_hand(model: str) -> bool:
    """Say whether the weights of a model lie on this machine already: shipped, a folder, or in the hub's cache."""
    found = _config_file(model)
    return found is not None and any(found.parent.glob("*.safetensors"))
