"""From what --data was given, a name or a path, to an open dataset or a message that helps.

- `shapes`: a registered name. It wins over a folder of that name, which is written `./shapes`.
- `~/birds`, `birds.npz`: a folder or file; each registered dataset is asked whether it recognizes it.
- `birds-{000..012}.tar`: a pattern of files, for the datasets that read several.
- `cifar10:~/data`: a path, read as the dataset of that name.
"""

from __future__ import annotations

import copy
import json
import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from ssl_bench.dataset import Dataset
from ssl_bench.datasets.listing import holds_images, subfolders
from ssl_bench.datasets.reading import EXTENSIONS, shown
from ssl_bench.errors import UserError, did_you_mean, unknown_name
from ssl_bench.settings import parse_settings
from ssl_bench.system.hints import shell_quoted
from ssl_bench.system.paths import absolute_path, expanded_path, require_data_root

GENERAL = "image-folder"
"""The dataset that most layouts fit: taken when no other one recognizes a folder."""
UNLABELED = "images"
"""The dataset that takes any folder of images, without labels: taken when none with labels recognizes it."""
HELP = "sslbench run --help"

Known = Mapping[str, Callable[[], type[Dataset]]]
"""Name to something that loads the class; a plugin that cannot be loaded raises `UserError` there."""

PATTERN_SIGNS = "*?[{"
"""What tells a pattern of files from a path."""
PACKED = (".zip", ".tar", ".gz", ".tgz", ".bz2", ".xz", ".7z", ".rar")

_MEANT = {
    "train": ("train", "training", "trn"),
    "val": ("val", "valid", "validation", "test", "testing", "tst"),
}


@dataclass(frozen=True)
class Found:
    """A dataset that was found and not yet opened."""

    plugin: str
    kind: type[Dataset]
    path: Path | None
    note: str = ""
    """What a user should know of how the path was read, for the notes of the dataset."""


Opening = Callable[[Found, Mapping[str, object]], Dataset]
"""Opens what was found with the settings of its section; raises `UserError`."""


def find_dataset(text: str, known: Known) -> Found:
    """The dataset that `text` (a name, a folder or file, or NAME:PATH) means; reads names only.

    Raises `UserError` saying what was found instead.
    """
    if not text.strip():
        raise UserError(f"no dataset was given. Give a name ({', '.join(sorted(known))}) or a folder ({HELP})")
    if text in known:
        return _named(text, known)
    name, colon, rest = text.partition(":")
    if colon and name in known and (os.path.isabs(rest) or not os.path.lexists(text)):
        kind = known[name]()
        return Found(name, kind, _place(rest or ".", known, kind.may_be_missing))
    if "://" in text:
        raise UserError(f"{text!r} is an address; nothing is downloaded here. Give the unpacked folder.")
    path = _place(text, known, any(sign in text for sign in PATTERN_SIGNS))
    broken: list[str] = []
    fitting = {name: kind for name, kind in _loaded(known, broken) if _fits(kind, path)}
    for general in (UNLABELED, GENERAL):
        if len(fitting) > 1:
            fitting.pop(general, None)
    if len(fitting) > 1:
        names = sorted(fitting)
        slash = "/" if path.is_dir() else ""
        raise UserError(f"{shown(path)}{slash} fits the layouts of {' and '.join(names)}. Say which: {names[0]}:{text}")
    if not fitting:
        words = explain(path, known) if path.is_dir() else explain_file(path, text, known)
        raise UserError("\n".join([words, *(f"Not asked: {reason}" for reason in broken)]))
    (name, kind) = next(iter(fitting.items()))
    if name != UNLABELED:
        return Found(name, kind, path)
    if almost := _almost_labeled(path, known):
        raise UserError(f"{almost} To train on its images without labels: {UNLABELED}:{text}")
    return Found(name, kind, path, _sets_within(path, known))


def open_dataset(text: str, known: Known, settings: Mapping[str, object] | None = None) -> Dataset:
    """`find_dataset`, then `open_found`. Raises `UserError`."""
    return open_found(find_dataset(text, known), settings)


