"""A digest of what files hold, cheap enough to be taken whenever a dataset is opened."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

ALL_FILES, ALL_BYTES = 20_000, 1 << 28
"""Sets of up to this many files and bytes together (256 MiB) are read whole: at most a second or two."""
SAMPLE = 1_000
"""Of larger sets this many evenly chosen files."""
SAMPLED_BYTES = 1 << 16
"""Of each sampled file the first bytes, up to this many."""


def is_read_whole(files: int, total_bytes: int) -> bool:
    """Whether `content_digest` reads every byte."""
    return files <= ALL_FILES and total_bytes <= ALL_BYTES


def content_digest(paths: Sequence[Path], total_bytes: int) -> str:
    """sha256 over the bytes of `paths` in their order, `total_bytes` together; over a sample of a large set.

    A file that cannot be read counts as such: it is named by whoever needs its content.
    """
    whole = is_read_whole(len(paths), total_bytes)
    chosen = range(len(paths)) if whole or len(paths) <= SAMPLE else (i * len(paths) // SAMPLE for i in range(SAMPLE))
    digest = hashlib.sha256()
    for index in chosen:
        try:
            with open(paths[index], "rb") as file:
                content = file.read() if whole else file.read(SAMPLED_BYTES)
        except OSError as error:
            content = f"unreadable: {error.errno}".encode()
        digest.update(hashlib.sha256(content).digest())
    return digest.hexdigest()


def blocks_digest(paths: Sequence[Path]) -> str:
    """sha256 over the sizes and bytes of a few large files in their order; of more than `ALL_BYTES`, sampled blocks.

    Sampled are `SAMPLE` blocks of `SAMPLED_BYTES`, evenly spread over all files as if they were one, and each file's
    end, where tables and archives keep their contents. Not over the files' names.
    """
    sizes = [path.stat().st_size for path in paths]
    digest = hashlib.sha256(repr(sizes).encode())
    step = 0 if sum(sizes) <= ALL_BYTES else max(SAMPLED_BYTES, sum(sizes) // SAMPLE)
    before = 0
    for path, size in zip(paths, sizes, strict=True):
        with open(path, "rb") as file:
            if not step:
                while block := file.read(1 << 20):
                    digest.update(block)
                continue
            for place in (*range(-before % step, size, step), max(0, size - SAMPLED_BYTES)):
                file.seek(place)
                digest.update(file.read(SAMPLED_BYTES))
        before += size
    return digest.hexdigest()
