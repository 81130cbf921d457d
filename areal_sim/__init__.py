"""The simulator: an executor on SimPy, and the cost models it runs on."""
