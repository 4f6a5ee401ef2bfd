"""Image folders: what is listed, in which order, what the fingerprint covers, and what is refused in which words."""

from __future__ import annotations

import os
import pickle
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from pydantic import ValidationError

from ssl_bench.datasets.checking import check_images, require_readable
from ssl_bench.datasets.image_files import ImageFiles, is_complete, set_name, subset
from ssl_bench.datasets.image_folder import ImageFolder
from ssl_bench.datasets.listing import ImageFile, list_images
from ssl_bench.errors import UserError


def write(path: Path, value: int = 0, size: tuple[int, int] = (8, 8)) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, (value, value, value)).save(path)


@pytest.fixture
def birds(tmp_path: Path) -> Path:
    """Two classes, three training images each, one of them in a folder within its class; two to validate on."""
    root = tmp_path / "birds"
    for value, name in enumerate(
        ("owl/b.png", "owl/a.png", "owl/barn/c.png", "crow/z.png", "crow/y.PNG", "crow/x.png")
    ):
        write(root / "train" / name, value)
    for value, name in enumerate(("owl/1.png", "crow/2.png")):
        write(root / "val" / name, 10 + value)
    return root


def opened(path: Path, **settings: object) -> ImageFolder:
    return ImageFolder(ImageFolder.Config(**settings), path)


def names(split: ImageFiles) -> list[str]:
    return [split.path(index).relative_to(split.root).as_posix() for index in range(len(split))]


def test_order_labels_and_pixels(birds: Path) -> None:
    dataset = opened(birds)
    assert dataset.classes == ("crow", "owl")
    assert names(dataset.train) == [
        "crow/x.png", "crow/y.PNG", "crow/z.png", "owl/a.png", "owl/b.png", "owl/barn/c.png",
    ]  # fmt: skip
    assert list(dataset.train.labels) == [0, 0, 0, 1, 1, 1]
    assert [dataset.train.image(index).getpixel((0, 0))[0] for index in range(6)] == [5, 4, 3, 1, 0, 2]
    assert list(dataset.test.labels) == [0, 1]
    assert (dataset.name, dataset.test_folder, dataset.path) == ("birds", "val", birds)
    assert np.asarray(dataset.train.labels).dtype == np.int64  # no trap of unsigned arithmetic for evaluators


def test_the_same_as_torchvision(birds: Path) -> None:
    from torchvision.datasets import ImageFolder as Torchvision

    theirs, ours = Torchvision(birds / "train"), opened(birds)
    assert theirs.classes == list(ours.classes)
    assert sorted(theirs.samples) == sorted(
        (str(ours.train.path(i)), label) for i, label in enumerate(ours.train.labels)
    )


def test_index_outside_is_an_error(birds: Path) -> None:
    split = opened(birds).train
    for index in (-1, 6):
        with pytest.raises(IndexError, match="of 6"):
            split.image(index)


def test_split_survives_pickling_and_is_small(birds: Path) -> None:
    split = opened(birds, decode_px=16).train
    again = pickle.loads(pickle.dumps(split))
    assert names(again) == names(split)
    assert again.image(3).tobytes() == split.image(3).tobytes()
    many = ImageFiles(Path("/data"), ((0, ImageFile(f"n01440764/n01440764_{i:05d}.JPEG", 1)) for i in range(10_000)))
    assert len(pickle.dumps(many)) < 50 * len(many)  # 30 of them the name


def test_files_that_are_passed_over(birds: Path) -> None:
    before = opened(birds).fingerprint
    for name in ("owl/.DS_Store", "owl/._a.png", "owl/labels.txt", ".ipynb_checkpoints/a.png", "__MACOSX/owl/a.png"):
        (birds / "train" / name).parent.mkdir(exist_ok=True, parents=True)
        (birds / "train" / name).write_bytes(b"")
    assert opened(birds).fingerprint == before


