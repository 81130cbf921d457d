"""Costs from a file of coefficients, as a calibration writes it.

::

    format = "areal-sim-costs/1"
    source = "journal run-17, 40 steps, 3 servers"

    [server]                      # fields of ServerCost, integer femtoseconds
    decode_base_fs = 4300000000000
    ...

    [trainer]                     # fields of TrainerCost
    pipeline_stages = 2
    update_base_s = 0.02
    ...

    [weights]
    publish_s = 2.4
    load_s = 1.1
    load_shared_s = 0.4           # may be left out

    # The rest may be left out.
    [switch]                      # colocated only
    to_generate_s = 3.0
    to_train_s = 2.5

    [client]                      # fields of ClientCost, each of which may be left out
    dispatch_s = 0.004
    ...

    [host]                        # fields of HostCost, likewise
    cores = 2
    ...

Every number is written so that reading it gives the same number.
"""

from __future__ import annotations

import dataclasses
import json
import math
import re
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from areal_sched.errors import ConfigError, nearest

from .protocol import ClientCost, CostProvider, HostCost, Phase, ServerCost, TrainerCost

FORMAT = "areal-sim-costs/1"

_SERVER_KEYS = tuple(field.name for field in dataclasses.fields(ServerCost))
_TRAINER_KEYS = tuple(field.name for field in dataclasses.fields(TrainerCost))
_WEIGHT_KEYS = ("publish_s", "load_s", "load_shared_s")
_SWITCH_KEYS = ("to_generate_s", "to_train_s")
_CLIENT_KEYS = tuple(field.name for field in dataclasses.fields(ClientCost))
_HOST_KEYS = tuple(field.name for field in dataclasses.fields(HostCost))
_TOP_KEYS = ("format", "source", "server", "trainer", "weights", "switch", "client", "host")
_MAY_MISS = ("prefill_per_rollout_fs", "load_shared_s")


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class FittedCosts:
    """A `CostProvider` that holds its coefficients.

    Attributes:
        server_cost: of one inference server.
        trainer_cost: of the trainer.
        publish_s: `CostProvider.weight_publish_s`.
        load_s: `CostProvider.weight_load_s`.
        load_shared_s: `CostProvider.weight_load_shared_s`.
        to_generate_s: `CostProvider.switch_s` to generation, None if never measured.
        to_train_s: the same to training.
        client_cost: between scheduler and engines.
        host_cost: the machine they share.
        source: what the coefficients were fitted to, in words.
    """

    server_cost: ServerCost
    trainer_cost: TrainerCost
    publish_s: float
    load_s: float
    load_shared_s: float = 0.0
    to_generate_s: float | None = None
    to_train_s: float | None = None
    client_cost: ClientCost = dataclasses.field(default_factory=ClientCost)
    host_cost: HostCost = dataclasses.field(default_factory=HostCost)
    source: str

    def __post_init__(self) -> None:
        for name in (*_WEIGHT_KEYS, *_SWITCH_KEYS):
            value = getattr(self, name)
            if value is not None and not (math.isfinite(value) and value >= 0):
                raise ConfigError(f"{name} = {value!r}: expected a finite number >= 0")
        if self.load_shared_s > 0 and self.load_s == 0:
            raise ConfigError(f"load_shared_s = {self.load_shared_s!r}: load_s is 0")

    def server(self) -> ServerCost:
        """Coefficients of one inference server."""
        return self.server_cost

    def trainer(self) -> TrainerCost:
        """Coefficients of the trainer."""
        return self.trainer_cost

    def weight_publish_s(self) -> float:
        """Seconds from the end of a training step until servers can load."""
        return self.publish_s

    def weight_load_s(self) -> float:
        """Seconds one server takes to load."""
        return self.load_s

    def weight_load_shared_s(self) -> float:
        """Seconds more for each other server that loads at the same time."""
        return self.load_shared_s

    def switch_s(self, to: Phase) -> float:
        """Seconds to turn colocated GPUs over; ConfigError if the file has no such time."""
        if to not in ("generate", "train"):
            raise ConfigError(f"switch to {to!r}: expected 'generate' or 'train'")
        seconds = self.to_generate_s if to == "generate" else self.to_train_s
        if seconds is None:
            raise ConfigError(
                f"switch.to_{to}_s: missing from the fitted costs ({self.source}), and colocated"
                " placement needs it"
            )
        return seconds

    def client(self) -> ClientCost:
        """What lies between scheduler and engines."""
        return self.client_cost

    def host(self) -> HostCost:
        """The machine that servers and trainer share, if they do."""
        return self.host_cost

    @classmethod
    def from_provider(cls, provider: CostProvider, *, source: str) -> FittedCosts:
        """Freeze any provider's present coefficients."""
        return cls(
            server_cost=provider.server(),
            trainer_cost=provider.trainer(),
            publish_s=provider.weight_publish_s(),
            load_s=provider.weight_load_s(),
            load_shared_s=provider.weight_load_shared_s(),
            to_generate_s=provider.switch_s("generate"),
            to_train_s=provider.switch_s("train"),
            client_cost=provider.client(),
            host_cost=provider.host(),
            source=source,
        )

    def to_toml(self) -> str:
        """The file's text."""
        lines = [f"format = {_text(FORMAT)}", f"source = {_text(self.source)}"]
        lines += _section("server", _SERVER_KEYS, self.server_cost)
        lines += _section("trainer", _TRAINER_KEYS, self.trainer_cost)
        lines += _section("weights", _WEIGHT_KEYS[: 3 if self.load_shared_s else 2], self)
        measured = [key for key in _SWITCH_KEYS if getattr(self, key) is not None]
        if measured:
            lines += _section("switch", measured, self)
        if not self.client_cost.nothing:
            lines += _section("client", _CLIENT_KEYS, self.client_cost)
        if self.host_cost.cores is not None:
            lines += _section("host", _HOST_KEYS, self.host_cost)
        return "\n".join(lines) + "\n"

    def save(self, path: str | Path) -> None:
        """Write the file."""
        Path(path).write_text(self.to_toml(), encoding="utf-8")

    @classmethod
    def load(cls, path: str | Path) -> FittedCosts:
        """Read a file.

        Raises:
            ConfigError: not TOML, another format, or a missing, unknown or wrong key; the message
                names file, line and key.
        """
        path = Path(path)
        try:
            text = path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError(f"{path.name}: cannot be read: {error}") from None
        return cls.from_toml(text, where=path.name)

    @classmethod
    def from_toml(cls, text: str, *, where: str = "costs") -> FittedCosts:
        """Read a file's text; `where` names it in messages."""
        try:
            document = tomllib.loads(text)
        except tomllib.TOMLDecodeError as error:
            raise ConfigError(f"{where}: not TOML: {error}") from None
        file = _File(where, text, document)
        if (found := document.get("format")) != FORMAT:
            raise ConfigError(f"{file.at('', 'format')}: format = {found!r}: expected {FORMAT!r}")
        file.only("", _TOP_KEYS, document)
        source = document.get("source", "")
        if not isinstance(source, str):
            raise ConfigError(f"{file.at('', 'source')}: source = {source!r}: expected a text")
        server = file.section("server", _SERVER_KEYS)
        trainer = file.section("trainer", _TRAINER_KEYS)
        weights = file.section("weights", _WEIGHT_KEYS)
        switch = file.section("switch", _SWITCH_KEYS, optional=True)
        client = file.section("client", _CLIENT_KEYS, optional=True)
        host = file.section("host", _HOST_KEYS, optional=True)
        for key in _SERVER_KEYS:
            if key in server:
                file.integer("server", key, server[key])
        file.integer("trainer", "pipeline_stages", trainer["pipeline_stages"])
        try:
            return cls(
                server_cost=ServerCost(**server),
                trainer_cost=TrainerCost(**trainer),
                client_cost=ClientCost(**client),
                host_cost=HostCost(**host),
                source=source,
                **weights,
                **switch,
            )
        except ConfigError as error:
            raise ConfigError(f"{where}: {error}") from None


