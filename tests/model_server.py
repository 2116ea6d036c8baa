"""What a server of the OpenAI protocol sends back; and one that has a real micro model behind it."""

from __future__ import annotations

import threading
from typing import Any

from local_server import Asked, LocalServer, Reply

from zerosearch.engines.base import GenerationRequest
from zerosearch.engines.transformers_engine import TransformersEngine
from zerosearch.microworld import models


def chat_reply(text: Any, n_prompt: int | None = 10, n_generated: int = 3, finish: str = "stop") -> Reply:
    """Return a chat completion; n_prompt None: the server does not count."""
    usage = {} if n_prompt is None else {"usage": {"prompt_tokens": n_prompt, "completion_tokens": n_generated}}
    return Reply({"choices": [{"message": {"role": "assistant", "content": text}, "finish_reason": finish}], **usage})


def text_reply(text: Any, n_prompt: int = 10, n_generated: int = 3, finish: str = "stop") -> Reply:
    """Return a plain completion."""
    usage = {"prompt_tokens": n_prompt, "completion_tokens": n_generated}
    return Reply({"choices": [{"text": text, "finish_reason": finish}], "usage": usage})


class ModelServer(LocalServer):
    """Serves ``micro/...`` by /v1/completions: prompt, max_tokens, temperature, seed."""

    def __init__(self, name: str):
        model, self.tokenizer = models.load(name)
        self._engine = TransformersEngine(model, self.tokenizer, stop_strings=())
        self._one_at_a_time = threading.Lock()
        super().__init__(self.complete)

    def complete(self, asked: Asked) -> Reply:
        """Write on, as the model does in this process."""
        ids, body = self.tokenizer(asked.body["prompt"]).input_ids, asked.body
        request = GenerationRequest(tuple(ids), body.get("seed", 0), body["max_tokens"], body["temperature"])
        with self._one_at_a_time:
            [made] = self._engine.generate([request])
        text = self.tokenizer.decode(made.token_ids, skip_special_tokens=True)
        finish = "length" if made.stop_reason == "length" else "stop"
        return text_reply(text, len(ids), len(made.token_ids), finish)
