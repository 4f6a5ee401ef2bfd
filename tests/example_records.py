"""Records made for tests: plausible, complete, every value open to change."""

from __future__ import annotations

from typing import Any

from ssl_bench.measurement import Measurement
from ssl_bench.records.cost import MachineRecord, TrainingRecord
from ssl_bench.records.record import BackboneRecord, DataRecord, EvaluationRecord, RunRecord

KNN = "20-NN, cosine, T 0.07, exact, l2-normalized; resize 36, center crop 32, bicubic"
LINEAR = "linear probe, last block CLS, SGD 100 epochs, lr on 10 % of train, last epoch"


def measured(
    value: float, *, metric: str = "top1_k20", protocol: str = KNN, unit: str = "%", primary: bool = True
) -> Measurement:
    return Measurement(
        metric=metric, value=value, unit=unit, higher_is_better=True, n=1000, protocol=protocol, primary=primary
    )


def evaluation(evaluator: str, subject: str, *measurements: Measurement, **changes: Any) -> EvaluationRecord:
    values: dict[str, Any] = {
        "evaluator": evaluator,
        "subject": subject,
        "settings": {},
        "data": "shapes",
        "data_fingerprint": "f00d" * 8,
        "synthetic": True,
        "image_px": 32,
        "measurements": measurements,
        "seconds": 3.0,
        "plugin": "sslbench 0.1.0",
        "made_utc": "2026-01-01T00:10:00Z",
    }
    return EvaluationRecord(**(values | changes))


def evaluations(
    knn: tuple[float, float] | None = (30.0, 40.0), linear: tuple[float, float] | None = (35.0, 50.0), **changes: Any
) -> tuple[EvaluationRecord, ...]:
    """(untrained, trained) pairs to evaluations."""
    made = []
    for evaluator, pair, metric, protocol in (
        ("knn", knn, "top1_k20", KNN),
        ("linear-probe", linear, "top1_last", LINEAR),
    ):
        if pair is not None:
            protocol = changes.get("protocol", protocol)
            others = {key: value for key, value in changes.items() if key != "protocol"}
            for subject, value in zip(("untrained", "trained"), pair, strict=True):
                made.append(evaluation(evaluator, subject, measured(value, metric=metric, protocol=protocol), **others))
    return tuple(made)


def with_reach(record: RunRecord, reach: float) -> RunRecord:
    """The record with an interval of `reach` to both sides of every number."""
    made = tuple(
        one.model_copy(
            update={
                "measurements": tuple(
                    m.model_copy(update={"interval": (m.value - reach, m.value + reach)}) for m in one.measurements
                )
            }
        )
        for one in record.evaluations
    )
    return record.model_copy(update={"evaluations": made})


def make_recipe(method: str = "dino", arch: str = "deit_s16", seed: int = 0, **settings: Any) -> dict[str, Any]:
    return {
        "method": {
            "name": method,
            "settings": {"out_dim": 1024, "local_views": 8, "student_temperature": 0.1} | settings,
        },
        "backbone": {"name": arch, "settings": {}},
        "data": {"name": "shapes", "settings": {}, "path": None, "fingerprint": "f00d" * 8, "image_px": 32},
        "optimizer": {"name": "adamw", "lr": 5e-4},
        "training": {"epochs": 12, "batch_size": 32, "seed": seed, "precision": "auto"},
        "evaluators": [{"name": "knn", "settings": {"k": [20]}}],
    }


def make_record(
    method: str = "dino",
    arch: str = "deit_s16",
    seed: int = 0,
    *,
    knn: tuple[float, float] | None = (30.0, 40.0),
    linear: tuple[float, float] | None = (35.0, 50.0),
    data: dict[str, Any] | None = None,
    settings: dict[str, Any] | None = None,
    training: dict[str, Any] | None = None,
    backbone: dict[str, Any] | None = None,
    **changes: Any,
) -> RunRecord:
    """A finished run on shapes; `data`, `backbone` and `training` change those parts, `settings` the method's."""
    data_values = {
        "name": "shapes",
        "plugin": "sslbench 0.1.0",
        "fingerprint": "f00d" * 8,
        "synthetic": True,
        "train_images": 4000,
        "test_images": 1000,
        "classes": 10,
        "image_px": 32,
    } | (data or {})
    recipe = make_recipe(method, arch, seed, **(settings or {}))
    recipe["data"] |= {key: data_values[key] for key in ("name", "fingerprint", "image_px")}
    recipe["training"] |= training or {}
    on_data = {
        "data": data_values["name"],
        "data_fingerprint": data_values["fingerprint"],
        "synthetic": data_values["synthetic"],
    }
    values: dict[str, Any] = {
        "run_id": f"{method}-{arch}-{data_values['name']}-s{seed}-{recipe['method']['settings']['out_dim']}",
        "status": "finished",
        "preset": "small-data",
        "changed_settings": {},
        "preset_reason": "4,000 training images are fewer than 20,000",
        "recipe": recipe,
        "digest": "3f9c" * 16,
        "seed": seed,
        "method": method,
        "method_plugin": "sslbench 0.1.0",
        "backbone": BackboneRecord(
            **(
                {
                    "name": arch,
                    "plugin": "sslbench 0.1.0",
                    "kind": "vit",
                    "parameters": 21_665_664,
                    "tokens": 5,
                    "inference_images_per_second": 503.0,
                    "inference_batch": 128,
                    "inference_spread": 0.02,
                    "inference_cpu_share": 0.99,
                }
                | (backbone or {})
            )
        ),
        "data": DataRecord(**data_values),
        "machine": MachineRecord(
            device="cpu",
            cores=2,
            threads=2,
            precision="fp32",
            precision_reason="bf16 measured slower here",
            platform="Linux x86_64",
        ),
        "training": TrainingRecord(
            steps=1500,
            epochs=12.0,
            seconds=540.0,
            images_per_second=88.9,
            peak_memory_mb=812.0,
            resumed=0,
            final_logs={"loss": 5.31, "teacher_entropy": 4.9},
        ),
        "evaluations": evaluations(knn, linear, **on_data),
        "versions": {"sslbench": "0.1.0", "torch": "2.14.1"},
        "git_commit": None,
        "command": f"sslbench run {method} --arch {arch} --seed {seed}",
        "started_utc": "2026-01-01T00:00:00Z",
        "finished_utc": "2026-01-01T00:10:00Z",
    }
    return RunRecord(**(values | changes))
