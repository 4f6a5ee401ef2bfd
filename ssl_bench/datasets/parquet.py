"""Parquet as Hugging Face stores datasets: FILE.parquet, or a folder with data/train-00000-of-00002.parquet, ...

A table has a column of encoded images, as `{bytes, path}` or as bytes, and mostly one of labels, whose class names
stand in the schema's metadata. The images' bytes are copied into the cache once: a table can only be read in large
groups of rows, and training reads single images in any order.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ssl_bench.dataset import Dataset
from ssl_bench.datasets.content import blocks_digest
from ssl_bench.datasets.encoded_images import PLACE, EncodedFiles, EncodedImages
from ssl_bench.datasets.image_files import decide_image_px, set_name
from ssl_bench.datasets.picking import ContainerConfig, Listed, Picked, SplitName, class_labels, pick
from ssl_bench.datasets.reading import shown
from ssl_bench.datasets.several_files import by_split, files_with_ending, is_set_of, name_of_several
from ssl_bench.datasets.unpacked import unpacked
from ssl_bench.errors import UserError, did_you_mean
from ssl_bench.settings import setting

ENDING = ".parquet"
IMAGE_COLUMNS = ("image", "img", "image_bytes", "jpg", "png", "picture")
LABEL_COLUMNS = ("label", "labels", "class", "target", "cls", "fine_label")
ROWS_AT_ONCE = 64


class Parquet(Dataset):
    """Parquet tables of encoded images and labels, as Hugging Face datasets are stored; needs the extra `parquet`."""

    layout = "FILE.parquet, or a folder with train-*.parquet, validation-*.parquet, ...: columns image and label"

    class Config(ContainerConfig):
        """Settings of Parquet tables."""

        image_column: str | None = setting(None, "column of the encoded images; null finds it")
        label_column: str | None = setting(None, "column of the labels; null finds it, and `none` is no column's name")

    @classmethod
    def recognizes(cls, path: Path) -> bool:
        """Whether it is a file with this ending or a folder that holds some, in data/ or one folder per split too."""
        return is_set_of(path, ENDING) if path.is_dir() else path.name.lower().endswith(ENDING) and path.is_file()

    train: EncodedImages
    test: EncodedImages | None

    def __init__(self, config: Config, path: Path | None) -> None:
        """Copy the images' bytes into the cache, once. Raises `UserError` for tables without images, damaged ones."""
        paths = [] if path is None else _tables_in(path)
        if path is None or not paths:
            where = "" if path is None else f"; {shown(path)} is not one and holds none"
            raise UserError(f"parquet needs its file or folder (--data PATH){where}. Expected {self.layout}")
        self.config, self.path = config, path
        files = by_split(paths, path)
        content = blocks_digest(paths)
        parts: dict[SplitName, Listed] = {}
        found: dict[SplitName, EncodedFiles] = {}
        tables = {split: [_Table(one, config) for one in of_split] for split, of_split in files.items()}
        for split, of_split in tables.items():
            names = _joined([table.names() for table in of_split])
            places = [_places(table, index, content) for index, table in enumerate(of_split)]
            found[split] = EncodedFiles(
                tuple(folder / "images.bin" for folder, _ in places),
                tuple(table.path for table in of_split),
                np.concatenate([place for _, place in places]),
                names,
            )
            parts[split] = Listed(len(found[split].places), None, names)
        labels, class_names = _labels(tables, shown(path))
        parts = {split: Listed(part.count, labels[split], part.names) for split, part in parts.items()}
        picks = pick(parts, config, shown(path), class_names)

        def split_of(picked: Picked) -> EncodedImages:
            return EncodedImages(found[picked.part].take(picked.rows), picked.labels, config.decode_px)

        self.classes, self.train = picks.classes, split_of(picks.train)
        self.test = None if picks.test is None else split_of(picks.test)
        self.name = set_name(Path(name_of_several(path)), config.train_fraction)
        self.image_px = decide_image_px(self.train, config)
        self.notes = picks.notes
        columns = [[table.image, table.label] for of_split in tables.values() for table in of_split]
        self._fingerprint = picks.fingerprint(f"{content} {columns}")

    @property
    def fingerprint(self) -> str:
        """sha256 over the files' content (of more than 256 MiB a sample) and over which images are used."""
        return self._fingerprint