def test_fingerprint(birds: Path, tmp_path: Path) -> None:
    before = opened(birds).fingerprint
    assert len(before) == 64
    moved = tmp_path / "elsewhere" / "renamed"
    shutil.copytree(birds, moved)
    assert opened(moved).fingerprint == before  # the place does not matter, nor when the files were written
    os.rename(moved / "val", moved / "test")
    assert opened(moved).fingerprint == before
    os.rename(moved / "train/owl/a.png", moved / "train/owl/a2.png")
    renamed = opened(moved).fingerprint
    with open(moved / "train/owl/b.png", "ab") as file:
        file.write(b"\0")
    longer = opened(moved).fingerprint
    os.rename(moved / "train/crow", moved / "train/raven")
    os.rename(moved / "test/crow", moved / "test/raven")
    other_class = opened(moved).fingerprint
    part = opened(moved, train_fraction=0.5).fingerprint
    assert len({before, renamed, longer, other_class, part}) == 5
    assert opened(birds, image_px=64, decode_px=64).fingerprint == before  # settings of a recipe, not the data


@pytest.mark.parametrize(
    ("side", "decided"), [(1, 16), (8, 16), (28, 32), (32, 32), (40, 48), (64, 64), (96, 96), (97, 224), (300, 224)]
)
def test_image_px_is_decided_by_the_images(birds: Path, side: int, decided: int) -> None:
    for index in range(6):
        write(opened(birds).train.path(index), size=(side, side + index))
    assert opened(birds).image_px == decided
    assert opened(birds, image_px=48).image_px == 48


def test_image_px_with_a_broken_file(birds: Path) -> None:
    (birds / "train/owl/a.png").write_text("no image")
    assert opened(birds).image_px == 16  # `require_readable` names it
    for index in range(6):
        opened(birds).train.path(index).write_text("no image")
    with pytest.raises(UserError, match="no image of a known kind"):
        opened(birds, image_px=None)


def test_decode_px_below_the_networks_images_is_refused(birds: Path) -> None:
    with pytest.raises(UserError, match=r"decode_px = 32 .* 64 px .*at least 64"):
        opened(birds, image_px=64, decode_px=32)


def test_val_is_preferred_and_test_can_be_asked_for(birds: Path) -> None:
    shutil.copytree(birds / "val", birds / "test")
    write(birds / "test/owl/extra.png")
    assert (opened(birds).test_folder, len(opened(birds).test)) == ("val", 2)
    assert len(opened(birds, test_split="test").test) == 3
    shutil.rmtree(birds / "val")
    assert opened(birds).test_folder == "test"
    with pytest.raises(UserError, match=r"birds/ has no val/\. It has test/: --set data\.test_split=test"):
        opened(birds, test_split="val")
    with pytest.raises(ValidationError):
        opened(birds, test_split="valid")


def test_train_fraction(birds: Path) -> None:
    for index in range(40):
        write(birds / f"train/owl/more{index}.png")
    half = opened(birds, train_fraction=0.25)
    assert np.bincount(np.asarray(half.train.labels)).tolist() == [1, 11]  # of 3 and 43
    assert len(half.test) == 2
    assert half.name == "birds-25pct"
    assert names(half.train) == sorted(names(half.train))
    assert names(opened(birds, train_fraction=0.25).train) == names(half.train)
    assert names(opened(birds, train_fraction=0.25, subset_seed=1).train) != names(half.train)
    assert set(names(half.train)) <= set(names(opened(birds, train_fraction=0.5).train))
    assert np.bincount(np.asarray(opened(birds, train_fraction=0.001).train.labels)).tolist() == [1, 1]


def test_subset_is_the_same_everywhere() -> None:
    assert subset([f"{i}.jpg" for i in range(20)], "owl", 0.25, 0) == [2, 6, 8, 12, 19]


def test_names_for_run_ids(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "my birds (2)").mkdir()
    monkeypatch.chdir(tmp_path / "my birds (2)")
    assert set_name(Path(".")) == "my-birds-2"
    assert set_name(Path("/")) == "images"
    assert set_name(Path("x"), 0.001, "imagenet") == "imagenet-0.1pct"


