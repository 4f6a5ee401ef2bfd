"""Result masks of any system in the form in which DAVIS 2017 takes them: FOLDER/SEQUENCE/00000.png, indexed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from ssl_bench.datasets.davis import DavisSequence, check_size, files
from ssl_bench.datasets.indexed_png import VOID, Mask, read_mask
from ssl_bench.datasets.reading import shown
from ssl_bench.errors import UserError, did_you_mean
from ssl_bench.evaluators.davis.scores import ObjectScores, score_sequence

FORM = "FOLDER/SEQUENCE/00000.png, one indexed PNG per frame, named as the frame"


def score_results(
    folder: Path, sequences: Sequence[DavisSequence], say: Callable[[str], None] = lambda line: None
) -> list[ObjectScores]:
    """Scores of every object of every sequence, in their order; one sequence at a time, two masks in memory.

    Raises `UserError`, before anything is scored, for masks that are missing, and later for masks that are damaged, of
    another size than the frames, not indexed, or that show more objects than the first mask of the truth.
    """
    check_results(folder, sequences)
    scores: list[ObjectScores] = []
    for number, sequence in enumerate(sequences, start=1):
        say(f"{sequence.name} ({number} of {len(sequences)})")
        scores += score_sequence(sequence, partial(read_result, folder, sequence, sequence.objects()))
    return scores


def check_results(folder: Path, sequences: Sequence[DavisSequence]) -> None:
    """Raise `UserError` unless `folder` holds a mask for every scored frame of every sequence."""
    if not folder.is_dir():
        what = "is a file" if folder.exists() else "does not exist"
        raise UserError(f"{shown(folder)} {what}. Give the folder of the masks to score: {FORM}")
    missing = [sequence.name for sequence in sequences if not (folder / sequence.name).is_dir()]
    if missing:
        raise UserError(_missing_sequences(folder, missing, [sequence.name for sequence in sequences]))
    for sequence in sequences:
        scored, found = sequence.frame_names[1:-1], files(folder / sequence.name, (".png",))
        without = [name for name in scored if name not in found]
        if without:
            last = f" to {without[-1]}" if without == list(scored[-len(without) :]) and len(without) > 1 else ""
            there = f"there are {len(found)}, {next(iter(found))}.png first" if found else "there is no PNG in it"
            raise UserError(
                f"{shown(folder / sequence.name / without[0])}.png is missing: {len(without)} of the {len(scored)} "
                f"masks to score for {sequence.name} ({without[0]}{last}); {there}. Expected a mask for every "
                "frame but the first and the last, named as the frame."
            )


def read_result(folder: Path, sequence: DavisSequence, objects: int, frame: int) -> Mask:
    """The mask for one frame, values 0 to `objects`. Raises `UserError` for anything else."""
    path = folder / sequence.name / f"{sequence.frame_names[frame]}.png"
    mask = read_mask(path)
    check_size(path, mask.shape, sequence.size, sequence.frames[0])
    most = int(mask.max(initial=0))
    if most <= objects:
        return mask
    white = most == VOID and not ((mask > 0) & (mask < VOID)).any()
    hint = " It looks black and white: write 1 for the object instead of 255." if white else ""
    raise UserError(
        f"{shown(path)} holds the value {most}, but {sequence.name} has {objects} object{'s' * (objects > 1)}: "
        f"expected 0 for background and the numbers of {shown(sequence.masks[0])}.{hint}"
    )


def _missing_sequences(folder: Path, missing: list[str], names: list[str]) -> str:
    first = f"{shown(folder / missing[0])}/ is missing"
    if len(missing) < len(names):
        listed = ", ".join(missing[:5]) + (", .." if len(missing) > 5 else "")
        near = did_you_mean(missing[0], (place.name for place in folder.iterdir() if place.name not in names))
        return (
            f"{first}: {len(missing)} of {len(names)} sequences have no masks ({listed}).{near} "
            "Add them, or score those that are there with --subset LIST.txt, one name per line."
        )
    inner = sorted(place.parent for depth in ("*", "*/*") for name in names for place in folder.glob(f"{depth}/{name}"))
    if inner:
        return f"{first}. Did you mean {shown(inner[0])}?"
    if folder.name in names and files(folder, (".png",)):
        return f"{first}: {shown(folder)} is one sequence. Did you mean {shown(folder.parent)}?"
    return f"{first}, like every other sequence. Expected {FORM}"
