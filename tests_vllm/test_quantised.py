"""Weights in shorter numbers, by torchao for real: what is rounded and how far, which layers, and vLLM's server with them."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from toy_requests import toy_asked

from zerosearch import layouts
from zerosearch.engines import quantised
from zerosearch.engines.base import GenerationRequest
from zerosearch.engines.serving import serve
from zerosearch.engines.transformers_engine import TransformersEngine
from zerosearch.errors import ConfigError
from zerosearch.layouts import Layout
from zerosearch.microworld import models
from zerosearch.prompts import prompt_ids
from zerosearch.simulator_weights import AS_IS
from zerosearch.training.arm_setup import open_retriever
from zerosearch.training.arms import get_arm
from zerosearch.training.policy_rl import layout_here

MODEL = "micro/simulator-medium"
