"""The evaluator voc-jaccard: its numbers from slow loops over pixels, its protocol, its pictures, its messages."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from ssl_bench import registry
from ssl_bench.datasets.indexed_png import read_mask, write_mask
from ssl_bench.datasets.voc import open_voc
from ssl_bench.errors import UserError
from ssl_bench.evaluation.attention_maps import seen_size
from ssl_bench.evaluation.evaluate import build_evaluators, refuse_unsupported
from ssl_bench.evaluation.features import UnusableFeatures
from ssl_bench.evaluator import Evaluation, Measurement
from ssl_bench.evaluators.voc_jaccard.attention_masks import upsampled
from ssl_bench.evaluators.voc_jaccard.evaluator import VocJaccard, VocJaccardConfig
from ssl_bench.runs import reevaluate
from ssl_bench.settings import parse_settings
from ssl_bench_plugins.backbones.deit import DeitTi16, ViTSettings
from ssl_bench_plugins.backbones.resnet import ResNet18, ResNetSettings
from tests.datasets.test_voc import write_voc
from tests.evaluators.test_attention_masks import jaccard_slowly
from tests.toy import ToyDataset

SIZES = ((40, 30), (30, 44), (32, 32))
"""Width and height of the images."""


@pytest.fixture(scope="module")
def voc(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three images of different sizes with one or two classes and void; a fourth of background alone."""
    root = write_voc(tmp_path_factory.mktemp("voc"), names=("a", "b", "c", "empty"))
    random = np.random.default_rng(0)
    for name, (width, height) in zip("abc", SIZES, strict=True):
        coarse = random.integers(0, 256, (4, 4, 3)).astype(np.uint8)
        Image.fromarray(coarse).resize((width, height)).save(root / f"JPEGImages/{name}.jpg")
        classes = np.zeros((height, width), np.uint8)
        classes[4:20, 5:25], classes[10:14, 8:12] = 7, 255
        objects = np.where(classes == 7, 1, classes).astype(np.uint8)
        objects[15:20, 5:25] = 2
        if name == "b":
            classes[25:40, 10:20], objects[25:40, 10:20] = 12, 3
        write_mask(root / f"SegmentationClass/{name}.png", classes)
        write_mask(root / f"SegmentationObject/{name}.png", objects)
    write_mask(root / "SegmentationClass/empty.png", np.full((4, 6), 255, np.uint8))
    write_mask(root / "SegmentationObject/empty.png", np.full((4, 6), 255, np.uint8))
    return root


def network(patch_px: int = 8) -> DeitTi16:
    torch.manual_seed(0)
    built = DeitTi16(ViTSettings(patch_px=patch_px, depth=2, dim=48, heads=3), image_px=32).eval()
    with torch.no_grad():  # weights large enough for heads that differ
        for parameter in built.network.blocks[-1].attn.qkv.parameters():
            parameter.mul_(12)
    return built


def measure(path: Path | None, output: Path, backbone: Any = None, **settings: Any) -> dict[str, Measurement]:
    values = {"path": None if path is None else str(path), "size_px": 32, **settings}
    evaluator = VocJaccard(parse_settings(VocJaccardConfig, values, "evaluators.voc-jaccard", "voc-jaccard"))
    evaluation = Evaluation(backbone or network(), None, ToyDataset(), 0, output)  # type: ignore[arg-type]
    return {one.metric: one for one in evaluator.evaluate(evaluation)}


