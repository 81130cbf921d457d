import pytest

from areal_sim.hardware import ServerLayout, TrainerLayout, gpu
from areal_sim.memory import (
    DoesNotFit,
    colocated_memory,
    max_running_rollouts,
    server_memory,
    trainer_memory,
)
from areal_sim.models import load_model

H800 = gpu("H800")
MIB = 1024 * 1024


def test_kv_capacity_of_7b_on_h800_by_hand() -> None:
    # 81,559 MiB * 0.7 - 7,615,616,512 parameters * 2 bytes, over 57,344 bytes a token
    memory = server_memory(H800, load_model("7b"), ServerLayout(static_memory_fraction=0.7))
    budget = int(81_559 * MIB * 0.7)
    assert memory.weight_bytes == 15_231_233_024
    assert memory.kv_bytes == budget - 15_231_233_024
    assert memory.kv_cache_tokens == memory.kv_bytes // 57_344 == 778_343
    assert memory.rollouts_of(28_672) == 27


def test_tensor_parallel_divides_weights_and_kv() -> None:
    # 32B over 8 GPUs: 8 KV heads, one on each
    layout = ServerLayout(tensor_parallel=8, static_memory_fraction=0.7)
    memory = server_memory(H800, load_model("32b"), layout)
    assert memory.weight_bytes == 2 * 32_763_876_352 // 8
    assert memory.kv_cache_tokens == memory.kv_bytes // (262_144 // 8)


def test_capacity_grows_with_fraction_and_parallelism() -> None:
    model = load_model("7b")
    by_fraction = [
        server_memory(H800, model, ServerLayout(static_memory_fraction=f)).kv_cache_tokens
        for f in (0.3, 0.5, 0.8, 0.9)
    ]
    assert by_fraction == sorted(set(by_fraction))
    one, two, four = (
        server_memory(H800, model, ServerLayout(tensor_parallel=tp)).kv_cache_tokens
        for tp in (1, 2, 4)
    )
    # More than twice: the second GPU brings memory, but no second copy of the weights.
    assert two > 2 * one
    assert four > 2 * two


