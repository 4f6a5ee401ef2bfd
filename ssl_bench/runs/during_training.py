"""Evaluation during training: every network of the method after each N-th epoch; nothing of training moves."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch

from ssl_bench.dataset import Dataset
from ssl_bench.evaluation.evaluate import evaluate_network
from ssl_bench.evaluation.features import UnusableFeatures
from ssl_bench.evaluation.speed import THROUGHPUT_BATCH
from ssl_bench.evaluator import Evaluator
from ssl_bench.method import Method
from ssl_bench.records.curves import Curves, read_curves, write_curves
from ssl_bench.records.record import EvaluationRecord
from ssl_bench.training.plan import Plan


@dataclass
class EpochEvaluations:
    """Called by the loop after every step; measures at the end of every `every`-th epoch, and never twice."""

    method: Method
    evaluators: Sequence[tuple[str, Evaluator]]
    """Those with `during_training`."""
    dataset: Dataset
    plan: Plan
    every: int
    run_dir: Path
    say: Callable[[str], None]
    log: Callable[[int, Mapping[str, float]], None] = lambda step, values: None
    images_per_pass: int = THROUGHPUT_BATCH
    curves: Curves = field(default_factory=Curves)

    def resume_at(self, step: int) -> None:
        """Load the curves of a run that is resumed at `step`, without what was measured after it.

        A point that is due at this very step and missing, after a stop between the two, is measured now.
        """
        self.curves = read_curves(self.run_dir).up_to(step)
        if step:
            self(step)

    def __call__(self, step: int) -> None:
        """Evaluate if it is due after `step` steps. Random states and every module's mode are restored."""
        if step % (self.every * self.plan.steps_per_epoch) or step in self.curves.evaluated_steps:
            return
        epoch = step // self.plan.steps_per_epoch
        found = []
        devices = [self.plan.device] if self.plan.device.type == "cuda" else []
        with torch.random.fork_rng(devices=devices):
            for network, backbone in self.method.networks().items():
                for name, evaluator in self.evaluators:
                    try:
                        found += evaluate_network(
                            backbone, "trained", [(name, evaluator)], self.dataset, network=network, step=step,
                            batch_size=self.images_per_pass, seed=self.plan.seed, device=self.plan.device,
                            workers=self.plan.workers, run_dir=self.run_dir,
                            places=[f"evaluations/{name}-{network}-epoch{epoch}"],
                            keep_outcomes=False, keep_features=False,  # no later evaluation sees these weights
                        )  # fmt: skip
                    except UnusableFeatures as useless:  # the run's status is the doctor's and the last evaluation's
                        self.say(f"epoch {epoch}: {name} of {network} is left out: {useless}")
        self.curves = self.curves.with_evaluations(step, epoch, found)
        write_curves(self.run_dir, self.curves)
        self.log(step, logged_names(found))
        numbers = [
            f"{one.network} {one.evaluator} {m.metric} {m.value:.1f} {m.unit_text}".rstrip()
            for one in found
            for m in one.measurements
            if m.primary
        ]
        if numbers:
            self.say(f"epoch {epoch}: {', '.join(numbers)}")


def logged_names(evaluations: Sequence[EvaluationRecord]) -> dict[str, float]:
    """Every measured value under the name that loggers get, e.g. "teacher/knn/top1_k20"."""
    return {f"{one.network}/{one.evaluator}/{m.metric}": m.value for one in evaluations for m in one.measurements}
