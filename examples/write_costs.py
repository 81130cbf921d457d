"""Write the cost coefficients of a configuration to a file, to be edited and used in its place.

Usage, in the repository's folder: ``python -m examples.write_costs CONFIG.toml COSTS.toml``
"""

import sys

from areal_sim.build import costs_of, server_memory_of
from areal_sim.config import load_config
from areal_sim.costs import FittedCosts


def main(config_path: str, costs_path: str) -> None:
    """Freeze what the configuration's provider says now."""
    config = load_config(config_path)
    provider = costs_of(config, server_memory_of(config).kv_cache_tokens)
    source = f"{config.sim.cost.provider} of {config_path}, uncalibrated"
    FittedCosts.from_provider(provider, source=source).save(costs_path)


if __name__ == "__main__":
    main(*sys.argv[1:])
