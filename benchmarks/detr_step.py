"""Time of a training step of DETR beside that of another implementation, and where the step goes.

The peer is ``transformers``' DETR, or facebookresearch/detr with ``--peer DIR``, a clone of it. Both train on
the same batches on the device: layers 2 to 4 of the backbone, frozen batch normalization, AdamW and clipping.

Then the step is cut where the backbone's features leave it, so that the backward passes of both halves are timed on
their own; a synchronize follows every phase. The phases' sum is therefore more than an undisturbed step on a device
that works ahead of its host. Images are those of the generated sample; ``--resolution`` scales them.

Run: python benchmarks/detr_step.py --resolution 128 --batch-size 4 --rounds 10
"""

from __future__ import annotations

import argparse
import importlib
import sys
import tempfile
import time
from functools import partial
from itertools import cycle, islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import torch
import torchvision
from chipperf.cases.detr.loss import match, set_loss
from chipperf.cases.registry import find_case
from chipperf.cases.workload import WorkloadContext
from chipperf.plugin.installed import find_vendor
from chipperf.plugin.session import bind
from chipperf.plugin.types import Rank
from chipperf.train.core_pass import POOL_BATCHES
from side_by_side import Line, benchmark_parser, compare, compared, parse, print_table
from training_fixture import apply_environment

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from chipperf.cases.detr.hyperparameters import DetrHyperparameters
    from chipperf.cases.detr.workload import DetrWorkload, DeviceBatch
    from chipperf.plugin.session import Session

WARM_UP_STEPS = 2


class Laps:
    """Seconds of every phase, in the order of the step."""

    def __init__(self, synchronize: Callable[[], None]) -> None:
        self._synchronize = synchronize
        self._last_s = time.perf_counter()
        self.seconds: dict[str, list[float]] = {}

    def restart(self) -> None:
        """Begin a step."""
        self._synchronize()
        self._last_s = time.perf_counter()

    def end(self, phase: str) -> None:
        """Add the time since the last phase ended to a phase."""
        self._synchronize()
        now_s = time.perf_counter()
        self.seconds.setdefault(phase, []).append(now_s - self._last_s)
        self._last_s = now_s


def main() -> None:
    parser = benchmark_parser(__doc__, rounds=10)
    parser.add_argument("--vendor", default="cpu")
    parser.add_argument("--resolution", type=int, default=128, help="shorter side in pixels; the full preset has 800")
    parser.add_argument("--batch-size", type=int, default=4)
    parser.add_argument("--preset", default="full", help="sizes of the model")
    parser.add_argument("--peer", default="transformers", help="or a clone of facebookresearch/detr; or none")
    arguments = parse(parser, resolution=64, batch_size=1, preset="demo", peer="none")
    apply_environment(arguments.vendor)
    session = bind(find_vendor(arguments.vendor))
    session.load_runtime()
    device = session.device_init(Rank())
    case = find_case("detr")
    changes = {"resolution": arguments.resolution, "batch_size": arguments.batch_size, "backbone_lr_factor": 0.1}
    h: Any = case.base.model_copy(update={**case.presets[arguments.preset], **changes})
    with tempfile.TemporaryDirectory() as scratch:
        # With weights of the backbone, its batch normalization is frozen, as in the full preset.
        weights = Path(scratch) / "backbone.pth"
        torch.save(torchvision.models.get_model(h.backbone, weights=None).state_dict(), weights)
        workload = build_workload(session, device, h.model_copy(update={"backbone_weights": str(weights)}))
        print_table(lines(workload, device, session, arguments.peer, arguments.rounds))


