"""`sslbench`: the verbs, and the one place where a user's mistake becomes a message."""

from __future__ import annotations

import os
import sys
from importlib import import_module

import typer

from ssl_bench.errors import UserError
from ssl_bench.registry import blame

app = typer.Typer(
    help="Benchmark self-supervised vision methods: train, evaluate, record, tabulate.",
    epilog="Start with: sslbench run dino --arch deit_s16",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)

VERBS = ["run", "eval", "list", "show", "table", "attention", "davis_video", "score_davis", "check", "new_plugin"]
for verb in VERBS:
    import_module(f"ssl_bench.cli.{verb}").register(app)


def main() -> None:
    """Console entry point. Exit status: 0 done, 1 a run failed or collapsed, 2 the user's mistake, 130 stopped."""
    try:
        app()
    except UserError as error:
        if os.environ.get("SSLBENCH_DEBUG"):
            raise
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        print("stopped", file=sys.stderr)
        sys.exit(130)
    except BrokenPipeError:  # `sslbench table | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(141)
    except Exception as error:  # sslbench's own shows its traceback; an outsider's plugin is named
        words = blame(error)
        if not words or os.environ.get("SSLBENCH_DEBUG"):
            raise
        print(f"error: {words}", file=sys.stderr)
        sys.exit(2)


if __name__ == "__main__":
    main()
