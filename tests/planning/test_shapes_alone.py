"""Tensors without numbers against real ones, operator by operator, and against torch's own fake tensors for a step."""

from __future__ import annotations

from collections.abc import Callable
from itertools import product

import pytest
import torch
from torch import Tensor
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from ssl_bench.planning import step_memory
from ssl_bench.planning.live_memory import LiveMemory
from ssl_bench.planning.shapes_alone import ShapesAlone, ShapeTensor
from ssl_bench.planning.step_memory import HowToStep, predict_step
from ssl_bench.planning.without_numbers import fake_tensors, shape_tensors
from ssl_bench.runs.building import recompute_activations
from tests.planning.test_step_memory import TRAINED, built, recipe

NETWORKS: dict[str, dict[str, object]] = {
    "deit_ti16": {},
    "resnet18": {},
    "timm": {"backbone.name": "test_convnext", "data.image_px": 64},
}
LOCAL_VIEWS: dict[str, object] = {"method.local_crop_px": 32}
"""Of 64 px, which test_convnext needs."""
SETTINGS = (HowToStep(), False), (HowToStep(micro_batch=2), False), (HowToStep(micro_batch=4), True)
"""How to step, and whether activations are computed again."""


@pytest.mark.parametrize(("number", "method", "arch"), [(i, *one) for i, one in enumerate(product(TRAINED, NETWORKS))])
def test_a_step_is_that_of_fake_tensors(number: int, method: str, arch: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every part and every operation, exactly. Each method and each network has every setting."""
    values = NETWORKS[arch] | (LOCAL_VIEWS if arch == "timm" and method in ("dino", "swav") else {})
    parts = built(recipe(method, arch, **{"training.batch_size": 8, **values}))
    how, recomputes = SETTINGS[(number + number // len(NETWORKS)) % len(SETTINGS)]
    recompute_activations(parts[0], recomputes)
    predictions = []
    for kind in (shape_tensors, fake_tensors):
        monkeypatch.setattr(step_memory, "KINDS", (kind,))
        predictions.append(predict_step(*parts, how))
    assert predictions[0] == predictions[1]


def _attention(images: Tensor) -> Tensor:
    heads = images.flatten(2).unflatten(1, (1, -1))
    return functional.scaled_dot_product_attention(heads, heads, heads)


OPERATORS: dict[str, Callable[[Tensor], Tensor | tuple[Tensor, ...]]] = {
    "elementwise": lambda x: x * 2 + x.sigmoid(),
    "integers": lambda x: x.argmax(1) + 1,
    "broadcast": lambda x: x[:, :1] - x,
    "views": lambda x: x[:, 1:].transpose(1, 2).flatten(2)[..., ::2],
    "views of storage": lambda x: x.chunk(3, dim=1),
    "a copy": lambda x: x.transpose(1, 3).contiguous(),
    "in place": lambda x: x.add_(1),
    "strides in place": lambda x: functional.adaptive_avg_pool2d(x.to(memory_format=torch.channels_last), 1),
    "unsqueezed in place": lambda x: torch.zeros(3).unsqueeze_(1),
    "several": lambda x: x.flatten(1).topk(2),
    "constants": lambda x: torch.tensor([1.0, 2.0]).view(2, 1) * torch.arange(3) + torch.full((1,), 2.0),
    "drawn": lambda x: x[torch.randperm(4, generator=torch.Generator())],
    "convolution": lambda x: functional.conv2d(x, torch.ones(5, 3, 2, 2), padding=1),
    "batch norm": lambda x: functional.batch_norm(x, torch.zeros(3), torch.ones(3), training=True),
    "concatenated": lambda x: torch.cat([x, x.to(torch.float64)]),
    "half precision": lambda x: torch.autocast("cpu", torch.float16)(functional.linear)(x, torch.ones(7, 8)),
    "attention": _attention,
}  # fmt: skip


@pytest.mark.parametrize("name", OPERATORS)
def test_an_operator_is_laid_out_like_the_real_one(name: str) -> None:
    """Shape, strides, type and size of the storage, and which results lie in the argument's storage; twice, as the
    second answer comes from memory."""

    def laid_out() -> list[object]:
        images = torch.zeros(4, 3, 8, 8)
        results = OPERATORS[name](images)
        tensors = [results] if isinstance(results, Tensor) else list(results)
        storages = [one.untyped_storage() for one in (images, *tensors)]
        return [
            (one.shape, one.stride(), one.dtype, one.device, storage.nbytes(), storage._cdata == storages[0]._cdata)
            for one, storage in zip(tensors, storages[1:], strict=True)
        ]

    real = laid_out()
    with ShapesAlone():  # type: ignore[no-untyped-call]
        assert [laid_out(), laid_out()] == [real, real]
        assert type(torch.zeros(1)) is ShapeTensor


def test_attention_keeps_no_matrix_of_scores() -> None:
    """(batch, heads, tokens, dim) = (2, 3, 512, 4): 48 KB each of query, key, value and result, 12 KB of their
    log-sum-exp; the scores would be 6 MB."""
    counted = LiveMemory()
    with ShapesAlone(), counted:  # type: ignore[no-untyped-call]
        query, key, value = (torch.zeros(2, 3, 512, 4, requires_grad=True) for _ in range(3))
        functional.scaled_dot_product_attention(query, key, value)
    assert counted.peak == (4 * 48 + 12) * 1024


def test_gradients_and_recomputing() -> None:
    """A product of 8 x 8 by 8 x 8 with a checkpoint: forward twice and two gradients, 2 x 8^3 operations each."""
    counted = LiveMemory()
    with ShapesAlone(), counted:  # type: ignore[no-untyped-call]
        weight = torch.zeros(8, 8, requires_grad=True)
        images = torch.zeros(8, 8, requires_grad=True)
        checkpoint(lambda x: (x @ weight).relu(), images, use_reentrant=False).sum().backward()
        assert type(weight.grad) is type(images.grad) is ShapeTensor
    assert counted.operations == 4 * 2 * 8**3


@pytest.mark.parametrize(
    "look",
    [
        lambda x: x.sum().item(),
        lambda x: bool(x.sum() > 0),
        lambda x: x.tolist(),
        lambda x: x.numpy(),
        lambda x: x[x > 0],
        lambda x: x.unique(),
        lambda x: x.nonzero(),
        lambda x: torch.equal(x, x),
        lambda x: x.resize_(2, 2),
    ],
)
def test_looking_at_numbers_fails(look: Callable[[Tensor], object]) -> None:
    with ShapesAlone(), pytest.raises((RuntimeError, NotImplementedError)):  # type: ignore[no-untyped-call]
        look(torch.zeros(4))
