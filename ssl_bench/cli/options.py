"""Options that several verbs share."""

from __future__ import annotations

from ssl_bench.errors import UserError
from ssl_bench.system import hints

RESULTS = hints.RESULTS
VOC_HELP = (
    "VOCdevkit of VOC 2012, with object masks: adds the evaluator voc-jaccard, which without it reads those of shapes"
)
DOWNLOAD_HELP = "let a dataset of torchvision's (stl10:PATH, ...) be downloaded to PATH where it is not there"
DAVIS_HELP = "DAVIS of 2017: adds the evaluator davis, which without it reads the clips of shapes"


def evaluator_names(text: str | None) -> tuple[str, ...] | None:
    """`--with`: "knn,linear-probe" to names; None where it was not given. Raises `UserError` where it names none."""
    if text is None:
        return None
    names = tuple(name.strip() for name in text.split(",") if name.strip())
    if not names:
        raise UserError("--with names no evaluator; see: sslbench list evaluators")
    return names


def logger_names(texts: list[str] | None) -> dict[str, list[str]]:
    """`--log`, repeated or with commas, as the setting that it stands for; nothing where it was not given."""
    if texts is None:
        return {}
    names = [name.strip() for text in texts for name in text.split(",") if name.strip()]
    if not names:
        raise UserError("--log names no logger; see: sslbench list loggers")
    return {"machine.log": list(dict.fromkeys(names))}
