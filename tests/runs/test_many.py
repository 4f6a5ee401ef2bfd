"""`sslbench eval` of many weights on many datasets: all that can be done is done, once, and the rest is named."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from ssl_bench.errors import UserError
from ssl_bench.records.reading import read_all
from ssl_bench.runs import many
from ssl_bench.runs.elsewhere import WeightsRequest, load_subject
from ssl_bench.runs.many import evaluate_all, requests_for_all
from ssl_bench.runs.weights_data import OpenedSets
from ssl_bench.runs.weights_list import weights_in, weights_listed
from tests.conftest import Command
from tests.davis_files import moving_square, write_davis
from tests.toy import write_image_folder
from tests.weights.networks import RESNET, VIT, resnet, tensors, vit
from tests.weights.test_formats import moco_v2

VALUES = {
    "backbone.width": RESNET["width"],
    "data.image_px": 32,
    "evaluators.knn.neighbors": [1],
    "evaluators.knn.reported": 1,
}
OPTIONS = ["--arch", "resnet18", "--with", "knn", *(f"--set={key}={value}" for key, value in VALUES.items())]


@pytest.fixture
def released(tmp_path: Path) -> Path:
    """A folder of two checkpoints, one of them deeper down, a text file called .pth, and other files."""
    folder = tmp_path / "released"
    (folder / "plain").mkdir(parents=True)
    torch.save(moco_v2(resnet(0), resnet(1)), folder / "moco_v2.pth.tar")
    torch.save(tensors(resnet(2)), folder / "plain/resnet.pth")
    (folder / "broken.pth").write_text("<html>404</html>")
    (folder / "README.md").write_text("weights")
    for name, tint in (("tints", 100), ("hues", 60)):
        write_image_folder(tmp_path / name, train=2, test=2, tint=tint)
    return folder


def test_all_that_can_be_done_is_done_once_and_what_fails_is_named(released: Path, sslbench: Command) -> None:
    command = ["eval", "--weights-dir", released, "--data", "tints", "--data", "hues", *OPTIONS]
    status, out, err = sslbench(*command)
    assert status == 1
    assert "[6/6] resnet.pth on hues" in out
    assert "2 of 6 evaluations failed:\n  broken.pth on tints:" in err
    assert out.count("knn of the trained network") == 4
    table = out[out.index("# Methods compared") :]
    assert table.count("moco_v2.pth.tar") == table.count("resnet.pth") == 2
    assert "sha256" not in table  # the files' names tell the rows apart
    records = [record for _, record in read_all(Path("results"))[0]]
    assert {(one.weights.file, one.data.name) for one in records if one.weights} == {
        (file, data) for file in ("moco_v2.pth.tar", "resnet.pth") for data in ("tints", "hues")
    }
    status, out, _ = sslbench(*command)
    assert status == 1
    assert out.count("done before") == 4
    assert "knn of the trained network" not in out
    (released / "broken.pth").unlink()
    status, out, _ = sslbench(*command, "--json")
    document = json.loads(out)
    assert (status, len(document["runs"]), document["failures"]) == (0, 4, [])


def test_files_of_equal_names_are_told_apart_by_their_content(released: Path, sslbench: Command) -> None:
    torch.save(tensors(resnet(3)), released / "resnet.pth")
    status, out, _ = sslbench(
        "eval", released / "resnet.pth", released / "plain/resnet.pth", "--data", "tints", *OPTIONS
    )
    assert status == 0
    shown = [line for line in out.splitlines() if "weights.sha256=" in line]
    assert len(shown) == len(set(shown)) == 2


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--with", "knnn"], "Did you mean 'knn'"),
        (["--set", "evaluators.knn.tempreature=1"], "Did you mean 'evaluators.knn.temperature'"),
        (["--set", "method.lr=1"], "'method.lr' is no setting of an evaluation"),
        (["--set", "preprocessing.meen=1"], "Did you mean 'mean'"),
        (["--data", "nowhere"], "nowhere"),
    ],
)
def test_a_mistake_that_fails_for_all_ends_before_the_first(
    words: list[str], message: str, released: Path, sslbench: Command
) -> None:
    status, out, err = sslbench("eval", "--weights-dir", released, "--data", "tints", *words)
    assert (status, out) == (2, "")
    assert message in err
    assert not Path("results").exists()


def test_an_error_of_any_kind_stops_nothing_but_itself(
    released: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    evaluate = many.evaluate_subject

    def evaluate_or_fail(request: WeightsRequest, *given: Any) -> Any:
        if request.path.name == "resnet.pth":
            raise RuntimeError("CUDA out of memory")
        return evaluate(request, *given)

    monkeypatch.setattr(many, "evaluate_subject", evaluate_or_fail)
    weights = [
        WeightsRequest(path, arch="resnet18", evaluators=["knn"], values=VALUES)
        for path in (released / "plain/resnet.pth", released / "moco_v2.pth.tar")
    ]
    outcome = evaluate_all(requests_for_all(weights, [str(tmp_path / "tints")]), tmp_path / "results")
    assert [record.method for _, record in outcome.evaluated] == ["mocov2"]
    assert [str(one) for one in outcome.failures] == [
        f"resnet.pth on {tmp_path / 'tints'}: RuntimeError: CUDA out of memory"
    ]


def test_what_an_architecture_lacks_is_left_out_and_sets_of_their_own_are_read_once(
    released: Path, tmp_path: Path
) -> None:
    torch.save(tensors(vit()), tmp_path / "vit.pth")
    clips = {"evaluators.davis.path": str(write_davis(tmp_path, {"box": moving_square(3)}))}
    wide = WeightsRequest(
        tmp_path / "vit.pth", arch="deit_s16", evaluators=["knn", "davis"],
        values={"data.image_px": 32, **clips, **{f"backbone.{name}": value for name, value in VIT.items()}},
    )  # fmt: skip
    narrow = WeightsRequest(
        released / "plain/resnet.pth", arch="resnet18", evaluators=["knn", "davis"],
        values={"backbone.width": RESNET["width"], "data.image_px": 32, **clips},
    )  # fmt: skip
    requests = requests_for_all([wide, narrow], [str(tmp_path / "tints"), str(tmp_path / "hues")])
    said: list[str] = []
    sets = OpenedSets()
    subjects = [load_subject(request, sets, said.append) for request in requests]
    assert [[name for name, _ in one.evaluators] for one in subjects] == [["knn", "davis"], ["knn"], ["knn"], ["knn"]]
    assert next(text for text in said if "left out" in text).startswith(
        "davis is left out: resnet18 has no patch_tokens"
    )
    assert subjects[0].dataset is subjects[1].dataset  # listed and fingerprinted once
    with pytest.raises(UserError, match="needs patch_tokens"):
        load_subject(requests_for_all([narrow], [str(tmp_path / "tints")])[0], sets, said.append)


def test_a_list_says_what_its_files_are(released: Path) -> None:
    toml = released / "weights.toml"
    toml.write_text(
        '[[weights]]\nfile = "moco_v2.pth.tar"\nkey = "encoder_k"\nas = "mine"\nset = { "backbone.width" = 0.125 }\n'
        '[[weights]]\nfile = "timm:resnet50.tv_in1k"\n'
    )
    first, name = weights_listed(toml)
    assert (first.file, first.key, first.method) == (str(released / "moco_v2.pth.tar"), "encoder_k", "mine")
    assert first.settings == {"backbone.width": 0.125}
    assert name.file == "timm:resnet50.tv_in1k"
    found = weights_in(released)
    assert [Path(one.file).name for one in found] == ["broken.pth", "moco_v2.pth.tar", "resnet.pth", name.file]
    assert [one.key for one in found] == [None, "encoder_k", None, None]
    table = released / "some.csv"
    table.write_text("file, arch, key, as\nmoco_v2.pth.tar, , encoder_k, mine\n")
    assert weights_listed(table) == [first.model_copy(update={"settings": {}})]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('[[weights]]\nfile = "moco_v2.pth.tar"\nkee = "x"', "entry 1: 'kee' is unknown. Did you mean 'key'"),
        ('[[weights]]\nfile = "gone.pth"', "entry 1: .*gone.pth does not exist"),
        ('[[weights]]\narch = "deit_s16"', "entry 1: file: Field required"),
        ("weights = 3", "may hold .* tables only"),
        ("[[weights]", "is not TOML"),
        ("", "lists no weights"),
    ],
)
def test_a_wrong_list_is_refused(text: str, message: str, released: Path) -> None:
    (released / "weights.toml").write_text(text)
    with pytest.raises(UserError, match=message):
        weights_in(released)


def test_a_folder_without_weights_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="does not exist"):
        weights_in(tmp_path / "nowhere")
    (tmp_path / "run").mkdir()
    (tmp_path / "run/record.json").write_text("{}")
    (tmp_path / "run/weights.safetensors").write_text("of a run")
    with pytest.raises(UserError, match="holds no weights"):
        weights_in(tmp_path)


def test_a_folder_of_a_library_or_an_export_is_one_network(tmp_path: Path) -> None:
    for folder, description in (("hub", "config.json"), ("exported", "sslbench.json")):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / description).write_text("{}")
        (tmp_path / folder / "model.safetensors").write_bytes(b"")
    (tmp_path / "network.onnx").write_bytes(b"")
    assert [Path(one.file).name for one in weights_in(tmp_path)] == ["exported", "hub", "network.onnx"]
