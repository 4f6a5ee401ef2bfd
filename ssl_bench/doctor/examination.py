"""All parts of the examination, in the order in which they are shown."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path

from ssl_bench.doctor.devices import examine_devices
from ssl_bench.doctor.faiss_build import examine_faiss
from ssl_bench.doctor.findings import Examine, Findings, examined
from ssl_bench.doctor.host import examine_disks, examine_host
from ssl_bench.doctor.images import examine_images
from ssl_bench.doctor.packages import examine_packages, examine_plugins
from ssl_bench.doctor.products import examine_products


def parts(results: Path) -> dict[str, Examine]:
    """Title -> what examines it; `results` is where runs are kept."""
    return {
        "machine": examine_host,
        "devices": examine_devices,
        "matrix products": examine_products,
        "images": examine_images,
        "neighbors": examine_faiss,
        "disks": partial(examine_disks, results),
        "packages": examine_packages,
        "plugins": examine_plugins,
    }


def examine(results: Path) -> Iterator[tuple[str, Findings]]:
    """Each part once it is done; one that fails says why and stops none of the others."""
    for title, part in parts(results).items():
        yield title, examined(part)
