"""`sslbench cache`: what is kept to save time, how much may be, and how to clear it."""

from __future__ import annotations

import time
from typing import Annotated

import typer

from ssl_bench.cli.encodings import print_json


def register(app: typer.Typer) -> None:
    """Add the verb."""

    @app.command(epilog="Example: sslbench cache --clear features")
    def cache(
        clear: Annotated[
            str | None,
            typer.Option(
                metavar="KIND|all", help="remove features, decoded, unpacked, shapes or measurements, or all of them"
            ),
        ] = None,
        limit: Annotated[
            str | None,
            typer.Option(metavar="GB", help="from now on keep at most this much of features and decoded images"),
        ] = None,
        as_json: Annotated[bool, typer.Option("--json", help="print one JSON document")] = False,
    ) -> None:
        """Show what sslbench keeps to save time. All of it can be made again: clearing it changes no number.

        Features and decoded images are kept up to a limit (5 GB unless set here or by SSLBENCH_CACHE_GB), the least
        recently used going first. The folder is SSLBENCH_CACHE, else ~/.cache/sslbench.
        """
        from ssl_bench.system import cache as store

        if clear is not None:
            gone = store.clear(None if clear == "all" else clear)
            if not as_json:
                print(f"removed {len(gone)} entries, {in_words(sum(one.size for one in gone))}")
        if limit is not None:
            store.set_limit(store.checked_limit(limit, "--limit"))
        _show(as_json=as_json)


def _show(*, as_json: bool) -> None:
    from ssl_bench.system import cache as store
    from ssl_bench.system.files import cache_folder

    found = store.entries()
    limit = store.limit_bytes()
    if as_json:
        listed = [
            {
                "kind": one.kind,
                "path": str(one.path),
                "bytes": one.size,
                "used_seconds_ago": round(time.time() - one.used),
            }
            for one in found
        ]
        print_json({"folder": str(cache_folder()), "limit_bytes": limit, "entries": listed})
        return
    print(f"{cache_folder()}")
    for kind, words in store.KINDS.items():
        these = [one for one in found if one.kind == kind]
        size, last = sum(one.size for one in these), max((one.used for one in these), default=0.0)
        used = f", last used {ago(time.time() - last)}" if these else ""
        print(f"  {kind:13}{len(these):>6} {in_words(size):>10}   {words}{used}")
    limited = sum(one.size for one in found if one.kind in store.LIMITED)
    print(f"features and decoded images: {in_words(limited)} of at most {in_words(limit)} (--limit GB)")


def in_words(size: float) -> str:
    """Bytes with a unit, e.g. "3.2 GB"."""
    for unit, factor in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if size >= factor:
            return f"{size / factor:.1f} {unit}"
    return f"{size:.0f} B"


def ago(seconds: float) -> str:
    """E.g. "3 days ago"."""
    for unit, length in (("day", 86400.0), ("hour", 3600.0), ("minute", 60.0)):
        count = int(seconds / length)
        if count:
            return f"{count} {unit}{'s' * (count > 1)} ago"
    return "just now"
