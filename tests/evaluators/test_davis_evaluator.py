"""The evaluator `davis` on small clips in the layout of DAVIS: numbers, kept masks, pictures, mistakes."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from ssl_bench import registry
from ssl_bench.backbone import Backbone
from ssl_bench.datasets.davis import open_davis
from ssl_bench.datasets.indexed_png import PALETTE, read_mask, write_mask
from ssl_bench.datasets.shapes.layouts import embedded_davis
from ssl_bench.errors import UserError
from ssl_bench.evaluation.evaluate import refuse_unsupported
from ssl_bench.evaluation.features import FeatureStore
from ssl_bench.evaluator import Evaluation, Measurement
from ssl_bench.evaluators.davis.evaluator import Davis, DavisConfig
from ssl_bench.evaluators.davis.results import score_results
from ssl_bench.evaluators.davis.scores import mean_measures
from ssl_bench.testing import parametrize_with_checks
from ssl_bench.testing.subjects import SmallData

FRAMES = 5


@pytest.fixture(autouse=True)
def few_embedded_clips(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two short clips instead of ten long ones, whose drawing takes longer than all tests here."""
    monkeypatch.setattr("ssl_bench.evaluators.davis.evaluator.embedded_davis", partial(embedded_davis, 2, FRAMES))


@pytest.fixture
def davis(tmp_path: Path) -> Path:
    """Two clips of five frames, 224 x 320 px, as DAVIS/."""
    folder = tmp_path / "data" / "DAVIS"
    shutil.copytree(embedded_davis(clips=2, frames=FRAMES).path, folder)
    return folder


@pytest.fixture
def network() -> Backbone:
    torch.manual_seed(0)
    kind = registry.backbone("deit_ti16")
    return kind(kind.Config(patch_px=8, depth=1, dim=64), image_px=32).eval()


def evaluate(network: Backbone, folder: Path, said: list[str] | None = None, **settings: object) -> list[Measurement]:
    data = SmallData()
    features = FeatureStore(
        network, data, image_px=32, device=torch.device("cpu"), autocast_dtype=None, batch_size=8, workers=0
    )
    say: Callable[[str], None] = said.append if said is not None else lambda line: None
    config = DavisConfig(**{"short_side_px": 64, "videos": 0, **settings})
    return Davis(config).evaluate(Evaluation(network, features, data, 0, folder, say))


@contextmanager
def counted(network: Backbone) -> Iterator[list[int]]:
    """Counts the frames that the network sees."""
    seen = [0]

    def count(module: object, inputs: tuple[torch.Tensor, ...], output: object) -> None:
        seen[0] += len(inputs[0])

    hook = network.network.patch_embed.register_forward_hook(count)
    yield seen
    hook.remove()


def test_numbers_are_those_of_the_masks_on_the_disk(network: Backbone, davis: Path, tmp_path: Path) -> None:
    """What `sslbench score-davis` says of the folder; and of one with the first mask copied."""
    found = {one.metric: one for one in evaluate(network, tmp_path / "out", path=str(davis))}
    sequences = open_davis(davis).sequences
    own = score_results(tmp_path / "out", sequences)
    for sequence in sequences:
        (tmp_path / "copied" / sequence.name).mkdir(parents=True)
        for name in sequence.frame_names:
            write_mask(tmp_path / "copied" / sequence.name / f"{name}.png", sequence.mask(0))
    copied = mean_measures(score_results(tmp_path / "copied", sequences))
    for name, value in mean_measures(own).items():
        name = {"J&F-Mean": "jf_mean"}.get(name, name.lower().replace("-", "_"))
        assert found[name].value == pytest.approx(100 * value, abs=1e-9)
        assert found[name].n == len(own)
    for name, official in (("jf_mean", "J&F-Mean"), ("j_mean", "J-Mean"), ("f_mean", "F-Mean")):
        assert found[f"copy_first_{name}"].value == pytest.approx(100 * copied[official], abs=1e-9)
    assert len(found) == 7 + 3
    assert [one.metric for one in found.values() if one.primary] == ["jf_mean"]
    assert not found["j_decay"].higher_is_better
    assert found["j_recall"].higher_is_better
    assert len({one.protocol for one in found.values()}) == 2


def test_masks_are_written_as_davis_takes_them(network: Backbone, davis: Path, tmp_path: Path) -> None:
    evaluate(network, tmp_path, path=str(davis), sequences=1)
    made = sorted((tmp_path / "shapes-00").glob("*.png"))
    assert [path.stem for path in made] == [f"{index:05d}" for index in range(FRAMES)]
    truth = open_davis(davis).sequences[0]
    assert np.array_equal(read_mask(made[0]), truth.mask(0))
    for path in made:
        with Image.open(path) as image:
            assert image.mode == "P"
            assert image.size == (320, 224)
            assert np.array_equal(np.array(image.convert("RGB")), PALETTE[read_mask(path)])
    assert not (tmp_path / "shapes-01").exists()


def test_finished_sequences_are_not_done_twice(network: Backbone, davis: Path, tmp_path: Path) -> None:
    given = {"path": str(davis)}
    first = evaluate(network, tmp_path, **given)
    with counted(network) as seen:
        assert evaluate(network, tmp_path, **given) == first
        assert seen == [0]
        (tmp_path / "shapes-01" / "made_by.json").unlink()  # as after a stop in the middle
        evaluate(network, tmp_path, **given)
        assert seen == [FRAMES]
        (tmp_path / "shapes-00" / "00002.png").unlink()
        assert [one.value for one in evaluate(network, tmp_path, **given)] == [one.value for one in first]
        assert seen == [2 * FRAMES]
        evaluate(network, tmp_path, **given, temperature=0.2)
        assert seen == [4 * FRAMES]
    with torch.no_grad():
        network.network.pos_embed[0, 1, 0] += 1e-3
    with counted(network) as seen:
        evaluate(network, tmp_path, **given, temperature=0.2)
        assert seen == [2 * FRAMES]


