"""What the weights of ``transformers``' DETR are called in ours."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from collections.abc import Mapping

# Applied in this order, each to what the one before has left.
_RENAMES = (
    (r"^detr\.", ""),
    (r"^model\.backbone\.model\.", "backbone."),
    (r"^model\.query_position_embeddings\.", "queries."),
    (r"^model\.decoder\.layernorm\.", "transformer.decoder_norm."),
    (r"^model\.(encoder|decoder)\.layers\.", r"transformer.\1."),
    (r"^model\.", ""),
    (r"\.self_attn_layer_norm\.", ".self_attention_norm."),
    (r"\.encoder_attn_layer_norm\.", ".cross_attention_norm."),
    (r"\.final_layer_norm\.", ".feedforward_norm."),
    (r"\.self_attn\.", ".self_attention."),
    (r"\.encoder_attn\.", ".cross_attention."),
    (r"\.o_proj\.", ".out_proj."),
    (r"\.mlp\.fc1\.", ".feedforward.0."),
    (r"\.mlp\.fc2\.", ".feedforward.3."),
    (r"^class_labels_classifier\.", "class_head."),
    (r"^bbox_predictor\.layers\.0\.", "box_head.0."),
    (r"^bbox_predictor\.layers\.1\.", "box_head.2."),
    (r"^bbox_predictor\.layers\.2\.", "box_head.4."),
    (r"^bbox_attention\.q_proj\.", "mask_attention.query."),
    (r"^bbox_attention\.k_proj\.", "mask_attention.key."),
    (r"^mask_head\.conv1\.", "mask_head.entry.0."),
    (r"^mask_head\.conv2\.", "mask_head.entry.1."),
    (r"^mask_head\.fpn_stages\.(\d)\.fpn_adapter\.", r"mask_head.laterals.\1."),
    (r"^mask_head\.fpn_stages\.(\d)\.refine\.", r"mask_head.blocks.\1."),
    (r"^mask_head\.output_conv\.", "mask_head.exit."),
    (r"^(mask_head\.(?:entry|blocks)\.\d)\.conv\.", r"\1.0."),
    (r"^(mask_head\.(?:entry|blocks)\.\d)\.norm\.", r"\1.1."),
)

_PROJECTIONS = ("q_proj", "k_proj", "v_proj")


def translate(tensors: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Return the peer's weights, or anything else that is kept by their names, under our names.

    ``nn.MultiheadAttention`` keeps the projections of queries, keys and values in one matrix.
    """
    renamed = {_rename(name): tensor for name, tensor in tensors.items()}
    for name in [name for name in renamed if ".q_proj." in name]:
        parts = [renamed.pop(name.replace("q_proj", projection)) for projection in _PROJECTIONS]
        renamed[name.replace("q_proj.", "in_proj_")] = torch.cat(parts)
    return renamed


def _rename(name: str) -> str:
    for pattern, replacement in _RENAMES:
        name = re.sub(pattern, replacement, name)
    return name
