"""The data loader: problems become groups of rollouts, in an order that a resumed run goes on with.

Group ids count up and are the positions of the problems in the task's endless order, so nothing
but the number of prompts offered so far has to be kept.
"""

from __future__ import annotations

from dataclasses import dataclass

from areal_real.tasks.problem import Problem, Task
from areal_sched.errors import ConfigError
from areal_sched.events import PromptArrived
from areal_sched.ids import GroupId, PromptId


@dataclass(frozen=True, slots=True)
class Prompt:
    """A problem with the tokens the model sees."""

    problem: Problem
    ids: tuple[int, ...]


class ProblemFeed:
    """Offers problems, and remembers those whose groups are open.

    Args:
        task: problems and their tokenizer.
        group_size: rollouts of one prompt.
        max_prompt_tokens: longer prompts are refused.
        offered: prompts offered before, by the run that is resumed.
    """

    def __init__(
        self, task: Task, *, group_size: int, max_prompt_tokens: int, offered: int = 0
    ) -> None:
        self._task = task
        self._group_size = group_size
        self._max_prompt_tokens = max_prompt_tokens
        self._open: dict[int, Prompt] = {}
        self.offered = offered

    def offer(self) -> PromptArrived:
        """The next prompt.

        Raises:
            ConfigError: the problem cannot be spelt in tokens, or is longer than allowed.
        """
        group_id = self.offered
        prompt = self.prompt(group_id)
        self.offered += 1
        return PromptArrived(
            prompt_id=PromptId(group_id),
            group_id=GroupId(group_id),
            group_size=self._group_size,
            prompt_tokens=len(prompt.ids),
        )

    def prompt(self, group_id: int) -> Prompt:
        """The prompt of a group, open or settled.

        Raises:
            ConfigError: see `offer`.
        """
        known = self._open.get(group_id)
        if known is not None:
            return known
        problem = self._task.problem(group_id)
        try:
            ids = tuple(self._task.tokenizer.encode(problem.prompt))
        except ValueError as exc:
            raise ConfigError(f"problem {problem.problem_id}: {exc}") from None
        if not 0 < len(ids) <= self._max_prompt_tokens:
            raise ConfigError(
                f"problem {problem.problem_id}: its prompt has {len(ids)} tokens;"
                f" workload.max_prompt_tokens = {self._max_prompt_tokens}"
            )
        self._open[group_id] = Prompt(problem, ids)
        return self._open[group_id]

    def forget(self, group_id: int) -> None:
        """A group is settled; its prompt can be made again if it is asked for."""
        self._open.pop(group_id, None)
