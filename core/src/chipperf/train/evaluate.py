"""Evaluation of the main rank's model over all ranks, without an effect on training."""

from __future__ import annotations

from typing import TYPE_CHECKING

from chipperf.errors import TrainingError
from chipperf.plugin.types import EvaluationFinished
from chipperf.records.convergence import meets_target
from chipperf.records.schema import EvaluationPoint, Missing, TimeToTarget
from chipperf.train.model_changes import digest
from chipperf.train.preparation import generator_states, restore_generators

if TYPE_CHECKING:
    from chipperf.cases.workload import Evaluation
    from chipperf.train.context import RunContext
    from chipperf.train.replica import Replica
    from chipperf.train.run_state import RunState


def evaluate(context: RunContext, replica: Replica) -> Evaluation:
    """Evaluate the model on the whole evaluation split; a change of it by that is a :class:`TrainingError`."""
    model = replica.model
    model.eval()
    # Every rank has its own batch statistics; the main rank's model is evaluated.
    context.collectives.broadcast(list(model.buffers()))
    before, states = digest(*model.buffers()), generator_states(context.device)
    with model.register_forward_hook(lambda *_: context.progress.evaluating()):
        evaluation = context.workload.evaluate(model, context.collectives, replica.autocast)
    if model.training or digest(*model.buffers()) != before:
        raise TrainingError(
            "evaluation changed the model: its buffers differ afterwards, or it is in training mode",
            failure_class="evaluation_changed_model",
        )
    model.train()
    # The number of evaluations must not change the course of training.
    restore_generators(states, context.device)
    return evaluation


def add_evaluation(context: RunContext, state: RunState, evaluation: Evaluation, elapsed_s: float) -> None:
    """Add an evaluation that ended after ``elapsed_s`` to the curve, announce it, and record a met target."""
    point = EvaluationPoint(
        epoch=state.epochs,
        step=state.steps,
        value=evaluation.value,
        elapsed_s=elapsed_s,
        samples=evaluation.samples,
        details=dict(evaluation.details),
    )
    state.curve.append(point)
    metric, lower = context.metric, context.lower_is_better
    value = None if isinstance(point.value, Missing) else point.value
    context.events.write("eval_accuracy", value, metric=metric, **point.model_dump(exclude={"value"}))
    context.events.write("eval_stop", point.epoch, step=point.step)
    context.progress.evaluated(point.epoch, metric, value)
    context.notify(
        EvaluationFinished(run_id=context.plan.run_id, epoch=point.epoch, step=point.step, metric=metric, value=value)
    )
    if context.target is not None and meets_target(point.value, context.target, lower=lower):
        state.time_to_target = TimeToTarget(seconds=elapsed_s, epoch=point.epoch)