def slowly(path: Path, seen: Any, value_of: Any, masks: str) -> list[np.ndarray]:
    """Per image (masks, heads) of Jaccards from masks at full resolution and loops over pixels."""
    found, net = [], network()
    opened = open_voc(path, masks="object" if masks == "object" else "class")
    for item in (opened.item(index) for index in range(3)):
        height, width = seen(item.image.size)
        pixels = np.asarray(item.image.resize((width, height), Image.Resampling.BILINEAR), np.float32) / 255
        pixels = (pixels - np.float32([0.485, 0.456, 0.406])) / np.float32([0.229, 0.224, 0.225])
        with torch.no_grad():
            maps = net.attention(torch.from_numpy(pixels.transpose(2, 0, 1))[None])[0].double().numpy()
        mask = value_of(item)
        rows = []
        for value in sorted(set(mask.ravel().tolist()) - {0, 255}):
            row = []
            for one in maps:
                order, kept, mass = np.argsort(-one.ravel()), np.zeros(one.size, bool), 0.0
                for patch in order:
                    if mass >= 0.6 * one.sum():
                        break
                    kept[patch], mass = True, mass + one.ravel()[patch]
                row.append(jaccard_slowly(upsampled(kept.reshape(one.shape), mask.shape), mask, value))
            rows.append(row)
        found.append(np.array(rows))
    return found


@pytest.mark.parametrize("masks", ["foreground", "class", "object"])
def test_numbers_are_those_of_slow_loops(voc: Path, tmp_path: Path, masks: str) -> None:
    value_of = {
        "foreground": lambda item: np.where((item.mask > 0) & (item.mask < 255), 1, item.mask),
        "class": lambda item: item.mask,
        "object": lambda item: item.mask,
    }[masks]
    expected = slowly(voc, lambda size: (32, 32), value_of, masks)
    found = measure(voc, tmp_path, masks=masks)
    by_head = np.mean([one.mean(axis=0) for one in expected], axis=0)
    assert found["best_head"].value == pytest.approx(
        100 * np.mean([one.max(axis=1).mean() for one in expected]), abs=1e-9
    )
    assert found["best_single_head"].value == pytest.approx(100 * by_head.max(), abs=1e-9)
    assert f"head {by_head.argmax() + 1} of 3" in found["best_single_head"].details
    assert found["average_head"].value == pytest.approx(100 * by_head.mean(), abs=1e-9)
    by_image = measure(voc, tmp_path, masks=masks, best_head="image")["best_head"]
    assert by_image.value == pytest.approx(100 * np.mean([one.mean(axis=0).max() for one in expected]), abs=1e-9)
    assert "best head for each image" in by_image.protocol.text
    assert {one.n for one in found.values()} == {3}
    count = {"foreground": 3, "class": 4, "object": 7}[masks]
    assert found["best_head"].details == f"{count} {masks} masks; 1 image without any left out"


def test_three_rules_by_hand(tmp_path: Path) -> None:
    """One image, two objects of one class; head 1 lies on the left object, head 2 on the right one.

    Patches of 8 px: left object = patch (0, 0), right object = patch (0, 3), both whole, with a border of void between
    patches 1 and 2. Head 1 keeps patch (0, 0) and (0, 1), head 2 patch (0, 3) alone. By object: (max(1/2, 0) + max(0,
    1)) / 2. By class or foreground, where the objects are one mask of two patches: max(1/3, 1/2). One head for the
    image: objects max((1/2 + 0) / 2, (0 + 1) / 2).
    """
    root = write_voc(tmp_path, names=("two",))
    Image.new("RGB", (32, 8)).save(root / "JPEGImages/two.jpg")
    objects = np.zeros((8, 32), np.uint8)
    objects[:, :8], objects[:, 24:], objects[:, 16:18] = 1, 2, 255
    write_mask(root / "SegmentationObject/two.png", objects)
    write_mask(root / "SegmentationClass/two.png", np.where(objects == 2, np.uint8(1), objects))
    maps = np.zeros((2, 1, 4))
    maps[0, 0, :2], maps[1, 0, 3] = 0.5, 1.0

    class Fixed(DeitTi16):
        def attention(self, images: torch.Tensor) -> torch.Tensor:
            return torch.from_numpy(maps)[None]

    fixed = Fixed(ViTSettings(patch_px=8, depth=1, dim=48, heads=3), image_px=32)
    for masks, best_head, expected in (
        ("object", "mask", 0.75), ("class", "mask", 0.5), ("foreground", "mask", 0.5), ("object", "image", 0.5),
    ):  # fmt: skip
        found = measure(root, tmp_path / "out", fixed, masks=masks, best_head=best_head, resize="native", pictures=0)
        assert found["best_head"].value == pytest.approx(100 * expected, abs=1e-9), (masks, best_head)
    assert measure(root, tmp_path / "out", fixed, resize="native", pictures=0)["best_head"].value == 75.0  # the default


