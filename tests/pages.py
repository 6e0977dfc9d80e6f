"""The project's pages: what is in their code blocks and behind their links."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[1]
README = ROOT / "README.md"
PAGES = sorted((ROOT / "docs").glob("*.md"))
FENCED = re.compile(r"^```(\w+)\n(.*?)^```", re.MULTILINE | re.DOTALL)


def read(page):
    return page.read_text(encoding="utf-8")


def blocks(page, language):
    """Those of one language, in order."""
    return [block for name, block in FENCED.findall(read(page)) if name == language]


def first_words(printed):
    """Of what a page prints, without lists."""
    lines = [line for line in printed.splitlines() if not line.startswith("- ")]
    return [line.split()[0].split("(")[0] for line in lines]


def missing_links(page):
    """Files and headings that a page links to and that are not there."""
    for path, _, anchor in re.findall(r"\]\((?!https?:)([^)#]*)(#([^)]*))?\)", read(page)):
        target = page.parent / path if path else page
        if not target.exists() or (anchor and anchor not in anchors(target)):
            yield f"{path}#{anchor}"


def anchors(page):
    """As GitHub names headings."""
    headings = re.findall(r"^#+ (.*)$", FENCED.sub("", read(page)), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", one.lower()).replace(" ", "-") for one in headings}
