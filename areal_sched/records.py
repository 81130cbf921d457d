"""What the state remembers of rollouts, groups and servers. Schedulers read, only the state writes.

Plain classes, not messages: these change, and there is one per trajectory on the hot path.
"""

from __future__ import annotations

from enum import IntEnum

from areal_sched.ids import GroupId, PromptId, RolloutId, ServerId, WeightVersion


class Phase(IntEnum):
    """Where a rollout stands. The last three are final: the rollout is settled."""

    RUNNING = 0
    """On a server: queued, prefilling or decoding."""
    ABORTING = 1
    """As RUNNING, with an abort on its way."""
    INTERRUPTED = 2
    """On no server; what it generated is kept until it is resumed or dropped."""
    FINISHED = 3
    """Answer complete, reward being computed."""
    READY = 4
    """Accepted: complete with its reward, waiting to be trained."""
    TRAINING = 5
    """In the batch of the running training step."""
    TRAINED = 6
    FAILED = 7
    DROPPED = 8


_RUNNING: Phase = Phase.RUNNING  # a global costs less than an enum attribute


class Group:
    """The rollouts of one prompt.

    Attributes:
        group_id, prompt_id: who it is.
        size: rollouts it arrived with.
        prompt_tokens: tokens of the prompt.
        unstarted: rollouts still to be started, replacements of failed ones included.
        outstanding: rollouts still to be accepted: unstarted, on servers, held, or in reward.
        ready: rollouts accepted and not yet in a training step.
        failures: rollouts that failed so far, aborted ones not counted.
        abandoned: too many failed; what is left should be aborted or dropped.
        rollouts: its live (unsettled) rollouts by id.
    """

    __slots__ = (
        "abandoned",
        "failures",
        "group_id",
        "opened",
        "outstanding",
        "prompt_id",
        "prompt_tokens",
        "ready",
        "rollouts",
        "size",
        "unstarted",
    )

    def __init__(
        self, group_id: GroupId, prompt_id: PromptId, size: int, prompt_tokens: int
    ) -> None:
        self.group_id = group_id
        self.prompt_id = prompt_id
        self.size = size
        self.prompt_tokens = prompt_tokens
        self.unstarted = size
        self.outstanding = size
        self.ready = 0
        self.failures = 0
        self.abandoned = False
        self.opened = False
        self.rollouts: dict[RolloutId, Rollout] = {}


class Rollout:
    """One rollout, from its start until it is trained, failed or dropped.

    Attributes:
        rollout_id, group: who it is.
        server_id: the server it runs or last ran on.
        phase: where it stands.
        generated_tokens: last reported; a running rollout has more by now.
        first_version: weights that make (or made) its first token.
        last_version: weights that made its last reported token.
        interruptions: how often it was stopped and had its KV cache dropped.
        start_ns, finish_ns, ready_ns, train_ns, settled_ns: when it was started, finished
            generating, was accepted, entered a training step, was settled; -1 before that.
        consumed_version: the policy that trained on it; -1 before that.
        reward: its reward; 0.0 before it is known.
    """

    __slots__ = (
        "consumed_version",
        "finish_ns",
        "first_version",
        "generated_tokens",
        "group",
        "interruptions",
        "last_version",
        "phase",
        "ready_ns",
        "reward",
        "rollout_id",
        "server_id",
        "settled_ns",
        "start_ns",
        "train_ns",
    )

    def __init__(
        self,
        rollout_id: RolloutId,
        group: Group,
        server_id: ServerId,
        version: WeightVersion,
        start_ns: int,
    ) -> None:
        self.rollout_id = rollout_id
        self.group = group
        self.server_id = server_id
        self.first_version = self.last_version = version
        self.start_ns = start_ns
        self.phase = _RUNNING
        self.generated_tokens = self.interruptions = 0
        self.finish_ns = self.ready_ns = self.train_ns = self.settled_ns = -1
        self.consumed_version = -1
        self.reward = 0.0


class Server:
    """One inference server, as known from its events.

    Attributes:
        server_id, max_running_rollouts, kv_cache_tokens: as it joined.
        weight_version: weights it generates with.
        loading: weights it is loading, or None. Rollouts sent meanwhile run on these.
        rollouts: rollouts on it, by id, in the order they came.
        known_kv_tokens: prompts and reported answers of its rollouts; what they generated since
            then is not known to a scheduler.
    """

    __slots__ = (
        "kv_cache_tokens",
        "known_kv_tokens",
        "loading",
        "max_running_rollouts",
        "rollouts",
        "server_id",
        "weight_version",
    )

    def __init__(
        self,
        server_id: ServerId,
        max_running_rollouts: int,
        kv_cache_tokens: int,
        weight_version: WeightVersion,
    ) -> None:
        self.server_id = server_id
        self.max_running_rollouts = max_running_rollouts
        self.kv_cache_tokens = kv_cache_tokens
        self.weight_version = weight_version
        self.loading: WeightVersion | None = None
        self.rollouts: dict[RolloutId, Rollout] = {}
        self.known_kv_tokens = 0
