"""`sslbench attention` as a user types it: pictures of any image, and one message for each that cannot be shown."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from ssl_bench.cli.main import main
from ssl_bench.runs.networks import trained_backbone, untrained_backbone
from tests.conftest import Command
from tests.toy import write_image_folder
from tests.weights.networks import VIT, tensors, vit

NETWORK = ["--set", "backbone.depth=1", "--set", "backbone.dim=32", "--set", "backbone.patch_px=8"]
METHOD = ["method.out_dim=16", "method.hidden_dim=16", "method.bottleneck_dim=8", "method.local_views=1"]


def run_main(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    monkeypatch.setattr(sys, "argv", ["sslbench", *arguments])
    try:
        main()
    except SystemExit as end:
        return int(end.code or 0)
    return 0


AS_DINO = ("--set", "backbone.positions=dino")  # as a run of DINO has it


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of DINO on a small ViT, and of random on a residual network and on the ViT."""
    folder = tmp_path_factory.mktemp("runs")
    data = str(write_image_folder(folder / "tints", train=8, test=4, px=16))
    shared = ["--data", data, "--results", str(folder / "results"), "--with", "knn", "--batch-size", "8"]
    with pytest.MonkeyPatch.context() as patch:
        values = [word for value in METHOD for word in ("--set", value)]
        arguments = ["--arch", "deit_ti16", *NETWORK, "--epochs", "1", *values]
        assert run_main(patch, "run", "dino", *arguments, "--run-id", "trained", *shared) == 0
        fresh = ["--arch", "deit_ti16", *NETWORK, *AS_DINO, "--run-id", "fresh"]
        assert run_main(patch, "run", "random", *fresh, *shared) == 0
        narrow = ["--set", "backbone.width=0.125", "--run-id", "convnet"]
        assert run_main(patch, "run", "random", "--arch", "resnet18", *narrow, *shared) == 0
    return folder / "results"


@pytest.fixture
def attention(sslbench: Command, results: Path) -> Command:
    def command(*arguments: str, run: str = "trained", size: str = "32") -> tuple[int, str, str]:
        return sslbench("attention", *arguments, "--run", run, "--results", results, "--size", size)

    return command


def noise(path: Path, width: int = 50, height: int = 40, mode: str = "RGB", **options: object) -> Path:
    pixels = np.random.default_rng(0).integers(0, 256, (height, width, 4)).astype(np.uint8)
    Image.fromarray(pixels, "RGBA").convert(mode).save(path, **options)  # type: ignore[arg-type]
    return path