def _tables_in(path: Path) -> list[Path]:
    """The Parquet files that `path` is or holds."""
    if path.is_dir():
        return files_with_ending(path, ENDING)
    return [path] if path.is_file() else []


class _Table:
    """One Parquet file: its columns of images and labels."""

    def __init__(self, path: Path, config: Parquet.Config) -> None:
        try:
            import pyarrow.parquet
        except ImportError:
            raise UserError(
                "reading Parquet needs pyarrow, which is not installed: pip install 'sslbench[parquet]'"
            ) from None
        self.path = path
        try:
            self.file = pyarrow.parquet.ParquetFile(path)
        except Exception as error:
            raise UserError(
                f"{shown(path)} is not a Parquet file, or is cut off ({error}). Copy or download it again."
            ) from error
        schema = self.file.schema_arrow
        self.features = _features(schema.metadata)
        self.image = _image_column(schema, self.features, config.image_column, path)
        self.label = _label_column(schema, self.features, config.label_column, path)

    def names(self) -> NDArray[np.bytes_] | None:
        """The images' paths; None unless each row has one of its own."""
        if not _is_struct(self.file.schema_arrow.field(self.image).type):
            return None
        kind = self.file.schema_arrow.field(self.image).type
        if kind.get_field_index("path") < 0:
            return None
        paths = self.read(f"{self.image}.path").column(0).combine_chunks().field("path").to_pylist()
        if None in paths or len(set(paths)) < len(paths):
            return None
        return np.array([path.encode("utf-8") for path in paths], dtype=np.bytes_)

    def read(self, column: str) -> Any:
        """One column of all rows. Raises `UserError` for a damaged file."""
        try:
            return self.file.read(columns=[column])
        except Exception as error:
            raise UserError(f"{shown(self.path)} is damaged ({error}). Copy or download it again.") from error

    def images(self) -> Iterator[bytes | None]:
        """The encoded images, row by row; None where there is none."""
        try:
            for batch in self.file.iter_batches(ROWS_AT_ONCE, columns=[self.image]):
                column = batch.column(0)
                if _is_struct(column.type):
                    column = column.field("bytes")
                for value in column:
                    yield value.as_py()
        except OSError:
            raise UserError(f"{shown(self.path)} is damaged or cut off. Copy or download it again.") from None


def _is_struct(kind: Any) -> bool:
    import pyarrow

    return bool(pyarrow.types.is_struct(kind))


def _is_bytes(kind: Any) -> bool:
    import pyarrow

    if pyarrow.types.is_struct(kind):
        return kind.get_field_index("bytes") >= 0 and _is_bytes(kind.field("bytes").type)
    return bool(pyarrow.types.is_binary(kind) or pyarrow.types.is_large_binary(kind))


def _features(metadata: Mapping[bytes, bytes] | None) -> dict[str, Any]:
    """What Hugging Face's `datasets` wrote of each column into the schema; nothing where others wrote the file."""
    try:
        features = json.loads((metadata or {})[b"huggingface"])["info"]["features"]
    except (KeyError, TypeError, ValueError):
        return {}
    return features if isinstance(features, dict) else {}


