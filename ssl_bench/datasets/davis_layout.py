"""Where the parts of DAVIS 2017 lie, and what to say where they do not.

DAVIS/JPEGImages/480p/SEQUENCE/00000.jpg, DAVIS/Annotations/480p/SEQUENCE/00000.png, DAVIS/ImageSets/2017/val.txt.
"""

from __future__ import annotations

from pathlib import Path

from ssl_bench.datasets.reading import shown
from ssl_bench.errors import UserError, did_you_mean

PARTS = ("JPEGImages", "Annotations", "ImageSets")
LAYOUT = "DAVIS/JPEGImages/480p/SEQUENCE/00000.jpg, DAVIS/Annotations/480p/SEQUENCE/00000.png, DAVIS/ImageSets/2017"


def find_root(path: Path) -> Path:
    """The DAVIS folder: `path`, `path`/DAVIS, or the one `path`/*/DAVIS. Raises `UserError` where there is none."""
    if not path.is_dir():
        what = "is a file" if path.exists() else "does not exist"
        raise UserError(f"{shown(path)} {what}. Give the folder of DAVIS 2017, which holds {LAYOUT}")
    for places in ([path], [path / "DAVIS"], sorted(path.glob("*/DAVIS"))):
        found = [place for place in places if _looks_like_davis(place)]
        if len(found) > 1:
            names = " and ".join(f"{shown(place)}/" for place in found)
            raise UserError(f"{shown(path)}/ holds more than one DAVIS: {names}. Give one of them.")
        if found:
            return found[0]
    inner = next((part for part in path.parts if part in PARTS), None)
    hint = f" Give the folder that holds {inner}/ instead." if inner else ""
    raise UserError(f"{shown(path)}/ is not DAVIS 2017: none of {', '.join(PARTS)} is in it.{hint} Expected {LAYOUT}")


def folder(parent: Path, name: str, holds: str) -> Path:
    """`parent`/`name`, which `holds` something. Raises `UserError` naming it and the most similar folder there is."""
    place = parent / name
    names = _folders(parent)
    if name in names:  # and not `place.is_dir()`: some disks take 480P for 480p, and then other machines fail
        return place
    same = next((other for other in names if other.lower() == name.lower()), None)
    if same:
        raise UserError(f"{shown(parent / same)}/ should be called {name} (upper and lower case count). Rename it.")
    there = f"there is only {', '.join(names[:5])}" if names else "there is no folder in it"
    raise UserError(f"{shown(place)}/ is missing ({holds}); {there}.{did_you_mean(name, names)} Expected {LAYOUT}")


def read_list(root: Path, subset: str) -> tuple[str, Path, list[str]]:
    """What a subset is called, its list file and the names in it, each once, in the order of the file.

    `subset` is a name in ImageSets/2017 or a path to a list file with one sequence per line; blank lines, Windows line
    endings and a byte-order mark are taken. Raises `UserError` for a list that is missing, empty, or that names
    anything but folders.
    """
    given = Path(subset)
    if given.suffix == ".txt" or len(given.parts) > 1:
        if not given.is_file():
            raise UserError(f"the list {shown(given)} is missing. Give a file with one sequence per line, or e.g. val")
        source = given
    else:
        year = folder(folder(root, "ImageSets", "lists of sequences"), "2017", "lists of sequences, e.g. val.txt")
        source = year / f"{subset}.txt"
        if not source.is_file():
            lists = sorted(place.stem for place in year.glob("*.txt"))
            there = f"There are: {', '.join(lists)}" if lists else "There is no list in it"
            raise UserError(f"{shown(source)} is missing.{did_you_mean(subset, lists)} {there}")
    try:
        lines = source.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"cannot read the list {shown(source)}: {error}.") from None
    names: dict[str, None] = {}
    for number, line in enumerate(lines, start=1):
        if name := line.strip():
            _check_name(name, f"line {number} of {shown(source)}")
            names[name] = None
    if not names:
        raise UserError(f"the list {shown(source)} is empty. Expected the name of one sequence per line.")
    return source.stem, source, list(names)


def _check_name(name: str, where: str) -> None:
    if "/" not in name and "\\" not in name and name not in (".", ".."):
        return
    if name.lstrip("/").startswith(PARTS):
        raise UserError(
            f"{where} is {name!r}: a list of frames as DAVIS 2016 has them. Expected the name of one sequence per "
            "line, as in ImageSets/2017/val.txt"
        )
    raise UserError(
        f"{where} is {name!r}, a path that may lead out of the data folder. Expected the plain name of a sequence, "
        "e.g. blackswan"
    )


def _folders(parent: Path) -> list[str]:
    try:
        return sorted(entry.name for entry in parent.iterdir() if entry.is_dir() and not entry.name.startswith("."))
    except OSError as error:
        raise UserError(f"cannot look into {shown(parent)}/: {error.strerror}.") from None


def _looks_like_davis(place: Path) -> bool:
    return place.is_dir() and any(name.lower() in [part.lower() for part in PARTS] for name in _folders(place))