def test_a_picture_here_for_an_image_from_elsewhere(attention: Command, tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    image = noise(tmp_path / "photos/cat.jpg")
    status, out, err = attention(str(image))
    assert (status, out, err) == (0, "written: cat-attention.png\n", "")
    with Image.open(tmp_path / "cat-attention.png") as sheet:
        assert sheet.mode == "RGB"
        assert sheet.width > 2 * 240  # tiles of at least 240 px


def test_any_kind_of_image(attention: Command, tmp_path: Path) -> None:
    noise(tmp_path / "gray.png", mode="L")
    noise(tmp_path / "cut.png", mode="RGBA")
    noise(tmp_path / "panorama.png", width=900, height=30)
    noise(tmp_path / "tall.png", width=10, height=80)
    exif = Image.Exif()
    exif[0x0112] = 6  # turned by 90 degrees
    noise(tmp_path / "turned.jpg", width=80, height=40, exif=exif.tobytes())
    names = ["gray.png", "cut.png", "panorama.png", "tall.png", "turned.jpg"]
    status, out, err = attention(*names)
    assert (status, err) == (0, "")
    assert len(out.splitlines()) == 5
    noise(tmp_path / "upright.png", width=40, height=80)
    attention("upright.png")
    heights = [Image.open(tmp_path / f"{name}-attention.png").height for name in ("turned", "upright", "gray")]
    assert heights[0] == heights[1] != heights[2]


def test_a_folder_and_places(attention: Command, tmp_path: Path) -> None:
    for name in ("a.png", "b/a.jpg", "b/.hidden.png"):
        (tmp_path / "in" / name).parent.mkdir(parents=True, exist_ok=True)
        noise(tmp_path / "in" / name)
    assert attention("in", "--out", "in")[0] == 0
    assert sorted(path.name for path in (tmp_path / "in").glob("*.png")) == [
        "a-2-attention.png",
        "a-attention.png",
        "a.png",
    ]
    status, out, _ = attention("in", "--out", "in")  # its own pictures are no input
    assert (status, len(out.splitlines())) == (0, 2)
    assert attention("in/a.png", "--out", "deep/er/one.png")[:2] == (0, "written: deep/er/one.png\n")
    status, _, err = attention("in", "--out", "one.png")
    assert status == 2
    assert "one.png is one file for 2 images. Give a folder." in err
    (tmp_path / "file").write_text("")
    status, _, err = attention("in/a.png", "--out", "file/x")
    assert status == 2
    assert "Choose another place with --out" in err


def test_what_cannot_be_shown_is_named_and_the_rest_is_done(attention: Command, tmp_path: Path) -> None:
    (tmp_path / "broken.jpg").write_bytes(b"\xff\xd8 no image")
    (tmp_path / "nothing").mkdir()
    noise(tmp_path / "tiny.png", width=7, height=40)
    noise(tmp_path / "long.png", width=40_000, height=8)
    noise(tmp_path / "good.png")
    status, out, err = attention("missing.png", "broken.jpg", "nothing", "tiny.png", "long.png", "good.png")
    assert status == 2
    assert out == "written: good-attention.png\n"
    for words in (
        "missing.png: it is not there",
        "cannot read broken.jpg",
        "nothing/ holds no image",
        "tiny.png is 7 x 40 px, less than one patch of 8 px",
        "long.png would be seen at 160000 x 32 px, 80,000 patches of 8 px, and 16,384 are the most. Give --size 14 or",
    ):
        assert words in err
    assert err.count("error:") == 5


def test_wrong_settings_and_runs(attention: Command, tmp_path: Path) -> None:
    noise(tmp_path / "cat.png")
    for arguments, run, words in (
        ((), "nothing", "no run is called 'nothing'"),
        ((), "convnet", "resnet18 has no attention to show: it is a convolutional network"),
        (("--keep-mass", "60"), "trained", "--keep-mass 60 is not a share between 0 and 1"),
    ):
        status, _, err = attention("cat.png", *arguments, run=run)
        assert status == 2
        assert words in err
    assert not list(tmp_path.glob("*-attention.png"))


def test_the_network_before_its_first_step(attention: Command, tmp_path: Path, results: Path) -> None:
    """`--untrained` draws it again from the seed: the network that a run of `random` has, which has no weights."""
    noise(tmp_path / "cat.png")
    pictures = []
    for arguments, run in ((("--untrained",), "trained"), ((), "trained"), ((), "fresh")):
        assert attention("cat.png", *arguments, run=run)[0] == 0
        pictures.append((tmp_path / "cat-attention.png").read_bytes())
    assert pictures[0] == pictures[2] != pictures[1]
    drawn, _ = untrained_backbone(results / "runs" / "trained")
    again, record = untrained_backbone(results / "runs" / "trained")
    kept, _ = trained_backbone(results / "runs" / "trained")
    images = torch.randn(2, 3, 16, 16)
    with torch.no_grad():
        assert torch.equal(drawn(images), again(images))
        assert not torch.equal(drawn(images), kept(images))
    assert not drawn.training
    assert record.run_id == "trained"


def test_the_untrained_network_is_the_one_that_was_judged(results: Path) -> None:
    """Its k-NN accuracy of nearest neighbors on the run's images is the recorded one, recomputed from scratch."""
    from ssl_bench.datasets.opening import open_dataset
    from ssl_bench.evaluation.features import FeatureStore
    from ssl_bench.recipes.evaluation_data import dataset_loaders

    backbone, record = untrained_backbone(results / "runs" / "trained")
    data = open_dataset(record.recipe["data"]["path"], dataset_loaders(), {"image_px": record.data.image_px})
    store = FeatureStore(
        backbone, data, image_px=data.image_px, device=torch.device("cpu"), autocast_dtype=None, batch_size=8, workers=0
    )
    train, test = store("train"), store("test")
    similar = torch.nn.functional.normalize(test.vectors) @ torch.nn.functional.normalize(train.vectors).T
    hits = 0
    for row, label in zip(similar.double(), test.labels, strict=True):
        votes = torch.zeros(2, dtype=torch.float64)
        for index in row.argsort(descending=True)[:10].tolist():
            votes[train.labels[index]] += torch.exp(row[index] / 0.07)
        hits += int(votes.argmax() == label)
    (untrained,) = [one for one in record.evaluations if one.subject == "untrained"]
    (value,) = [one.value for one in untrained.measurements if one.metric == "top1_k10"]
    assert value == pytest.approx(100 * hits / len(test.labels), abs=1e-9)


def test_weights_from_a_file_in_place_of_a_run(sslbench: Command, tmp_path: Path) -> None:
    image, file = str(noise(tmp_path / "cat.png")), tmp_path / "vit.pth"
    torch.save(tensors(vit()), file)
    sizes = [word for name, value in VIT.items() for word in ("--set", f"backbone.{name}={value}")]
    given = ("attention", image, "--weights", file, "--arch", "deit_s16", "--size", "32", *sizes)
    pictures = {}
    changes: dict[str, tuple[str, ...]] = {
        "as it is": (),
        "again": (),
        "untrained": ("--untrained",),
        "levels": ("--set", "preprocessing.mean=[0.1,0.5,0.9]"),
    }
    for name, words in changes.items():
        out = tmp_path / f"{name}.png"
        status, printed, err = sslbench(*given, *words, "--out", out)
        assert (status, err) == (0, ""), err
        assert f"written: {out}" in printed
        with Image.open(out) as sheet:
            pictures[name] = np.asarray(sheet)[60:]  # below the title
    assert np.array_equal(pictures["as it is"], pictures["again"])
    assert not np.array_equal(pictures["as it is"], pictures["untrained"])
    assert not np.array_equal(pictures["as it is"], pictures["levels"])


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ((), "give the network: --run RUN, or --weights WEIGHTS"),
        (("--run", "a", "--weights", "cat.png"), "--run a and --weights cat.png are two networks"),
        (("--run", "a", "--arch", "deit_s16"), "--arch are for --weights"),
        (("--weights", "gone.pth"), "gone.pth"),
        (("--weights", "cat.png"), "cat.png"),
        (
            ("--weights", "vit.pth", "--set", "data.image_px=3"),
            "'data.image_px' is no setting of a network from a file",
        ),
        (("--weights", "vit.pth", "--arch", "deit_s16"), "does not fit deit_s16"),
    ],
)
def test_one_network_is_meant_and_fits(words: tuple[str, ...], message: str, sslbench: Command, tmp_path: Path) -> None:
    noise(tmp_path / "cat.png")
    torch.save(tensors(vit()), tmp_path / "vit.pth")
    status, _, err = sslbench("attention", "cat.png", *words)
    assert status == 2
    assert message in err
    assert "Traceback" not in err
