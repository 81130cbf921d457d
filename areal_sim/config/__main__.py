"""Print the first part of the reference page, which says how the whole is made."""

from areal_sim.config.reference import reference_page

print(reference_page(), end="")
