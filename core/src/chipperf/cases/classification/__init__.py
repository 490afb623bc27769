"""Image classification: torchvision models on ImageNet."""