def test_weights_that_do_not_fit_say_what_would() -> None:
    layout = ServerLayout(static_memory_fraction=0.5)
    with pytest.raises(DoesNotFit) as caught:
        server_memory(gpu("RTX4090"), load_model("7b"), layout)
    error = caught.value
    assert isinstance(error, ValueError)
    assert (error.need_bytes, error.have_bytes) == (15_231_233_024, 24_564 * MIB // 2)
    assert error.missing_bytes == 15_231_233_024 - 24_564 * MIB // 2
    assert str(error) == (
        "r1-distill-qwen-7b at tensor_parallel 1 needs 15.2 GB of weights, the server budget is"
        " 12.9 GB (0.5 of a RTX4090), 2.4 GB too much: use tensor_parallel >= 2"
    )
    server_memory(
        gpu("RTX4090"),
        load_model("7b"),
        ServerLayout(tensor_parallel=2, static_memory_fraction=0.5),
        context_tokens=1000,
    )


def test_one_full_rollout_has_to_fit() -> None:
    layout = ServerLayout(static_memory_fraction=0.82)
    card, model = gpu("H800"), load_model("32b")
    held = server_memory(card, model, layout).kv_cache_tokens
    assert 0 < held < 28_672
    with pytest.raises(DoesNotFit, match=rf"room for {held} KV tokens.*use tensor_parallel >= 2"):
        server_memory(card, model, layout, context_tokens=28_672)


def test_advice_that_is_given_works_and_nothing_smaller_does() -> None:
    layout = ServerLayout(static_memory_fraction=0.4)
    with pytest.raises(DoesNotFit, match=r"use tensor_parallel >= 2$"):
        server_memory(H800, load_model("32b"), layout)
    with pytest.raises(DoesNotFit, match="raise static_memory_fraction"):
        server_memory(H800, load_model("32b"), ServerLayout(static_memory_fraction=0.001))


def test_the_engines_limit_on_running_rollouts() -> None:
    assert max_running_rollouts(100, 1000) == 2048
    assert max_running_rollouts(10_000_000, 1000) == 4096
    assert max_running_rollouts(600_000, 100_000) == 3072


# Trainer


def test_trainer_states_by_hand() -> None:
    # 1.5B over two stages: 14 layers of 46,797,824 and one 151,936 x 1,536 matrix each.
    layout = TrainerLayout(pipeline_parallel=2, data_parallel=16)
    memory = trainer_memory(H800, load_model("1.5b"), layout)
    stage = 14 * 46_797_824 + 151_936 * 1_536
    assert memory.stage == 1  # the last one holds the logits
    assert memory.parameter_bytes == 2 * stage
    assert memory.gradient_bytes == 4 * stage
    assert memory.optimizer_bytes == 12 * stage // 16
    assert memory.logit_bytes == 8 * 32_768 * 151_936
    assert memory.total_bytes == (memory.state_bytes + memory.activation_bytes + memory.logit_bytes)


def test_activations_with_and_without_recomputation_by_hand() -> None:
    model = load_model("1.5b")
    # per token and layer: 4 h + (q + k + v) + attention output + gate, up, product
    values = 4 * 1536 + (1536 + 256 + 256) + 1536 + 3 * 8960
    tokens = 4096
    full = trainer_memory(H800, model, TrainerLayout(micro_batch_tokens=tokens, recompute=False))
    assert full.activation_bytes == 2 * tokens * values * (28 + 1)
    light = trainer_memory(H800, model, TrainerLayout(micro_batch_tokens=tokens))
    assert light.activation_bytes == 2 * tokens * (28 * 1536 + 2 * values)


def test_the_first_stage_keeps_every_micro_batch_in_flight() -> None:
    # Without recomputation and with small micro-batches the first of four stages is fullest: it
    # holds four micro-batches of seven layers each, while the last one holds one and the logits.
    model = load_model("7b")
    layout = TrainerLayout(
        pipeline_parallel=4, data_parallel=12, micro_batch_tokens=16_384, recompute=False
    )
    memory = trainer_memory(gpu("B200"), model, layout)
    values = 4 * 3584 + (3584 + 512 + 512) + 3584 + 3 * 18944
    assert (memory.stage, memory.logit_bytes) == (0, 0)
    assert memory.activation_bytes == 2 * 16_384 * values * (4 * 7 + 1)


@pytest.mark.parametrize(
    ("name", "tp", "pp", "dp"), [("1.5b", 1, 2, 16), ("7b", 1, 4, 12), ("32b", 2, 8, 6)]
)
def test_the_papers_trainers_fit(name: str, tp: int, pp: int, dp: int) -> None:
    layout = TrainerLayout(tensor_parallel=tp, pipeline_parallel=pp, data_parallel=dp)
    memory = trainer_memory(H800, load_model(name), layout)
    assert memory.total_bytes <= memory.usable_bytes < H800.memory_bytes


def test_one_gpu_cannot_train_7b() -> None:
    with pytest.raises(DoesNotFit, match="the states alone are too large") as caught:
        trainer_memory(H800, load_model("7b"), TrainerLayout())
    assert caught.value.need_bytes > 18 * 7_615_616_512


def test_the_advised_micro_batch_fits_and_is_nearly_the_largest() -> None:
    model = load_model("7b")

    def layout(tokens: int) -> TrainerLayout:
        return TrainerLayout(
            pipeline_parallel=4, data_parallel=12, micro_batch_tokens=tokens, recompute=False
        )

    with pytest.raises(DoesNotFit, match="use micro_batch_tokens <= ") as caught:
        trainer_memory(H800, model, layout(65_536))
    advised = int(str(caught.value).split("<= ")[1].split(",")[0])
    trainer_memory(H800, model, layout(advised))
    with pytest.raises(DoesNotFit):
        trainer_memory(H800, model, layout(int(advised * 1.01)))


def test_every_kind_of_parallelism_lowers_the_peak() -> None:
    card, model = gpu("B200"), load_model("7b")
    base = TrainerLayout(
        tensor_parallel=1, pipeline_parallel=2, data_parallel=2, micro_batch_tokens=8192
    )
    peak = trainer_memory(card, model, base).total_bytes
    for changed in (
        TrainerLayout(
            tensor_parallel=2, pipeline_parallel=2, data_parallel=2, micro_batch_tokens=8192
        ),
        TrainerLayout(pipeline_parallel=4, data_parallel=2, micro_batch_tokens=8192),
        TrainerLayout(pipeline_parallel=2, data_parallel=4, micro_batch_tokens=8192),
        TrainerLayout(pipeline_parallel=2, data_parallel=2, micro_batch_tokens=4096),
    ):
        assert trainer_memory(card, model, changed).total_bytes < peak


def test_too_many_stages_are_refused() -> None:
    with pytest.raises(ValueError, match=r"trainer\.pipeline_parallel = 29: .* only 28 layers"):
        trainer_memory(H800, load_model("7b"), TrainerLayout(pipeline_parallel=29))


# Colocated


def test_colocated_with_offloading_needs_only_the_larger_phase() -> None:
    model = load_model("1.5b")
    trainer = TrainerLayout(pipeline_parallel=2, data_parallel=64)
    both = colocated_memory(H800, model, ServerLayout(static_memory_fraction=0.8), trainer)
    assert both.generate_bytes == both.server.weight_bytes + both.server.kv_bytes
    assert both.train_bytes == both.trainer.total_bytes
    assert both.moved_bytes == both.trainer.parameter_bytes + both.trainer.optimizer_bytes


def test_colocated_without_offloading_adds_up() -> None:
    model = load_model("1.5b")
    trainer = TrainerLayout(pipeline_parallel=2, data_parallel=64, micro_batch_tokens=8192)
    small = ServerLayout(static_memory_fraction=0.5)
    both = colocated_memory(
        H800, model, small, trainer, offload_trainer=False, offload_engine=False
    )
    static = both.server.weight_bytes + both.server.kv_bytes
    assert both.generate_bytes == static + both.trainer.state_bytes
    assert both.train_bytes == static + both.trainer.total_bytes
    assert both.moved_bytes == 0

    large = ServerLayout(static_memory_fraction=0.9)
    with pytest.raises(DoesNotFit, match=r"generating with .* offload the trainer's states"):
        colocated_memory(H800, model, large, trainer, offload_trainer=False)
    with pytest.raises(DoesNotFit, match="release the engine's memory while training"):
        colocated_memory(H800, model, large, trainer, offload_engine=False)