def lines(workload: DetrWorkload, device: torch.device, session: Session, peer: str, rounds: int) -> Iterator[Line]:
    """Compare whole steps on the same batches, then the phases with the sum of all."""
    h: DetrHyperparameters = workload._hyperparameters
    if peer != "none":
        pool = [workload.to_device(batch) for batch in islice(workload.epoch_batches(0), POOL_BATCHES)]
        model: Any = workload.build_model().to(device)
        ours = partial(seconds, model, lambda batch: workload.loss(model, batch), cycle(pool), workload, session)
        other, loss = hugging_face(h, device) if peer == "transformers" else reference(Path(peer), h, device)
        if trained_parameters(model) != trained_parameters(other):
            raise SystemExit(f"{peer} trains other parameters: the models differ, or what is frozen of them")
        theirs = partial(seconds, other, loss, cycle(pool), workload, session)
        what = f"step of DETR, {h.resolution} px, {h.batch_size} images"
        yield compare(what, ours, "transformers" if peer == "transformers" else "facebookresearch/detr", theirs, rounds)
    laps = Laps(lambda: session.synchronize(device))
    run_steps(workload, device, laps, WARM_UP_STEPS + rounds)
    phases = {phase: taken[WARM_UP_STEPS:] for phase, taken in laps.seconds.items()}
    sums = [sum(step) for step in zip(*phases.values(), strict=True)]
    for phase, taken in phases.items():
        yield compared(phase, taken, "sum of phases", sums)


def trained_parameters(model: torch.nn.Module) -> int:
    """Count the trained numbers of a model, without the head of the classes, which COCO has more of."""
    named = model.named_parameters()
    return sum(each.numel() for name, each in named if each.requires_grad and "class" not in name)


def seconds(
    model: Any,
    loss: Callable[[DeviceBatch], torch.Tensor],
    batches: Iterator[DeviceBatch],
    workload: DetrWorkload,
    session: Session,
) -> float:
    """Return the time of a step of a model, which has an optimizer of its own from its first step on."""
    if not hasattr(model, "optimizer"):
        model.optimizer = workload.build_optimizer(model)
    batch = next(batches)
    session.synchronize(batch.images.device)
    start_s = time.perf_counter()
    model.optimizer.zero_grad(set_to_none=True)
    loss(batch).backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), workload.max_gradient_norm or float("inf"))
    model.optimizer.step()
    session.synchronize(batch.images.device)
    return time.perf_counter() - start_s


Peer = tuple[Any, "Callable[[DeviceBatch], torch.Tensor]"]


def hugging_face(h: DetrHyperparameters, device: torch.device) -> Peer:
    """Return the DETR of ``transformers`` in the same size, and its loss of a batch."""
    transformers: Any = importlib.import_module("transformers")
    basic: dict[str, Any] = {"layer_type": "basic", "depths": [2, 2, 2, 2], "hidden_sizes": [64, 128, 256, 512]}
    config = transformers.DetrConfig(
        use_timm_backbone=False,
        backbone_config=transformers.ResNetConfig(
            **(basic if h.backbone == "resnet18" else {}), out_features=["stage4"]
        ),
        num_labels=91,
        num_queries=h.queries,
        encoder_layers=h.encoder_layers,
        decoder_layers=h.decoder_layers,
        dropout=h.dropout,
        auxiliary_loss=True,
    )
    model: Any = transformers.DetrForObjectDetection(config).to(device).train()
    # It freezes stages by the names of another backbone, and so all of this one.
    for name, parameter in model.named_parameters():
        if ".encoder.stages." in name:
            parameter.requires_grad_(".encoder.stages.0." not in name)

    def loss(batch: DeviceBatch) -> torch.Tensor:
        targets = [{"class_labels": each["labels"], "boxes": each["boxes"]} for each in separate(batch)]
        found: torch.Tensor = model(batch.images, pixel_mask=~batch.padding, labels=targets).loss
        return found

    return model, loss


