"""The model: Megatron-Core's GPTModel with attention and log-probabilities of packed sequences."""

from __future__ import annotations

import copy
from typing import Any

import torch
from megatron.core import parallel_state
from megatron.core.models.gpt.gpt_layer_specs import get_gpt_layer_local_spec
from megatron.core.models.gpt.gpt_model import GPTModel
from megatron.core.tensor_parallel.layers import (
    ColumnParallelLinear,
    RowParallelLinear,
    VocabParallelEmbedding,
)
from megatron.core.transformer.transformer_config import TransformerConfig

from areal_real.training.architecture import Architecture
from areal_real.training.attention import PackedAttention
from areal_real.training.logprobs import token_logprobs
from areal_real.training.micro_batch import MicroBatch
from areal_real.training.settings import TrainerSettings

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}


class PackedModel(GPTModel):
    """One pipeline stage, from a micro-batch to log-probabilities of its generated tokens."""

    def __init__(self, *, true_vocab: int, temperature: float, **options: Any) -> None:
        super().__init__(**options)
        self._true_vocab = true_vocab
        self._temperature = temperature

    def forward(self, micro: MicroBatch) -> Any:
        """Run this stage.

        Returns:
            Hidden states (T, 1, width); on the last stage log-probabilities and entropies of the
            R generated tokens, each float32 (R,).
        """
        hidden = self.embedding(micro.tokens, micro.positions) if self.pre_process else None
        frequencies = self.rotary_pos_emb.get_emb(micro.packing.longest)
        hidden = self.decoder(
            hidden_states=hidden,
            attention_mask=None,
            rotary_pos_emb=frequencies.index_select(0, micro.positions),
            packed_seq_params=micro.packing,
        )
        if not self.post_process:
            return hidden
        shared = self.share_embeddings_and_output_weights
        return token_logprobs(
            hidden.index_select(0, micro.sources),
            self.output_layer,
            self.shared_embedding_or_output_weight() if shared else None,
            micro.targets,
            vocab=self._true_vocab,
            temperature=self._temperature,
        )


def transformer_config(architecture: Architecture, settings: TrainerSettings) -> TransformerConfig:
    """Megatron's description of the model and of how it is split."""
    recompute = {}
    if settings.recompute_activations:
        recompute = {
            "recompute_granularity": "full",
            "recompute_method": "uniform",
            "recompute_num_layers": 1,
        }
    return TransformerConfig(
        num_layers=architecture.layers,
        hidden_size=architecture.hidden,
        ffn_hidden_size=architecture.ffn,
        num_attention_heads=architecture.heads,
        num_query_groups=architecture.kv_heads,
        kv_channels=architecture.head_dim,
        normalization="RMSNorm",
        layernorm_epsilon=architecture.norm_eps,
        activation_func=torch.nn.functional.silu,
        gated_linear_unit=True,
        add_bias_linear=False,
        add_qkv_bias=True,
        hidden_dropout=0.0,
        attention_dropout=0.0,
        bias_activation_fusion=False,
        bias_dropout_fusion=False,
        masked_softmax_fusion=False,
        apply_rope_fusion=False,
        gradient_accumulation_fusion=False,
        persist_layer_norm=False,
        attention_softmax_in_fp32=True,
        params_dtype=DTYPES[settings.dtype],
        bf16=settings.dtype == "bfloat16",
        pipeline_dtype=DTYPES[settings.dtype],
        use_cpu_initialization=settings.device == "cpu",
        perform_initialization=False,
        tensor_model_parallel_size=settings.tensor_parallel,
        pipeline_model_parallel_size=settings.pipeline_parallel,
        variable_seq_lengths=settings.pipeline_parallel > 1,
        # Megatron wants it with variable lengths, though there are no experts here.
        moe_token_dispatcher_type="alltoall",
        batch_p2p_comm=settings.device == "cuda",
        deallocate_pipeline_outputs=True,
        calculate_per_token_loss=True,
        **recompute,
    )


def build_model(
    architecture: Architecture, settings: TrainerSettings, device: torch.device
) -> PackedModel:
    """This rank's stage, with memory for its weights but no values in it.

    Raises:
        ConfigError: the model cannot be split as the settings say.
    """
    architecture.check_layout(
        tensor_parallel=settings.tensor_parallel, pipeline_parallel=settings.pipeline_parallel
    )
    config = transformer_config(architecture, settings)
    spec = copy.deepcopy(get_gpt_layer_local_spec(normalization="RMSNorm"))
    spec.submodules.self_attention.submodules.core_attention = PackedAttention
    model = PackedModel(
        true_vocab=architecture.vocab,
        temperature=settings.temperature,
        config=config,
        transformer_layer_spec=spec,
        vocab_size=architecture.padded_vocab(settings.tensor_parallel),
        max_sequence_length=architecture.max_positions,
        pre_process=parallel_state.is_pipeline_first_stage(),
        post_process=parallel_state.is_pipeline_last_stage(),
        parallel_output=True,
        share_embeddings_and_output_weights=architecture.tied,
        position_embedding_type="rope",
        rotary_base=architecture.rope_base,
    )
    _mark_split(model)
    model.to(device=device, dtype=DTYPES[settings.dtype])
    return model


def _mark_split(model: torch.nn.Module) -> None:
    """Say which weights are split over tensor-parallel ranks.

    Megatron does so where it fills weights in, which is left out here. Unmarked weights would be
    taken for copies, and the gradient's norm would leave out all but the first rank's.
    """
    split = ColumnParallelLinear | VocabParallelEmbedding | RowParallelLinear
    for module in model.modules():
        if isinstance(module, split) and module.weight is not None:
            module.weight.tensor_model_parallel = True
            module.weight.partition_dim = 1 if isinstance(module, RowParallelLinear) else 0
            module.weight.partition_stride = 1
