"""Every odd kind of image file a user may have, to RGB; expected pixels are computed by hand."""

from __future__ import annotations

import os
import struct
import time
import zlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageOps

from ssl_bench.datasets import reading
from ssl_bench.datasets.reading import header_size, read_image, shown
from ssl_bench.errors import UserError


def pixels(path: Path) -> list[list[tuple[int, ...]]]:
    image = read_image(path)
    assert image.mode == "RGB"
    return [[tuple(int(v) for v in pixel) for pixel in row] for row in np.asarray(image)]


def test_gray_is_repeated(tmp_path: Path) -> None:
    Image.fromarray(np.array([[0, 7], [128, 255]], np.uint8)).save(tmp_path / "a.png")
    assert pixels(tmp_path / "a.png") == [[(0, 0, 0), (7, 7, 7)], [(128, 128, 128), (255, 255, 255)]]


def test_bilevel(tmp_path: Path) -> None:
    Image.fromarray(np.array([[0, 255]], np.uint8)).convert("1").save(tmp_path / "a.png")
    assert pixels(tmp_path / "a.png") == [[(0, 0, 0), (255, 255, 255)]]


def test_transparency_is_laid_over_white(tmp_path: Path) -> None:
    rgba = np.array([[(255, 0, 0, 255), (255, 0, 0, 0), (0, 0, 0, 51)]], np.uint8)
    Image.fromarray(rgba, "RGBA").save(tmp_path / "a.png")
    assert pixels(tmp_path / "a.png") == [[(255, 0, 0), (255, 255, 255), (204, 204, 204)]]  # 255 (1 - 51/255) = 204


def test_gray_with_alpha(tmp_path: Path) -> None:
    Image.fromarray(np.array([[(10, 255), (10, 0)]], np.uint8), "LA").save(tmp_path / "a.png")
    assert pixels(tmp_path / "a.png") == [[(10, 10, 10), (255, 255, 255)]]


@pytest.mark.parametrize("ending", ["png", "gif"])
def test_palette_with_a_transparent_entry(tmp_path: Path, ending: str) -> None:
    image = Image.fromarray(np.array([[0, 1, 2]], np.uint8), "P")
    image.putpalette([255, 0, 0, 0, 255, 0, 0, 0, 255])
    image.save(tmp_path / f"a.{ending}", transparency=1)
    assert pixels(tmp_path / f"a.{ending}") == [[(255, 0, 0), (255, 255, 255), (0, 0, 255)]]


def test_palette_without_transparency(tmp_path: Path) -> None:
    image = Image.fromarray(np.array([[1, 0]], np.uint8), "P")
    image.putpalette([255, 0, 0, 0, 255, 0])
    image.save(tmp_path / "a.png")
    assert pixels(tmp_path / "a.png") == [[(0, 255, 0), (255, 0, 0)]]


def test_rgb_with_a_transparent_color(tmp_path: Path) -> None:
    Image.fromarray(np.array([[(1, 2, 3), (9, 9, 9)]], np.uint8)).save(tmp_path / "a.png", transparency=(1, 2, 3))
    assert pixels(tmp_path / "a.png") == [[(255, 255, 255), (9, 9, 9)]]


def test_cmyk(tmp_path: Path) -> None:
    Image.new("CMYK", (8, 8), (0, 255, 255, 0)).save(tmp_path / "a.jpg", quality=100)  # magenta and yellow make red
    red, green, blue = pixels(tmp_path / "a.jpg")[4][4]
    assert red > 250
    assert green < 5
    assert blue < 5


def test_sixteen_bit_gray_is_scaled_not_clipped(tmp_path: Path) -> None:
    values = np.array([[0, 128, 129, 257, 32768, 65535]], np.uint16)
    Image.fromarray(values).save(tmp_path / "a.png")
    Image.fromarray(values).save(tmp_path / "a.tif")
    # /257, rounded: 128/257 < 0.5, 129/257 > 0.5, 32768/257 = 127.502
    expected = [[(v, v, v) for v in (0, 0, 1, 1, 128, 255)]]
    assert pixels(tmp_path / "a.png") == expected
    assert pixels(tmp_path / "a.tif") == expected


def test_sixteen_bit_pgm(tmp_path: Path) -> None:
    (tmp_path / "a.pgm").write_bytes(b"P5 2 1 65535\n" + struct.pack(">HH", 257, 65535))
    assert pixels(tmp_path / "a.pgm") == [[(1, 1, 1), (255, 255, 255)]]


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([0, 100, 255], [0, 100, 255]),
        ([0, 257, 65535], [0, 1, 255]),
        ([0, 50_000, 100_000], [0, 128, 255]),  # 127.5 rounds to even
        ([-100, 0, 155], [0, 100, 255]),
        ([-5, -5], [0, 0]),
    ],
)
def test_thirty_two_bit_gray(tmp_path: Path, values: list[int], expected: list[int]) -> None:
    Image.fromarray(np.array([values], np.int32)).save(tmp_path / "a.tif")
    assert [pixel[0] for pixel in pixels(tmp_path / "a.tif")[0]] == expected


