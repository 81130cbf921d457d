"""Named workloads, each with where its numbers come from and how far to trust them.

Where a source publishes only a mean (and a truncated share), mu and the standard deviations were
chosen to give that mean after clipping; the split of the variance between and within prompts
follows the intra-class correlation of log-length, 0.54 to 0.65, measured on repeated AIME24 and
AMC23 evaluations of 1.5B reasoning models (open-rs logs, MIT).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

from traces.lengths import LengthModel, LogNormalGroups, LogNormalPrompts, Mixture

AREAL_MAX_RESPONSE_TOKENS: Final = 27_648
"""Response limit of the AReaL runs (arXiv 2505.24298, experiment setup)."""
AREAL_MAX_PROMPT_TOKENS: Final = 1_024
"""Prompt limit of the AReaL runs (same place); nothing else is published about prompts."""

MATH_PROMPTS: Final = LogNormalPrompts(mu=math.log(110.0), sigma=0.6)
"""Assumption: competition problems with their chat template, median 110, 99.9 % below 710."""
CODE_PROMPTS: Final = LogNormalPrompts(mu=math.log(400.0), sigma=0.5)
"""Assumption: statements with examples, median 400 tokens; 3 % would exceed 1,024."""

GROWTH_CURVE_END_STEP: Final = 432.0
"""Last training step of AReaL's published 1.5B response-length curve."""


@dataclass(frozen=True, slots=True)
class Preset:
    """A named pair of length models.

    Attributes:
        name: as given to `preset`.
        model: response lengths.
        prompt_model: prompt lengths, an assumption in every preset.
        source: what the numbers were made to agree with.
        basis: the kind of evidence, with its weak points.
    """

    name: str
    model: LengthModel
    prompt_model: LogNormalPrompts
    source: str
    basis: str


_ALL: Final = (
    Preset(
        name="math-7b-boba",
        model=LogNormalGroups(mu=9.07, sigma_between=0.48, sigma_within=0.44),
        prompt_model=MATH_PROMPTS,
        source="AReaL-boba 7B math run: mean response, and under 5 % of responses truncated",
        basis="published mean; clipped mean 10,400 at 27,648",
    ),
    Preset(
        name="math-1.5b-boba",
        model=LogNormalGroups(mu=9.43, sigma_between=0.57, sigma_within=0.49),
        prompt_model=MATH_PROMPTS,
        source="AReaL-boba 1.5B math run, at its start: mean response",
        basis="published mean; clipped mean 14,300 at 27,648",
    ),
    Preset(
        name="math-1.5b-deepscaler",
        model=LogNormalGroups(
            mu=8.76,
            sigma_between=0.70,
            sigma_within=0.56,
            mu_knots=((0.0, 8.76), (GROWTH_CURVE_END_STEP, 8.55)),
        ),
        prompt_model=MATH_PROMPTS,
        source="DeepScaleR data, R1-Distill-Qwen-1.5B: mean under the 8k limit at the start, end "
        "of the length curve in the AReaL v0.1 report (8k, 16k and 24k stages)",
        basis="both ends published; the straight line between them is an assumption: the "
        "measured curve mixes the change of the model with that of the limit. Clipped mean 8,700 "
        "to 7,300 at 27,648; the standard deviations stay those of the start",
    ),
    Preset(
        name="math-1.5b-deepscaler-mean",
        model=LogNormalGroups(mu=8.70, sigma_between=0.70, sigma_within=0.56),
        prompt_model=MATH_PROMPTS,
        source="math-1.5b-deepscaler after 125 steps, the middle of the AReaL paper's 1.5B run",
        basis="as that; without drift, so that a few steps stand for all 250",
    ),
    Preset(
        name="math-1.5b-deepscaler-after-rl",
        model=LogNormalGroups(mu=8.55, sigma_between=0.66, sigma_within=0.53),
        prompt_model=MATH_PROMPTS,
        source="end of the 1.5B length curve in the AReaL v0.1 report: mean 7,100",
        basis="published curve, digitised; clipped mean 7,050 at 27,648",
    ),
    Preset(
        name="math500-1.5b",
        model=Mixture(
            components=(
                LogNormalGroups(mu=7.16, sigma_between=0.39, sigma_within=0.32),
                LogNormalGroups(mu=8.77, sigma_between=0.56, sigma_within=0.46),
            ),
            weights=(0.63, 0.37),
        ),
        prompt_model=MATH_PROMPTS,
        source="open-rs evaluation logs (MIT): MATH500 answers of R1-Distill-Qwen-1.5B "
        "checkpoints, limit 32k; two components by censored maximum likelihood "
        "(`traces.fit.fit_mixture`)",
        basis="measured lengths, mean 4,000; the split between and within prompts is an "
        "assumption (correlation 0.6 in either component), since prompts were not recorded",
    ),
    Preset(
        name="code-14b",
        model=LogNormalGroups(mu=9.03, sigma_between=0.58, sigma_within=0.48),
        prompt_model=CODE_PROMPTS,
        source="no samples published; from the step times of the AReaL 14B code run",
        basis="weak prior; clipped mean 10,400 at 27,648",
    ),
    Preset(
        name="code-32b",
        model=LogNormalGroups(mu=8.95, sigma_between=0.58, sigma_within=0.48),
        prompt_model=CODE_PROMPTS,
        source="no samples published; shape of code-14b",
        basis="weak prior; clipped mean 9,700 at 27,648",
    ),
)

PRESETS: Final[Mapping[str, Preset]] = MappingProxyType({entry.name: entry for entry in _ALL})


def preset(name: str) -> Preset:
    """Return a named workload.

    Raises:
        ValueError: there is none of that name; lists the names there are.
    """
    try:
        return PRESETS[name]
    except KeyError:
        known = ", ".join(PRESETS)
        raise ValueError(f"no workload is called {name!r}; there are: {known}") from None
