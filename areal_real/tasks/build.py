"""The task that a configuration asks for."""

from __future__ import annotations

from areal_real.config import RealConfig
from areal_real.rewards.sandbox.box import available
from areal_real.tasks.arithmetic import Arithmetic
from areal_real.tasks.problem import Task
from areal_real.tasks.prompts import PromptSet
from areal_real.tasks.tokenizer import FolderTokenizer
from areal_sched.errors import ConfigError


def make_task(config: RealConfig) -> Task:
    """The task of ``[real.task]``.

    Raises:
        ConfigError: its options, its files or its tokenizer are wrong, its answers are longer than
            ``[workload]`` allows, or there is no sandbox for its code.
    """
    real, options = config.real, config.real.task
    if options.name == "arithmetic":
        task = Arithmetic(
            seed=real.seed,
            difficulty=1 if options.difficulty is None else options.difficulty,
            held_out_problems=options.held_out_problems,
        )
        task.check_room(
            max_prompt_tokens=config.workload.max_prompt_tokens,
            max_response_tokens=config.workload.max_response_tokens,
        )
        return task
    folder = options.tokenizer or real.model.path
    # The configuration was checked for both; this is for those who made it by hand.
    if folder is None or options.file is None:
        raise ValueError('the task "prompts" needs a file and a tokenizer')
    prompts = PromptSet.load(
        options.file,
        FolderTokenizer(folder),
        seed=real.seed,
        held_out=options.held_out_file or options.held_out_problems,
    )
    if "code" in prompts.kinds and (missing := available()) is not None:
        raise ConfigError(
            f"real.task.file = {options.file}: has problems of the kind code, and there is no"
            f" sandbox to run answers in: {missing}"
        )
    return prompts
