"""Which part of a GPU's memory vLLM takes, whatever its model needs; read by the engines and by the plan of a run."""

from __future__ import annotations

ENGINE_SHARE = 0.4  # the engine in a notebook: beside it stand the notebook's own model, its training and a simulator
OWN_SHARE = 0.9  # a simulator's servers on cards of their own, each of its own cards
SERVERS_SHARE = 0.3  # a simulator's servers together: beside them stand the policy's engine and its trainer
