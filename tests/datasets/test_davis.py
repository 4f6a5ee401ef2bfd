"""The reader of DAVIS 2017: what it lists, and one clear message for each way in which a folder is not as released."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ssl_bench.datasets.davis import OFFICIAL_VAL, open_davis
from ssl_bench.datasets.indexed_png import PALETTE, write_mask
from ssl_bench.datasets.shapes.layouts import embedded_davis
from ssl_bench.datasets.shapes.render import render_clip
from ssl_bench.errors import UserError
from tests.davis_files import moving_square, real_data, square, write_davis


@pytest.fixture
def davis(tmp_path: Path) -> Path:
    return write_davis(tmp_path / "mine", {"ball": moving_square(4), "box": moving_square(5)})


def read_whole(place: Path, subset: str) -> None:
    for sequence in open_davis(place, subset).sequences:
        sequence.objects()
        for index in range(len(sequence)):
            sequence.frame(index)
            sequence.mask(index)


def refused(place: Path, *words: str, subset: str = "val") -> str:
    """The message with which a folder is refused; it holds every one of `words`."""
    with pytest.raises(UserError) as caught:
        read_whole(place, subset)
    message = str(caught.value)
    assert all(word in message for word in words), message
    assert "\n" not in message
    return message


def test_frames_masks_and_objects_in_order(davis: Path) -> None:
    opened = open_davis(davis)
    ball, box = opened.sequences
    assert (ball.name, len(ball), box.name, len(box)) == ("ball", 4, "box", 5)
    assert ball.frame_names == ("00000", "00001", "00002", "00003")
    assert (ball.size, ball.objects()) == ((40, 60), 1)
    for index, mask in enumerate(moving_square(4)):
        assert np.array_equal(ball.mask(index), mask)
        assert ball.frame(index).size == (60, 40)
        assert abs(int(np.asarray(ball.frame(index))[0, 0, 0]) - index) <= 1  # JPEG
    assert (opened.path, opened.name) == (davis, "mine/val")


@pytest.mark.parametrize("given", ["mine/DAVIS", "mine", "."])
def test_the_folder_or_one_around_it(davis: Path, given: str) -> None:
    assert open_davis(davis.parent.parent / given).path == davis


def test_the_embedded_clips_go_through_the_same_reader() -> None:
    clips = open_davis(embedded_davis(clips=1, frames=3).path)
    images, masks = render_clip(0, 0, (224, 320), 3)
    assert np.array_equal(clips.sequences[0].mask(2), masks[2])
    assert np.abs(np.asarray(clips.sequences[0].frame(2)).astype(int) - images[2]).mean() < 6  # JPEG


def test_the_official_name_needs_the_official_sequences_whole(tmp_path: Path) -> None:
    """30 names and 1999 frames; the files themselves are not opened to list them."""
    part = write_davis(tmp_path / "part", {"libby": moving_square(3), "goat": moving_square(3)})
    assert open_davis(part).name == "davis2017-val (2 of its 30 sequences)"
    assert len(OFFICIAL_VAL) == 30
    for count, name in ((1999, "davis2017-val"), (1998, "frames1998/val")):
        root = tmp_path / f"frames{count}" / "DAVIS"
        left = count
        for number, sequence in enumerate(sorted(OFFICIAL_VAL)):
            frames = 66 if number < 29 else left
            left -= frames
            for kind, ending in (("JPEGImages", "jpg"), ("Annotations", "png")):
                (root / kind / "480p" / sequence).mkdir(parents=True)
                for frame in range(frames):
                    (root / kind / "480p" / sequence / f"{frame:05d}.{ending}").touch()
        (root / "ImageSets/2017").mkdir(parents=True)
        (root / "ImageSets/2017/val.txt").write_text("\n".join(OFFICIAL_VAL))
        assert open_davis(root).name == name


def test_the_fingerprint_follows_the_files_and_not_their_place(davis: Path, tmp_path: Path) -> None:
    before = open_davis(davis).fingerprint
    shutil.copytree(davis, tmp_path / "elsewhere")
    assert open_davis(tmp_path / "elsewhere").fingerprint == before
    with (tmp_path / "elsewhere/Annotations/480p/box/00004.png").open("ab") as file:
        file.write(b"\0")
    assert open_davis(tmp_path / "elsewhere").fingerprint != before
    own = tmp_path / "own.txt"
    own.write_text("ball\n")
    assert open_davis(davis, str(own)).fingerprint != before


def test_lists_with_windows_line_endings_blank_lines_and_repetitions(davis: Path) -> None:
    (davis / "ImageSets/2017/val.txt").write_bytes(b"\xef\xbb\xbfbox\r\n\r\n  ball \r\nbox\r\n")
    assert [sequence.name for sequence in open_davis(davis).sequences] == ["box", "ball"]


def test_a_list_of_ones_own(davis: Path, tmp_path: Path) -> None:
    (tmp_path / "few.txt").write_text("box")
    opened = open_davis(davis, str(tmp_path / "few.txt"))
    assert [sequence.name for sequence in opened.sequences] == ["box"]
    assert opened.name == "mine/few"
    refused(davis, "more.txt is missing", subset=str(tmp_path / "more.txt"))
    refused(davis, "vall.txt is missing", "Did you mean 'val'?", subset="vall")


def test_links_to_the_data_are_followed(davis: Path, tmp_path: Path) -> None:
    shutil.move(davis / "JPEGImages/480p/ball", tmp_path / "frames-elsewhere")
    (davis / "JPEGImages/480p/ball").symlink_to(tmp_path / "frames-elsewhere")
    assert len(open_davis(davis).sequences[0]) == 4
    (tmp_path / "frames-elsewhere/00002.jpg").unlink()
    (tmp_path / "frames-elsewhere/00002.jpg").symlink_to("nowhere.jpg")
    refused(davis, "00002.jpg", "No such file")


def test_frames_are_ordered_by_number(davis: Path) -> None:
    for kind, ending in (("JPEGImages", "jpg"), ("Annotations", "png")):
        folder = davis / kind / "480p" / "ball"
        for index, name in enumerate(("8", "9", "10", "11")):
            (folder / f"{index:05d}.{ending}").rename(folder / f"{name}.{ending}")
        (folder / f"._9.{ending}").touch()  # left by macOS
    assert open_davis(davis).sequences[0].frame_names == ("8", "9", "10", "11")


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("JPEGImages", "JPEGimages", ("JPEGimages", "should be called JPEGImages")),
        ("Annotations", "annotations", ("should be called Annotations",)),
        ("JPEGImages/480p", "JPEGImages/480P", ("480P", "should be called 480p")),
        ("JPEGImages/480p", "JPEGImages/Full-Resolution", ("480p/ is missing", "only Full-Resolution")),
        ("Annotations/480p", "Annotations/480", ("480p/ is missing", "Did you mean '480'")),
        ("ImageSets/2017", "ImageSets/2016", ("2017/ is missing", "only 2016")),
        ("Annotations", "Masks", ("Annotations/ is missing", "JPEGImages")),
        ("JPEGImages/480p/box", "JPEGImages/480p/boxx", ("val.txt lists box", "Did you mean 'boxx'")),
        ("Annotations/480p/box", "Annotations/480p/elsewhere", ("val.txt lists box", "masks", "Annotations/480p/box")),
        ("ImageSets/2017/val.txt", "ImageSets/2017/Val.txt", ("val.txt is missing", "Did you mean 'Val'?")),
    ],
)
def test_folders_missing_or_misnamed(davis: Path, old: str, new: str, words: tuple[str, ...]) -> None:
    (davis / old).rename(davis / new)
    refused(davis, *words)


def test_places_that_are_no_davis(davis: Path, tmp_path: Path) -> None:
    refused(tmp_path / "nowhere", "nowhere does not exist", "JPEGImages/480p/SEQUENCE")
    refused(davis / "ImageSets/2017/val.txt", "is a file")
    refused(davis / "JPEGImages/480p", "is not DAVIS 2017", "folder that holds JPEGImages/")
    shutil.copytree(davis, tmp_path / "yours" / "DAVIS")
    refused(tmp_path, "more than one DAVIS", "mine", "yours")


@pytest.mark.parametrize("entry", ["../../etc", "/etc", "..", ".", "ball/../..", "..\\..\\etc", "sub/ball"])
def test_list_entries_that_lead_elsewhere(davis: Path, entry: str) -> None:
    (davis / "ImageSets/2017/val.txt").write_text(f"ball\n{entry}\n")
    refused(davis, "line 2 of", "val.txt", repr(entry), "plain name")


def test_lists_that_are_empty_or_of_another_kind(davis: Path) -> None:
    source = davis / "ImageSets/2017/val.txt"
    source.write_text("\r\n \n")
    refused(davis, "val.txt is empty")
    source.write_text("/JPEGImages/480p/ball/00000.jpg /Annotations/480p/ball/00000.png\n")
    refused(davis, "line 1", "DAVIS 2016")
    source.write_bytes(b"\xff\xfe\x00b")
    refused(davis, "cannot read the list", "val.txt")


def _transposed(davis: Path) -> None:
    write_mask(davis / "Annotations/480p/box/00002.png", np.zeros((60, 40), np.uint8))


def _smaller(davis: Path) -> None:
    write_mask(davis / "Annotations/480p/box/00002.png", np.zeros((20, 30), np.uint8))


def _other_frame(davis: Path) -> None:
    Image.new("RGB", (30, 20)).save(davis / "JPEGImages/480p/box/00002.jpg")


def _color(davis: Path) -> None:
    Image.new("RGB", (60, 40)).save(davis / "Annotations/480p/box/00002.png")


def _sixteen_bits(davis: Path) -> None:
    Image.fromarray(np.full((40, 60), 300, np.uint16)).save(davis / "Annotations/480p/box/00002.png")


def _truncated(davis: Path) -> None:
    path = davis / "Annotations/480p/box/00002.png"
    path.write_bytes(path.read_bytes()[:-30])


def _zero_bytes(davis: Path) -> None:
    (davis / "Annotations/480p/box/00002.png").write_bytes(b"")


def _jpeg_inside(davis: Path) -> None:
    Image.new("L", (60, 40)).save(davis / "Annotations/480p/box/00002.png", format="JPEG")


def _damaged_frame(davis: Path) -> None:
    (davis / "JPEGImages/480p/box/00002.jpg").write_bytes(b"\xff\xd8\xff")


def _no_mask(davis: Path) -> None:
    (davis / "Annotations/480p/box/00002.png").unlink()


def _no_frame(davis: Path) -> None:
    (davis / "JPEGImages/480p/box/00002.jpg").unlink()


def _no_jpeg(davis: Path) -> None:
    for path in (davis / "JPEGImages/480p/box").iterdir():
        path.rename(path.with_suffix(".bmp"))


def _only_first_mask(davis: Path) -> None:
    for index in range(1, 5):
        (davis / f"Annotations/480p/box/{index:05d}.png").unlink()


def _two_frames(davis: Path) -> None:
    for index in range(2, 5):
        (davis / f"Annotations/480p/box/{index:05d}.png").unlink()
        (davis / f"JPEGImages/480p/box/{index:05d}.jpg").unlink()


def _one_frame(davis: Path) -> None:
    _two_frames(davis)
    (davis / "Annotations/480p/box/00001.png").unlink()
    (davis / "JPEGImages/480p/box/00001.jpg").unlink()


def _first_mask_empty(davis: Path) -> None:
    write_mask(davis / "Annotations/480p/box/00000.png", np.zeros((40, 60), np.uint8))


def _first_mask_of_2016(davis: Path) -> None:
    write_mask(davis / "Annotations/480p/box/00000.png", square(5, 5, 9, (40, 60), value=255))


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (_transposed, ("box/00002.png is 40 x 60", "box/00000.jpg is 60 x 40", "transposed")),
        (_smaller, ("box/00002.png is 30 x 20", "60 x 40")),
        (_other_frame, ("box/00002.jpg is 30 x 20", "60 x 40")),
        (_color, ("Annotations/480p/box/00002.png is RGB", "indexed PNG")),
        (_sixteen_bits, ("box/00002.png has 16 bits", "at most 254")),
        (_truncated, ("cannot read the mask", "box/00002.png")),
        (_zero_bytes, ("box/00002.png", "empty (0 bytes)")),
        (_jpeg_inside, ("box/00002.png", "not a PNG")),
        (_damaged_frame, ("JPEGImages/480p/box/00002.jpg",)),
        (_no_mask, ("Annotations/480p/box/00002.png is missing", "1 of the 5 frames")),
        (_no_frame, ("box/00002.png has no frame", "JPEGImages/480p/box/00002.jpg")),
        (_no_jpeg, ("JPEGImages/480p/box/ holds no JPEG",)),
        (_only_first_mask, ("box/00001.png is missing", "4 of the 5", "test-dev", "choose val")),
        (_two_frames, ("box/ holds 2 frames:", "3 or more")),
        (_one_frame, ("box/ holds 1 frame:", "3 or more")),
        (_first_mask_empty, ("Annotations/480p/box/00000.png shows no object",)),
        (_first_mask_of_2016, ("box/00000.png shows no object", "DAVIS 2016", "write 1")),
    ],
)
def test_damaged_sequences(davis: Path, spoil: Callable[[Path], None], words: tuple[str, ...]) -> None:
    spoil(davis)
    refused(davis, *words)


def test_void_is_not_an_object(davis: Path) -> None:
    mask = square(5, 5, 9, (40, 60), value=2)
    mask[30:] = 255
    write_mask(davis / "Annotations/480p/box/00000.png", mask)
    sequence = open_davis(davis).sequences[1]
    assert sequence.objects() == 2
    assert sequence.mask(0)[35, 0] == 255


def test_real_sequences() -> None:
    real = real_data("davis2017", "davis2017-multi")
    single, multi = open_davis(real / "davis2017"), open_davis(real / "davis2017-multi")
    assert single.name == "davis2017-val (4 of its 30 sequences)"
    assert [(one.name, len(one), one.objects(), one.size) for one in single.sequences] == [
        ("blackswan", 50, 1, (480, 854)),
        ("car-shadow", 40, 1, (480, 854)),
        ("drift-chicane", 52, 1, (480, 854)),
        ("libby", 49, 1, (480, 854)),
    ]
    assert [(one.name, len(one), one.objects()) for one in multi.sequences] == [("schoolgirls", 80, 7)]
    with Image.open(single.sequences[0].masks[0]) as official:
        assert official.getpalette() == PALETTE.ravel().tolist()
