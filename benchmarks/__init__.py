"""What the library costs, beside its peers: ``python -m benchmarks --help``.

Every figure is taken in fresh processes, interleaved (A B C, A B C, ...), against a canned server in a
process of its own. Seconds depend on the machine; what is meant to be compared are the ratios within one run.
"""