def test_an_object_smaller_than_a_patch_counts(voc: Path, tmp_path: Path) -> None:
    """At the size the network sees, one pixel of 44 rows would vanish: masks are compared at the image's own size."""
    root = shutil.copytree(voc, tmp_path / "VOC2012")
    with_speck = read_mask(root / "SegmentationObject/b.png")
    with_speck[40, 2] = 9
    write_mask(root / "SegmentationObject/b.png", with_speck)
    before, after = (measure(place, tmp_path / "out", pictures=0)["best_head"] for place in (voc, root))
    assert (before.details[:2], after.details[:2], after.n) == ("7 ", "8 ", 3)
    assert np.isfinite(after.value)
    assert after.value < before.value  # a fourth object of image b, which no patch of 8 px matches


def test_an_earlier_version_of_the_protocol_is_measured_again(voc: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    evaluator = VocJaccard(VocJaccardConfig(path=str(voc)))
    found = [reevaluate._digest("voc-jaccard", evaluator, ToyDataset(), 32)]
    for version in (1, 3):
        monkeypatch.setattr(VocJaccard, "version", version)
        found.append(reevaluate._digest("voc-jaccard", evaluator, ToyDataset(), 32))
    assert len(set(found)) == 3


def test_aspect_and_own_size(voc: Path, tmp_path: Path) -> None:
    def short(size: tuple[int, int]) -> tuple[int, int]:
        return tuple(round(side * 32 / min(size) / 8) * 8 for side in size[::-1])  # type: ignore[return-value]

    def own(size: tuple[int, int]) -> tuple[int, int]:
        return tuple(round(side / 8) * 8 for side in size[::-1])  # type: ignore[return-value]

    for settings, seen in (({"resize": "short-side"}, short), ({"resize": "native"}, own)):
        expected = slowly(voc, seen, lambda item: item.mask, "object")
        found = measure(voc, tmp_path, **settings)["best_head"]  # type: ignore[arg-type]
        assert found.value == pytest.approx(100 * np.mean([one.max(axis=1).mean() for one in expected]), abs=1e-9)


@pytest.mark.parametrize(
    ("size", "size_px", "resize", "patch_px", "expected"),
    [
        ((375, 500), 480, "square", 16, (480, 480)),
        ((375, 500), 480, "square", 14, (476, 476)),  # 34 patches of 14
        ((375, 500), 480, "short-side", 16, (480, 640)),
        ((375, 500), 480, "native", 16, (368, 496)),  # 23.4 and 31.25 patches
        ((3, 500), 480, "native", 16, (16, 496)),
    ],
)
def test_sizes_by_hand(size: Any, size_px: Any, resize: Any, patch_px: int, expected: tuple[int, int]) -> None:
    assert seen_size(size, size_px, resize, patch_px) == expected


def test_the_protocol_names_what_decides(voc: Path, tmp_path: Path) -> None:
    first = measure(voc, tmp_path)
    assert first["best_head"].protocol.text == (
        "attention Jaccard v2: list val, images square 32 px, CLS attention of the last block, 60 % of the mass, "
        "object masks at their own size without void, best head for each mask, mean over masks then images, "
        "center box 50 %"
    )
    assert [one.metric for one in first.values() if one.primary] == ["best_head"]
    assert len({one.protocol for one in first.values()}) == 1
    for changed in (
        {"images": 2}, {"masks": "foreground"}, {"masks": "class"}, {"keep_mass": 0.5}, {"size_px": 40},
        {"resize": "native"}, {"resize": "short-side"}, {"best_head": "image"},
    ):  # fmt: skip
        other = measure(voc, tmp_path, **changed)
        assert other["best_head"].protocol != first["best_head"].protocol, changed
    baselines = measure(voc, tmp_path, size_px=40)
    for name in ("whole_image", "center_box"):  # no network takes part in them
        assert baselines[name].value == first[name].value


def test_a_batch_changes_nothing(voc: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = measure(voc, tmp_path)
    monkeypatch.setattr("ssl_bench.evaluators.voc_jaccard.evaluator.AT_ONCE", 1)
    for name, one in measure(voc, tmp_path).items():
        assert one.value == pytest.approx(first[name].value, abs=1e-9)


def test_a_sheet_for_the_first_images(voc: Path, tmp_path: Path) -> None:
    measure(voc, tmp_path / "out", pictures=2)
    assert sorted(file.name for file in (tmp_path / "out").iterdir()) == ["a.png", "b.png"]
    with Image.open(tmp_path / "out/a.png") as sheet:
        assert sheet.mode == "RGB"
        assert sheet.width > 3 * 240  # as many columns as the heads fill
    measure(voc, tmp_path / "none", pictures=0)
    assert not (tmp_path / "none").exists()


def test_what_is_read_is_recorded(voc: Path) -> None:
    given = VocJaccard(VocJaccardConfig(path=str(voc))).data(ToyDataset())
    assert (given.name, given.synthetic, given.image_px) == ("voc12-val-4", False, 480)
    assert given.fingerprint == open_voc(voc, masks="object").fingerprint
    assert VocJaccard(VocJaccardConfig(path=str(voc), resize="native")).data(ToyDataset()).image_px == 30


def test_without_a_path_the_embedded_masks_are_read(tmp_path: Path) -> None:
    read = VocJaccard(VocJaccardConfig(images=4)).data(ToyDataset())
    assert (read.name, read.synthetic, read.image_px) == ("shapes-masks", True, ToyDataset().image_px)
    found = measure(None, tmp_path, images=4, pictures=0, size_px=None)
    by_class = measure(None, tmp_path, images=4, masks="class", pictures=0, size_px=None)
    assert by_class["best_head"].value == found["best_head"].value  # one object an image
    assert found["best_head"].n == 4
    assert "first 4 of list val" in found["best_head"].protocol.text
    assert "images square 32 px" in found["best_head"].protocol.text  # what the network is meant for


def test_messages(voc: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"nowhere does not exist"):
        VocJaccard(VocJaccardConfig(path=str(tmp_path / "nowhere"))).data(ToyDataset())
    empty = tmp_path / "empty.txt"
    empty.write_text("empty\n")
    without = write_voc(tmp_path, objects=False)
    with pytest.raises(UserError, match=r"SegmentationObject.*--set evaluators\.voc-jaccard\.masks=class"):
        VocJaccard(VocJaccardConfig(path=str(without))).data(ToyDataset())
    assert VocJaccard(VocJaccardConfig(path=str(without), masks="class")).data(ToyDataset()).name == "voc12-val-2"
    with pytest.raises(UserError, match=r"none of the 1 images of empty in .* nothing to compare with"):
        measure(voc, tmp_path, list=str(empty))
    broken = network()
    with torch.no_grad():
        broken.network.norm_pre = torch.nn.Identity()
        broken.network.blocks[0].mlp.fc1.weight.fill_(torch.nan)
    with pytest.raises(UnusableFeatures, match=r"not finite"):
        measure(voc, tmp_path, backbone=broken)
    convnet = ResNet18(ResNetSettings(width=0.125), image_px=32)
    evaluators = build_evaluators([("voc-jaccard", {"path": str(voc)})])
    with pytest.raises(UserError, match=r"'voc-jaccard' needs attention, which resnet18 does not have.*convolutional"):
        refuse_unsupported(convnet, "resnet18", evaluators)


def test_it_is_registered() -> None:
    assert registry.evaluator("voc-jaccard") is VocJaccard