@pytest.mark.parametrize(
    ("values", "expected"), [([0.0, 0.2, 0.5], [0, 51, 128]), ([0.0, 51.0, 102.0], [0, 51, 102]), ([0.0, 0.0], [0, 0])]
)
def test_float_gray(tmp_path: Path, values: list[float], expected: list[int]) -> None:
    Image.fromarray(np.array([values], np.float32)).save(tmp_path / "a.tif")
    assert [pixel[0] for pixel in pixels(tmp_path / "a.tif")[0]] == expected


def test_float_that_is_no_number_is_refused(tmp_path: Path) -> None:
    Image.fromarray(np.array([[0.0, np.nan]], np.float32)).save(tmp_path / "a.tif")
    with pytest.raises(UserError, match=r"a\.tif: it is damaged \(pixels that are not numbers\)"):
        read_image(tmp_path / "a.tif")


def test_animation_is_its_first_picture(tmp_path: Path) -> None:
    red, blue = Image.new("RGB", (2, 1), (255, 0, 0)), Image.new("RGB", (2, 1), (0, 0, 255))
    red.save(tmp_path / "a.gif", save_all=True, append_images=[blue])
    red.save(tmp_path / "a.tif", save_all=True, append_images=[blue])
    assert pixels(tmp_path / "a.gif") == pixels(tmp_path / "a.tif") == [[(255, 0, 0), (255, 0, 0)]]


def test_one_pixel(tmp_path: Path) -> None:
    Image.new("RGB", (1, 1), (1, 2, 3)).save(tmp_path / "a.png")
    Image.new("L", (1, 1), 9).save(tmp_path / "a.jpg")
    assert pixels(tmp_path / "a.png") == [[(1, 2, 3)]]
    assert read_image(tmp_path / "a.jpg", at_least_px=32).size == (1, 1)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["jpg", "png", "tif", "webp", "gray.jpg", "palette.png"])
def test_orientation_is_what_pillow_says(tmp_path: Path, orientation: int, kind: str) -> None:
    image = Image.fromarray(np.arange(6 * 9, dtype=np.uint8).reshape(6, 9) * 4).convert("RGB")
    image = {"gray.jpg": image.convert("L"), "palette.png": image.convert("P")}.get(kind, image)
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = tmp_path / f"a.{kind}"
    image.save(path, exif=exif)
    with Image.open(path) as opened:
        expected = ImageOps.exif_transpose(opened).convert("RGB")
    given = read_image(path)
    assert given.size == expected.size == ((6, 9) if orientation >= 5 else (9, 6))
    assert np.array_equal(np.asarray(given), np.asarray(expected))


