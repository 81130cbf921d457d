"""Where the processes of a run start: on this machine, or on the nodes of a Ray cluster.

A run's controller, scheduler and journal are the same wherever its servers and trainer are. What
differs is in here: `areal_real.placement.local` starts them as children of the run, and
`areal_real.placement.on_ray` through actors, each with the resources of its process. Both hand out
what `areal_real.placement.roles` describes.
"""
