"""How a recognized network's source preprocesses images, and what else decides its features besides the tensors."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import Tensor

from ssl_bench.backbone import Positions
from ssl_bench.blocks.preprocessing import Preprocessing, Triple, from_timm
from ssl_bench.blocks.views import IMAGENET_MEAN, IMAGENET_STD
from ssl_bench.errors import UserError
from ssl_bench.weights import efficientnet
from ssl_bench.weights.formats import EVALUATED_AS, OWN_RUN, PLAIN, TIMM_FOLDER, TRANSFORMERS
from ssl_bench.weights.recognize import EFFICIENTNET, Candidate, Recognized

RESIZE_TO_CROP = 256 / 224
MOCOV3_HEADS = dict.fromkeys((192, 384, 768), 12)
"""By width; 192 in solo-learn alone."""
MAE_HEADS = {192: "3 (timm, lightly) or 12 (solo-learn)", 384: "6 (timm, lightly) or 12 (solo-learn)"}
"""By width; wider networks have one for every 64 everywhere."""


@dataclass(frozen=True)
class Undecided:
    """What decides features, and stands neither in the tensors nor anywhere else in the file."""

    setting: str
    """Of the backbone, e.g. "heads"."""
    words: str
    """E.g. "how many attention heads it has"."""
    values: str
    """E.g. "6 (lightly) or 12 (solo-learn)"."""

    def refusal(self, shown: str) -> UserError:
        """For a user who does not say either; `shown` is the file's name."""
        values = re.findall(r"\b\d+\b", self.values)
        advice = " or ".join(f"--set backbone.{self.setting}={value}" for value in values)
        return UserError(
            f"nothing in {shown} says {self.words}, the shapes of its tensors do not, and the features depend on it: "
            f"{self.values}. Say {advice}; solo-learn's args.json beside the file says it, too"
        )


@dataclass(frozen=True)
class Facts:
    """What the file says of a network beyond its tensors."""

    heads: int | None = None
    """Attention heads; None where nothing says so."""
    heads_evidence: str = ""
    norm_eps: float | None = None
    """Epsilon of the norms; None: the architecture's own."""
    norm_eps_of: str = ""
    """"LayerNorm", "BatchNorm" or "last" (the norm before the features)."""
    same_padding: bool = False
    """Strided convolutions pad as TensorFlow's "SAME"."""
    settings: Mapping[str, Any] = field(default_factory=dict)
    """Of the backbone, e.g. {"stem_padding": 2}."""
    undecided: Undecided | None = None


def own_px(candidate: Candidate) -> int | None:
    """Side of the images that a ViT's positions were made for; None for networks without a table of positions."""
    patch, table = candidate.tensors.get("patch_embed.proj.weight"), candidate.tensors.get("pos_embed")
    if patch is None or patch.ndim != 4 or table is None or table.ndim != 3:
        return None
    for prefix_tokens in (1, 0, 2):
        side = round((table.shape[1] - prefix_tokens) ** 0.5)
        if side * side == table.shape[1] - prefix_tokens:
            return int(side * patch.shape[-1])
    return None


def preprocessing_of(recognized: Recognized, candidate: Candidate) -> Preprocessing:
    """As the source evaluates: its configuration where there is one, else its authors' script, else DINO's."""
    form, exported = recognized.format, recognized.stored.exported
    if exported is not None:
        return exported.preprocessing
    if recognized.located.preprocessing is not None:
        return recognized.located.preprocessing
    if form is TRANSFORMERS and recognized.stored.preprocessor:
        return _of_transformers(recognized.stored.preprocessor)
    if form is TIMM_FOLDER:
        return from_timm(recognized.stored.config.get("pretrained_cfg") or recognized.stored.config)
    if candidate.layout is EFFICIENTNET:
        return Preprocessing(mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5), source="EfficientNet-Lite: (x - 0.5) / 0.5")
    form = EVALUATED_AS.get(recognized.method, form) if form is TRANSFORMERS else form
    crop_px = form.crop_px or own_px(candidate) or _small_stem_px(candidate) or 224
    if recognized.solo_learn is not None:
        return recognized.solo_learn.preprocessing(crop_px)
    interpolation = form.interpolation
    if form is PLAIN and (candidate.layout.family == "resnet" or _is_mocov3_of_timm(candidate)):
        interpolation = "bilinear"
    if form is PLAIN or not (form.method or recognized.located.evaluated):
        source = f"assumed: {interpolation}, mean and std of ImageNet, 256/224"
    else:
        source = f"{form.name}'s evaluation"
    return Preprocessing(
        crop_px=crop_px, resize_px=round(crop_px * RESIZE_TO_CROP), interpolation=interpolation, source=source
    )


