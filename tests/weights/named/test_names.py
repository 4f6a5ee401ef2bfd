"""Weights by name: from the caches or a server on this machine, loaded as the same file given as a path."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from safetensors.torch import save_file
from typer.testing import CliRunner

from ssl_bench.cli.main import app
from ssl_bench.errors import UserError
from ssl_bench.recipes.starting import as_recorded, chosen_start
from ssl_bench.runs.elsewhere import WeightsRequest, evaluate_weights
from ssl_bench.weights.loading import load_network, open_weights
from ssl_bench.weights.named import files, hub
from ssl_bench.weights.named.catalog import Published
from ssl_bench.weights.named.finding import find, is_name
from tests.weights.named.conftest import COMMIT, Server
from tests.weights.networks import RESNET, resnet, tensors


def test_the_caches_are_those_of_torch_and_sslbench(caches: Path) -> None:
    assert files.hub_folder() == Path(torch.hub.get_dir()) / "checkpoints"
    assert files.own_folder() == caches / "sslbench" / "weights"


def test_a_name_downloads_once_and_loads_the_network(server: Server, tiny: Published) -> None:
    loaded = load_network(open_weights("moco-v2:tiny"))
    images = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        torch.testing.assert_close(loaded.backbone(images), resnet()(images), rtol=0, atol=0)
    assert loaded.recognized.method == "mocov2"
    assert loaded.preprocessing.interpolation == "bilinear"  # as MoCo's authors evaluate; of a plain file: bicubic
    assert loaded.preprocessing.source == "MoCo v2's evaluation"
    assert server.asked == ["/authors/tiny.pth"]
    server.files.clear()
    again = open_weights(Path("mocov2:tiny"))
    assert again.stored.path == files.hub_folder() / "tiny.pth"
    assert [path.name for path in files.hub_folder().iterdir()] == ["tiny.pth"]
    assert again.located.name == "mocov2:tiny"
    assert is_name("mocov2:tiny")


def test_as_says_of_a_file_by_itself_what_its_name_says(tiny: Published) -> None:
    path = open_weights("mocov2:tiny").stored.path
    by_itself = open_weights(path, method="mocov2")
    assert by_itself.format == open_weights("mocov2:tiny").format
    assert open_weights(path).format != by_itself.format


def test_a_file_put_by_hand_is_found_before_any_network(server: Server, tiny: Published) -> None:
    files.own_folder().mkdir(parents=True)
    (files.own_folder() / "tiny.pth").write_bytes(server.files.pop("/authors/tiny.pth"))
    assert find("mocov2:tiny").path == files.own_folder() / "tiny.pth"
    assert server.asked == []


def test_without_a_network_one_message_says_what_to_fetch_and_where_to_put_it(tiny: Published, server: Server) -> None:
    server.server.shutdown()
    server.server.server_close()
    result = CliRunner().invoke(app, ["inspect", "mocov2:tiny"])
    message = str(result.exception)
    for words in (
        f"mocov2:tiny is not on this machine, and {tiny.url} cannot be downloaded",
        f"put it at {files.own_folder() / 'tiny.pth'}",
        "FILE --arch resnet18 --set backbone.width=0.125 --set backbone.stem=imagenet --as mocov2",
    ):
        assert words in message
    assert not list(files.hub_folder().iterdir())


@pytest.mark.parametrize("where", ["downloaded", "in the cache"])
def test_a_wrong_checksum_is_refused_saying_both(where: str, server: Server, tiny: Published) -> None:
    server.files["/authors/tiny.pth"] += b"!"
    content = server.files["/authors/tiny.pth"]
    if where == "in the cache":
        files.hub_folder().mkdir(parents=True)
        (files.hub_folder() / "tiny.pth").write_bytes(content)
    with pytest.raises(UserError, match=f"begins with {tiny.sha256}.* is {hashlib.sha256(content).hexdigest()}"):
        find("mocov2:tiny")
    assert [one.name for one in files.hub_folder().iterdir()] == ["tiny.pth"] * (where == "in the cache")


def test_md5_is_checked_too(server: Server, tiny: Published) -> None:
    remote = files.Remote("m", tiny.url, "m.pth", md5=hashlib.md5(server.files["/authors/tiny.pth"]).hexdigest()[:8])
    assert files.obtain(remote).exists()
    with pytest.raises(UserError, match="The md5 that its authors publish begins with 00000000"):
        files.obtain(dataclasses.replace(remote, file="n.pth", md5="0" * 8))


def test_half_a_download_is_not_kept(server: Server, tiny: Published) -> None:
    server.cut = 7
    with pytest.raises(
        UserError, match=r"broke off after [\d,]+ of [\d,]+ bytes; nothing was kept|cannot be downloaded"
    ):
        find("mocov2:tiny")
    assert not list(files.hub_folder().iterdir())


def test_an_address_is_kept_under_a_name_of_its_own(server: Server, tiny: Published) -> None:
    server.files["/other/tiny.pth"] = server.files["/authors/tiny.pth"]
    assert find(tiny.url).name == "mocov2:tiny"
    other = find(str(Path(f"{server.address}/other/tiny.pth")))  # pathlib shortens the two slashes
    assert other.name == f"{server.address}/other/tiny.pth"
    assert other.path.name == f"{hashlib.sha256(other.name.encode()).hexdigest()[:8]}-tiny.pth"


def test_a_run_starts_from_a_name_and_its_recipe_keeps_it(tiny: Published) -> None:
    initial = chosen_start({"source": "mocov2:tiny"})
    assert initial is not None
    assert initial.arch == "--arch resnet18 --set backbone.width=0.125 --set backbone.stem=imagenet"
    recorded = as_recorded(initial)
    assert recorded is not None
    assert recorded.source == "mocov2:tiny"
    assert chosen_start(recorded.model_dump()) is not None
    by_path = chosen_start({"source": str(initial.source)})
    assert by_path is not None
    assert by_path.fingerprint == initial.fingerprint


def repository_in_cache(hub_cache: Path, name: str, content: dict[str, bytes]) -> Path:
    """A repository as huggingface_hub keeps it."""
    repository = hub_cache / f"models--{name.replace('/', '--')}"
    snapshot = repository / "snapshots" / COMMIT
    snapshot.mkdir(parents=True)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text(COMMIT)
    for file, one in content.items():
        (snapshot / file).write_bytes(one)
    return snapshot


def saved(path: Path, weights: dict[str, Any]) -> bytes:
    save_file({name: one.contiguous() for name, one in weights.items()}, path)
    return path.read_bytes()


def test_timms_weights_are_those_that_timm_loads(caches: Path) -> None:
    torch.manual_seed(0)
    network = timm.create_model("test_vit.r160_in1k")
    content = saved(caches / "w.safetensors", network.state_dict())
    repository_in_cache(caches / "hub", "timm/test_vit.r160_in1k", {"model.safetensors": content})
    oracle = timm.create_model("test_vit.r160_in1k", pretrained=True, num_classes=0).eval()
    loaded = load_network(open_weights("timm:test_vit.r160_in1k"))
    images = torch.randn(2, 3, 160, 160)
    with torch.no_grad():
        torch.testing.assert_close(loaded.backbone(images), oracle(images), rtol=0, atol=1e-5)
    published = timm.get_pretrained_cfg("test_vit.r160_in1k")
    assert published is not None
    assert loaded.arch == "timm:test_vit"
    assert loaded.preprocessing.crop_px == published.input_size[-1] == 160
    assert loaded.preprocessing.resize_px == int(160 / published.crop_pct)
    assert loaded.preprocessing.mean == published.mean
    assert loaded.recognized.located.revision == COMMIT


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("timm:vit_smal_patch16_224.dino", "timm has no network called 'vit_smal_patch16_224'. Did you mean"),
        ("timm:test_vit", r"a tag names them. It has timm:test_vit\.r160_in1k"),
        ("timm:test_vit.r161_in1k", r"Did you mean 'test_vit\.r160_in1k'"),
        ("torchvision:ResNet51_Weights.X", r"Did you mean 'ResNet50_Weights'"),
        ("torchvision:resnet50", r"It has torchvision:ResNet50_Weights\.IMAGENET1K_V1, torchvision:ResNet50"),
        ("hf:facebook", "give hf:OWNER/NAME"),
        ("dinno:deit_s16", "Did you mean 'dino:deit_s16'"),
        ("nothing:at_all", "sslbench list weights shows all"),
    ],
)
def test_unknown_names_are_answered_with_the_nearest(name: str, words: str) -> None:
    with pytest.raises(UserError, match=words):
        find(name)


def test_torchvisions_checksum_is_the_one_in_the_name_and_its_transform_comes_along(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    files.hub_folder().mkdir(parents=True)
    torch.save({}, files.hub_folder() / "resnet50-11ad3fa6.pth")
    with pytest.raises(UserError, match="The sha256 that its authors publish begins with 11ad3fa6"):
        find("torchvision:ResNet50_Weights.IMAGENET1K_V2")
    monkeypatch.setattr(files, "_require_checksum", lambda *given: None)
    located = find("torchvision:ResNet50_Weights.DEFAULT")
    assert located.name == "torchvision:ResNet50_Weights.IMAGENET1K_V2"
    assert located.method == "supervised"
    assert located.preprocessing is not None
    assert (located.preprocessing.resize_px, located.preprocessing.crop_px) == (232, 224)
    assert located.preprocessing.interpolation == "bilinear"


def test_a_repository_in_the_hubs_cache_is_read_without_network(caches: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.HfApi.model_info", lambda *given, **more: pytest.fail("asked the network"))
    content = {"model.safetensors": saved(caches / "w", tensors(resnet())), "config.json": b"{}"}
    folder = repository_in_cache(caches / "hub", "owner/name", content)
    for name in ("hf:owner/name", "hf:owner/name@main", f"hf:owner/name@{COMMIT}"):
        located = find(name)
        assert (located.path, located.revision) == (folder, COMMIT)
        assert located.pinned == f"hf:owner/name@{COMMIT}"
    loaded = load_network(open_weights("hf:owner/name"), arch="resnet18", settings={**RESNET, "stem": "imagenet"})
    assert loaded.used == 100
    assert find("hf:owner/name/model.safetensors").path == folder / "model.safetensors"


def test_a_shard_missing_in_the_cache_makes_the_hub_be_asked(caches: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    index = json.dumps({"weight_map": {"a": "model-1.safetensors"}}).encode()
    repository_in_cache(caches / "hub", "owner/name", {"model.safetensors.index.json": index})
    with pytest.raises(UserError, match=r"hf download owner/name --local-dir name\. Then give that folder"):
        find("hf:owner/name")


def test_of_a_repository_on_the_hub_only_weights_and_configuration_are_downloaded(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", server.address)
    template = f"{server.address}/{{repo_id}}/resolve/{{revision}}/{{filename}}"
    monkeypatch.setattr("huggingface_hub.constants.HUGGINGFACE_CO_URL_TEMPLATE", template)
    at = f"/owner/name/resolve/{COMMIT}"
    for file in ("config.json", "model.safetensors", "pytorch_model.bin", "README.md"):
        server.files[f"{at}/{file}"] = file.encode()
    folder, commit = hub.repository("owner/name")
    assert commit == COMMIT
    assert sorted(one.name for one in folder.iterdir()) == ["config.json", "model.safetensors"]
    server.server.shutdown()
    assert hub.repository("owner/name") == (folder, commit)


def test_an_evaluation_by_name_is_that_of_the_file_and_its_record_says_the_name(
    tiny: Published, photos: Path, tmp_path: Path
) -> None:
    values = {"data.image_px": 32, "evaluators.knn.neighbors": [1], "evaluators.knn.reported": 1}
    by_name = WeightsRequest(Path("mocov2:tiny"), str(photos), evaluators=["knn"], values=values)
    folder, record = evaluate_weights(by_name, tmp_path / "results")
    assert record.weights is not None
    assert (record.weights.name, record.weights.file, record.method) == ("mocov2:tiny", "tiny.pth", "mocov2")
    assert record.weights.address == tiny.url
    sizes = {f"backbone.{name}": value for name, value in tiny.settings.items()}
    by_path = dataclasses.replace(
        by_name, path=files.hub_folder() / "tiny.pth", arch=tiny.arch, method=tiny.method, values=values | sizes
    )
    assert evaluate_weights(by_path, tmp_path / "results") == (folder, record)  # done before
    shown = CliRunner().invoke(app, ["show", str(folder)])
    assert f"mocov2:tiny at {tiny.url}" in " ".join(shown.output.split())