@dataclasses.dataclass(frozen=True, slots=True)
class _File:
    """A parsed file that can say on which line a key stands."""

    where: str
    text: str
    document: Mapping[str, Any]

    def at(self, section: str, key: str) -> str:
        current = ""
        for number, line in enumerate(self.text.splitlines(), start=1):
            if header := re.match(r"\s*\[\s*([\w.-]+)\s*\]", line):
                current = header.group(1)
                if not section and current == key:
                    return f"{self.where}:{number}:1"
            elif current == section and (found := re.match(rf"\s*({re.escape(key)})\s*=", line)):
                return f"{self.where}:{number}:{found.start(1) + 1}"
        return self.where

    def only(self, section: str, known: tuple[str, ...], table: Mapping[str, Any]) -> None:
        for key in table:
            if key not in known:
                dotted = f"{section}.{key}" if section else key
                raise ConfigError(
                    f"{self.at(section, key)}: {dotted}: unknown key{nearest(key, known)}"
                )

    def section(
        self, name: str, keys: tuple[str, ...], *, optional: bool = False
    ) -> dict[str, Any]:
        table = self.document.get(name)
        if table is None and optional:
            return {}
        if not isinstance(table, dict):
            raise ConfigError(f"{self.at('', name)}: missing section [{name}]")
        self.only(name, keys, table)
        for key in keys:
            if key in table:
                value = table[key]
                if isinstance(value, bool) or not isinstance(value, int | float):
                    raise ConfigError(
                        f"{self.at(name, key)}: {name}.{key} = {value!r}: expected a number"
                    )
            elif not optional and key not in _MAY_MISS:
                raise ConfigError(f"{self.at('', name)}: missing key {name}.{key}")
        return dict(table)

    def integer(self, section: str, key: str, value: object) -> None:
        if not isinstance(value, int):
            raise ConfigError(
                f"{self.at(section, key)}: {section}.{key} = {value!r}: expected an integer"
            )


def _section(name: str, keys: Any, values: object) -> list[str]:
    # repr of a float is the shortest text that reads back as the same float.
    return ["", f"[{name}]", *(f"{key} = {getattr(values, key)!r}" for key in keys)]


def _text(value: str) -> str:
    # A JSON string is a TOML basic string, but for DEL, which TOML wants escaped.
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
