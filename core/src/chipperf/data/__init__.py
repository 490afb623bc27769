"""Input pipeline: dataset layout, decoding, reference transforms, sampling, sample datasets, identity and checks.

Only transforms, torch's datasets and loaders need torch.
"""