def test_other_frames_under_the_same_name_are_other_masks(network: Backbone, davis: Path, tmp_path: Path) -> None:
    evaluate(network, tmp_path, path=str(davis), sequences=1)
    turned = open_davis(davis).sequences[0].mask(0)[:, ::-1].copy()
    write_mask(davis / "Annotations/480p/shapes-00/00000.png", turned)
    with counted(network) as seen:
        evaluate(network, tmp_path, path=str(davis), sequences=1)
        assert seen == [FRAMES]


def test_a_damaged_frame_is_named_and_what_was_done_is_kept(network: Backbone, davis: Path, tmp_path: Path) -> None:
    frame = davis / "JPEGImages/480p/shapes-01/00003.jpg"
    whole = frame.read_bytes()
    frame.write_bytes(whole[:40])
    with pytest.raises(UserError, match=r"shapes-01/00003\.jpg"):
        evaluate(network, tmp_path, path=str(davis))
    frame.write_bytes(whole)
    said: list[str] = []
    with counted(network) as seen:
        evaluate(network, tmp_path, said, path=str(davis))
        assert seen == [FRAMES]
    assert [line.startswith(f"shapes-0{i} ({i + 1} of 2)") for i, line in enumerate(said)] == [True, True]
    assert "masks of before" in said[0]
    assert f"{FRAMES} frames" in said[1]


def test_frames_of_two_sizes_are_named(network: Backbone, davis: Path, tmp_path: Path) -> None:
    frame = davis / "JPEGImages/480p/shapes-00/00002.jpg"
    with Image.open(frame) as image:
        image.transpose(Image.Transpose.ROTATE_90).save(frame)
    with pytest.raises(UserError, match=r"00002\.jpg is 224 x 320"):
        evaluate(network, tmp_path, path=str(davis))


def test_what_is_read_is_told_before_training(davis: Path) -> None:
    read = Davis(DavisConfig()).data(SmallData())
    assert (read.name, read.synthetic, read.image_px) == ("shapes-clips", True, 224)
    read = Davis(DavisConfig(path=str(davis))).data(SmallData())
    assert (read.name, read.synthetic, read.image_px) == ("data/val", False, 480)
    assert read.fingerprint == open_davis(davis).fingerprint


def test_wrong_folders_and_masks_are_told_before_training(davis: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="nowhere"):
        Davis(DavisConfig(path=str(tmp_path / "nowhere"))).data(SmallData())
    write_mask(davis / "Annotations/480p/shapes-01/00000.png", np.zeros((224, 320), np.uint8))
    with pytest.raises(UserError, match=r"shapes-01/00000\.png shows no object"):
        Davis(DavisConfig(path=str(davis))).data(SmallData())
    assert Davis(DavisConfig(path=str(davis), sequences=1)).data(SmallData())
    for frame in (3, 4, 2):
        (davis / f"Annotations/480p/shapes-00/{frame:05d}.png").unlink()
        (davis / f"JPEGImages/480p/shapes-00/{frame:05d}.jpg").unlink()
    with pytest.raises(UserError, match="holds 2 frames"):
        Davis(DavisConfig(path=str(davis))).data(SmallData())


def test_networks_without_patches_are_refused() -> None:
    kind = registry.backbone("resnet18")
    with pytest.raises(UserError, match="patch_tokens"):
        refuse_unsupported(kind(kind.Config(), image_px=32), "resnet18", [("davis", Davis(DavisConfig()))])


def test_the_protocol_names_what_decides(network: Backbone, davis: Path, tmp_path: Path) -> None:
    """Each option that changes the numbers changes the line; the place of the data and the pictures do not."""
    plain = evaluate(network, tmp_path / "plain", path=str(davis))[0].protocol.text
    assert "all sequences" in plain
    assert "shorter side 64 px, longer floored to 64 px" in plain
    others = [("sequences", 1), ("short_side_px", 72), ("context_frames", 1), ("radius", None), ("top_k", 3)]
    lines = {
        evaluate(network, tmp_path / name, path=str(davis), **{name: value})[0].protocol.text for name, value in others
    }
    assert len(lines | {plain}) == 6
    assert evaluate(network, tmp_path / "plain", path=str(davis), videos=1)[0].protocol.text == plain
    kind = registry.backbone("deit_s5")
    torch.manual_seed(0)
    fives = kind(kind.Config(depth=1, dim=64), image_px=20).eval()
    assert (
        "shorter side 60 px, longer floored to 5 px"
        in evaluate(fives, tmp_path / "5", path=str(davis))[0].protocol.text
    )


def test_pictures_lie_beside_the_masks(network: Backbone, davis: Path, tmp_path: Path) -> None:
    evaluate(network, tmp_path, path=str(davis), videos=1)
    assert sorted(path.name for path in tmp_path.iterdir() if path.is_file()) == ["shapes-00.gif", "shapes-00.png"]
    with Image.open(tmp_path / "shapes-00.gif") as animation:
        assert animation.n_frames == FRAMES


@parametrize_with_checks([Davis], settings={"sequences": 1, "short_side_px": 64, "videos": 0})
def test_contract(plugin: type, check: Callable[[type], None]) -> None:
    check(plugin)
