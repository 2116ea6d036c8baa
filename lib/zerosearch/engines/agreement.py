"""Does the transformers engine compute what a model computes?  Asked once, when it is opened over the model.

Its ragged batches have an attention of their own.  A family whose attention knows more than keys, values, a window
and a cap (other memories than keys, positions added to scores) would be sampled from wrongly, or break off.
"""

from __future__ import annotations

import torch

from zerosearch import seeds
from zerosearch.arithmetic import computing
from zerosearch.engines.base import Generation, GenerationRequest
from zerosearch.engines.transformers_engine import TransformersEngine
from zerosearch.errors import ConfigError

LENGTHS, NEW_TOKENS = (24, 9), 4  # of the two prompts, and of what is written after each
NATS = {torch.float32: 1e-3}  # mean difference of log-probs that rounding explains
NATS_SHORT = 0.05  # the same for shorter numbers


def require_agreement(engine: TransformersEngine) -> None:
    """Raise ConfigError for a model whose log-probs in the engine are not its own."""
    model = engine.model
    vocabulary = model.get_input_embeddings().num_embeddings
    drawn = [seeds.generator("agreement", n).integers(0, vocabulary, n).tolist() for n in LENGTHS]
    try:
        asked = [GenerationRequest(tuple(ids), number, NEW_TOKENS) for number, ids in enumerate(drawn)]
        made = engine.generate(asked)
        gaps = [gap for one, written in zip(asked, made, strict=True) for gap in _gaps(engine, one, written)]
        found = f"log-probs that differ by {sum(gaps) / len(gaps):.2g} nats from its own"
        agrees = sum(gaps) / len(gaps) <= NATS.get(model.dtype, NATS_SHORT)
    except torch.OutOfMemoryError:
        raise
    except (RuntimeError, ValueError, TypeError, AttributeError, LookupError) as error:
        agrees, found = False, f"{type(error).__name__}: {error}".splitlines()[0][:200]
    finally:
        engine.release()
        engine.counts.take()
    if not agrees:
        raise ConfigError(
            f"engine transformers: expected a model with the attention of Llama, Qwen, Mistral, Gemma or alike, found "
            f"{type(model).__name__} with {found}; use the engine vllm on a GPU, or another model"
        )


def _gaps(engine: TransformersEngine, asked: GenerationRequest, written: Generation) -> list[float]:
    """Return |log-prob in the engine - log-prob in a plain forward pass| for each token that was written."""
    model, ids = engine.model, [*asked.prompt_ids, *written.token_ids]
    with torch.no_grad(), computing(model.device):
        logits = model(input_ids=torch.tensor([ids], device=model.device), use_cache=False).logits[0].float()
    logps = torch.log_softmax(logits, dim=-1)[len(asked.prompt_ids) - 1 : -1]
    own = logps.gather(1, torch.tensor(written.token_ids, device=logps.device)[:, None])[:, 0].tolist()
    return [abs(a - b) for a, b in zip(own, written.logprobs, strict=True)]
