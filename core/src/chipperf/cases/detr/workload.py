"""Torch part of DETR: model, COCO data, AdamW, set loss, mAP and panoptic quality."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import torch

from chipperf.cases.detr.evaluation import DetectionEvaluator, PanopticEvaluator, collect
from chipperf.cases.detr.loss import match, set_loss
from chipperf.cases.detr.model import Detr, DetrConfig
from chipperf.cases.detr.postprocess import (
    Placement,
    detections,
    encode_masks,
    instance_masks,
    panoptic_segmentation,
)
from chipperf.cases.detr.targets import Targets, stack_targets
from chipperf.cases.workload import Evaluation, WorkloadContext
from chipperf.cases.workload_parts import ImageWorkload, fused_if_possible, loader_arguments
from chipperf.data.coco import PanopticSplit, identify_coco, scan_coco
from chipperf.data.coco_batch import (
    DetectionBatch,
    Padding,
    build_detection_evaluation_loader,
    build_detection_training_loader,
    normalize_padded,
)
from chipperf.data.coco_transforms import largest_size
from chipperf.errors import DataError
from chipperf.records.schema import Missing
from chipperf.run.collectives import mean_over_ranks

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractContextManager

    from chipperf.cases.detr.hyperparameters import DetrHyperparameters
    from chipperf.cases.detr.model import DetrOutput
    from chipperf.data.coco import TargetKind
    from chipperf.run.collectives import Collectives

_FIGURES: dict[TargetKind, str] = {"boxes": "bbox_ap", "masks": "segm_ap", "panoptic": "pq"}
"""The quality in an evaluation's details, by what is learned."""

_PANOPTIC_CLASSES = 250
"""Classes of the reference's panoptic model. COCO has ids up to 200; the others are outputs that nothing learns."""

_UNDEFINED = Missing(
    missing="not_applicable", reason="the evaluation split has no object to find, so the quality is not defined"
)


class DeviceBatch(NamedTuple):
    """A batch on the device: normalized float32 images ``(B, 3, H, W)``, and padding, bool ``(B, H, W)``."""

    images: torch.Tensor
    padding: torch.Tensor
    targets: Targets