def test_an_incomplete_copy_does_not_get_the_official_name() -> None:
    official = (200, 100_000, 10_000)
    assert is_complete((200, 100_000, 10_000), official)
    assert is_complete((200, 9_900, 10_000), official, 0.1)
    assert not is_complete((200, 99_999, 10_000), official)
    assert not is_complete((200, 5_000, 10_000), official, 0.1)
    assert not is_complete((10, 100_000, 10_000), official)


def refused(path: Path, **settings: object) -> str:
    with pytest.raises(UserError) as caught:
        opened(path, **settings)
    return str(caught.value)


def test_no_split_to_test_on(birds: Path) -> None:
    shutil.rmtree(birds / "val")
    words = refused(birds)
    assert "birds/ has no val/ or test/. Expected an image folder: " in words
    assert "birds/{train,val}/CLASS/IMAGE" in words


def test_no_train(birds: Path) -> None:
    shutil.rmtree(birds / "train")
    assert "birds/ has no train/" in refused(birds)


def test_one_class(birds: Path) -> None:
    shutil.rmtree(birds / "train/crow")
    shutil.rmtree(birds / "val/crow")
    data = ImageFolder(ImageFolder.Config(), birds)  # to train on without its labels, and to look at
    assert data.classes == ("owl",)
    assert set(data.train.labels) == {0}


def test_a_class_that_training_does_not_have(birds: Path) -> None:
    os.rename(birds / "val/crow", birds / "val/crows")
    words = refused(birds)
    assert "birds/val/crows/ is a class that " in words
    assert "Did you mean 'crow'?" in words


def test_a_class_without_test_images_is_allowed(birds: Path) -> None:
    write(birds / "train/auk/a.png")
    dataset = opened(birds)
    assert (dataset.classes, list(dataset.test.labels)) == (("auk", "crow", "owl"), [1, 2])


def test_a_class_without_images(birds: Path) -> None:
    (birds / "train/auk/deep").mkdir(parents=True)
    assert "the class folder " in refused(birds)
    assert "birds/train/auk/ is empty. Put its images there or remove the folder." in refused(birds)
    (birds / "train/auk/deep/a.mp4").write_bytes(b"x")
    (birds / "train/auk/b").write_bytes(b"x")
    words = refused(birds)
    assert "birds/train/auk/ holds no image with a known ending, only 1 .mp4, 1 no ending" in words
    assert ".jpeg .jpg" in words


def test_formats_that_cannot_be_read_are_not_left_out_in_silence(birds: Path) -> None:
    for index in range(3):
        (birds / f"train/owl/{index}.HEIC").write_bytes(b"x")
    words = refused(birds)
    assert "birds/train/owl/ holds 3 .heic files, a format that is not read here. Convert them to JPEG" in words


def test_images_without_class_folders(birds: Path) -> None:
    shutil.rmtree(birds / "val")
    write(birds / "val/1.jpg")
    assert "birds/val/ holds images but no class folders" in refused(birds)
    (birds / "val/1.jpg").unlink()
    assert "birds/val/ has no class folders" in refused(birds)


def test_files_that_hold_nothing(birds: Path) -> None:
    for index in range(12):
        (birds / f"train/owl/empty{index:02d}.jpg").write_bytes(b"")
    os.symlink("nowhere.jpg", birds / "train/crow/link.jpg")
    os.symlink("self.jpg", birds / "train/crow/self.jpg")
    words = refused(birds)
    assert "14 image files are empty: " in words
    assert "crow/link.jpg (link to nowhere)" in words
    assert "crow/self.jpg (link to nowhere)" in words
    assert "owl/empty07.jpg (0 bytes) and 4 more. Remove or replace them." in words


def test_links_are_followed_and_loops_are_named(birds: Path, tmp_path: Path) -> None:
    shutil.move(birds / "train/owl", tmp_path / "owls")
    os.symlink(tmp_path / "owls", birds / "train/owl")
    assert len(opened(birds).train) == 6
    os.symlink("..", tmp_path / "owls/barn/up")
    assert "owl/barn/up/ is a link back to a folder that it lies in" in refused(birds)


