"""The twelve rules that the reference implementation breaks, and the tests that hold them here.

This file tests the list itself: every rule names tests that exist.  Read it as an index.
"""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

TESTS = Path(__file__).parent

RULES: dict[str, tuple[str, ...]] = {
    "1 a query travels with its own row": (
        "test_rollout.test_a_query_travels_with_its_own_row",
        "test_policy_rl.test_every_search_travels_with_its_own_question",
    ),
    "2 token ids are the truth": (
        "test_rollout.test_token_exactness_with_a_real_engine",
        "test_engine.test_logprobs_of_two_turns_equal_a_full_forward_pass",
        "test_batching.test_end_of_text_is_trained_even_when_it_is_the_pad_token",
    ),
    "3 only the policy's own tokens are parsed": (
        "test_rollout.test_answers_in_prompt_or_passages_are_never_taken",
        "test_prompts.test_defused_text_can_never_be_an_action",
        "test_evaluation.test_only_the_policys_own_tokens_are_parsed_for_an_answer",
    ),
    "4 passages are cut before they are wrapped": ("test_prompts.test_observation_is_cut_first_and_wrapped_after",),
    "5 generation stops at the closing tag, a full trajectory says so": (
        "test_engine.test_stops_at_the_closing_tag", "test_rollout.test_a_trajectory_without_room_ends_and_says_so",
    ),
    "6 the last turn does not pay for a search": ("test_rollout.test_the_last_turn_does_not_pay_for_a_search",),
    "7 KL, clip, advantages and mask by hand": (
        "test_objective.test_kl_is_added_so_the_loss_rises_with_drift", "test_objective.test_clip_by_hand",
        "test_objective.test_gradient_is_exactly_zero_on_every_retrieved_token", "test_advantages.test_grpo_by_hand",
        "test_policy_rl.test_the_kl_inside_the_trainer_rises_with_drift",
    ),
    "8 EM, cover EM and F1 are three columns; empty golden answers match nothing": (
        "test_evaluation.test_metrics_are_three_columns_of_the_same_prediction",
        "test_scoring.test_golden_answer_without_words_matches_no_text",
    ),
    "9 every question exactly once, decoding recorded": (
        "test_evaluation.test_every_question_is_scored_once_whatever_the_batches",
        "test_evaluation.test_rows_hold_scores_and_decoding_settings",
    ),
    "10 failures are typed, counted and limited; paid answers are on disk first": (
        "test_rollout.test_a_failed_search_ends_only_its_own_trajectory",
        "test_policy_rl.test_failed_rollouts_are_masked_and_counted",
        "test_replay_cache.test_answers_are_on_disk_before_they_are_used",
        "test_arm_setup.test_training_stops_with_the_reason_when_its_engine_is_down",
        "test_faults.test_every_question_ends_and_the_bill_is_right",
        "test_faults.test_killed_in_the_middle_and_started_again_nothing_is_billed_twice",
    ),
    "11 every draw is keyed by (seed, step, question, sample, turn)": (
        "test_engine.test_draws_do_not_depend_on_order_or_batch_size",
        "test_policy_rl.test_the_same_seed_gives_the_same_numbers",
    ),
    "12 an unknown option is refused with the nearest match": (
        "test_profiles.test_unknown_profile_and_stage", "test_scoring.test_unknown_reward_names_the_nearest",
    ),
}


def functions(module: str) -> set[str]:
    tree = ast.parse((TESTS / f"{module}.py").read_text(encoding="utf-8"))
    return {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}


@pytest.mark.parametrize("rule", RULES)
def test_every_rule_is_held_by_tests_that_exist(rule: str) -> None:
    assert RULES[rule]
    for name in RULES[rule]:
        module, function = name.split(".")
        assert function in functions(module), f"rule {rule!r} names {name}, which does not exist"


def test_there_are_twelve() -> None:
    assert [int(rule.split()[0]) for rule in RULES] == list(range(1, 13))