class DetrWorkload(ImageWorkload["DetrHyperparameters"]):
    """DETR on one worker."""

    def __init__(self, context: WorkloadContext[DetrHyperparameters]) -> None:
        h = context.hyperparameters
        data = scan_coco(context.data_root, h.targets)
        identity = identify_coco(data, context.reference)
        fixed_side = largest_size(h.resolution) if h.static_shapes else None
        padding = Padding(multiple=h.padding_multiple, fixed_side=fixed_side)
        shared = loader_arguments(context, resolution=h.resolution, padding=padding)
        train_loader = build_detection_training_loader(
            data.train, batch_size=h.batch_size, seed=h.seed, masks=h.targets != "boxes", **shared
        )
        super().__init__(context, identity, train_loader)
        self.max_gradient_norm = h.max_gradient_norm
        self._eval_loader = build_detection_evaluation_loader(data.val, batch_size=h.eval_batch_size, **shared)
        self._root = context.data_root
        self._rank = context.rank
        self._classes = _PANOPTIC_CLASSES if h.targets == "panoptic" else 1 + max(data.train.things)
        self._panoptic = PanopticEvaluator(data.val) if isinstance(data.val, PanopticSplit) else None
        self._evaluator = DetectionEvaluator(data.truth)
        self._is_defined = not data.val.table.is_crowd.all()
        # Objects that exceed the number of queries are never matched, and hardly any COCO image has so many.
        self._slots = h.queries if h.static_shapes else 1

    def build_model(self) -> torch.nn.Module:
        """Return the model; its backbone starts from weights in the dataset's directory if they are configured."""
        h = self._hyperparameters
        model = Detr(
            DetrConfig(
                classes=self._classes,
                backbone=h.backbone,
                encoder_layers=h.encoder_layers,
                decoder_layers=h.decoder_layers,
                queries=h.queries,
                dropout=h.dropout,
                dilation=h.dilation,
                train_whole_backbone=not h.backbone_weights,
                masks=h.targets != "boxes",
            )
        )
        if h.backbone_weights:
            path = self._root / h.backbone_weights
            if not path.is_file():
                raise DataError(
                    f"{path} does not exist: DETR's backbone starts from ImageNet weights",
                    hint="put torchvision's resnet50-0676ba61.pth (download.pytorch.org/models) beside train2017",
                )
            model.backbone.load_weights(path)
        return model

    def build_optimizer(self, model: torch.nn.Module) -> torch.optim.Optimizer:
        """Return AdamW with one group for the transformer and heads and one for the backbone."""
        h = self._hyperparameters
        trained = [(name, p) for name, p in model.named_parameters() if p.requires_grad]
        groups = [
            {"params": [p for name, p in trained if not name.startswith("backbone.")], "lr": h.lr},
            {"params": [p for name, p in trained if name.startswith("backbone.")], "lr": h.lr * h.backbone_lr_factor},
        ]
        return fused_if_possible(torch.optim.AdamW, groups, lr=h.lr, weight_decay=h.weight_decay)

    def learning_rates(self, step: int) -> list[float]:
        """Return the learning rates of transformer and backbone: a tenth after the drop."""
        h = self._hyperparameters
        rate = h.lr * (0.1 if step // self.steps_per_epoch >= h.lr_drop_epochs else 1.0)
        return [rate, rate * h.backbone_lr_factor]

    def to_device(self, batch: DetectionBatch) -> DeviceBatch:
        """Copy the uint8 images and the targets, and normalize the images on the device."""
        objects = (batch.labels, batch.boxes, batch.masks)
        targets = stack_targets(batch.image_ids, batch.counts, *objects, slots=self._slots).to(self._device)
        padding = batch.mask.to(self._device, non_blocking=True)
        images = normalize_padded(self._normalize, batch.images.to(self._device, non_blocking=True), padding)
        return DeviceBatch(images.contiguous(memory_format=self.memory_format), padding, targets)

    def sample_count(self, batch: DeviceBatch) -> int:
        """Return the number of images."""
        return len(batch.targets.counts)

    def loss(self, model: torch.nn.Module, batch: DeviceBatch) -> torch.Tensor:
        """Return the set loss."""
        output: DetrOutput = model(batch.images, batch.padding)
        assignment = match(output.logits, output.boxes, batch.targets)
        mean = mean_over_ranks if self._rank.world_size > 1 else None
        return set_loss(output, batch.targets, assignment, mean_over_ranks=mean)["loss"]

    def evaluate(
        self, model: torch.nn.Module, collectives: Collectives, autocast: Callable[[], AbstractContextManager[object]]
    ) -> Evaluation:
        """Return the quality of what is learned, and as details all figures of boxes, masks and panoptic segments."""
        parts, panoptic = [], self._panoptic
        with torch.inference_mode():
            for batch in self._eval_loader:
                on_device = self.to_device(batch)
                with autocast():
                    output: DetrOutput = model(on_device.images, on_device.padding)
                found, codes = detections(output, batch.orig_sizes.to(self._device)), None
                if output.masks is not None:
                    codes = []
                    images = zip(batch.image_ids, output.logits[-1], output.masks, _placements(batch), strict=True)
                    for image_id, logits, masks, placement in images:
                        codes.append(encode_masks(instance_masks(masks, placement)))
                        if panoptic is not None:
                            things = panoptic.split.things
                            panoptic.add(image_id, panoptic_segmentation(logits, masks, placement, things))
                parts.append(collect(batch.image_ids, found, codes))
        quality = self._evaluator.evaluate(parts, collectives, is_main=self._rank.is_main)
        details = {f"bbox_{name}": value for name, value in quality.bbox.items() if value is not None}
        details |= {f"segm_{name}": value for name, value in (quality.segm or {}).items() if value is not None}
        all_classes = panoptic.evaluate(collectives).all if panoptic is not None else None
        if all_classes is not None:
            details |= {"pq": all_classes.pq, "sq": all_classes.sq, "rq": all_classes.rq}
        value = details.get(_FIGURES[self._hyperparameters.targets]) if self._is_defined else None
        return Evaluation(value=_UNDEFINED if value is None else value, samples=quality.images, details=details)


def _placements(batch: DetectionBatch) -> list[Placement]:
    canvas = (batch.images.shape[-2], batch.images.shape[-1])
    sizes = zip(batch.sizes.tolist(), batch.orig_sizes.tolist(), strict=True)
    return [Placement(canvas=canvas, size=tuple(size), original_size=tuple(original)) for size, original in sizes]
