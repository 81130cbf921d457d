"""Print the second part of the reference page; the first part says how the whole is made."""

from areal_real.config.reference import reference_page

print(reference_page(), end="")
