"""Weighted k-nearest-neighbor classification of frozen features (Wu et al. 2018, arXiv 1805.01978, section 3.4).

    weight of a neighbor   exp(cos(feature, neighbor) / temperature)
    votes for a class       the sum of the weights of those of the k neighbors that belong to it

As in DINO (Caron et al. 2021, appendix E, and the authors' eval_knn.py): l2-normalized features, temperature 0.07,
k in {10, 20, 100, 200}, 20 reported, top-1 and top-5. What differs from their script: any number of test images (it
fails under 100) and classes, neighbors ordered by a float64 score, ties by training index, equal votes by class index
(the order that their script's sort leaves them in on a CPU). Top-5 is left out for up to 5 classes, where it is always
100 %, and for k under 5.
"""

from __future__ import annotations

from typing import Literal

import torch
from pydantic import model_validator
from torch import Tensor

from ssl_bench.dataset import Dataset
from ssl_bench.errors import UserError
from ssl_bench.evaluation.features import device_with_room
from ssl_bench.evaluator import Evaluation, Evaluator, Measurement, Protocol
from ssl_bench.evaluators.knn.nearest import nearest
from ssl_bench.measurement import accuracy_of
from ssl_bench.settings import Settings, setting

VOTES_AT_ONCE = 1 << 23
"""Cells of the (images, classes) table of votes that are in memory at once: 64 MiB."""
TOP = 5
"""Of the classes with most votes, how many "top-5" counts."""


class KNNConfig(Settings):
    """Settings of the k-NN evaluation."""

    neighbors: tuple[int, ...] = setting(
        (10, 20, 100, 200), "numbers of neighbors, each measured", source="DINO eval_knn.py --nb_knn", min_length=1
    )
    reported: int = setting(20, "the number of neighbors that tables show", source="DINO, appendix E", ge=1)
    temperature: float = setting(
        0.07, "a neighbor's vote weighs exp(cosine / temperature)", source="Wu et al. 2018, section 3.4", ge=0.002
    )
    search: Literal["auto", "faiss", "torch"] = setting(
        "auto", "who searches; both are exact and give the same numbers. auto: on a CPU FAISS where it is installed"
    )

    @model_validator(mode="after")
    def _sensible(self) -> KNNConfig:
        if min(self.neighbors) < 1 or len(set(self.neighbors)) < len(self.neighbors):
            raise ValueError(f"neighbors must be different numbers from 1 on, not {list(self.neighbors)}")
        if self.reported not in self.neighbors:
            raise ValueError(f"reported = {self.reported} must be one of neighbors = {list(self.neighbors)}")
        return self


class KNN(Evaluator):
    """Weighted k-NN on frozen features (Wu et al. 2018, as in DINO)."""

    Config = KNNConfig
    reads_images = False
    feature_kinds = frozenset({"features"})
    during_training = True
    config: KNNConfig

    def metrics(self, train_images: int | None = None) -> tuple[str, ...]:
        """One of each k that the training set has, for top-1 and top-5."""
        possible = [k for k in self.config.neighbors if train_images is None or k <= train_images]
        return tuple(f"top{top}_k{k}" for top in (1, TOP) for k in possible)

    def check(self, dataset: Dataset) -> None:
        """Raises `UserError` where every k is larger than the training set."""
        self._possible(len(dataset.train))

    def _possible(self, images: int) -> list[int]:
        possible = sorted(k for k in self.config.neighbors if k <= images)
        if not possible:
            raise UserError(
                f"'knn.neighbors' = {list(self.config.neighbors)}: the training set has {images} images; give a k of "
                f"at most that: --set evaluators.knn.neighbors=[{images}] --set evaluators.knn.reported={images}"
            )
        return possible

    def evaluate(self, evaluation: Evaluation) -> list[Measurement]:
        """Top-1 and top-5 accuracy for each k. A k above the number of training images is left out, with a note.

        Raises `UserError` when that leaves none.
        """
        train, test = evaluation.features("train"), evaluation.features("test")
        possible = self._possible(len(train.vectors))
        left_out = sorted(set(self.config.neighbors) - set(possible))
        primary = self.config.reported if self.config.reported in possible else possible[-1]
        notes = ""
        if left_out:
            notes = f"; k = {', '.join(map(str, left_out))} left out: only {len(train.vectors)} training images"
            evaluation.say(f"k-NN: {notes.removeprefix('; ')}")

        # The bank, the queries as they are and normalized, a block of products, candidates that are scored again
        needed_bytes = train.vectors.nbytes + 2 * test.vectors.nbytes + (1 << 30)
        device = device_with_room(evaluation.backbone, needed_bytes)
        found = nearest(test.vectors, train.vectors, possible[-1], self.config.search, device, cosine=True)
        classes = len(evaluation.dataset.classes)
        tops = (1, TOP) if classes > TOP else (1,)
        ranked = classify(
            found.indices, found.similarities, train.labels, classes, possible, self.config.temperature, tops[-1]
        )
        return [
            accuracy_of(
                f"top{top}_k{k}",
                (ranked[k][:, :top] == test.labels[:, None]).any(dim=1),
                protocol=Protocol.of(
                    "{k}-NN, {similarity}, exp(s / {temperature}), {search}, {transform}",
                    k=k,
                    similarity="cosine",
                    temperature=self.config.temperature,
                    search="exact",
                    transform=train.transform,
                ),
                primary=k == primary and top == 1,
                details=found.searched_by + notes,
            )
            for top in tops
            for k in possible
            if top <= k or top == 1
        ]


def classify(
    indices: Tensor,
    similarities: Tensor,
    labels: Tensor,
    classes: int,
    ks: list[int],
    temperature: float,
    top: int = 1,
) -> dict[int, Tensor]:
    """The `top` classes (m, top) with most votes for each k of `ks`, which is sorted; best first.

    Where votes tie, classes without any among them, the smaller class index comes first. `indices` and `similarities`
    (m, at least max k) are the neighbors, best first; `labels` (n,) of the bank.
    """
    rows = max(1, VOTES_AT_ONCE // classes)
    parts: dict[int, list[Tensor]] = {k: [] for k in ks}
    for low in range(0, len(indices), rows):
        index, similarity = indices[low : low + rows], similarities[low : low + rows]
        weights, voted = torch.exp(similarity.double() / temperature), labels[index]
        votes, counted = torch.zeros(len(index), classes, dtype=torch.float64), 0
        for k in ks:  # neighbors counted for a smaller k count for the next one too
            votes.scatter_add_(1, voted[:, counted:k], weights[:, counted:k])
            parts[k].append(_most_voted(votes, top))
            counted = k
    return {k: torch.cat(found) for k, found in parts.items()}


def _most_voted(votes: Tensor, top: int) -> Tensor:
    """Indices (m, top) of the largest votes, best first. Not `topk`: it does not say in which order ties come."""
    best = votes.argmax(dim=1, keepdim=True)
    ranked, left = [best], votes
    for place in range(1, top):
        left = left.scatter(1, best, -1.0) if place == 1 else left.scatter_(1, best, -1.0)
        best = left.argmax(dim=1, keepdim=True)
        ranked.append(best)
    return torch.cat(ranked, dim=1)
