"""The documents: links lead somewhere, error codes are all explained, quoted texts are the program's.

Decisions are all in their index, the files that are named exist, privileges are the manifests'.
"""

import ast
import functools
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from xml.etree import ElementTree

import pytest
import yaml

from cni_netkit.spec.errors import Code

ROOT = Path(__file__).parents[2]
DOCUMENTS = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")])
DECISIONS = ROOT / "docs" / "decisions"
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


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
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
    assert set(DOCUMENTS) <= reached


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


def test_what_the_dra_driver_says_is_quoted() -> None:
    """In docs/queues.md, to the letter; and each reason of a claim's condition."""
    page = (ROOT / "docs" / "queues.md").read_text()
    table = page.partition("### What the driver says")[2].partition("\n## ")[0]
    told = [
        text for row in re.findall(r"^\| (`.+?) \|", table, re.M) for text in row.split("`")[1::2]
    ]
    assert len(told) > 5
    for quote in told:
        for piece in filter(None, (each.strip(" :") for each in quote.split(ANYTHING))):
            assert any(piece in text for text in all_texts()), piece
    reasons = re.findall(r"^\| `([A-Z]\w+)` \|", page, re.M)
    texts = python_texts(ROOT / "cni_netkit" / "dra" / "status.py")
    words = {text for text in texts if re.fullmatch(r"[A-Z][A-Za-z]+", text)}
    assert set(reasons) == words - {"Ready"}


def decisions() -> dict[str, tuple[str, str]]:
    """Title and state of each decision, by its number, from its file."""
    found = {}
    for path in DECISIONS.glob("D-*.md"):
        heading, state = path.read_text().split("\n\n")[:2]
        number, _, title = heading.removeprefix("# ").partition(" ")
        assert number == path.stem
        found[number] = (title, state.removeprefix("State: "))
    return found


def test_the_index_has_every_decision() -> None:
    """In the order of their numbers, each with the title and the state that its file has."""
    rows = re.findall(
        r"^\| \[(D-\d+)\]\((.+?)\) \| (.+) \| (.+) \|$", (DECISIONS / "README.md").read_text(), re.M
    )
    assert [(number, (title, state)) for number, _, title, state in rows] == sorted(
        decisions().items(), key=lambda each: int(each[0].removeprefix("D-"))
    )
    assert all(target == f"{number}.md" for number, target, _, _ in rows)


@pytest.mark.parametrize("number", decisions())
def test_a_state_is_one_that_there_is(number: str) -> None:
    """What amends or supersedes another is newer, and says of which."""
    _, state = decisions()[number]
    link = r"\[(D-\d+)\]\(D-\d+\.md\)"
    known = rf"(accepted|superseded)(, not built yet)?(,? (amended )?by {link}( and {link})*)?"
    assert re.fullmatch(known, state), state
    for by in re.findall(link, state):
        assert int(by[2:]) > int(number[2:])
        assert f"[{number}]({number}.md)" in (DECISIONS / f"{by}.md").read_text()


def sources() -> list[Path]:
    """Every file of the project that is text."""
    listed = subprocess.run(
        ["git", "ls-files"], cwd=ROOT, check=True, capture_output=True, text=True
    )
    paths = [ROOT / each for each in listed.stdout.splitlines()]
    return [each for each in paths if each.exists() and each.suffix not in (".lock", ".svg")]


@pytest.mark.skipif(not (ROOT / ".git").exists(), reason="this is no checkout")
def test_decisions_that_are_named_exist() -> None:
    """Wherever a number stands: in code, tests, configurations, documents."""
    named = {
        (number, path.name)
        for path in sources()
        for number in re.findall(r"(?<![\w-])D-\d+", path.read_text(errors="ignore"))
    }
    assert len(named) > 50
    assert {each for each in named if each[0] not in decisions()} == set()


