"""Video object segmentation by propagating the first frame's mask, on DAVIS 2017 (arXiv 1704.00675; DINO, 2104.14294).

Each frame's patches take the labels of the patches that are most similar to them in the first and the last few frames
(DINO, section 4.2.2 and the authors' eval_video_segmentation.py, after Jabri et al. 2020, arXiv 2006.14613): nothing is
trained. `video_masks` has the steps, `davis_scores` the scores J and F. Beside them stands what copying the first mask
to every frame scores, since objects that hardly move make any network look good.

Masks stay on the disk as DAVIS takes them (`sslbench score-davis` reads them), and finished masks are not made again.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import fmean

from ssl_bench.backbone import Backbone
from ssl_bench.dataset import Dataset
from ssl_bench.datasets.davis import DavisSequence, open_davis
from ssl_bench.datasets.indexed_png import Mask
from ssl_bench.datasets.shapes.layouts import CLIP_SIZE, embedded_davis
from ssl_bench.evaluator import DataRead, Evaluation, Evaluator, Measurement, Outcomes, Protocol
from ssl_bench.evaluators.davis.masks import kept_masks, masks_digest, network_digest, write_masks
from ssl_bench.evaluators.davis.pictures import write_pictures
from ssl_bench.evaluators.davis.results import read_result
from ssl_bench.evaluators.davis.scores import ObjectScores, mean_measures, score_sequence
from ssl_bench.evaluators.davis.video_masks import VERSION, Propagation, sides
from ssl_bench.settings import GivenList, GivenPath, Settings, setting

SCRIPT = "DINO eval_video_segmentation.py"


class DavisConfig(Settings):
    """Settings of the mask propagation."""

    path: GivenPath | None = setting(None, "folder of DAVIS 2017; null: the embedded clips of shapes")
    subset: GivenList = setting("val", "a list in ImageSets/2017, or a list file", source=f"{SCRIPT}: val")
    short_side_px: int | None = setting(
        None, "shorter side at which the network sees a frame; null: 480 for DAVIS, 224 for the clips, their own",
        unit="px", source=f"{SCRIPT} read_frame", ge=8,
    )  # fmt: skip
    context_frames: int = setting(
        7, "last frames that are sources beside the first", unit="frames", source=f"{SCRIPT} --n_last_frames", ge=0
    )
    radius: int | None = setting(
        12, "sources lie within a square of this many patches around the target; null: anywhere", unit="patches",
        source=f"{SCRIPT} --size_mask_neighborhood", ge=1,
    )  # fmt: skip
    top_k: int = setting(5, "most similar sources that a patch takes its label from", source=f"{SCRIPT} --topk", ge=1)
    temperature: float = setting(0.1, "a source weighs exp(cosine / temperature)", source=SCRIPT, ge=0.002)
    sequences: int | None = setting(None, "only the first so many of the list; null: all", unit="sequences", ge=1)
    videos: int = setting(3, "of how many sequences a strip and an animation are drawn", unit="sequences", ge=0)

    def propagation(self) -> Propagation:
        """What decides the masks, with the shorter side filled in."""
        short_side_px = self.short_side_px or (min(CLIP_SIZE) if self.path is None else 480)
        return Propagation(short_side_px, self.context_frames, self.radius, self.top_k, self.temperature)


@dataclass(frozen=True)
class Clips:
    """The sequences to evaluate, and how a record names the set they are of."""

    name: str
    fingerprint: str
    synthetic: bool
    sequences: tuple[DavisSequence, ...]
    listed: int
    """How many there are without the limit of `sequences`."""


def open_clips(config: DavisConfig) -> Clips:
    """DAVIS, or the embedded clips. Raises `UserError` for a folder, list or first mask that is not as expected."""
    if config.path is None:
        made = embedded_davis()
        found, name, fingerprint = open_davis(made.path, config.subset), made.name, made.fingerprint
    else:
        found = open_davis(Path(config.path), config.subset)
        name, fingerprint = found.name, found.fingerprint
    chosen = found.sequences[: config.sequences]
    for sequence in chosen:
        sequence.objects()
    return Clips(name, fingerprint, config.path is None, chosen, len(found.sequences))


class Davis(Evaluator):
    """DAVIS 2017: the first frame's mask propagated by patch features (DINO, section 4.2.2)."""

    Config = DavisConfig
    config: DavisConfig
    requires = frozenset({"patch_tokens"})
    needs_labels = False
    version = VERSION

    def data(self, dataset: Dataset) -> DataRead:
        """DAVIS, or the embedded clips; errors as `open_clips`."""
        clips = open_clips(self.config)
        return DataRead(clips.name, clips.fingerprint, clips.synthetic, self.config.propagation().short_side_px)

    def evaluate(self, evaluation: Evaluation) -> list[Measurement]:
        """J and F in percent over all objects, and J&F, J and F of the first mask copied to every frame.

        Masks go to `evaluation.output_dir`/SEQUENCE/, pictures of the first sequences beside that folder. Raises
        `UserError` for files that are not as expected, and `UnusableFeatures` where the network gives NaN.
        """
        clips, options, folder = open_clips(self.config), self.config.propagation(), evaluation.output_dir
        network = network_digest(evaluation.backbone)
        scores: list[ObjectScores] = []
        copied: list[ObjectScores] = []
        seconds = []
        for number, sequence in enumerate(clips.sequences, start=1):
            digest = masks_digest(network, sequence, options)
            place, objects = folder / sequence.name, sequence.objects()
            took = kept_masks(place, sequence, digest)
            before = took is not None
            if took is None:
                took = write_masks(place, evaluation.backbone, sequence, options, digest, evaluation.say)
            seconds.append(took)
            of_sequence = score_sequence(sequence, partial(read_result, folder, sequence, objects))
            scores += of_sequence
            copied += score_sequence(sequence, partial(_first_mask, sequence.mask(0)))
            reached = 100 * mean_measures(of_sequence)["J&F-Mean"]
            evaluation.say(
                f"{sequence.name} ({number} of {len(clips.sequences)}): J&F {reached:.1f} %, "
                + ("masks of before" if before else f"{len(sequence)} frames, {took:.2f} s each")
            )
            if number <= self.config.videos:
                write_pictures(folder, sequence, folder, of_sequence)
        scoring = self._scoring(clips)
        propagated = Protocol.of(
            "{scoring}: {propagation}", scoring=scoring, propagation=_propagation(options, evaluation.backbone)
        )
        first_copied = Protocol.of("{scoring}: {propagation}", scoring=scoring, propagation="first mask copied")
        details = f"{fmean(seconds):.3g} s a frame, {sum(map(len, clips.sequences))} frames"
        return [
            *_measurements("", scores, propagated, details),
            *_measurements("copy_first_", copied, first_copied, ""),
        ]

    def _scoring(self, clips: Clips) -> Protocol:
        """Which sequences, and how masks are scored: the same for every way of making them."""
        sequences = Protocol.of("{sequences} sequences", sequences="all")
        if self.config.sequences:
            sequences = Protocol.of(
                "first {sequences} of {listed} sequences", sequences=len(clips.sequences), listed=clips.listed
            )
        return Protocol.of(
            "DAVIS v{version}, {sequences}, {scores}, {mean}",
            version=VERSION,
            sequences=sequences,
            scores="J and F semi-supervised without first and last frame",
            mean="mean over objects",
        )


