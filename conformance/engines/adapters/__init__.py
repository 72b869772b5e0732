"""One module for each engine that runs in this process.

Each needs its engine installed; only the registry and judging import one.
"""
