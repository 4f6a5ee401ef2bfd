"""`sslbench`: the verbs, and the one place where a user's mistake becomes a message."""

from __future__ import annotations

import errno
import os
import sys
from importlib import import_module
from typing import Annotated

import typer

from ssl_bench import __version__
from ssl_bench.cli.encodings import print_in_any_encoding
from ssl_bench.errors import UserError
from ssl_bench.registry.entry_points import blame

app = typer.Typer(
    help="Benchmark self-supervised vision methods: train, evaluate, record, tabulate.",
    epilog="Start with: sslbench run dino --arch deit_s16",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)

VERBS = [
    "run",
    "bench",
    "eval",
    "inspect",
    "export",
    "throughput",
    "data",
    "list",
    "show",
    "diff",
    "plan",
    "doctor",
    "table",
    "figure",
    "report",
    "attention",
    "davis_video",
    "score_davis",
    "cache",
    "check",
    "new_plugin",
]


def _print_version(asked: bool) -> None:
    if asked:
        print(f"sslbench {__version__}")
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[
        bool, typer.Option("--version", help="Print the version and stop.", is_eager=True, callback=_print_version)
    ] = False,
) -> None:
    """What stands before the verb."""


for verb in VERBS:
    import_module(f"ssl_bench.cli.{verb}").register(app)


def main() -> None:
    """Console entry point. Exit status: 0 done, 1 a run failed or collapsed, 2 the user's mistake, 130 stopped."""
    print_in_any_encoding()
    try:
        try:
            app()
        finally:
            if sys.stdout is not None:
                sys.stdout.flush()  # a closed pipe shows here, not as a traceback after the last line of Python
    except UserError as error:
        if os.environ.get("SSLBENCH_DEBUG"):
            raise
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        print("stopped", file=sys.stderr)
        sys.exit(130)
    except BrokenPipeError:  # `sslbench table | head`
        _discard_output()
        sys.exit(141)
    except OSError as error:
        if error.errno != errno.ENOSPC or error.filename is not None:  # that is a file of ours, or a fault of ours
            raise
        print(f"error: the output cannot be written: {error.strerror}", file=sys.stderr)
        _discard_output()
        sys.exit(1)
    except Exception as error:  # errors of sslbench show their traceback; a third-party plugin is named
        words = blame(error) or _out_of_memory(error)
        if not words or os.environ.get("SSLBENCH_DEBUG"):
            raise
        print(f"error: {words}", file=sys.stderr)
        sys.exit(2)


def _out_of_memory(error: Exception) -> str:
    """The message where a device has too little memory, for the verbs that do not say it themselves; else ""."""
    if "torch" not in sys.modules:
        return ""
    from ssl_bench.training.out_of_memory import is_out_of_memory

    if not is_out_of_memory(error):
        return ""
    reason = str(error).strip().partition("\n")[0] or type(error).__name__
    return (
        f"memory ran out ({reason}). End what else uses the device, or do without a card: put CUDA_VISIBLE_DEVICES=-1 "
        "before the command"
    )


def _discard_output() -> None:
    """Let what is still buffered for stdout vanish, so that Python does not fail on it when it ends."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


if __name__ == "__main__":  # python -m ssl_bench.cli.main
    if not sys.flags.safe_path:
        del sys.path[0]  # the working directory, where a torch.py of the user's would stand for torch
    main()