def _propagation(options: Propagation, backbone: Backbone) -> Protocol:
    """How masks are propagated with the features of this network."""
    short, step = sides(options.short_side_px, backbone.patch_px)
    reach = Protocol.of("whole frame")
    if options.radius is not None:
        reach = Protocol.of("square radius {radius}", radius=options.radius)
    return Protocol.of(
        "shorter side {short_side_px} px, longer floored to {step_px} px, {resize}; {features}{positions}, "
        "sources first + last {context_frames}, {reach}, top {top_k}, exp(s / {temperature}), {labels}; {precision}",
        short_side_px=short,
        step_px=step,
        resize="bilinear, std 0.228",
        features="last-block patch features",
        positions=backbone.positions_protocol(0, 0),
        context_frames=options.context_frames,
        reach=reach,
        top_k=options.top_k,
        temperature=options.temperature,
        labels="soft labels, bilinear, min-max, argmax",
        precision="fp32",
    )


def metric_name(measure: str) -> str:
    """The official scorer's name as ours: "J&F-Mean" is "jf_mean"."""
    return measure.replace("&", "").replace("-", "_").lower()


def _first_mask(mask: Mask, index: int) -> Mask:
    """The first mask for any frame; the scorer takes no notice of void in it."""
    return mask


def _measurements(prefix: str, scores: list[ObjectScores], protocol: Protocol, details: str) -> list[Measurement]:
    each = [one.measures() for one in scores]
    videos = [one.name.rpartition("_")[0] for one in scores]
    clusters = [videos.index(video) for video in videos]
    means = mean_measures(scores)
    shown = [name for name in means if not prefix or name in ("J&F-Mean", "J-Mean", "F-Mean")]
    return [
        Measurement(
            metric=prefix + metric_name(name),
            value=100 * means[name],
            unit="%",
            higher_is_better=not name.endswith("Decay"),
            n=len(scores),
            protocol=protocol,
            primary=not prefix and name == "J&F-Mean",
            details=details,
            outcomes=Outcomes.of([100 * measures[name] for measures in each], clusters),
        )
        for name in shown
    ]
