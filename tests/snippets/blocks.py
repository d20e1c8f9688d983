"""The fenced blocks of README and docs."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
_FENCE = re.compile(r"\s*(`{3,}|~{3,})\s*(\S*)")


@dataclass(frozen=True)
class Block:
    """A fenced block; `line` counts from 1 and is that of its first line of text."""

    page: str
    heading: str
    line: int
    language: str
    text: str

    @property
    def first_line(self) -> str:
        return self.text.partition("\n")[0]

    def __str__(self) -> str:
        return f"{self.page}:{self.line} ({self.heading})"


def blocks_of(path: Path) -> list[Block]:
    """Return the blocks of a page in order."""
    page = path.relative_to(ROOT).as_posix()
    blocks: list[Block] = []
    heading, fence, start, language = "", "", 0, ""
    lines = path.read_text().splitlines()
    for number, line in enumerate(lines, start=1):
        match = _FENCE.fullmatch(line)
        if match and not fence:
            (fence, language), start = match.groups(), number
        elif match and match[1].startswith(fence) and not match[2]:
            text = "\n".join(lines[start : number - 1]) + "\n"
            blocks.append(Block(page, heading, start + 1, language, text))
            fence = ""
        elif line.startswith("#") and not fence:
            heading = line.lstrip("# ")
    assert not fence, f"{page}:{start}: a block that does not end"
    return blocks


BLOCKS = [block for path in PAGES for block in blocks_of(path)]
