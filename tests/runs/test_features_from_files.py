"""`eval --features`: the numbers of the network that made the features, whatever file they come in; one message for
whatever is wrong with it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.numpy import save_file

import ssl_bench
from ssl_bench import registry
from ssl_bench.datasets.opening import open_dataset
from ssl_bench.errors import UserError
from ssl_bench.evaluation.evaluate import evaluate_network
from ssl_bench.evaluation.features import FeatureStore
from ssl_bench.evaluator import Evaluator
from ssl_bench.recipes.evaluation_data import dataset_loaders
from ssl_bench.records.reading import read_record
from ssl_bench.runs.features_from_files import FeaturesRequest, evaluate_features
from ssl_bench.settings import parse_settings
from tests.conftest import Command
from tests.toy import write_image_folder
from tests.weights.networks import vit

FAST = {
    "knn": {"neighbors": [1, 3], "reported": 3},
    "linear-probe": {"epochs": 2},
    "logistic-regression": {},
    "kmeans": {},
    "label-free": {},
}
OF_FEATURES = [name for name in registry.names("evaluator") if not registry.evaluator(name).reads_images]
VALUES = {f"evaluators.{name}.{key}": value for name, part in FAST.items() for key, value in part.items()}


@pytest.fixture(scope="module")
def extracted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Photos, and the features of a ViT for them as .npz."""
    folder = tmp_path_factory.mktemp("features")
    write_image_folder(folder / "tints", train=8, test=4, px=32)
    store = FeatureStore(
        vit(), dataset(folder), image_px=32, device=torch.device("cpu"), autocast_dtype=None, batch_size=8, workers=0
    )
    for split in ("train", "test"):
        one, probe = store(split), store(split, "probe_features")  # type: ignore[arg-type]
        arrays = {"features": one.vectors, "labels": one.labels, "probe_features": probe.vectors}
        np.savez(folder / f"tints_{split}.npz", **{key: value.numpy() for key, value in arrays.items()})
    return folder


def dataset(folder: Path) -> Any:
    return open_dataset(str(folder / "tints"), dataset_loaders(), {"image_px": 32})


def request(folder: Path, **changes: Any) -> FeaturesRequest:
    files = {"train": folder / "tints_train.npz", "test": folder / "tints_test.npz", "evaluators": ["knn"]}
    given = files | changes
    values = {key: value for key, value in VALUES.items() if key.split(".")[1] in (given["evaluators"] or ())}
    return FeaturesRequest(**given, values=values)


def test_which_evaluators_read_features_alone() -> None:
    assert {"knn", "linear-probe", "logistic-regression", "kmeans", "label-free"} <= set(OF_FEATURES)
    assert not {"voc-jaccard", "davis"} & set(OF_FEATURES)
    assert Evaluator.reads_images  # what a plugin does not declare


@pytest.mark.parametrize("name", OF_FEATURES)
def test_the_numbers_are_those_of_the_network_that_made_the_features(
    name: str, extracted: Path, tmp_path: Path
) -> None:
    kind = registry.evaluator(name)
    evaluator = kind(parse_settings(kind.Config, FAST.get(name, {}), f"evaluators.{name}", name))
    [expected] = evaluate_network(
        vit(), "trained", [(name, evaluator)], dataset(extracted), seed=0, device=torch.device("cpu"), workers=0,
        run_dir=tmp_path, places=["there"],
    )  # fmt: skip
    _, record = evaluate_features(request(extracted, evaluators=[name]), tmp_path / "results")
    [given] = record.evaluations
    wanted = [one for one in expected.measurements if one.metric != "alignment"]
    assert [(one.metric, one.value, one.n) for one in given.measurements] == [
        (one.metric, one.value, one.n) for one in wanted
    ]
    for one, other in zip(given.measurements, wanted, strict=True):
        assert one.protocol.text == other.protocol.text.replace("native 32 px", "features as given")
        assert one.interval == other.interval


def test_the_record_names_the_files_and_tables_show_the_row(extracted: Path, tmp_path: Path, sslbench: Command) -> None:
    results = tmp_path / "results"
    files = (extracted / "tints_train.npz", extracted / "tints_test.npz")
    words = ("--with", "knn", "--as", "simclr", "--arch", "resnet50", "--results", results)
    settings = [word for key, value in VALUES.items() if ".knn." in key for word in ("--set", f"{key}={value}")]
    status, out, err = sslbench("eval", "--features", *files, *words, *settings)
    assert status == 0, err
    [folder] = (results / "runs").iterdir()
    record = read_record(folder / "record.json")
    assert record.features is not None
    assert record.features.train.name == "tints_train.npz"
    assert record.features.train.shape[1] == 64
    assert (record.weights, record.training, record.steps) == (None, None, 0)
    assert (record.method, record.backbone.name, record.data.name) == ("simclr", "resnet50", "tints")
    _, shown, _ = sslbench("show", folder)
    assert "from elsewhere: tints_train.npz (16 x 64 float32, sha256" in " ".join(shown.split())
    assert "tints: 16 training and 8 test images, 2 classes, fingerprint" in shown
    assert "M parameters" not in shown
    _, table, err = sslbench("table", "comparison", "--results", results)
    assert "features from elsewhere: tints_train.npz, tints_test.npz" in " ".join(table.split()), (table, err)
    status, out, _ = sslbench("eval", "--features", *files, *words, *settings)
    assert "done before" in out
    for verb in (("export", folder, "--to", "onnx"), ("eval", folder)):
        status, _, err = sslbench(*verb, "--results", results)
        assert status == 2
        assert "features from elsewhere: there is no network" in err