def open_found(found: Found, settings: Mapping[str, object] | None = None) -> Dataset:
    """Open a dataset with `settings` (the recipe's section "data"). Raises `UserError`.

    It gets an absolute path, which means the same wherever the recipe is read again.
    """
    config = parse_settings(found.kind.Config, settings or {}, "data", f"the dataset {found.plugin}")
    try:
        path = None if found.path is None else Path(absolute_path(str(found.path)))
    except ValueError as error:
        raise UserError(f"--data: {error}") from None
    dataset = found.kind(config, path)
    if found.note:
        dataset.notes = (found.note, *dataset.notes)
    return dataset


class OpenedOnce:
    """As `open_found`, but the same data with the same settings are read and fingerprinted once."""

    def __init__(self) -> None:
        self._opened: dict[tuple[str, Path | None, str], Dataset] = {}

    def __call__(self, found: Found, settings: Mapping[str, object] | None = None) -> Dataset:
        """A copy of its own, since a name or the size of images may be changed. Raises `UserError`."""
        key = (found.plugin, found.path, json.dumps(settings or {}, sort_keys=True, default=str))
        if key not in self._opened:
            dataset = open_found(found, settings)
            assert dataset.fingerprint, "asked for here, so that copies share what it takes long to compute"
            self._opened[key] = dataset
        return copy.copy(self._opened[key])


def explain(path: Path, known: Known) -> str:
    """Why no dataset recognizes a folder, and what to do about it."""
    here = shown(path).rstrip("/")
    if not any(path.iterdir()):
        return f"{here}/ is empty. {_expected(path)}"
    almost = _almost_labeled(path, known)
    if almost:
        return almost
    names = sorted(name for name in os.listdir(path) if not name.startswith("."))
    if files := _read_as_files(path, known):
        return f"{here}/ is not read as a whole. Did you mean the file {shown(files[0])}?"
    some = ", ".join(names[:5]) or "hidden files only"
    layouts = "".join(f"\n  {name}: {kind.layout}" for name, kind in _loaded(known, []) if kind.layout)
    return f"{here}/ (with {some}) has no known layout ({HELP}). Known layouts:{layouts}"


def _expected(path: Path) -> str:
    return f"Expected an image folder: {shown(path).rstrip('/')}/{{train,val}}/CLASS/IMAGE ({HELP})"


def _almost_labeled(path: Path, known: Known) -> str:
    """Why a folder that looks like labeled images is not recognized as such, and what to do; else ""."""
    here, expected, folders = shown(path).rstrip("/"), _expected(path), subfolders(path)
    parts = {part: next((name for name in folders if name.lower() in names), None) for part, names in _MEANT.items()}
    wrong = [f"{name}/ to {part}/" for part, name in parts.items() if name not in (part, "test", None)]
    if parts["train"] and parts["val"] and wrong:
        return f"{here}/ has {parts['train']}/ and {parts['val']}/. Rename {' and '.join(wrong)}. {expected}"
    inner = [name for name in folders[:20] if _recognized(path / name, known)]
    if inner and not holds_images(path, without=inner):
        return f"{here}/ has no train/. Did you mean {shown(path / inner[0])}? {expected}"
    masks = [name for name in folders[:20] if (path / name / "JPEGImages").is_dir()]
    if (path / "JPEGImages").is_dir() or (masks and not holds_images(path, without=masks)):
        return f"{here}/ looks like VOC or DAVIS, sets to evaluate masks on: give it with --voc or --davis. {expected}"
    return ""


def _sets_within(path: Path, known: Known) -> str:
    """What lies in a folder of images and is a dataset of its own, with how to read it; "" where nothing does."""
    inner = [path / name for name in subfolders(path)[:20] if _recognized(path / name, known)]
    inner += _read_as_files(path, known)
    if not inner:
        return ""
    names = [f"{place.name}/" if place.is_dir() else place.name for place in inner]
    some = ", ".join(names[:3]) + (", ..." if len(names) > 3 else "")
    lies = "is a dataset of its own" if len(names) == 1 else "are datasets of their own"
    return f"read without labels; {some} in it {lies}: --data {shell_quoted(shown(inner[0]))}"


