"""Which weights are to be evaluated: all in a folder, or those that a list (TOML or CSV) names with what they are."""

from __future__ import annotations

import csv
import tomllib
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from pydantic import Field, ValidationError

from ssl_bench.errors import UserError, did_you_mean
from ssl_bench.settings import Settings

ENDINGS = (".pth", ".pt", ".ckpt", ".tar", ".safetensors", ".bin", ".onnx")
LISTS = ("weights.toml", "weights.csv")
"""Names of a list that lies beside the weights."""


class ListedWeights(Settings):
    """One entry of a list; what is left out is found in the file, as without a list."""

    file: str
    """A file or Hugging Face folder, from the list's folder on; or a name, e.g. "timm:resnet50.tv_in1k"."""
    arch: str | None = None
    key: str | None = None
    method: str | None = Field(default=None, alias="as")
    settings: Mapping[str, Any] = Field(default={}, alias="set")
    """As `--set` takes them, e.g. {"backbone.heads": 12}."""


def weights_in(folder: Path) -> list[ListedWeights]:
    """The weights anywhere in `folder`, in the order of their names, as absolute paths.

    Those that its weights.toml or weights.csv lists are as it says. Runs of sslbench and hidden folders are left out.
    Raises `UserError` for a folder without weights.
    """
    if not folder.is_dir():
        what = "is a file; give its folder, or the file itself" if folder.exists() else "does not exist"
        raise UserError(f"--weights-dir {folder}: it {what}")
    lists = [folder / name for name in LISTS if (folder / name).is_file()]
    if len(lists) > 1:
        raise UserError(f"{folder} holds {' and '.join(LISTS)}: keep one of them")
    listed = weights_listed(lists[0]) if lists else []
    known = {one.file for one in listed}
    found = [str(path) for path in _files(folder)]
    if not found and not listed:
        raise UserError(
            f"{folder} holds no weights: neither a file that ends in {', '.join(ENDINGS)} nor a Hugging Face folder"
        )
    return sorted((*listed, *(ListedWeights(file=one) for one in found if one not in known)), key=lambda one: one.file)


def weights_listed(path: Path) -> list[ListedWeights]:
    """The entries of a list, with absolute paths: [[weights]] tables in TOML, or columns of the same names in CSV.

    Raises `UserError` naming the entry for unknown keys and files that do not exist.
    """
    try:
        text = path.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"cannot read the list of weights {path}: {error}") from None
    if path.suffix.lower() == ".csv":
        rows: Iterable[Mapping[str, Any]] = csv.DictReader(text.splitlines(), skipinitialspace=True)
        entries = [{key: value for key, value in row.items() if value} for row in rows]
    else:
        entries = _entries_of_toml(text, path)
    if not entries:
        raise UserError(
            f"{path} lists no weights: give [[weights]] tables with file = ..., or a CSV with a column file"
        )
    return [_entry(one, f"{path}, entry {number}", path.parent) for number, one in enumerate(entries, start=1)]


def _entries_of_toml(text: str, path: Path) -> list[dict[str, Any]]:
    try:
        content = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise UserError(f"the list of weights {path} is not TOML: {error}") from None
    entries = content.get("weights", [])
    if set(content) - {"weights"} or not isinstance(entries, list) or not all(isinstance(one, dict) for one in entries):
        raise UserError(f'{path} may hold [[weights]] tables only, each with file = "..." and arch, key, as, set')
    return entries


def _entry(given: dict[str, Any], place: str, folder: Path) -> ListedWeights:
    known = {field.alias or name for name, field in ListedWeights.model_fields.items()}
    for name in given:
        if name not in known:
            raise UserError(
                f"{place}: {name!r} is unknown.{did_you_mean(str(name), known)} Known: {', '.join(sorted(known))}"
            )
    try:
        entry = ListedWeights.model_validate(given)
    except ValidationError as error:
        problem = error.errors()[0]
        raise UserError(f"{place}: {problem['loc'][0]}: {problem['msg']}") from None
    path = folder / Path(entry.file).expanduser()
    if ":" in entry.file and not path.exists():
        return entry  # a name, not a file
    if not path.exists():
        raise UserError(f"{place}: {path} does not exist")
    return entry.model_copy(update={"file": str(path.absolute())})


def _files(folder: Path) -> Iterator[Path]:
    """Files of weights and Hugging Face folders, as absolute paths, sorted by name."""
    if (folder / "record.json").exists():
        return
    for path in sorted(folder.absolute().iterdir()):
        if path.name.startswith("."):
            continue
        if path.is_dir():
            yield from [path] if (path / "config.json").is_file() else _files(path)
        elif path.suffix.lower() in ENDINGS:
            yield path