def test_with_the_dataset_named_the_row_is_of_that_dataset(extracted: Path, tmp_path: Path) -> None:
    known = dataset(extracted)
    _, record = evaluate_features(request(extracted, data=str(extracted / "tints")), tmp_path)
    assert record.data.fingerprint == known.fingerprint
    assert record.evaluations[0].data_fingerprint == known.fingerprint
    arrays = dict(np.load(extracted / "tints_train.npz"))
    turned = {key: value[::-1].copy() for key, value in arrays.items()}
    renamed = arrays | {"labels": np.array(["cat", "ant", "dog"])[arrays["labels"]]}
    test = dict(np.load(extracted / "tints_test.npz"))
    renamed_test = test | {"labels": np.array(["cat", "ant", "dog"])[test["labels"]]}
    _, same = evaluate_features(
        request(extracted, train=renamed, test=renamed_test, data=str(extracted / "tints")), tmp_path
    )
    assert same.evaluations[0].measurements == record.evaluations[0].measurements
    with pytest.raises(UserError, match=r"test: the labels are not those of tints in its order .*first at row"):
        evaluate_features(request(extracted, train=turned, data=str(extracted / "tints")), tmp_path)
    half = {key: value[::2] for key, value in arrays.items()}
    with pytest.raises(UserError, match="Give the features of all of them, or leave --data out"):
        evaluate_features(request(extracted, train=half, data=str(extracted / "tints")), tmp_path)


def as_npy(folder: Path, split: str, arrays: dict[str, Any]) -> Path:
    np.save(folder / f"{split}_features.npy", arrays["features"])
    np.save(folder / f"{split}_labels.npy", arrays["labels"])
    return folder / f"{split}_features.npy"


def as_npy_with_a_suffix(folder: Path, split: str, arrays: dict[str, Any]) -> Path:
    np.save(folder / f"{split}.npy", arrays["features"])
    np.save(folder / f"{split}-labels.npy", arrays["labels"])
    return folder / f"{split}.npy"


def as_safetensors(folder: Path, split: str, arrays: dict[str, Any]) -> Path:
    save_file({"vectors": arrays["features"], "targets": arrays["labels"]}, folder / f"{split}.safetensors")
    return folder / f"{split}.safetensors"


def as_torch(folder: Path, split: str, arrays: dict[str, Any]) -> Path:
    torch.save({key: torch.from_numpy(value) for key, value in arrays.items()}, folder / f"{split}.pt")
    return folder / f"{split}.pt"


def as_float64_with_gaps(folder: Path, split: str, arrays: dict[str, Any]) -> Path:
    labels = np.array([7.0, 70.0, -3.0])[arrays["labels"]][:, None]  # one column, of whole floats, not contiguous
    np.savez(folder / f"{split}.npz", embeddings=arrays["features"].astype(np.float64), y=labels)
    return folder / f"{split}.npz"


@pytest.mark.parametrize("saved", [as_npy, as_npy_with_a_suffix, as_safetensors, as_torch, as_float64_with_gaps])
def test_every_kind_of_file_gives_the_same_numbers(saved: Any, extracted: Path, tmp_path: Path) -> None:
    arrays = {split: dict(np.load(extracted / f"tints_{split}.npz")) for split in ("train", "test")}
    files = {split: saved(tmp_path, split, {key: one[key] for key in ("features", "labels")})
             for split, one in arrays.items()}  # fmt: skip
    _, expected = evaluate_features(request(extracted), tmp_path / "a")
    _, given = evaluate_features(request(extracted, **files), tmp_path / "b")
    assert [one.value for one in given.evaluations[0].measurements] == [
        one.value for one in expected.evaluations[0].measurements
    ]


def test_float16_is_computed_in_float32_and_said(extracted: Path, tmp_path: Path) -> None:
    arrays = dict(np.load(extracted / "tints_train.npz"))
    said: list[str] = []
    half = arrays | {"features": arrays["features"].astype(np.float16)}
    _, record = evaluate_features(request(extracted, train=half), tmp_path, said.append)
    assert "train: float16, computed in float32" in said
    assert record.features is not None
    assert record.features.train.dtype == "float16"


def changed(**changes: Any) -> Any:
    return lambda arrays: {key: value for key, value in (arrays | changes).items() if value is not None}


def with_nan(arrays: dict[str, Any]) -> dict[str, Any]:
    features = arrays["features"].copy()
    features[3, 1] = np.nan
    return arrays | {"features": features}


