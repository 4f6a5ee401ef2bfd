"""The checks of a method, the most fundamental ones first."""

from ssl_bench.testing import (
    common,
    method_evaluation,
    method_gradients,
    method_hooks,
    method_micro_batches,
    method_settings,
    method_state,
    method_steps,
)
from ssl_bench.testing.method_bench import Subject

__all__ = ["CHECKS", "Subject"]

CHECKS = (
    common.docstring_and_paper_present,
    common.settings_are_described,
    common.required_capabilities_exist,
    common.functions_take_what_they_are_given,
    method_settings.it_can_be_built,
    common.settings_round_trip_through_json,
    method_settings.presets_are_valid,
    method_settings.filled_settings_stay_as_they_are,
    method_settings.views_have_one_shape_for_every_image,
    method_settings.views_depend_only_on_their_random_numbers,
    method_settings.views_reach_worker_processes,
    method_steps.loss_is_a_finite_scalar,
    method_gradients.loss_falls_on_one_batch,
    method_gradients.same_seed_same_loss,
    method_gradients.every_trained_parameter_gets_a_gradient,
    method_gradients.parameter_groups_cover_what_is_trained,
    method_gradients.teacher_gets_no_gradient,
    method_state.step_moves_no_state,
    method_state.before_optimizer_moves_no_state,
    method_state.state_moves_in_update,
    method_hooks.prepare_moves_nothing_that_is_trained,
    method_hooks.batch_views_depend_only_on_their_random_numbers,
    method_hooks.frozen_parts_never_move,
    method_state.state_is_saved_and_restored_bit_for_bit,
    method_steps.step_leaves_the_batch_as_it_is,
    method_steps.step_reads_no_tensor_value,
    method_steps.logs_are_scalars_without_gradient,
    method_steps.carry_has_a_leading_dimension_and_no_gradient,
    method_micro_batches.micro_batches_are_the_batch,
    method_evaluation.networks_are_parts_of_the_method,
    method_evaluation.evaluation_features_are_finite_and_not_constant,
    method_evaluation.collapse_is_detected_when_forced,
    method_evaluation.signs_show_a_forced_collapse,
    method_steps.a_step_takes_seconds,
)
