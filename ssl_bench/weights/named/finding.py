"""From what a user types for weights to a file or folder on this machine."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path

from ssl_bench.errors import UserError, did_you_mean
from ssl_bench.weights.named import hub
from ssl_bench.weights.named.catalog import Published, at_address, catalog, published
from ssl_bench.weights.named.files import Remote, obtain
from ssl_bench.weights.named.libraries import of_timm, of_torchvision
from ssl_bench.weights.named.located import Located

SOURCES = {"timm": "timm:NAME.TAG", "torchvision": "torchvision:WEIGHTS", "hf": "hf:OWNER/NAME"}
"""Prefixes of names that are not in the catalog, and their form."""
METHODS_OF_REPOSITORIES = {
    "facebook/dino-": "dino", "facebook/dinov2-": "dinov2", "facebook/dinov3-": "dinov3", "facebook/vit-mae-": "mae",
}  # fmt: skip
"""How the names of the authors' repositories on the hub begin -> method."""


def is_name(text: str) -> bool:
    """Whether this names published weights: PREFIX:REST or an address, and nothing on this machine is called so."""
    return bool(re.match(r"[A-Za-z][\w.-]+:\S", text)) and not Path(text).expanduser().exists()


def find(text: str) -> Located:
    """The weights that a path or a name stands for; those of a name are downloaded where no cache has them.

    Raises `UserError` for an unknown name and for weights that cannot be had.
    """
    text = re.sub(r"^(https?|file):/(?!/)", r"\1://", text)  # as pathlib shortens an address
    if not is_name(text):
        return Located(Path(text).expanduser())
    prefix, _, rest = text.partition(":")
    if prefix in ("http", "https", "file"):
        row = at_address(text)
        return _published(row) if row else _at(text)
    if prefix == "timm":
        return of_timm(rest)
    if prefix == "torchvision":
        return of_torchvision(rest)
    if prefix == "hf":
        return _of_hub(rest)
    methods = {name.partition(":")[0] for name in catalog()}
    near = did_you_mean(prefix, [*methods, *SOURCES])
    if "/" in prefix or (not near and "/" in rest):
        raise UserError(f"{text} does not exist")
    return _published(published(text))


def _published(row: Published) -> Located:
    options = [f"--arch {row.arch}", *(f"--set backbone.{key}={value}" for key, value in row.settings.items())]
    remote = Remote(
        row.name, row.url, row.file_name, row.sha256, row.md5, row.access, " ".join([*options, f"--as {row.method}"])
    )
    return Located(
        obtain(remote), row.name, row.url, arch=row.arch, settings=row.settings, key=row.key, method=row.method,
        evaluated=row.evaluated or row.method,
    )  # fmt: skip


def _at(url: str) -> Located:
    """A file that no catalog knows: its name in the cache holds its address, since many are called `resnet50.pth`."""
    file = f"{hashlib.sha256(url.encode()).hexdigest()[:8]}-{url.partition('?')[0].rpartition('/')[2]}"
    return Located(obtain(Remote(url, url, file)), url, url)


def _of_hub(text: str) -> Located:
    """OWNER/NAME[/FILE][@REVISION]."""
    where, at, revision = text.partition("@")
    owner, _, rest = where.removeprefix("//").partition("/")
    name, slash, file = rest.partition("/")
    path, commit = hub.repository(f"{owner}/{name}", revision or None if at else None, file if slash else None)
    address = f"https://huggingface.co/{owner}/{name}"
    method = next((method for start, method in METHODS_OF_REPOSITORIES.items() if where.startswith(start)), "")
    return Located(path, f"hf:{where}", address, commit, method=method)