def test_a_link_to_itself_is_not_a_class(birds: Path) -> None:
    os.symlink("loop", birds / "train/loop")
    assert opened(birds).classes == ("crow", "owl")


def test_val_that_is_train(birds: Path) -> None:
    shutil.rmtree(birds / "val")
    os.symlink("train", birds / "val")
    assert "are the same folder: a test on training images proves nothing" in refused(birds)


def test_names_that_are_not_utf8(birds: Path) -> None:
    shutil.copy(birds / "train/owl/a.png", os.fsencode(birds / "train/owl") + b"/\xff.png")
    dataset = opened(birds)
    assert len(require_readable(dataset).problems) == 0
    os.rename(birds / "train/crow", os.fsencode(birds / "train") + b"/\xfe")
    words = refused(birds)
    assert "train/\\xfe/ is not UTF-8. Rename it." in words
    words.encode()


def test_no_permission(birds: Path) -> None:
    (birds / "train/owl").chmod(0)
    try:
        if os.access(birds / "train/owl", os.R_OK):
            pytest.skip("this user (root) may read everything")
        assert "birds/train/owl/: no permission. Give yourself the right to (chmod u+rx)." in refused(birds)
    finally:
        (birds / "train/owl").chmod(0o755)


def test_bad_files_are_named_together(birds: Path) -> None:
    assert str(require_readable(opened(birds))) == "all 8 images open"
    noise = np.random.default_rng(0).integers(0, 256, (32, 32, 3), dtype=np.uint8)
    for index in range(11):
        path = birds / f"train/crow/cut{index:02d}.jpg"
        Image.fromarray(noise).save(path)
        path.write_bytes(path.read_bytes()[:-200])
    (birds / "val/owl/text.jpg").write_text("no image")
    dataset = opened(birds)
    assert len(check_images(dataset.train)) == len(check_images(dataset.train, workers=1)) == 11
    assert len(check_images(dataset.test)) == 1
    with pytest.raises(UserError) as caught:
        require_readable(dataset)
    lines = str(caught.value).splitlines()
    assert lines[0] == "12 of 20 images cannot be read:"
    assert len(lines) == 12
    assert "crow/cut00.jpg: it is damaged (" in lines[1]
    assert lines[-1] == "  and 2 more"


def test_large_sets_are_sampled_evenly(birds: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ssl_bench.datasets.checking.FULL_CHECK_UP_TO", 7)
    dataset = opened(birds)
    assert str(require_readable(dataset, limit=4)) == "all 8 images open", "a few more, as they are small"
    monkeypatch.setattr("ssl_bench.datasets.checking.SMALL_PIXELS", 10)
    (birds / "val/owl/1.png").write_text("no image")  # the last of 8; images 0, 2, 4, 6 are looked at
    assert str(require_readable(dataset, limit=4)) == "4 of 8 images opened, evenly chosen"
    with pytest.raises(UserError, match=r"^1 of 8 images cannot be read:\n.*val/owl/1"):
        require_readable(dataset, limit=None)
    (birds / "val/crow/2.png").write_text("no image")
    with pytest.raises(UserError, match=r"^1 of the 4 images looked at \(of 8\) cannot be read:\n.*val/crow/2"):
        require_readable(dataset, limit=4)


def test_real_photos_in_all_their_oddity() -> None:
    real = os.environ.get("SSLBENCH_REAL_DATA")
    if not real:
        pytest.skip("set SSLBENCH_REAL_DATA to a folder with tiny-imagenet-10 and cifar10-12k")
    tiny, cifar = opened(Path(real, "tiny-imagenet-10")), opened(Path(real, "cifar10-12k"))
    assert (len(tiny.train), len(tiny.test), tiny.image_px, tiny.test_folder) == (5000, 500, 64, "val")
    assert (len(cifar.train), len(cifar.test), cifar.image_px, cifar.test_folder) == (10_000, 2000, 32, "test")
    assert str(require_readable(tiny)) == "all 5,500 images open"
    photos = list_images(Path(real, "imagenet-photos"))
    assert len(photos) == 50
