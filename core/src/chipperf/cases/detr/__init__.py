"""DETR: detection and panoptic segmentation on COCO."""
