"""What a calibration found, as files that a simulation reads: costs, lengths, configuration."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from areal_sched.config.options import toml_value
from areal_sim.costs import FittedCosts, ServerCost, TrainerCost
from areal_sim.costs.protocol import FS_PER_S, ClientCost, HostCost

if TYPE_CHECKING:
    from analysis.calibration.calibrate import Calibration, Room
    from analysis.calibration.host import Demand
    from analysis.calibration.least_squares import Fit

LENGTHS = "lengths.parquet"


def costs_of(calibration: Calibration) -> FittedCosts:
    """The cost file's content."""
    layout = calibration.layout
    return FittedCosts(
        server_cost=_server(calibration.engine.steps),
        trainer_cost=_trainer(calibration),
        publish_s=_only(calibration.trainer.publish),
        load_s=_only(calibration.load),
        load_shared_s=_second(calibration.load),
        client_cost=ClientCost(
            **{
                name: getattr(calibration.client, name) or 0.0
                for name in ClientCost.__dataclass_fields__
            }
        ),
        host_cost=_host(calibration.demand),
        source=(
            f"{calibration.steps} training steps of {', '.join(calibration.names)}"
            f" ({layout['device']})"
        ),
    )


def _server(steps: Fit) -> ServerCost:
    def fs(name: str) -> int:
        return round(steps[name] * FS_PER_S)

    return ServerCost(
        decode_base_fs=fs("decode_base_s"),
        decode_per_rollout_fs=fs("decode_per_rollout_s"),
        decode_per_kv_token_fs=fs("decode_per_kv_token_s"),
        prefill_base_fs=fs("prefill_base_s"),
        prefill_per_token_fs=fs("prefill_per_token_s"),
        prefill_per_token_pair_fs=0,
        prefill_per_rollout_fs=fs("prefill_per_rollout_s"),
    )


def _trainer(calibration: Calibration) -> TrainerCost:
    trainer = calibration.trainer
    update, forward = trainer.minibatch, trainer.proximal
    return TrainerCost(
        update_base_s=update["base_s"],
        update_per_token_s=update["per_token_s"],
        update_per_token_pair_s=update["per_token_pair_s"],
        forward_base_s=forward["base_s"] if forward else 0.0,
        forward_per_token_s=forward["per_token_s"] if forward else 0.0,
        forward_per_token_pair_s=forward["per_token_pair_s"] if forward else 0.0,
        pipeline_stages=calibration.layout["pipeline_parallel"],
        optimizer_s=_only(trainer.optimizer),
        step_overhead_s=_only(trainer.overhead),
    )


def _only(found: Fit | None) -> float:
    """The value of a fit of one coefficient."""
    return 0.0 if found is None else found.coefficients[0].value


def _second(found: Fit | None) -> float:
    """The value of a fit's second coefficient, if it has one."""
    return found.coefficients[1].value if found and len(found.coefficients) > 1 else 0.0


def _host(demand: Demand | None) -> HostCost:
    if demand is None:
        return HostCost()
    return HostCost(
        cores=demand.cores,
        server_cores=demand.server_cores,
        trainer_cores=demand.trainer_cores,
    )


def config_of(
    header: Mapping[str, Any],
    room: Room,
    calibration: Calibration,
    *,
    costs: str,
    lengths: str,
    steps: int,
) -> str:
    """Configuration of a simulation of the run with this header.

    Args:
        header: of the real run's journal.
        room: of one of its servers.
        calibration: where times come from.
        costs: path of the cost file, relative to the configuration.
        lengths: path of the trace, likewise.
        steps: training steps to simulate.
    """
    layout, run, limits = header["layout"], header["run"], header["limits"]
    rewards = calibration.rewards
    tables: dict[str, dict[str, Any]] = {
        "cluster": {
            "nodes": 1,
            "gpus_per_node": run["gpus"],
            "generation_share": run["generation_gpus"] / run["gpus"],
        },
        "workload": {
            "trace": lengths,
            "prompts_per_step": layout["prompts_per_step"],
            "group_size": layout["group_size"],
            "max_prompt_tokens": layout["max_prompt_tokens"],
            "max_response_tokens": layout["max_response_tokens"],
            "steps": steps,
        },
        "limits": {
            name: "inf" if limits[name] is None else limits[name]
            for name in ("eta", "max_lag", "max_rollouts_in_flight", "max_failures_per_group")
        },
        "scheduler": {"class": header["scheduler"], **header["options"]},
        "sim.server": {
            "tensor_parallel": run["gpus_per_server"],
            "max_running_rollouts": room.max_running_rollouts,
            "kv_cache_tokens": room.kv_cache_tokens,
            "kv_reserve_tokens_per_rollout": min(1024, layout["max_response_tokens"]),
        },
        "sim.trainer": {
            "tensor_parallel": layout["tensor_parallel"],
            "pipeline_parallel": layout["pipeline_parallel"],
            "minibatches": layout["minibatches"],
            "micro_batch_tokens": layout["micro_batch_tokens"],
            "recompute_proximal": layout["recompute_proximal"],
        },
        "sim.rewards": {
            "workers": layout["reward_workers"],
            "service_s": rewards.mean_s if rewards else 0.0,
            "service_variation": rewards.variation if rewards else 0.0,
        },
        "sim.evaluation": {
            "save_s": _only(calibration.trainer.save),
            "every_steps": layout["checkpoint_every_steps"],
        },
        "sim.cost": {"provider": "fitted", "file": costs},
    }
    lines = [f"# {run['name']}, simulated with costs of {calibration.header['run']['name']}."]
    for table, keys in tables.items():
        lines += ["", f"[{table}]"]
        lines += [f"{key} = {_value(value)}" for key, value in keys.items()]
    return "\n".join(lines) + "\n"


def _value(value: Any) -> str:
    return "inf" if value == "inf" else toml_value(value)