BAD = [
    (with_nan, "1 of the 16 features of train have NaN or infinity, the first in row 3"),
    (changed(features=None), "train has no features: it holds labels.*Call the array one of features, vectors"),
    (changed(vectors=np.ones((16, 64))), "train has features and vectors: which are the features"),
    (changed(labels=None), "train has no labels, the other file has"),
    (changed(labels=np.zeros(5)), "16 features and 5 labels"),
    (changed(labels=np.eye(16)), r"One-hot rows become indices with labels.argmax\(1\)"),
    (changed(labels=np.zeros(16, int)), "labels that train lacks"),
    (changed(labels=np.linspace(0, 1, 16)), "integers or texts are needed"),
    (changed(labels=np.array(["a", "b"] * 8)), "the labels of train are <U1, of test int64"),
    (changed(features=np.ones((16, 64))), "constant: all 16 images have the same vector"),
    (changed(features=np.ones((16, 4, 4))), r"shape \(16, 4, 4\): a matrix"),
    (changed(features=np.ones((0, 64))), "empty"),
    (changed(features=np.array([["a"] * 64] * 16)), "numbers are needed"),
    (changed(features=np.random.default_rng(0).random((16, 63))), "63 dimensions and those of test 64"),
    (changed(probe_features=np.random.default_rng(0).random((16, 8))), "only one of train and test has probe_features"),
]


@pytest.mark.parametrize(("change", "message"), BAD)
def test_what_is_wrong_is_said_and_nothing_is_written(
    change: Any, message: str, extracted: Path, tmp_path: Path
) -> None:
    train, test = (
        {key: value for key, value in np.load(extracted / f"tints_{split}.npz").items() if key != "probe_features"}
        for split in ("train", "test")
    )
    with pytest.raises(UserError, match=message):
        evaluate_features(request(extracted, train=change(train), test=test), tmp_path / "results")
    assert not (tmp_path / "results").exists()


def test_one_class_has_nothing_to_tell_apart(extracted: Path, tmp_path: Path) -> None:
    one = {"features": np.random.default_rng(0).random((6, 4)), "labels": np.zeros(6, int)}
    with pytest.raises(UserError, match=r"train has one class \(0\): there is nothing to tell apart"):
        evaluate_features(request(extracted, train=one, test=one), tmp_path)
    free = {"features": one["features"]}
    with pytest.raises(UserError, match="knn needs labels, and the features have none"):
        evaluate_features(request(extracted, train=free, test=free), tmp_path)
    _, record = evaluate_features(request(extracted, train=free, test=free, evaluators=None), tmp_path)
    assert [one.evaluator for one in record.evaluations] == ["label-free"]


WORDS = [
    (["missing.npz", "b.npz"], "missing.npz does not exist: give a file of features (.npz"),
    (["a.csv", "a.csv"], "a.csv is no file of features: known are .npz"),
    (["broken.npz", "broken.npz"], "broken.npz cannot be read"),
    (["objects.npz", "objects.npz"], "Arrays of objects are not read"),
    (["fine.npz", "fine.npz", "run-1"], "leave a run or weights out"),
    (["fine.npz", "fine.npz", "--baseline"], "leave --baseline out"),
    (["fine.npz", "fine.npz", "--with", "voc-jaccard"], "voc-jaccard reads images or the network"),
    (["fine.npz", "fine.npz", "--with", "kmean"], "Did you mean 'kmeans'?"),
    (["fine.npz", "fine.npz", "--set", "backbone.dim=3"], "'backbone.dim' is no setting of an evaluation of features"),
    (["fine.npz", "fine.npz", "--data", "shapes", "--data", "shapes"], "--features are of one dataset"),
]


@pytest.mark.parametrize(("words", "message"), WORDS)
def test_mistakes_on_the_command_line(words: list[str], message: str, sslbench: Command, tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("1,2")
    (tmp_path / "broken.npz").write_bytes(b"PK\x03\x04 no more")
    np.savez(tmp_path / "objects.npz", features=np.array([[{}]], dtype=object))
    np.savez(tmp_path / "fine.npz", features=np.random.default_rng(0).random((4, 3)), labels=[0, 0, 1, 1])
    status, _, err = sslbench("eval", "--features", *words)
    assert status == 2
    assert message in " ".join(err.split()), err
    assert not (tmp_path / "results").exists()


def test_from_python(extracted: Path, tmp_path: Path) -> None:
    train, test = ({**np.load(extracted / f"tints_{split}.npz")} for split in ("train", "test"))
    settings = {key: value for key, value in VALUES.items() if ".knn." in key}
    [of_arrays] = ssl_bench.evaluate(features=(train, test), with_="knn", settings=settings, results=tmp_path)
    files = (extracted / "tints_train.npz", extracted / "tints_test.npz")
    [of_files] = ssl_bench.evaluate(features=files, with_="knn", settings=settings, results=tmp_path)
    assert of_arrays.measurements == of_files.measurements
    with pytest.raises(UserError, match="give one of them"):
        ssl_bench.evaluate("run-1", features=files)