def reference(clone: Path, h: DetrHyperparameters, device: torch.device) -> Peer:
    """Return the model of a clone of facebookresearch/detr in the same size, and its loss of a batch."""
    sys.path.insert(0, str(clone))
    models, backbone, misc = (importlib.import_module(name) for name in ("models", "models.backbone", "util.misc"))
    # It would download the backbone's weights.
    vars(backbone)["is_main_process"] = lambda: False
    options = {
        "backbone": h.backbone,
        "dilation": h.dilation,
        "position_embedding": "sine",
        "hidden_dim": 256,
        "dropout": h.dropout,
        "nheads": 8,
        "dim_feedforward": 2048,
        "enc_layers": h.encoder_layers,
        "dec_layers": h.decoder_layers,
        "pre_norm": False,
        "num_queries": h.queries,
        "aux_loss": True,
        "masks": False,
        "frozen_weights": None,
        "lr_backbone": 1e-5,
        "dataset_file": "coco",
        "device": str(device),
        "set_cost_class": 1,
        "set_cost_bbox": 5,
        "set_cost_giou": 2,
        "bbox_loss_coef": 5,
        "giou_loss_coef": 2,
        "eos_coef": 0.1,
    }
    model, criterion, _ = models.build_model(argparse.Namespace(**options))
    model.to(device).train()

    def loss(batch: DeviceBatch) -> torch.Tensor:
        losses = criterion(model(misc.NestedTensor(batch.images, batch.padding)), separate(batch))
        total: torch.Tensor = sum(losses[name] * weight for name, weight in criterion.weight_dict.items())
        return total

    return model, loss


def separate(batch: DeviceBatch) -> list[dict[str, torch.Tensor]]:
    """Return the targets of each image by itself."""
    targets = batch.targets
    return [
        {"labels": targets.labels[number, :count], "boxes": targets.boxes[number, :count]}
        for number, count in enumerate(targets.counts)
    ]


def build_workload(session: Session, device: torch.device, h: DetrHyperparameters) -> DetrWorkload:
    """Return DETR on the generated sample, with data read in this process."""
    case = find_case("detr")
    if case.data.ensure_sample is None:
        raise SystemExit("detr generates no sample")
    root: Path = case.data.ensure_sample(lambda done, total: None)
    torch.manual_seed(0)
    workload = case.load_workload()(
        WorkloadContext(
            hyperparameters=h,
            reference=case.data.reference,
            data_root=root,
            rank=Rank(),
            device=device,
            loader_options=session.loader_options(device),
            loader_workers=0,
        )
    )
    return cast("DetrWorkload", workload)


def run_steps(workload: DetrWorkload, device: torch.device, laps: Laps, steps: int) -> None:
    """Train and time ``steps`` steps."""
    model: Any = workload.build_model().to(device)
    optimizer = workload.build_optimizer(model)
    cut: list[tuple[list[torch.Tensor], list[torch.Tensor]]] = []

    def cut_off(module: torch.nn.Module, inputs: Any, features: list[torch.Tensor]) -> list[torch.Tensor]:
        leaves = [feature.detach().requires_grad_() for feature in features]
        cut.append((features, leaves))
        laps.end("backbone, forward")
        return leaves

    model.backbone.register_forward_hook(cut_off)
    batches = workload.epoch_batches(0)
    for _ in range(steps):
        optimizer.zero_grad(set_to_none=True)
        laps.restart()
        batch = next(batches)
        laps.end("data: read, decode, augment, collate")
        on_device = workload.to_device(batch)
        laps.end("data: copy, normalize")
        output = model(on_device.images, on_device.padding)
        laps.end("transformer and heads, forward")
        assignment = match(output.logits, output.boxes, on_device.targets)
        laps.end("matcher")
        loss = set_loss(output, on_device.targets, assignment)["loss"]
        laps.end("loss, forward")
        loss.backward()
        laps.end("loss, heads and transformer, backward")
        features, leaves = cut.pop()
        reached = [
            (feature, leaf.grad) for feature, leaf in zip(features, leaves, strict=True) if leaf.grad is not None
        ]
        torch.autograd.backward([feature for feature, _ in reached], [gradient for _, gradient in reached])
        laps.end("backbone, backward")
        torch.nn.utils.clip_grad_norm_(model.parameters(), workload.max_gradient_norm or float("inf"))
        optimizer.step()
        laps.end("optimizer, with clipping")


if __name__ == "__main__":
    main()
