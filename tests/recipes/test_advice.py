"""What a message advises works: every suggestion is applied, and the request or the first step it was for succeeds."""

from __future__ import annotations

import re
from pathlib import Path
from random import Random
from typing import Any

import pytest
import torch

from ssl_bench import registry
from ssl_bench.errors import UserError
from ssl_bench.method import Batch, Progress, evaluated_network
from ssl_bench.recipes.request import Request
from ssl_bench.recipes.resolve import resolve
from ssl_bench.runs.building import build_method
from ssl_bench.runs.trial import require_images_fit, step_failure
from ssl_bench.settings import parse_text
from tests.methods import WITH_SETTINGS
from tests.toy import write_image_folder


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_image_folder(tmp_path_factory.mktemp("data") / "tints", train=10, test=2, px=64)


def refusal(request: Request) -> str:
    with pytest.raises(UserError) as error:
        resolve(request)
    return str(error.value)


def suggested(message: str) -> list[dict[str, Any]]:
    """Each `--set` of a message as a change on its own; `--batch-size N` too."""
    changes = [{key: parse_text(value)} for key, value in re.findall(r"--set ([\w.-]+)=([^\s;,]*[^\s;,.])", message)]
    return changes + [{"training.batch_size": int(size)} for size in re.findall(r"--batch-size (\d+)", message)]


def message_of(request: Request) -> str:
    """Why a request is refused; "" where it is not."""
    try:
        resolve(request)
    except UserError as error:
        return str(error)
    return ""


def works(request: Request, change: dict[str, Any], mistakes_left: int = 1) -> None:
    """The request with the change resolves; where it has another mistake, after the advice on that one, too."""
    changed = Request(request.method, request.arch, request.data, values={**request.values, **change})
    message = message_of(changed)
    if message and mistakes_left:
        assert advice(message), message
        works(changed, advice(message)[0], mistakes_left - 1)
    else:
        assert message == "", change


def advice(message: str) -> list[dict[str, Any]]:
    """Every change that a message names."""
    changes = suggested(message)
    named = re.search(r"\(method\.(\w+)\) .*sizes that are: (\d+)(?: or (\d+))?", message)
    if named:
        changes += [{f"method.{named[1]}": int(size)} for size in named.groups()[1:] if size]
    return changes


@pytest.mark.parametrize("method", [name for name in WITH_SETTINGS if name != "random"])  # it trains nothing
def test_a_batch_larger_than_the_data(folder: Path, method: str) -> None:
    request = Request(method, "deit_ti16", str(folder), values={"training.batch_size": 64})
    message = refusal(request)
    assert "--set training.batch_size=20 or smaller" in message
    for change in suggested(message):
        works(request, change)


@pytest.mark.parametrize("arch", ["deit_ti16", "deit_s5", "timm:vit_base_patch14_dinov2", "timm:vit_small_patch16_224"])
@pytest.mark.parametrize("method", WITH_SETTINGS)
def test_images_and_views_that_patches_do_not_divide(folder: Path, method: str, arch: str) -> None:
    crops = [name for name in registry.method(method).Config.model_fields if name.endswith("crop_px")]
    cases = [{"data.image_px": 50}, {"data.image_px": 80, **{f"method.{name}": 23 for name in crops[:1]}}]
    for case in cases:
        request = Request(method, arch, str(folder), values={"training.batch_size": 4, **case})
        message = message_of(request)
        if not message:
            continue  # patches of 5 px divide 50 px
        assert "backbone.patch_px" not in message or not arch.startswith("timm:")
        assert advice(message), message
        for change in advice(message):
            works(request, change, mistakes_left=len(case) - 1)


@pytest.mark.parametrize(
    ("arch", "px"), [("timm:mixer_s16_224", 64), ("timm:convnext_atto", 16), ("timm:swin_tiny_patch4_window7_224", 64)]
)
@pytest.mark.parametrize("method", ["dino", "simclr"])
def test_a_network_that_cannot_see_the_views(tmp_path: Path, method: str, arch: str, px: int) -> None:
    """Applying what the messages say, one after another, leads to a first step that works, in two at most."""
    data = write_image_folder(tmp_path / "tints", train=5, test=2, px=px)
    values: dict[str, Any] = {"training.batch_size": 4}
    for _ in range(3):
        message = first_step_message(Request(method, arch, str(data), values=values))
        if not message:
            return
        assert "\n" not in message
        assert suggested(message), message
        values |= suggested(message)[0]
    pytest.fail(f"still refused with {values}: {message}")


def first_step_message(request: Request) -> str:
    """What the runner would say of the network and of its first step; "" where both work."""
    try:
        resolved = resolve(request)
        network = build_method(resolved)
        require_images_fit(evaluated_network(network), resolved.dataset.image_px, resolved.recipe.arch, resolved)
    except UserError as error:
        return str(error)
    make_views, images = network.make_views(resolved.method_config), resolved.dataset.train
    views = [make_views(images.image(index), Random(index)) for index in range(4)]
    batch = Batch(tuple(torch.stack(view) for view in zip(*views, strict=True)), torch.arange(4))
    try:
        network.step(batch, Progress(0, 10, 0, 2))
    except Exception as error:
        return str(step_failure(error, batch, evaluated_network(network), resolved))
    return ""


@pytest.mark.parametrize("method", WITH_SETTINGS)
def test_settings_that_do_not_fit_the_batch(folder: Path, method: str) -> None:
    """Methods' own refusals: a batch of one, a queue that is no multiple of it, more prototypes than images, ..."""
    wrong = {"queue_size": 3, "batch_norm_splits": 3, "prototypes": 50}
    fields = registry.method(method).Config.model_fields
    cases: list[dict[str, Any]] = [{"training.batch_size": 1}]
    cases += [{"training.batch_size": 4, f"method.{name}": value} for name, value in wrong.items() if name in fields]
    for arch in ("deit_ti16", "resnet18"):
        for case in cases:
            request = Request(method, arch, str(folder), values=case)
            message = message_of(request)
            assert not message or advice(message), message
            for change in advice(message):
                works(request, change)
