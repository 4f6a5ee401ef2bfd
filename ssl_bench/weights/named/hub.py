"""Repositories of the Hugging Face hub as folders: from huggingface_hub's cache where it has them, else downloaded."""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ssl_bench.errors import UserError

BESIDE = ("config.json", "preprocessor_config.json")
WEIGHTS = (
    "model.safetensors", "model.safetensors.index.json", "pytorch_model.bin", "pytorch_model.bin.index.json",
)  # fmt: skip
"""Files with weights; the first that a repository has is read."""
SECONDS = 30


def repository(name: str, revision: str | None = None, file: str | None = None, *, asked: str = "") -> tuple[Path, str]:
    """(folder with the repository's weights and configuration or the one `file`, commit).

    `revision` is a branch, tag or commit; None: the newest, or what the cache has. `asked` is what the user typed.
    Raises `UserError` where it cannot be had, saying what to fetch and how to pass it.
    """
    if not re.fullmatch(r"[\w.-]+/[\w.-]+", name):
        raise UserError(
            f"hf:{name} is no repository of the Hugging Face hub: give hf:OWNER/NAME, e.g. hf:facebook/dino-vits16"
        )
    try:
        with _quiet():
            found = _in_cache(name, revision, file) or _downloaded(name, revision, file)
    except UserError:
        raise
    except Exception as error:  # whatever the hub's client, a proxy and a cache can raise
        raise _out_of_reach(asked or _typed(name, revision, file), name, revision, file, error) from error
    return found


def _in_cache(name: str, revision: str | None, file: str | None) -> tuple[Path, str] | None:
    """As `repository`, of what the cache has whole: the file, or the first kind of weights with all its shards."""
    if file is not None:
        path = _cached_file(name, file, revision)
        return (path, _commit_of(path, file)) if path else None
    for one in WEIGHTS:
        path = _cached_file(name, one, revision)
        if path is not None and all((path.parent / shard).exists() for shard in _shards(path)):
            return path.parent, path.parent.name
    return None


def _cached_file(name: str, file: str, revision: str | None) -> Path | None:
    from huggingface_hub import constants, try_to_load_from_cache

    found = try_to_load_from_cache(name, file, cache_dir=constants.HF_HUB_CACHE, revision=revision)
    return Path(found) if isinstance(found, str) else None


def _commit_of(path: Path, file: str) -> str:
    """The name of the snapshot's folder."""
    return path.parents[file.count("/")].name


def _shards(path: Path) -> set[str]:
    if not path.name.endswith(".index.json"):
        return set()
    return set(json.loads(path.read_text("utf-8"))["weight_map"].values())


def _downloaded(name: str, revision: str | None, file: str | None) -> tuple[Path, str]:
    from huggingface_hub import HfApi, hf_hub_download, snapshot_download

    names = {one.rfilename for one in HfApi().model_info(name, revision=revision, timeout=SECONDS).siblings or ()}
    if file is not None:
        if file not in names:
            raise UserError(f"hf:{name} has no file {file!r}. It has {', '.join(sorted(names))}")
        path = Path(hf_hub_download(name, file, revision=revision))
        return path, _commit_of(path, file)
    chosen = next((one for one in WEIGHTS if one in names), None)
    if chosen is None:
        raise UserError(
            f"hf:{name} has none of model.safetensors and pytorch_model.bin. Name one of its files, as hf:{name}/FILE: "
            f"{', '.join(sorted(names))}"
        )
    wanted = [*BESIDE, chosen]
    if chosen.endswith(".index.json"):
        wanted += sorted(_shards(Path(hf_hub_download(name, chosen, revision=revision))))
    folder = Path(snapshot_download(name, revision=revision, allow_patterns=wanted))
    return folder, folder.name


@contextmanager
def _quiet() -> Iterator[None]:
    """Without the client's warnings of each failed try: what is wrong is said once, in the message."""
    logger = logging.getLogger("huggingface_hub")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)


def _typed(name: str, revision: str | None, file: str | None) -> str:
    return f"hf:{name}" + (f"/{file}" if file else "") + (f"@{revision}" if revision else "")


def _out_of_reach(given: str, name: str, revision: str | None, file: str | None, error: Exception) -> UserError:
    from huggingface_hub import constants
    from huggingface_hub.errors import GatedRepoError, RepositoryNotFoundError, RevisionNotFoundError

    if isinstance(error, GatedRepoError):
        return UserError(
            f"{given} is given to those who accepted its license: do so at https://huggingface.co/{name}, then log in "
            "with: hf auth login"
        )
    if isinstance(error, RevisionNotFoundError):
        return UserError(f"hf:{name} has no revision {revision!r}: give a branch, a tag or a commit of it")
    if isinstance(error, RepositoryNotFoundError):
        return UserError(
            f"the Hugging Face hub has no repository {name}, or keeps it private: check the name at "
            f"https://huggingface.co/{name}, or log in with: hf auth login"
        )
    reason = str(error).strip().partition("\n")[0] or "no reason given"
    what = f" {file}" if file else ""
    folder = name.partition("/")[2]
    pinned = f" --revision {revision}" if revision else ""
    return UserError(
        f"{given} is not in the cache of the Hugging Face hub ({constants.HF_HUB_CACHE}) and cannot be downloaded "
        f"({type(error).__name__}: {reason}). On another machine: hf download {name}{what}{pinned} --local-dir {folder}"
        f". Then give that {'file' if file else 'folder'} in place of the name: {folder}{'/' + file if file else ''}"
    )
