"""Masks of a whole sequence against the released loop written densely, with a small network; sizes of frames."""

from __future__ import annotations

import copy
from collections import deque
from collections.abc import Iterator

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from ssl_bench import registry
from ssl_bench.backbone import Backbone
from ssl_bench.datasets.shapes.render import render_clip
from ssl_bench.errors import UserError
from ssl_bench.evaluation.features import UnusableFeatures
from ssl_bench.evaluators.davis.opencv_resize import resize_bilinear
from ssl_bench.evaluators.davis.video_masks import Propagation, frame_size, one_hot, patch_features, propagate_masks
from tests.evaluators.test_propagation import released_decision, released_step


@pytest.fixture(scope="module")
def network() -> Backbone:
    torch.manual_seed(0)
    kind = registry.backbone("deit_ti16")
    return kind(kind.Config(patch_px=8, depth=2, dim=64), image_px=32).eval()


def clip(height: int, width: int, frames: int, seed: int = 0) -> tuple[list[Image.Image], np.ndarray]:
    images, masks = render_clip(seed, 1, (height, width), frames)
    return [Image.fromarray(image) for image in images], masks


def released_loop(
    network: Backbone, frames: list[Image.Image], mask: np.ndarray, size: tuple[int, int], options: Propagation
) -> Iterator[tuple[np.ndarray, Tensor]]:
    """read_frame, read_seg and eval_video_tracking_davis; masks, and soft labels to tell where the outcome is a tie."""
    height, width = size
    mean, std = torch.tensor([0.485, 0.456, 0.406]).double(), torch.tensor([0.228, 0.224, 0.225]).double()
    patch_px = network.patch_px
    small = np.array(Image.fromarray(mask).resize((width // patch_px, height // patch_px), 0))
    values = np.arange(mask.max() + 1)
    first_labels = torch.from_numpy((small[:, :, None] == values).astype(np.float64))
    queue: deque[tuple[Tensor, Tensor]] = deque(maxlen=options.context_frames)
    for index, frame in enumerate(frames):
        pixels = torch.from_numpy(resize_bilinear(np.array(frame), height, width).astype(np.float64) / 255)
        with torch.no_grad():
            features = network.patch_tokens(((pixels - mean) / std).permute(2, 0, 1)[None])[0].permute(1, 2, 0)
        if index == 0:
            first = (features, first_labels)
            continue
        sources = [first, *queue]
        soft = released_step(
            features, [one for one, _ in sources], [labels for _, labels in sources],
            options.radius or 99, options.top_k, options.temperature,
        )  # fmt: skip
        queue.append((features, soft))
        hard = released_decision(soft, patch_px).numpy().astype(np.uint8)
        yield np.array(Image.fromarray(hard).resize((mask.shape[1], mask.shape[0]), 0)), soft


def soft_labels(network: Backbone, frames: list[Image.Image], mask: np.ndarray, options: Propagation) -> list[Tensor]:
    """What `propagate_masks` carries along, seen where it decides."""
    seen = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            "ssl_bench.evaluators.davis.video_masks.hard_labels",
            lambda soft, height, width: seen.append(soft) or torch.zeros((height, width), dtype=torch.uint8),
        )
        list(propagate_masks(network, frames, mask, options))
    return seen


@pytest.mark.parametrize(
    ("height", "width", "options"),
    [
        (96, 150, Propagation(short_side_px=96, radius=3, context_frames=2)),
        (150, 96, Propagation(short_side_px=64, radius=12, context_frames=7)),
        (64, 64, Propagation(short_side_px=128, radius=None, context_frames=3, top_k=3, temperature=0.2)),
    ],
)
def test_masks_are_those_of_the_released_loop(network: Backbone, height: int, width: int, options: Propagation) -> None:
    """Equal on every pixel; soft labels to 1e-9. In float64, where no two patches are as near as rounding: no ties."""
    network = copy.deepcopy(network).double()
    frames, masks = clip(height, width, 6)
    size = frame_size(width, height, options.short_side_px, network.patch_px)
    assert len(np.unique(masks[0])) > 1
    ours = list(propagate_masks(network, frames, masks[0], options))
    released = list(released_loop(network, frames, masks[0], size, options))
    assert np.array_equal(ours[0], masks[0])
    for index, (mask, _) in enumerate(released):
        assert ours[index + 1].dtype == np.uint8
        assert np.array_equal(ours[index + 1], mask), index
    for soft, (_, expected) in zip(soft_labels(network, frames, masks[0], options), released, strict=True):
        torch.testing.assert_close(soft, expected, rtol=0, atol=1e-9)


def test_frames_are_read_one_by_one_and_no_more_than_needed(network: Backbone) -> None:
    frames, masks = clip(64, 64, 5)
    read = []

    def reading() -> Iterator[Image.Image]:
        for index, frame in enumerate(frames):
            read.append(index)
            yield frame

    for index, _ in enumerate(propagate_masks(network, reading(), masks[0], Propagation(short_side_px=64))):
        assert read == list(range(index + 1))


def test_what_appears_later_and_void_are_background(network: Backbone) -> None:
    frames, masks = clip(64, 64, 3)
    first = np.where(masks[0] > 0, np.uint8(2), np.uint8(0))
    first[:8] = 255
    found = list(propagate_masks(network, frames, first, Propagation(short_side_px=64)))
    assert set(np.unique(found)) == {0, 2}


def test_not_finite_features_are_told(network: Backbone) -> None:
    frames, masks = clip(64, 64, 2)
    torch.manual_seed(0)
    broken = registry.backbone("deit_ti16")(network.Config(patch_px=8, depth=1, dim=64), image_px=32).eval()
    with torch.no_grad():
        broken.network.norm.weight[0] = float("nan")
    with pytest.raises(UnusableFeatures, match="not finite"):
        list(propagate_masks(broken, frames, masks[0], Propagation(short_side_px=64)))


def test_patch_features_are_unit_vectors(network: Backbone) -> None:
    features = patch_features(network, clip(64, 96, 1)[0][0], (64, 96))
    assert features.shape == (8, 12, 64)
    torch.testing.assert_close(features.norm(dim=2), torch.ones(8, 12))


@pytest.mark.parametrize(
    ("frame", "short", "patch", "expected"),
    [
        ((854, 480), 480, 16, (480, 832)),  # (width, height) -> (height, width), worked by hand from read_frame
        ((854, 480), 480, 8, (480, 832)),
        ((480, 854), 480, 8, (832, 480)),
        ((432, 240), 480, 16, (480, 832)),  # 864 before the floor
        ((910, 480), 480, 16, (480, 896)),
        ((300, 300), 480, 16, (480, 448)),
        ((320, 224), 224, 16, (224, 320)),
        ((854, 480), 480, 5, (480, 850)),  # 5 does not divide 64
        ((854, 480), 480, 14, (476, 840)),  # nor 480: 34 patches, 846.9 before the floor
        ((854, 480), 480, None, (480, 832)),
    ],
)
def test_frame_sizes(frame: tuple[int, int], short: int, patch: int | None, expected: tuple[int, int]) -> None:
    assert frame_size(*frame, short, patch) == expected


def test_frames_without_a_patch_are_refused() -> None:
    with pytest.raises(UserError, match="no patch of 16 px"):
        frame_size(854, 480, 12, 16)
    with pytest.raises(UserError, match="no 64 px"):
        frame_size(100, 90, 32, 16)


def test_one_hot_takes_the_pixel_at_the_center_of_a_patch() -> None:
    mask = np.zeros((4, 8), np.uint8)
    mask[1, 5] = 3  # pixel (1, 5) is at the center of no patch of 4 px, (2, 2) and (2, 6) are
    assert one_hot(mask, 1, 2).tolist() == [[[1, 0, 0, 0], [1, 0, 0, 0]]]
    mask[2, 6] = 1
    assert one_hot(mask, 1, 2).tolist() == [[[1, 0, 0, 0], [0, 1, 0, 0]]]
