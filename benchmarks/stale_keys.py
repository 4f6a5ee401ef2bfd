"""Why MoCo v2's loss rises while it learns: keys that are many steps old are easily told from fresh ones.

    python -m benchmarks.stale_keys [--epochs N] [--results DIR]

Trains the small DeiT on `shapes` by the method's preset and prints, every 50 steps: the loss over the queue; the loss
over as many negatives that are as fresh as the right key (the batch's other keys, each counted K / (batch - 1) times);
and the mean cosine of queries with their own key, with other images' fresh keys, and with the queue's newest and oldest
batch. Where the key encoder moves fast for the queue's length, the oldest keys differ by their age alone. A finding of
results/README.md.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

import ssl_bench
from ssl_bench.method import Batch, Progress, StepOutput
from ssl_bench_plugins.methods.mocov2 import MoCoV2, info_nce, logits

EVERY = 50


def fresh_loss(queries: Tensor, keys: Tensor, queue_size: int, temperature: float) -> Tensor:
    """InfoNCE of queries and keys (batch, dim) with `queue_size` negatives drawn evenly from the batch's other keys."""
    similar = queries @ keys.T / temperature
    right = similar.diagonal()
    others = similar.masked_fill(torch.eye(len(keys), dtype=torch.bool), -math.inf)
    negatives = torch.logsumexp(others, dim=1) + math.log(queue_size / (len(keys) - 1))
    return (torch.logaddexp(right, negatives) - right).mean()


@torch.no_grad()
def told(method: MoCoV2, batch: Batch, keys: Tensor) -> list[float]:
    """The five figures of a step, before its keys enter the queue; see the module."""
    queries, images = method.query(batch.views[0], method.parts_of(batch)), len(keys)
    temperature, size = method.config.temperature, len(method.queue)
    by_age = (queries @ method.queue.roll(-int(method.queue_position), 0).T).mean(0)
    between = queries @ keys.T
    return [
        float(info_nce(logits(queries, keys, method.queue, temperature))),
        float(fresh_loss(queries, keys, size, temperature)),
        float(between.diagonal().mean()),
        float((between.sum() - between.trace()) / (images * (images - 1))),
        float(by_age[-images:].mean()),
        float(by_age[:images].mean()),
    ]


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--epochs", type=int, help="of the run; default: its preset's")
    parser.add_argument("--results", type=Path, default=Path("results"), help="where the run is kept")
    given = parser.parse_args(arguments)
    step = MoCoV2.step

    def watched(self: MoCoV2, batch: Batch, progress: Progress) -> StepOutput:
        output = step(self, batch, progress)
        if progress.step and progress.step % EVERY == 0:
            figures = "  ".join(f"{value:6.2f}" for value in told(self, batch, output.carry["keys"]))
            print(f"{progress.step:5d}  {figures}", flush=True)
        return output

    print(" step  loss: queue, fresh  cosine: own, others fresh, queue's newest, oldest")
    MoCoV2.step = watched  # type: ignore[method-assign]
    try:
        ssl_bench.run(
            "mocov2", "deit_ti16", epochs=given.epochs, with_="knn", results=given.results, reuse=False,
            settings={"backbone.depth": 4, "training.precision": "fp32"},
        )  # fmt: skip
    finally:
        MoCoV2.step = step  # type: ignore[method-assign]
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
