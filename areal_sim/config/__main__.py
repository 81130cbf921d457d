"""Print the reference page: ``python -m areal_sim.config > docs/reference/configuration.md``."""

from areal_sim.config.reference import reference_page

print(reference_page(), end="")
