"""The character tokenizer, and Hugging Face folders."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from areal_real.tasks.tokenizer import CharTokenizer, FolderTokenizer
from areal_sched.errors import ConfigError
from tests.real.tasks.folders import write_tokenizer

TEMPLATE = (
    "{% for message in messages %}{{ message.role }} : {{ message.content }} {% endfor %}"
    "{% if add_generation_prompt %}assistant :{% endif %}"
)


@given(st.text("abc =", max_size=20))
def test_characters_there_and_back(text: str) -> None:
    tokenizer = CharTokenizer("abc =")
    ids = tokenizer.encode(text)
    assert len(ids) == len(text)
    assert all(0 < i < tokenizer.vocab_size for i in ids)
    assert tokenizer.decode(ids) == tokenizer.decode([*ids, tokenizer.eos_id]) == text


def test_what_is_no_character_or_no_token_is_named() -> None:
    tokenizer = CharTokenizer("ab")
    assert tokenizer.vocab_size == 3
    with pytest.raises(ValueError, match="no token for 'x', character 2 of a text"):
        tokenizer.encode("abx")
    with pytest.raises(ValueError, match="no token 3: ids are below 3"):
        tokenizer.decode([1, 3])
    with pytest.raises(ValueError, match="'aa' holds one of them twice"):
        CharTokenizer("aa")


def test_a_folder(tmp_path: Path) -> None:
    tokenizer = FolderTokenizer(write_tokenizer(tmp_path, chat_template=TEMPLATE))
    assert tokenizer.vocab_size == 7
    assert tokenizer.eos_id == 1
    ids = tokenizer.encode("what is 6 ?")
    assert tokenizer.decode([*ids, tokenizer.eos_id]) == "what is 6 ?"
    # A special token that is written out is one token.
    assert tokenizer.encode("is <end>")[-1] == tokenizer.eos_id
    said = tokenizer.chat([{"role": "user", "content": "6 ?"}])
    assert said == "user : 6 ? assistant :"


def test_a_folder_without_a_template_or_with_a_broken_one(tmp_path: Path) -> None:
    plain = FolderTokenizer(write_tokenizer(tmp_path / "plain"))
    with pytest.raises(ValueError, match="plain has no chat template"):
        plain.chat([{"role": "user", "content": "6"}])
    broken = write_tokenizer(tmp_path / "broken", chat_template="{{ raise_exception('no') }}")
    with pytest.raises(ValueError, match=r"the chat template of .*broken fails: no"):
        FolderTokenizer(broken).chat([{"role": "user", "content": "6"}])


def test_what_is_no_tokenizer_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="nowhere: there is no such folder"):
        FolderTokenizer(tmp_path / "nowhere")
    empty = tmp_path / "empty"
    empty.mkdir()
    with pytest.raises(ConfigError, match="empty: no tokenizer that can be read: "):
        FolderTokenizer(empty)
    endless = write_tokenizer(tmp_path / "endless")
    settings = json.loads((endless / "tokenizer_config.json").read_text())
    del settings["eos_token"]
    (endless / "tokenizer_config.json").write_text(json.dumps(settings))
    with pytest.raises(ConfigError, match="endless: the tokenizer has no end token"):
        FolderTokenizer(endless)
