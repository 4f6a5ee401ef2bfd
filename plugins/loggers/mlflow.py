"""MLflow: the server of $MLFLOW_TRACKING_URI, else an SQLite file in the run's folder, `mlflow/`."""

from __future__ import annotations

import hashlib
import math
import os
import time
from collections.abc import Mapping
from typing import Any

from ssl_bench.logger import LoggedRun, Logger

EXPERIMENT = "sslbench"
SECONDS = 5.0
"""Between two requests to the server."""
MOST = 900
"""Metrics in a request; MLflow takes up to 1,000."""
LONGEST = 500
"""Characters of a parameter that every server stores."""


class MLflow(Logger):
    """MLflow, experiment `sslbench`: the server of $MLFLOW_TRACKING_URI, else a file in the run's folder."""

    def __init__(self, run: LoggedRun) -> None:
        super().__init__(run)
        from mlflow.entities import Metric, Param
        from mlflow.tracking import MlflowClient

        self._metric: Any = Metric
        self._waiting: list[Any] = []
        self._sent = time.monotonic()
        place = os.environ.get("MLFLOW_TRACKING_URI") or self._own_place(run)
        self._client = MlflowClient(tracking_uri=place)
        known = self._client.get_experiment_by_name(EXPERIMENT)
        experiment = known.experiment_id if known else self._client.create_experiment(EXPERIMENT)
        here = hashlib.sha256(str(run.folder.resolve()).encode()).hexdigest()[:16]
        earlier = self._client.search_runs([experiment], f"tags.sslbench_run = '{here}'") if run.first_step else []
        if earlier:
            self._run_id = earlier[0].info.run_id
        else:
            tags = {"sslbench_run": here}
            self._run_id = self._client.create_run(experiment, run_name=run.name, tags=tags).info.run_id
            params = [Param(name, str(value)[:LONGEST]) for name, value in run.settings.items()]
            for start in range(0, len(params), 100):
                self._client.log_batch(self._run_id, params=params[start : start + 100])
        run.say(f"mlflow ui --backend-store-uri {place}")

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """Collect the values and send them every few seconds."""
        now = int(time.time() * 1000)
        self._waiting += [
            self._metric(name, value, now, step) for name, value in values.items() if math.isfinite(value)
        ]
        if len(self._waiting) > MOST or time.monotonic() - self._sent > SECONDS:
            self._send()

    def close(self) -> None:
        """Send what is left."""
        self._send()
        self._client.set_terminated(self._run_id)

    def _send(self) -> None:
        for start in range(0, len(self._waiting), MOST):
            self._client.log_batch(self._run_id, metrics=self._waiting[start : start + MOST])
        self._waiting.clear()
        self._sent = time.monotonic()

    @staticmethod
    def _own_place(run: LoggedRun) -> str:
        folder = run.folder / "mlflow"
        folder.mkdir(exist_ok=True)
        return f"sqlite:///{folder.resolve()}/mlflow.db"