def facts_of(recognized: Recognized, candidate: Candidate) -> Facts:
    """Heads, epsilon and padding as configuration or format say. Raises `UserError` for other activations than ours."""
    config = recognized.stored.config
    if recognized.stored.exported is not None:  # its settings say all
        return Facts()
    if recognized.format is TRANSFORMERS:
        _refuse_other_layers(recognized, candidate)
        heads = config.get("num_attention_heads")
        eps = config.get("layer_norm_eps")
        family = candidate.layout.family
        which = "" if family == "resnet" else ("last" if family == "convnext" else "LayerNorm")
        return Facts(
            heads if isinstance(heads, int) else None, "config.json: num_attention_heads",
            float(eps) if eps is not None and which else None, which,
        )  # fmt: skip
    if candidate.layout is EFFICIENTNET:
        return Facts(norm_eps=efficientnet.NORM_EPS, norm_eps_of="BatchNorm", same_padding=True)
    if _says_all_itself(recognized):
        return Facts()
    if candidate.layout.family == "resnet":
        return _of_residual(recognized, candidate)
    return _of_transformer(recognized, candidate)


def _is_mocov3_of_timm(candidate: Candidate) -> bool:
    """Whether it is what MoCo v3's convert_to_deit.py writes: timm's names and its fixed positions."""
    return candidate.layout.name == "timm's ViT" and sine_cosine_positions(candidate.tensors) == "mocov3"


def _says_all_itself(recognized: Recognized) -> bool:
    return recognized.format in (OWN_RUN, TIMM_FOLDER)


def _of_residual(recognized: Recognized, candidate: Candidate) -> Facts:
    """The padding of a 3 x 3 stem: 2 px in solo-learn, 1 px everywhere else."""
    solo_learn = recognized.solo_learn
    if _small_stem_px(candidate) is None:
        return Facts()
    if solo_learn is not None:
        return Facts(settings={"stem_padding": solo_learn.stem_padding} if solo_learn.stem_padding else {})
    if recognized.stored.is_lightning and candidate.layout.name == "torchvision's ResNet":
        words, values = "how its 3 x 3 stem pads images", "2 px (solo-learn) or 1 px (all others)"
        return Facts(undecided=Undecided("stem_padding", words, values))
    return Facts()


def _of_transformer(recognized: Recognized, candidate: Candidate) -> Facts:
    """Attention heads, where they are not one for every 64 of the width."""
    form, dim, solo_learn = recognized.format, _dim(candidate.tensors), recognized.solo_learn
    if solo_learn is not None:
        evidence = f"solo-learn's args.json beside it: {solo_learn.backbone} of {solo_learn.method}"
        return Facts(solo_learn.heads, evidence if solo_learn.heads else "")
    if dim in form.heads:
        return Facts(form.heads[dim], f"keys as {form.name} saves them")
    fixed = sine_cosine_positions(candidate.tensors)
    if dim in MOCOV3_HEADS and fixed == "mocov3":
        return Facts(MOCOV3_HEADS[dim], "fixed sine-cosine positions, as MoCo v3's networks with 12 heads have them")
    if dim in MAE_HEADS and (form.method == "mae" or fixed == "mae"):
        return Facts(undecided=Undecided("heads", "how many attention heads it has", MAE_HEADS[dim]))
    return Facts()


def positions_of(recognized: Recognized, candidate: Candidate) -> Positions:
    """The rule by which the source resamples positions at another image size."""
    if "register_tokens" in candidate.tensors:
        return "timm"  # with registers, DINOv2 does as timm (interpolate_antialias, no offset), and so transformers
    if not _says_all_itself(recognized) and sine_cosine_positions(candidate.tensors) == "mae":
        return "mae"
    return recognized.format.positions


