"""The commands of ``areal-real``."""
