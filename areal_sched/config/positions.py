"""Where the keys of a TOML document stand, for messages; the standard parser does not tell."""

from __future__ import annotations

import re
import tomllib

Position = tuple[int, int]
"""Line and column, both counted from 1."""

_SPACE = re.compile(r"[ \t]*")
_BLANK = re.compile(r"(?:[ \t\r\n]+|#[^\n]*)*")
_BARE = re.compile(r"[A-Za-z0-9_-]+")
_STRING = re.compile(
    r'"""(?:\\[\s\S]|"{1,2}(?!")|[^"\\])*"""(?:"{0,2})'
    r"|'''(?:'{1,2}(?!')|[^'])*'''(?:'{0,2})"
    r'|"(?:\\.|[^"\\\n])*"'
    r"|'[^'\n]*'"
)
_SCALAR = re.compile(r"[^,\]}\n#]+")


def key_positions(text: str) -> dict[tuple[str, ...], Position]:
    """Line and column of every table and key of a document that `tomllib` can read.

    A table or key that is mentioned several times stands where it is mentioned first. What lies in
    arrays is left out.
    """
    scanner = _Scanner(text.replace("\r\n", "\n"))
    scanner.document()
    return scanner.found


class _Scanner:
    """Walks over a valid document once; `at` is the place reached."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.at = 0
        self.found: dict[tuple[str, ...], Position] = {}

    def document(self) -> None:
        table: tuple[str, ...] = ()
        while self.skip(_BLANK) < len(self.text):
            if self.text[self.at] == "[":
                brackets = 2 if self.text.startswith("[[", self.at) else 1
                self.at += brackets
                table = self.key(())
                self.skip(_SPACE)
                self.at += brackets
            else:
                self.pair(table)

    def pair(self, table: tuple[str, ...] | None) -> None:
        """``key = value``; in an array there is no `table` to put it in."""
        path = self.key(table)
        self.skip(_SPACE)
        self.at += 1  # the =
        self.value(None if table is None else path)

    def key(self, table: tuple[str, ...] | None) -> tuple[str, ...]:
        path = table or ()
        while True:
            self.skip(_SPACE)
            start = self.at
            if self.text[start] in "\"'":
                self.skip(_STRING)
                name = str(tomllib.loads(f"name = {self.text[start : self.at]}")["name"])
            else:
                self.skip(_BARE)
                name = self.text[start : self.at]
            path = (*path, name)
            if table is not None:
                line = self.text.count("\n", 0, start) + 1
                column = start - self.text.rfind("\n", 0, start)
                self.found.setdefault(path, (line, column))
            self.skip(_SPACE)
            if self.text[self.at] != ".":
                return path
            self.at += 1

    def value(self, path: tuple[str, ...] | None) -> None:
        self.skip(_SPACE)
        first = self.text[self.at]
        if first == "[":
            self.at += 1
            while self.text[self.skip(_BLANK)] != "]":
                self.value(None)
                if self.text[self.skip(_BLANK)] == ",":
                    self.at += 1
            self.at += 1
        elif first == "{":
            self.at += 1
            while self.text[self.skip(_BLANK)] != "}":
                self.pair(path)
                if self.text[self.skip(_BLANK)] == ",":
                    self.at += 1
            self.at += 1
        elif first in "\"'":
            self.skip(_STRING)
        else:
            self.skip(_SCALAR)

    def skip(self, pattern: re.Pattern[str]) -> int:
        """Pass what matches here, perhaps nothing; returns the new place."""
        match = pattern.match(self.text, self.at)
        if match is not None:
            self.at = match.end()
        return self.at
