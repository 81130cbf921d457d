"""The AReaL paper's runs (arXiv 2505.24298): what it printed, and the one model of them all.

`rows` holds the published numbers, `systems` makes a configuration of each run, `calibration` the
few numbers that were fitted, and `fit` fits them.
"""
