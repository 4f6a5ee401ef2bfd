"""Weights & Biases: online where this machine is logged in, else offline in the run's folder."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from typing import Any

from ssl_bench.logger import LoggedRun, Logger

PROJECT = "sslbench"


class WandB(Logger):
    """Weights & Biases, project `sslbench` or $WANDB_PROJECT; offline (`wandb/`) without a login or WANDB_MODE."""

    def __init__(self, run: LoggedRun) -> None:
        super().__init__(run)
        import wandb

        given: Any = os.environ.get("WANDB_MODE")
        offline = given is None and not _is_logged_in()  # where it is not, wandb asks and waits for an answer
        self._first_step = run.first_step
        self._run: Any = wandb.init(
            project=os.environ.get("WANDB_PROJECT", PROJECT),
            name=run.name,
            id=hashlib.sha256(str(run.folder.resolve()).encode()).hexdigest()[:16],  # a resumed run is the same run
            resume="allow",
            dir=run.folder,
            config=dict(run.settings),
            mode="offline" if offline else given,
            settings=wandb.Settings(silent=True, console="off"),
        )
        if offline:
            run.say(f"wandb is not logged in: offline. To upload: wandb sync {self._run.dir.removesuffix('/files')}")

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """One row a step."""
        self._run.log(dict(values), step=step)

    def close(self) -> None:
        """Write what is left, and upload it where online."""
        self._run.finish()


def _is_logged_in() -> bool:
    import wandb

    try:
        return bool(wandb.login(prompt=False, verify=False))
    except TypeError:  # earlier versions
        return bool(wandb.api.api_key)
