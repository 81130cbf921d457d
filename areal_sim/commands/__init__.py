"""The subcommands of ``areal-sim``, one file each: ``add`` declares one, ``run`` carries it out."""