def sine_cosine_positions(tensors: Mapping[str, Tensor]) -> Literal["mae", "mocov3"] | None:
    """Whose fixed table of positions this is, which no training moves: MAE's begins with a patch's column, MoCo v3's
    with its row. None for learned positions. The tolerance is that of a table stored in bf16."""
    table = tensors.get("pos_embed")
    if table is None or table.ndim != 3 or table.shape[-1] % 4:
        return None
    side = round((table.shape[1] - 1) ** 0.5)
    if side < 2 or side * side != table.shape[1] - 1:
        return None
    frequencies = 1 / 10000 ** (torch.arange(table.shape[-1] // 4, dtype=torch.float64) / (table.shape[-1] // 4))
    columns = torch.arange(side, dtype=torch.float64).repeat(side)[:, None] * frequencies
    expected = torch.cat([columns.sin(), columns.cos()], dim=1)
    given = table[0, 1:].double()
    half = expected.shape[1]
    if torch.allclose(given[:, :half], expected, rtol=0, atol=5e-3):
        return "mae"
    return "mocov3" if torch.allclose(given[:, half:], expected, rtol=0, atol=5e-3) else None


def _refuse_other_layers(recognized: Recognized, candidate: Candidate) -> None:
    config, path = recognized.stored.config, recognized.stored.path
    wanted = "relu" if candidate.layout.family == "resnet" else "gelu"
    given = config.get("hidden_act", wanted)
    gated = candidate.layout.family in ("dinov3", "vit") and (
        config.get("use_gated_mlp") or config.get("use_swiglu_ffn")
    )
    if given != wanted and not (gated and given == "silu"):
        raise UserError(
            f"{path} was made with the activation {given!r} (config.json), and the architecture has {wanted!r}"
        )
    if config.get("downsample_in_bottleneck"):
        raise UserError(
            f"{path} strides in the first convolution of a bottleneck (config.json: downsample_in_bottleneck), "
            "and the architecture in the 3 x 3 one: the shapes agree, but the features would differ"
        )


def _of_transformers(config: Mapping[str, Any]) -> Preprocessing:
    """From preprocessor_config.json. `size` without a center crop squashes images into a square."""
    size, crop = config.get("size"), config.get("crop_size")
    side = size if isinstance(size, int) else (size or {}).get("shortest_edge")
    square = None if isinstance(size, int) else (size or {}).get("height")
    crop_px = crop if isinstance(crop, int) else (crop or {}).get("height")
    share = config.get("crop_pct")
    if share and side and side < 384:  # ConvNextImageProcessor: resize to side / crop_pct, then crop
        resize_px, cropped, squash = int(side / share), side, False
    elif config.get("do_center_crop") and crop_px:
        resize_px, cropped, squash = (side or square or crop_px), crop_px, side is None
    else:
        resize_px = cropped = side or square or 224
        squash = True
    rescales = config.get("do_normalize", True)
    return Preprocessing(
        crop_px=cropped,
        resize_px=max(resize_px, cropped),
        squash=squash,
        rounds_down=True,
        interpolation="bilinear" if config.get("resample") == 2 else "bicubic",
        mean=_triple(config.get("image_mean"), IMAGENET_MEAN) if rescales else (0.0, 0.0, 0.0),
        std=_triple(config.get("image_std"), IMAGENET_STD) if rescales else (1.0, 1.0, 1.0),
        source="preprocessor_config.json",
    )


def _triple(values: Any, default: Triple) -> Triple:
    if isinstance(values, list | tuple) and len(values) == 3:
        return float(values[0]), float(values[1]), float(values[2])
    return default


def _small_stem_px(candidate: Candidate) -> int | None:
    """32 for a residual network with the 3 x 3 stem of CIFAR."""
    stem = candidate.tensors.get("conv1.weight")
    return 32 if stem is not None and stem.ndim == 4 and stem.shape[-1] == 3 else None


def _dim(tensors: Mapping[str, Tensor]) -> int:
    table = tensors.get("cls_token", tensors.get("pos_embed"))
    return 0 if table is None else int(table.shape[-1])
