"""Write the sample files of this folder: ``python -m traces.data.make_samples [FOLDER]``.

Every number comes from the project's own length models and a fixed seed; nothing is taken from a
published trace but the names of the columns.
"""

from __future__ import annotations

import csv
import io
import json
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Final

import numpy as np

from traces.lengths import LogNormalGroups, LogNormalPrompts, SyntheticWorkload
from traces.presets import preset
from traces.schema import write_workload
from traces.source import GroupBatch, tabulate

SEED: Final = 2505
REQUESTS: Final = 32
GROUPS: Final = 6
GROUP_SIZE: Final = 4
MEAN_GAP_MS: Final = 250.0
FAILED_REQUESTS: Final = (5, 19)
MOONCAKE_BLOCK_TOKENS: Final = 512
DECODE_TOKENS_PER_S: Final = 60.0
FIRST_DAY: Final = "2023-11-16"

MATH: Final = SyntheticWorkload(
    model=preset("math-7b-boba").model,
    prompt_model=preset("math-7b-boba").prompt_model,
    seed=SEED,
    max_response_tokens=27_648,
    max_prompt_tokens=1_024,
)
CHAT: Final = SyntheticWorkload(
    model=LogNormalGroups(mu=5.0, sigma_between=0.5, sigma_within=0.5),
    prompt_model=LogNormalPrompts(mu=6.5, sigma=1.0),
    seed=SEED,
    max_response_tokens=2_000,
    max_prompt_tokens=8_000,
)


def samples() -> dict[str, str]:
    """Return the content of every sample by file name, but for the workload itself."""
    chat = CHAT.groups(0, REQUESTS, group_size=1, step=0.0)
    math = MATH.groups(0, GROUPS, group_size=GROUP_SIZE, step=0.0)
    return _requests(chat) | _rollouts(math)


def write(folder: Path) -> None:
    """Write all samples into an existing folder."""
    for name, text in samples().items():
        (folder / name).write_text(text, encoding="utf-8")
    write_workload(tabulate(MATH, count=GROUPS, group_size=GROUP_SIZE), folder / "workload.jsonl")


def _requests(batch: GroupBatch) -> dict[str, str]:
    prompts = batch.prompt_tokens.tolist()
    responses = batch.response_tokens[:, 0].tolist()
    generator = np.random.Generator(np.random.Philox(key=SEED))
    gaps_ms = -MEAN_GAP_MS * np.log1p(-generator.random(REQUESTS))
    times_ms = np.rint(np.cumsum(gaps_ms) - gaps_ms[0]).astype(np.int64).tolist()
    rows = list(zip(times_ms, prompts, responses, strict=True))
    answered = [0 if index in FAILED_REQUESTS else tokens for index, tokens in enumerate(responses)]
    return {
        "azure.csv": _csv(
            ["TIMESTAMP", "ContextTokens", "GeneratedTokens"],
            [[_timestamp(time), prompt, response] for time, prompt, response in rows],
        ),
        "burstgpt.csv": _csv(
            ["Timestamp", "Model", "Request tokens", "Response tokens", "Total tokens", "Log Type"],
            [
                [time / 1000, "synthetic", prompt, tokens, prompt + tokens, "Conversation log"]
                for (time, prompt, _), tokens in zip(rows, answered, strict=True)
            ],
        ),
        "mooncake.csv": _csv(["timestamp_ms", "input_length", "output_length"], rows),
        "mooncake.jsonl": _jsonl(
            {
                "timestamp": time,
                "input_length": prompt,
                "output_length": response,
                "hash_ids": list(range(-(-prompt // MOONCAKE_BLOCK_TOKENS))),
            }
            for time, prompt, response in rows
        ),
        "vidur.csv": _csv(
            ["arrived_at", "num_prefill_tokens", "num_decode_tokens"],
            [[time / 1000, prompt, response] for time, prompt, response in rows],
        ),
    }


def _rollouts(batch: GroupBatch) -> dict[str, str]:
    answers = [
        (group, sample, int(batch.prompt_tokens[group]), int(batch.response_tokens[group, sample]))
        for group in range(GROUPS)
        for sample in range(GROUP_SIZE)
    ]
    return {
        "areal.jsonl": _jsonl(
            {
                "group_id": group,
                "prompt_id": f"problem-{group}",
                "seqlen": prompt + response,
                "prompt_len": prompt,
                "version_spans": _spans(group // 2, response),
                "reward": 5.0 if (group + sample) % 3 else -5.0,
            }
            for group, sample, prompt, response in answers
        ),
        "generic.csv": _csv(
            ["set", "question", "input", "output", "score"],
            [
                ["algebra" if group % 2 else "geometry", group, prompt, response, sample % 2]
                for group, sample, prompt, response in answers
            ],
        ),
        "openrs.csv": _csv(
            ["dataset", "model", "run", "prompt_id", "tokens", "finish_time_s"],
            [
                ["synthetic", "model-a", sample, group, f"{response + 0.4:.1f}", _finish(response)]
                for group, sample, _, response in answers
            ],
        ),
    }


def _spans(version: int, response: int) -> list[list[int]]:
    """Return runs of two weight versions for long responses, of one for short ones."""
    if response < 8_000:
        return [[version, response]]
    return [[version, response // 2], [version + 1, response - response // 2]]


def _timestamp(time_ms: int) -> str:
    minutes, milliseconds = divmod(time_ms, 60_000)
    return f"{FIRST_DAY} 18:{minutes:02d}:{milliseconds / 1000:010.7f}"


def _finish(response: int) -> str:
    return f"{response / DECODE_TOKENS_PER_S:.2f}"


def _csv(header: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(header)
    writer.writerows(rows)
    return text.getvalue()


def _jsonl(records: Iterable[dict[str, object]]) -> str:
    return "".join(json.dumps(record) + "\n" for record in records)


if __name__ == "__main__":
    write(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parent)
