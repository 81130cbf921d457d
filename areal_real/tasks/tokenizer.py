"""Text to token ids and back: characters for the built-in task, else a Hugging Face folder."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from areal_sched.errors import ConfigError


class CharTokenizer:
    """One token for each of some characters; token 0 ends an answer.

    Args:
        characters: all there are; the first is token 1.

    Raises:
        ValueError: a character stands there twice.
    """

    def __init__(self, characters: str) -> None:
        if len(set(characters)) < len(characters):
            raise ValueError(f"characters: {characters!r} holds one of them twice")
        self._characters = characters
        self._ids = {character: i for i, character in enumerate(characters, start=1)}

    @property
    def vocab_size(self) -> int:
        """Ids are below this."""
        return len(self._characters) + 1

    @property
    def eos_id(self) -> int:
        """The token that ends an answer."""
        return 0

    def encode(self, text: str) -> list[int]:
        """Ids of a text.

        Raises:
            ValueError: it holds a character there is no token for.
        """
        try:
            return [self._ids[character] for character in text]
        except KeyError as exc:
            place = text.index(exc.args[0])
            raise ValueError(f"no token for {exc.args[0]!r}, character {place} of a text") from None

    def decode(self, ids: Sequence[int]) -> str:
        """The text of ids; the end token has none.

        Raises:
            ValueError: an id is no token.
        """
        for i in ids:
            if not 0 <= i < self.vocab_size:
                raise ValueError(f"no token {i}: ids are below {self.vocab_size}")
        return "".join(self._characters[i - 1] for i in ids if i != self.eos_id)


class FolderTokenizer:
    """The tokenizer in a Hugging Face folder. Nothing is fetched, and no code in it is run.

    Nothing is put before or after a text, and special tokens written out in it are taken as such:
    a prompt is what the model sees.

    Args:
        folder: holds ``tokenizer.json`` and what belongs to it.

    Raises:
        ConfigError: there is no tokenizer that can be read, or it has no end token.
    """

    def __init__(self, folder: Path) -> None:
        # A folder that is not there would be taken for a name on a hub.
        if not folder.is_dir():
            raise ConfigError(f"{folder}: there is no such folder with a tokenizer")
        from transformers import AutoTokenizer  # takes a second

        try:
            self._tokenizer: Any = AutoTokenizer.from_pretrained(
                folder, local_files_only=True, trust_remote_code=False
            )
        # What it raises for a file that is missing or broken is any of a dozen kinds.
        except Exception as exc:
            reason = (str(exc) or repr(exc)).splitlines()[0]
            raise ConfigError(f"{folder}: no tokenizer that can be read: {reason}") from exc
        if self._tokenizer.eos_token_id is None:
            raise ConfigError(f"{folder}: the tokenizer has no end token (eos_token)")
        self._folder = folder

    @property
    def vocab_size(self) -> int:
        """Ids are below this; the model's embedding may have more rows."""
        return len(self._tokenizer)

    @property
    def eos_id(self) -> int:
        """The token that ends an answer."""
        return int(self._tokenizer.eos_token_id)

    def encode(self, text: str) -> list[int]:
        """Ids of a text."""
        return list(self._tokenizer.encode(text, add_special_tokens=False))

    def decode(self, ids: Sequence[int]) -> str:
        """The text of ids; the end token and other special ones have none."""
        text: str = self._tokenizer.decode(
            list(ids), skip_special_tokens=True, clean_up_tokenization_spaces=False
        )
        return text

    def chat(self, messages: Sequence[Mapping[str, str]]) -> str:
        """A conversation as the text that the model is to go on from.

        Raises:
            ValueError: the folder has no chat template, or it refuses the messages.
        """
        if not self._tokenizer.chat_template:
            raise ValueError(f"{self._folder} has no chat template")
        try:
            text: str = self._tokenizer.apply_chat_template(
                [dict(message) for message in messages], tokenize=False, add_generation_prompt=True
            )
        except Exception as exc:  # a template is a program; what it raises is anything
            reason = (str(exc) or repr(exc)).splitlines()[0]
            raise ValueError(f"the chat template of {self._folder} fails: {reason}") from exc
        return text