@pytest.mark.parametrize(
    "document",
    [*DECISIONS.glob("*.md"), ROOT / "DESIGN.md"],
    ids=lambda path: path.name,
)
def test_files_that_are_named_exist(document: Path) -> None:
    """Of the project, as `verbs.py` of the package or `tests/bench/run` of the root."""
    named = re.findall(
        r"`((?:[\w.-]+/)*[\w.-]+\.(?:py|c|md|svg|lock|sh)|(?:tests|kernel|steps|nics)/[\w./-]*)`",
        document.read_text(),
    )
    missing = {
        each
        for each in named
        if not any((root / each).exists() for root in (ROOT, ROOT / "cni_netkit"))
    }
    assert missing == set()


def test_the_house_is_the_one_described() -> None:
    """Each module and folder of the package, and no other."""
    text = (ROOT / "DESIGN.md").read_text()
    house = text.partition("## The house")[2].split("```")[1]
    package = ROOT / "cni_netkit"
    there = {path.name + "/" * path.is_dir() for path in package.iterdir()} - {"__pycache__/"}
    kernel = {path.name + "/" * path.is_dir() for path in (package / "kernel").iterdir()}
    there -= {"__init__.py", "py.typed"}
    kernel -= {"__init__.py", "__pycache__/", "errors.py"}
    told = set(re.findall(r"(?<=[\s,])(\w+(?:\.py|/))(?=[\s,]|$)", house)) - {"cni_netkit/"}
    assert told == there | kernel


def capabilities_told(column: int) -> set[str]:
    """What SECURITY.md has in its table of capabilities."""
    rows = re.findall(
        r"^\| (CAP_\w+) \| (yes|no) \| (yes|no) \|", (ROOT / "SECURITY.md").read_text(), re.M
    )
    return {row[0] for row in rows if row[column] == "yes"}


def test_capabilities_are_those_of_the_manifests() -> None:
    """Of the DaemonSet's agent and of the unit."""
    daemonset = yaml.safe_load((ROOT / "conf/kubernetes/base/daemonset.yaml").read_text())
    added = {
        container["name"]: {
            f"CAP_{each}" for each in container["securityContext"]["capabilities"]["add"]
        }
        for container in daemonset["spec"]["template"]["spec"]["containers"]
    }
    unit = (ROOT / "conf/systemd/cni-netkit-agent.service").read_text()
    (bounding,) = re.findall(r"^CapabilityBoundingSet=(.+)$", unit, re.M)
    assert added == {"agent": capabilities_told(1), "node": {"CAP_NET_ADMIN"}}
    assert capabilities_told(2) == set(bounding.split())


def test_every_reason_of_an_event_is_told_what_to_do_about() -> None:
    """Those that `cni-netkit node` gives, and no others, in the table of docs/kubernetes.md."""
    sources = [
        ROOT / "cni_netkit" / "node" / name for name in ("nodes.py", "process.py", "reconciler.py")
    ]
    given = {
        reason
        for path in sources
        for reason in re.findall(r'"([A-Z]\w*[a-z][A-Z]\w*)"', path.read_text())
    }
    table = (ROOT / "docs" / "kubernetes.md").read_text().partition("## What it says")[2]
    rows = re.findall(r"^\| (`.+?`) \|", table.partition("\n## ")[0], re.M)
    assert given == {each.strip("`") for row in rows for each in row.split(", ")}
    assert len(given) > 8


@pytest.mark.parametrize(
    "drawing", sorted(ROOT.glob("docs/drawings/*.svg")), ids=lambda path: path.name
)
def test_drawings_are_for_everybody(drawing: Path) -> None:
    """Well-formed, told in words too, for light and for dark, and in some document."""
    svg = "{http://www.w3.org/2000/svg}"
    root = ElementTree.fromstring(drawing.read_text())
    assert root.tag == f"{svg}svg"
    assert all(root.findtext(f"{svg}{each}") for each in ("title", "desc"))
    style = root.findtext(f"{svg}style") or ""
    light, _, dark = style.partition("prefers-color-scheme: dark")
    used = {each for element in root.iter() for each in element.get("class", "").split()}
    coloured = {name for name in used if re.search(rf"\.{name} {{[^}}]*#", light)}
    assert coloured
    assert {name for name in coloured if not re.search(rf"\.{name} {{[^}}]*#", dark)} == set()
    assert any(f"drawings/{drawing.name}" in document.read_text() for document in DOCUMENTS)