def _image_column(schema: Any, features: Mapping[str, Any], given: str | None, path: Path) -> str:
    fitting = [field.name for field in schema if _is_bytes(field.type)]
    listed = ", ".join(f"{field.name} ({field.type})" for field in schema)
    if given is not None:
        if given in fitting:
            return given
        state = "holds no encoded images" if given in schema.names else "is not there"
        raise UserError(
            f"{shown(path)}: the column {given!r} {state}.{did_you_mean(given, fitting)} It has the columns {listed}"
        )
    declared = [name for name in fitting if _kind(features, name) == "Image"]
    usual = [name for name in IMAGE_COLUMNS if name in fitting]
    for names in (declared, usual, fitting):
        if len(names) == 1 or (names and names is not fitting):
            return names[0]
    advice = "Say which: --set data.image_column=NAME" if fitting else "Expected `image`: bytes, or {bytes, path}."
    raise UserError(f"{shown(path)} has no column that is clearly the images'. It has the columns {listed}. {advice}")


def _label_column(schema: Any, features: Mapping[str, Any], given: str | None, path: Path) -> str | None:
    if given is not None:
        if given in schema.names:
            return given
        raise UserError(
            f"{shown(path)} has no column {given!r}.{did_you_mean(given, schema.names)} "
            f"It has {', '.join(schema.names)}"
        )
    usual = [name for name in LABEL_COLUMNS if name in schema.names]
    declared = [name for name in schema.names if _kind(features, name) == "ClassLabel"]
    return next(iter([*usual, *declared]), None)


def _kind(features: Mapping[str, Any], column: str) -> str:
    feature = features.get(column)
    return str(feature.get("_type", "")) if isinstance(feature, dict) else ""


def _labels(
    tables: Mapping[SplitName, Sequence[_Table]], where: str
) -> tuple[dict[SplitName, NDArray[Any] | None], Sequence[str] | None]:
    """The labels of every split, None where it has none, and the names of the classes where the schema has them."""
    values: dict[SplitName, list[Any]] = {}
    for split, of_split in tables.items():
        values[split] = []
        for table in of_split:
            count = table.file.metadata.num_rows
            column = None if table.label is None else table.read(table.label).column(0)
            values[split] += [None] * count if column is None else column.to_pylist()
    first = next(table for of_split in tables.values() for table in of_split)
    feature = first.features.get(first.label or "", {})
    class_names = feature.get("names") if isinstance(feature, dict) else None
    if isinstance(class_names, list) and class_names:
        # -1 is how `datasets` stores that a label is not known, mostly in a whole test split
        values = {split: [None if value == -1 else value for value in some] for split, some in values.items()}
    labels = class_labels(values, where, f"the column {first.label}")
    if not isinstance(class_names, list) or not class_names:
        return labels, None
    for split, some in labels.items():
        if some is not None and (some.dtype.kind != "i" or some.min() < 0 or some.max() >= len(class_names)):
            raise UserError(f"{where}: {split or 'a table'} has labels beyond the {len(class_names)} class names.")
    return labels, [str(name) for name in class_names]


def _joined(names: Sequence[NDArray[np.bytes_] | None]) -> NDArray[np.bytes_] | None:
    there = [one for one in names if one is not None]
    joined = np.concatenate(there) if len(there) == len(names) else None
    return None if joined is None or len(np.unique(joined)) < len(joined) else joined


def _places(table: _Table, file: int, content: str) -> tuple[Path, NDArray[Any]]:
    """The folder of the copy of a table's images, and where they lie in it, as images of file number `file`."""

    def copy(folder: Path) -> None:
        places = np.zeros(table.file.metadata.num_rows, PLACE)
        offset = 0
        with open(folder / "images.bin", "wb") as images:
            for row, encoded in enumerate(table.images()):
                if not encoded:
                    raise UserError(
                        f"row {row:,} of {shown(table.path)} has no image in the column {table.image}"
                        + ("." if encoded is None else ": it is empty.")
                        + " Paths alone are not followed: store the images' bytes, or give a CSV file of paths."
                    )
                images.write(encoded)
                places[row] = (0, offset, len(encoded), row)
                offset += len(encoded)
        np.save(folder / "places.npy", places)

    folder = unpacked("parquet", [table.path], f"{content} {table.image}", copy)
    places = np.load(folder / "places.npy")
    places["file"] = file
    return folder, places