def explain_file(path: Path, text: str, known: Known) -> str:
    """Why no dataset recognizes a file or a pattern of files, and what to do about it."""
    if not path.is_file():  # a pattern
        try:
            _place(text, known, may_be_missing=False)
        except UserError as error:
            return str(error)
    name = path.name.lower()
    if name.endswith(PACKED):
        return f"{shown(path)} is a file, not a folder. Unpack it and give the folder."
    if name.endswith(EXTENSIONS):
        return f"{shown(path)} is one image. Give the folder that the dataset lies in."
    files = [f"\n  {name}: {kind.layout}" for name, kind in _loaded(known, []) if kind.layout.startswith("FILE")]
    return f"{shown(path)} is a file of a kind that is not read. Give a folder of images{', or' if files else '.'}" + (
        "".join(files)
    )


def _named(name: str, known: Known) -> Found:
    kind = known[name]()
    if not kind.layout:
        return Found(name, kind, None)
    here = f" The folder ./{name} is written with its ./" if os.path.isdir(name) else ""
    raise UserError(
        f"{name} is read from your disk and needs its folder: --data PATH or --data {name}:PATH. "
        f"Expected {kind.layout}.{here}"
    )


def _place(text: str, known: Known, may_be_missing: bool) -> Path:
    """The folder or file that `text` names; it must exist unless it `may_be_missing`."""
    try:
        require_data_root(text)
    except ValueError as error:
        raise UserError(f"--data {error}") from None
    path = Path(expanded_path(text))
    if may_be_missing or _exists(path):
        return path
    if os.path.lexists(path):
        raise UserError(f"{shown(path)} is a link to {os.readlink(path)}, which is not there. Fix the link.")
    if os.sep not in text and not text.startswith((".", "~")):
        raise unknown_name("dataset", text, known, f"or a folder or file; there is none of that name here; {HELP}")
    above = path.absolute().parent
    while not _exists(above):
        path, above = above, above.parent
    near = did_you_mean(path.name, _names(above))
    raise UserError(f"{shown(path)} does not exist: {shown(above)}/ has no {path.name!r}.{near}")


def _exists(path: Path) -> bool:
    try:
        os.stat(path)
    except PermissionError:
        raise UserError(f"cannot look at {shown(path)}: no permission for a folder above it (chmod u+x).") from None
    except (OSError, ValueError):  # ValueError: a null byte
        return False
    return True


def _names(folder: Path) -> list[str]:
    try:
        return os.listdir(folder)
    except OSError:
        return []


def _loaded(known: Known, broken: list[str]) -> Iterator[tuple[str, type[Dataset]]]:
    """Every class that loads, by name; one that does not load keeps no other from being asked."""
    for name in sorted(known):
        try:
            yield name, known[name]()
        except UserError as error:
            broken.append(str(error))


def _fits(kind: type[Dataset], path: Path) -> bool:
    try:
        return kind.recognizes(path)
    except PermissionError as error:
        raise UserError(f"cannot look into {shown(error.filename or path)}: no permission (chmod u+rx).") from error
    except Exception:  # a third-party plugin that fails on this folder does not recognize it
        return False


def _recognized(path: Path, known: Known) -> bool:
    """Whether a dataset with labels knows the folder."""
    return any(_fits(kind, path) for name, kind in _loaded(known, []) if name != UNLABELED)


def _read_as_files(folder: Path, known: Known) -> list[Path]:
    """The files directly in a folder that a dataset with labels reads, among the first 200 that are no images."""
    names = sorted(
        name for name in os.listdir(folder) if not name.startswith(".") and not name.lower().endswith(EXTENSIONS)
    )
    return [path for path in map(folder.joinpath, names[:200]) if path.is_file() and _recognized(path, known)]