def test_orientation_by_hand(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera's top is on the right: turn clockwise
    Image.fromarray(np.array([[1, 2, 3]], np.uint8)).save(tmp_path / "a.png", exif=exif)
    assert [[pixel[0] for pixel in row] for row in pixels(tmp_path / "a.png")] == [[1], [2], [3]]


def test_garbled_exif_does_not_cost_the_image(tmp_path: Path, recwarn: pytest.WarningsRecorder) -> None:
    image = Image.new("RGB", (3, 2), (5, 5, 5))
    for number, block in enumerate((b"Exif\0\0garbage", b"Exif\0\0II*\0\xff\xff\xff\xff", b"Exif\0\0")):
        image.save(tmp_path / f"{number}.png", exif=block)
        assert read_image(tmp_path / f"{number}.png").size == (3, 2)


def test_jpeg_may_be_decoded_smaller(tmp_path: Path) -> None:
    Image.new("RGB", (1000, 800), (9, 99, 199)).save(tmp_path / "a.jpg")
    assert read_image(tmp_path / "a.jpg").size == (1000, 800)
    assert read_image(tmp_path / "a.jpg", at_least_px=200).size == (250, 200)  # 1/4
    assert read_image(tmp_path / "a.jpg", at_least_px=201).size == (500, 400)  # 1/4 would leave 200
    assert read_image(tmp_path / "a.jpg", at_least_px=5000).size == (1000, 800)
    assert header_size(tmp_path / "a.jpg") == (1000, 800)


@pytest.mark.parametrize("ending", ["jpg", "png", "gif", "webp", "tif", "bmp"])
def test_truncated_files_are_named(tmp_path: Path, ending: str) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    path = tmp_path / f"cut.{ending}"
    Image.fromarray(noise).save(path)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    for at_least_px in (None, 16):
        with pytest.raises(UserError, match=rf"cannot read .*cut\.{ending}: .*Remove or replace it"):
            read_image(path, at_least_px)


def test_other_files_called_jpg(tmp_path: Path) -> None:
    (tmp_path / "text.jpg").write_text("not an image")
    (tmp_path / "empty.jpg").write_bytes(b"")
    (tmp_path / "page.jpg").write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n")
    with pytest.raises(UserError, match=r"text\.jpg: it holds no image of a known kind \(JPEG, PNG"):
        read_image(tmp_path / "text.jpg")
    with pytest.raises(UserError, match=r"empty\.jpg: it is empty \(0 bytes\). Remove or replace it"):
        read_image(tmp_path / "empty.jpg")
    with pytest.raises(UserError, match="no image of a known kind"):  # EPS would start Ghostscript
        read_image(tmp_path / "page.jpg")
    with pytest.raises(UserError, match="not there"):
        read_image(tmp_path / "gone.jpg")
    with pytest.raises(UserError, match="not there"):
        header_size(tmp_path / "gone.jpg")
    with pytest.raises(UserError, match="Is a directory"):
        read_image(tmp_path)


def test_png_under_the_name_of_a_jpeg(tmp_path: Path) -> None:
    Image.new("RGB", (2, 1), (3, 4, 5)).save(tmp_path / "a.png")  # as n02105855_2933.JPEG of ImageNet
    os.rename(tmp_path / "a.png", tmp_path / "a.JPEG")
    assert pixels(tmp_path / "a.JPEG") == [[(3, 4, 5), (3, 4, 5)]]


def test_decompression_bomb(tmp_path: Path) -> None:
    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0))
    (tmp_path / "bomb.png").write_bytes(b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", b"") + chunk(b"IEND", b""))
    with pytest.raises(
        UserError, match=r"bomb\.png: it has more than the 89,478,485 pixels .* safe to decode\. Shrink it"
    ):
        read_image(tmp_path / "bomb.png")


def test_a_bomb_is_refused_where_pillow_only_warns(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Image.new("LA", (40, 30)).save(tmp_path / "a.png")
    Image.new("RGB", (40, 30)).save(tmp_path / "a.jpg")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1199)
    for name in ("a.png", "a.jpg"):
        with pytest.raises(UserError, match=r"it has more than the 1,199 pixels .*data\.decode_px=512"):
            read_image(tmp_path / name)
    assert read_image(tmp_path / "a.jpg", 8).size == (20, 15), "decoded at half its size"
    assert header_size(tmp_path / "a.png") == (40, 30)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1200)
    assert read_image(tmp_path / "a.png").size == (40, 30)


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "I;16", "I", "F", "transparent"])
def test_bands_give_the_same_pixels(tmp_path: Path, mode: str, monkeypatch: pytest.MonkeyPatch) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (13, 7, 4), dtype=np.uint8)
    path = tmp_path / "a.tif"
    if mode == "transparent":
        path = tmp_path / "a.png"
        Image.fromarray(noise[..., 0]).save(path, transparency=int(noise[0, 0, 0]))
    elif mode in ("I;16", "I", "F"):
        kind = {"I;16": np.uint16, "I": np.int32, "F": np.float32}[mode]
        Image.fromarray(noise[..., 0].astype(kind) * kind(3)).save(path)
    else:
        Image.fromarray(noise, "RGBA").convert(mode).save(path)
    whole = read_image(path).tobytes()
    monkeypatch.setattr(reading, "LARGE_PIXELS", 14)  # bands of two rows
    assert read_image(path).tobytes() == whole


def test_large_images_are_decoded_one_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Image.new("L", (8, 8)).save(tmp_path / "a.png")
    inside, most = 0, [0]

    def slow(image: Image.Image) -> Image.Image:
        nonlocal inside
        inside += 1
        most.append(inside)
        time.sleep(0.02)
        inside -= 1
        return image.convert("RGB")

    monkeypatch.setattr(reading, "_rgb", slow)
    for limit, together in ((64, 4), (63, 1)):
        monkeypatch.setattr(reading, "LARGE_PIXELS", limit)
        most[:] = [0]
        with ThreadPoolExecutor(4) as pool:
            list(pool.map(lambda _: read_image(tmp_path / "a.png"), range(8)))
        assert (max(most) > 1) == (together > 1), (limit, max(most))


def test_no_permission(tmp_path: Path) -> None:
    Image.new("RGB", (2, 1)).save(tmp_path / "a.png")
    (tmp_path / "a.png").chmod(0)
    if os.access(tmp_path / "a.png", os.R_OK):
        pytest.skip("this user (root) may read everything")
    with pytest.raises(UserError, match=r"no permission.*chmod"):
        read_image(tmp_path / "a.png")


def test_shown_paths(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", "/home/someone")
    assert shown(tmp_path / "birds" / "a.jpg") == "birds/a.jpg"
    assert shown("birds") == "birds"
    assert shown("/home/someone/birds") == "~/birds"
    assert shown("/data/birds") == "/data/birds"
    assert shown(os.fsdecode(b"/data/b\xff.jpg")) == "/data/b\\xff.jpg"
