"""The documents: links lead somewhere, error codes are all explained, quoted texts are the program's."""

import ast
import functools
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from cni_netkit.spec.errors import Code

ROOT = Path(__file__).parents[2]
DOCUMENTS = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/*.md")])
TROUBLESHOOTING = ROOT / "docs" / "troubleshooting.md"
LINK = re.compile(r"\[[^][]+\]\(([^()\s]+)\)")
ANYTHING = "…"


def without_code(text: str) -> str:
    """Markdown without blocks and spans of code, in which nothing is a link or a heading."""
    text = re.sub(r"^```.*?^```$", "", text, flags=re.DOTALL | re.MULTILINE)
    return re.sub(r"`[^`\n]*`", "code", text)


def anchors(document: Path) -> set[str]:
    """What the headings of a document can be linked by, as GitHub makes it of their text."""
    text = re.sub(r"^```.*?^```$", "", document.read_text(), flags=re.DOTALL | re.MULTILINE)
    headings = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    kept = [re.sub(r"[^\w\- ]", "", heading.lower()) for heading in headings]
    return {heading.replace(" ", "-") for heading in kept}


def broken(document: Path) -> list[str]:
    """The relative links that lead nowhere."""
    found = []
    for target in LINK.findall(without_code(document.read_text())):
        path, _, anchor = target.partition("#")
        if re.match(r"[a-z]+:", target):
            continue
        leads_to = (document.parent / path).resolve() if path else document
        if not leads_to.exists() or (anchor and anchor not in anchors(leads_to)):
            found.append(target)
    return found


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_links_lead_somewhere(document: Path) -> None:
    """Every relative link has its file, and where it names one, its heading."""
    assert broken(document) == []


def test_every_document_can_be_found() -> None:
    """The README links to each file of docs/, or one that it links to does."""
    reached, ahead = set(), [ROOT / "README.md"]
    while ahead:
        document = ahead.pop()
        for target in LINK.findall(without_code(document.read_text())):
            leads_to = (document.parent / target.partition("#")[0]).resolve()
            if leads_to.suffix == ".md" and leads_to.exists() and leads_to not in reached:
                reached.add(leads_to)
                ahead.append(leads_to)
    assert set(ROOT.glob("docs/*.md")) <= reached


def sections() -> dict[int, str]:
    """The sections of the troubleshooting page, by code."""
    parts = re.split(r"^## Error (\d+)$", TROUBLESHOOTING.read_text(), flags=re.MULTILINE)
    return {int(code): text for code, text in zip(parts[1::2], parts[2::2], strict=True)}


def test_every_code_has_its_section() -> None:
    """And there is none without a code, none twice, and they are in order."""
    told = re.findall(r"^## (.+)$", TROUBLESHOOTING.read_text(), re.MULTILINE)
    assert told == [f"Error {int(code)}" for code in Code]


@pytest.mark.parametrize("code", list(Code), ids=lambda code: str(int(code)))
def test_every_section_quotes_what_the_user_sees(code: Code) -> None:
    assert quotes(sections()[code])


def quotes(text: str) -> list[str]:
    """The quoted texts, each a paragraph that begins with ">"."""
    return [quote.strip() for quote in re.findall(r"^> (.+)$", text, re.MULTILINE)]


def python_texts(path: Path) -> Iterator[str]:
    """The texts in a Python file, with "…" for what is inserted."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.JoinedStr):
            yield "".join(
                str(part.value) if isinstance(part, ast.Constant) else ANYTHING
                for part in node.values
            )
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.value


def c_texts(path: Path) -> Iterator[str]:
    """The string literals of a C file, with "…" for conversions; macros stand between their parts."""
    literal = r'"(?:[^"\\\n]|\\.)*"'
    for run in re.findall(rf"{literal}(?:\s*{literal})*", path.read_text()):
        text = "".join(part[1:-1] for part in re.findall(literal, run))
        yield re.sub(r"%[a-z]+", ANYTHING, text)


@functools.cache
def all_texts() -> list[str]:
    """Every text in the program."""
    package = ROOT / "cni_netkit"
    python = [text for path in package.rglob("*.py") for text in python_texts(path)]
    c = [text for path in package.rglob("*.c") for text in c_texts(path)]
    # The launcher puts this before what AGENT_FAILED is given.
    return python + c + [f"…: the agent at … {text}" for text in c]


@pytest.mark.parametrize("quote", [quote for text in sections().values() for quote in quotes(text)])
def test_quoted_texts_are_the_programs(quote: str) -> None:
    """To the letter, but for what is inserted; text may be missing where something is inserted."""
    pieces = [piece.strip() for piece in quote.split(ANYTHING) if piece.strip(" :,.()")]
    pattern = ".*".join(map(re.escape, pieces)) or r"…: internal|…: ?…"
    assert any(re.search(pattern, text, re.DOTALL) for text in all_texts()), pattern
