"""Input pipeline: dataset layout, decoding, reference transforms, sampling, sample datasets, identity and checks.

Only the transforms, torch datasets and loaders need torch.
"""
