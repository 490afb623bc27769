"""Input pipeline: dataset layout, decoding, reference transforms, sampling, sample datasets, identity and checks.

``imagefolder``, ``decode``, ``sample``, ``identity`` and ``check`` work without torch; ``transforms``, ``dataset`` and
``loader`` need it.
"""
