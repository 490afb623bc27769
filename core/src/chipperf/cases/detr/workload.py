"""Torch part of DETR: model, COCO data, AdamW, set loss, mAP and panoptic quality."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, NamedTuple

import torch

from chipperf.cases.detr.evaluation import DetectionCollector, DetectionEvaluator, PanopticEvaluator
from chipperf.cases.detr.loss import set_loss
from chipperf.cases.detr.matcher import match
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
from chipperf.cases.workload_parts import (
    dataset_record,
    fused_if_possible,
    loader_options,
    loader_record,
    optimizer_steps_per_epoch,
)
from chipperf.data.coco import PanopticSplit, identify_coco, scan_coco
from chipperf.data.coco_batch import (
    DetectionBatch,
    Padding,
    build_detection_evaluation_loader,
    build_detection_training_loader,
    normalize_padded,
)
from chipperf.data.coco_transforms import largest_size
from chipperf.data.transforms import Normalize
from chipperf.errors import DataError
from chipperf.run.collectives import mean_over_ranks

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from contextlib import AbstractContextManager
    from pathlib import Path

    from chipperf.cases.detr.evaluation import RunLengthCode
    from chipperf.cases.detr.hyperparameters import DetrHyperparameters
    from chipperf.cases.detr.model import DetrOutput
    from chipperf.data.coco import CocoData
    from chipperf.run.collectives import Collectives


class DeviceBatch(NamedTuple):
    """A batch that is ready for the model.

    Attributes:
        images: Normalized images, float32 ``(B, 3, H, W)``.
        padding: True on padding, bool ``(B, H, W)``.
        targets: Objects of the images.
    """

    images: torch.Tensor
    padding: torch.Tensor
    targets: Targets


class DetrWorkload:
    """DETR on one worker."""

    def __init__(self, context: WorkloadContext[DetrHyperparameters]) -> None:
        h = context.hyperparameters
        self._hyperparameters = h
        self._device = context.device
        self._root = context.data_root
        self._is_main = context.rank.is_main
        self._several_ranks = context.rank.world_size > 1
        data = scan_coco(context.data_root, h.targets)
        identity = identify_coco(data, context.reference)
        self._classes = 1 + max(_category_ids(data))
        self._normalize = Normalize(context.device)
        self._panoptic = data.val if isinstance(data.val, PanopticSplit) else None
        self._evaluator = DetectionEvaluator(data.root, data.val.images.ids)
        self.memory_format = torch.contiguous_format
        self.max_gradient_norm: float | None = h.max_gradient_norm
        padding = Padding(
            multiple=h.padding_multiple, fixed_side=largest_size(h.resolution) if h.static_shapes else None
        )
        # Objects that exceed the number of queries are never matched, and hardly any COCO image has so many.
        self._slots = h.queries if h.static_shapes else 1
        options = loader_options(context)
        self._train_loader = build_detection_training_loader(
            data.train,
            batch_size=h.batch_size,
            seed=h.seed,
            rank=context.rank.rank,
            world_size=context.rank.world_size,
            resolution=h.resolution,
            masks=h.targets != "boxes",
            padding=padding,
            options=options,
        )
        self._eval_loader = build_detection_evaluation_loader(
            data.val,
            batch_size=h.eval_batch_size,
            rank=context.rank.rank,
            world_size=context.rank.world_size,
            resolution=h.resolution,
            padding=padding,
            options=options,
        )
        self.steps_per_epoch = optimizer_steps_per_epoch(self._train_loader, h)
        self.eval_samples = len(data.val.images)
        self.target = identity.target
        self.dataset = dataset_record(identity)
        self.loader = loader_record(self._train_loader.settings)

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
            model.backbone.load_weights(_weights_file(self._root, h.backbone_weights))
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

    def epoch_batches(self, epoch: int, first_batch: int = 0) -> Iterator[DetectionBatch]:
        """Yield this rank's batches of an epoch."""
        self._train_loader.set_epoch(epoch, first_batch)
        return iter(self._train_loader)

    def to_device(self, batch: DetectionBatch) -> DeviceBatch:
        """Copy the uint8 images and the targets, and normalize the images on the device."""
        # Evaluation compares masks on the host, with the original annotations.
        canvas = None if batch.masks is None else (batch.images.shape[-2], batch.images.shape[-1])
        targets = stack_targets(batch.targets(), slots=self._slots, canvas=canvas).to(self._device)
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
        mean = mean_over_ranks if self._several_ranks else None
        return set_loss(output, batch.targets, assignment, mean_over_ranks=mean)["loss"]

    def evaluate(
        self, model: torch.nn.Module, collectives: Collectives, autocast: Callable[[], AbstractContextManager[object]]
    ) -> Evaluation:
        """Return mAP of the boxes, and also mAP of the masks or panoptic quality if they are learned."""
        collector = DetectionCollector()
        panoptic = PanopticEvaluator(self._panoptic) if self._panoptic is not None else None
        with torch.inference_mode():
            for batch in self._eval_loader:
                on_device = self.to_device(batch)
                with autocast():
                    output: DetrOutput = model(on_device.images, on_device.padding)
                found = detections(output, batch.orig_sizes.to(self._device))
                collector.add(batch.image_ids, found, self._instance_masks(output, batch))
                if panoptic is not None:
                    self._compare_segments(panoptic, output, batch)
        quality = self._evaluator.evaluate(collector.collected(), collectives, is_main=self._is_main)
        details = {f"bbox_{name}": value for name, value in asdict(quality.bbox).items() if value is not None}
        if quality.segm is not None:
            details |= {f"segm_{name}": value for name, value in asdict(quality.segm).items() if value is not None}
        if panoptic is not None:
            all_classes = panoptic.evaluate(collectives).all
            if all_classes is not None:
                details |= {"pq": all_classes.pq, "sq": all_classes.sq, "rq": all_classes.rq}
        return Evaluation(value=quality.bbox.ap or 0.0, samples=quality.images, details=details)

    def _instance_masks(self, output: DetrOutput, batch: DetectionBatch) -> list[list[RunLengthCode]] | None:
        if output.masks is None or self._hyperparameters.targets != "masks":
            return None
        return [
            encode_masks(instance_masks(logits, placement))
            for logits, placement in zip(output.masks, _placements(batch), strict=True)
        ]

    def _compare_segments(self, panoptic: PanopticEvaluator, output: DetrOutput, batch: DetectionBatch) -> None:
        if self._panoptic is None or output.masks is None:
            return
        images = zip(batch.image_ids, output.logits[-1], output.masks, _placements(batch), strict=True)
        for image_id, class_logits, mask_logits, placement in images:
            segments = panoptic_segmentation(class_logits, mask_logits, placement, self._panoptic.things)
            panoptic.add(image_id, segments)


def _category_ids(data: CocoData) -> tuple[int, ...]:
    stuff = data.train.stuff if isinstance(data.train, PanopticSplit) else ()
    return (*data.train.things, *stuff)


def _weights_file(root: Path, name: str) -> Path:
    path = root / name
    if not path.is_file():
        raise DataError(
            f"{path} does not exist: DETR's backbone starts from ImageNet weights",
            hint="put torchvision's resnet50-0676ba61.pth (download.pytorch.org/models) beside train2017",
        )
    return path


def _placements(batch: DetectionBatch) -> list[Placement]:
    canvas = (batch.images.shape[-2], batch.images.shape[-1])
    return [
        Placement(canvas=canvas, size=(height, width), original_size=(original_height, original_width))
        for (height, width), (original_height, original_width) in zip(
            batch.sizes.tolist(), batch.orig_sizes.tolist(), strict=True
        )
    ]
