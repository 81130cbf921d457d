"""Loaders and fits against real traces, where they lie beside the checkout."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from traces import (
    ResampledWorkload,
    constant_prompts,
    fit_log_normal_groups,
    fit_mixture,
    load,
    preset,
    tabulate,
    variance_components,
)
from traces.lengths import Mixture
from traces.loaders import generic

FOLDER = Path(__file__).resolve().parents[2] / ".." / "shared" / "traces"
LIMIT_TOKENS = 32_400  # the evaluations stop a little below 32,768


def shared(name: str) -> Path:
    path = FOLDER / name
    if not path.is_file():
        pytest.skip(f"the trace {path.name} is not beside the checkout")
    return path


@pytest.mark.parametrize(
    ("name", "format_name", "rows", "mean_prompt", "mean_response", "hours"),
    [
        ("AzureLLMInferenceTrace_code_2023.csv", "azure", 8_819, 2_047.8, 27.88, 0.954),
        ("AzureLLMInferenceTrace_conv_2023.csv", "azure", 19_366, 1_154.7, 211.1, 0.973),
        ("mooncake_conversation_lengths.csv", "mooncake", 12_031, 12_035.1, 342.6, 0.982),
        ("vidur_splitwise_conv.csv", "vidur", 19_366, 1_154.7, 211.1, 0.973),
    ],
)
def test_public_serving_traces(
    name: str,
    format_name: str,
    rows: int,
    mean_prompt: float,
    mean_response: float,
    hours: float,
) -> None:
    table = load(shared(f"serving/{name}"))
    assert table.attrs["format"] == format_name
    assert len(table) == rows
    assert table["prompt_tokens"].mean() == pytest.approx(mean_prompt, rel=1e-3)
    assert table["response_tokens"].mean() == pytest.approx(mean_response, rel=1e-3)
    assert table["arrival_ns"].min() == 0
    assert table["arrival_ns"].max() / 3.6e12 == pytest.approx(hours, abs=0.001)


def test_one_trace_in_two_formats() -> None:
    """Vidur's file is a processed form of Azure's conversation trace."""
    azure = load(shared("serving/AzureLLMInferenceTrace_conv_2023.csv"))
    vidur = load(shared("serving/vidur_splitwise_conv.csv"))
    for name in ("prompt_tokens", "response_tokens"):
        np.testing.assert_array_equal(azure[name], vidur[name])
    assert np.abs(azure["arrival_ns"] - vidur["arrival_ns"]).max() < 1_000


def by_dataset() -> dict[str, pd.DataFrame]:
    path = shared("lengths/openrs_aime_amc_groups_dev.csv")
    table, dataset = load(path), pd.read_csv(path)["dataset"]
    return {name: table[(dataset == name).to_numpy()] for name in ("AIME24", "AMC23")}


@pytest.mark.parametrize(
    ("dataset", "mu", "sigma", "correlation"),
    [("AIME24", 9.23, 0.66, 0.54), ("AMC23", 8.48, 0.97, 0.65)],
)
def test_fits_agree_with_published_analysis_of_the_same_logs(
    dataset: str, mu: float, sigma: float, correlation: float
) -> None:
    table = by_dataset()[dataset]
    fit = fit_log_normal_groups(table, cap_tokens=LIMIT_TOKENS)
    assert fit.model.mu == pytest.approx(mu, abs=0.08)
    assert fit.model.sigma == pytest.approx(sigma, abs=0.05)
    assert fit.intra_class_correlation == pytest.approx(correlation, abs=0.06)
    moments = variance_components(table)
    assert moments.intra_class_correlation == pytest.approx(correlation, abs=0.03)


def test_resampling_real_groups_keeps_mean_and_correlation() -> None:
    table = by_dataset()["AIME24"]
    source = ResampledWorkload(
        table,
        seed=1,
        max_response_tokens=32_768,
        max_prompt_tokens=1_024,
        prompt_model=constant_prompts(100),
    )
    drawn = tabulate(source, count=4_000, group_size=8)
    assert drawn["response_tokens"].mean() == pytest.approx(
        table.groupby("prompt_id")["response_tokens"].mean().mean(), rel=0.02
    )
    assert variance_components(drawn).intra_class_correlation == pytest.approx(
        variance_components(table).intra_class_correlation, abs=0.03
    )


def test_the_math500_preset_is_the_fit_of_its_source() -> None:
    path = shared("lengths/openrs_vllm_completion_dev.csv")
    columns = {"response_tokens": "tokens_est", "group_id": ("dataset", "run")}
    everything = generic.load(path, columns=columns, round_tokens=True)
    ours = pd.read_csv(path)["dataset"].str.contains("MATH500").to_numpy()
    fitted = fit_mixture(everything[ours], intra_class_correlation=0.6, cap_tokens=LIMIT_TOKENS)
    model = preset("math500-1.5b").model
    assert isinstance(model, Mixture)
    assert model.weights == pytest.approx(fitted.weights, abs=0.01)
    for part, found in zip(model.components, fitted.components, strict=True):
        assert part.mu == pytest.approx(found.mu, abs=0.01)
        assert part.sigma_between == pytest.approx(found.sigma_between, abs=0.01)
        assert part.sigma_within == pytest.approx(found.sigma_within, abs=0.01)


def test_answers_by_columns() -> None:
    columns = {
        "response_tokens": "tokens",
        "group_id": ("dataset", "model", "prompt_id"),
    }
    path = shared("lengths/lengths_text.csv")
    table, raw = load(path, columns=columns), pd.read_csv(path)
    assert table["response_tokens"].tolist() == raw["tokens"].tolist()
    sizes = raw.groupby(["dataset", "model", "prompt_id"]).size()
    assert len(table) == 3_628
    assert sorted(table.groupby("group_id").size()) == sorted(sizes)
