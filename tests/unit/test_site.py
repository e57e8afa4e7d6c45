"""The documentation as a site: built without a warning, and every link of it leads somewhere."""

from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote

import pytest

from tests import site

ROOT = Path(__file__).parents[2]
ELSEWHERE = ("http:", "https:", "mailto:", "data:")


class Page(HTMLParser):
    """What a page links to, also beside its text; what it loads; what in it can be linked to."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.links: list[str] = []
        self.navigation: list[str] = []
        self._navs: list[bool] = []
        self.loaded: list[str] = []
        self.anchors = {"", "__skip"}
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = {name: value or "" for name, value in attrs}
        self.anchors |= {given.get("id", ""), given.get("name", "")}
        if tag == "nav":
            self._navs.append("md-nav--primary" in given.get("class", "").split())
        elif tag == "a" and "href" in given:
            self.links.append(given["href"])
            self.navigation += [given["href"]] if any(self._navs) else []
        elif tag == "link" and "stylesheet" in given.get("rel", ""):
            self.loaded.append(given["href"])
        elif tag in ("img", "script") and "src" in given:
            self.loaded.append(given["src"])

    def handle_endtag(self, tag: str) -> None:
        if tag == "nav":
            self._navs.pop()


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The site, built strictly."""
    folder = tmp_path_factory.mktemp("site") / "site"
    site.build(folder)
    return folder


@pytest.fixture(scope="module")
def pages(built: Path) -> dict[Path, Page]:
    """Every page but the one for addresses that there are not: its links are of a server's root."""
    found = {each: Page(each.read_text()) for each in built.rglob("*.html")}
    return {path: page for path, page in found.items() if path.name != "404.html"}


def leads_to(built: Path, page: Path, link: str) -> tuple[Path, str]:
    """The file that a link is of, as a server of files has it, and the anchor in it."""
    target, _, anchor = unquote(link).partition("#")
    path = (built / target[1:] if target.startswith("/") else page.parent / target).resolve()
    if not target:
        path = page
    return (path / "index.html" if path.is_dir() else path), anchor


def test_every_page_is_there(built: Path, pages: dict[Path, Page]) -> None:
    """Each Markdown file of the root and of docs/ has one."""
    documents = [*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")]
    assert len(documents) > 30
    for document in documents:
        path = document.relative_to(ROOT).with_suffix("")
        path = path.parent if path.name == "README" else path
        assert built / path / "index.html" in pages


def test_every_link_leads_somewhere(built: Path, pages: dict[Path, Page]) -> None:
    """Also those of the navigation, and those to headings."""
    broken = set()
    for path, page in pages.items():
        for link in page.links:
            if not link.startswith(ELSEWHERE):
                target, anchor = leads_to(built, path, link)
                there = pages[target].anchors if target in pages else {""}
                if not target.is_file() or anchor not in there:
                    broken.add(f"{path.relative_to(built)}: {link}")
    assert broken == set()


def test_nothing_is_loaded_from_elsewhere(built: Path, pages: dict[Path, Page]) -> None:
    """Styles, programs and pictures are the site's own, and are there."""
    for path, page in pages.items():
        assert page.loaded
        for link in page.loaded:
            assert not link.startswith((*ELSEWHERE, "//"))
            assert leads_to(built, path, link)[0].is_file()


def test_every_page_is_in_the_navigation(built: Path, pages: dict[Path, Page]) -> None:
    """Of each page, beside it; however else it can be found."""
    for path, page in pages.items():
        targets = {leads_to(built, path, link)[0] for link in page.navigation}
        assert targets >= set(pages) - {path}


def test_a_warning_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A link that leads nowhere keeps the site from being built, and what was there stays."""
    for folder in site.FOLDERS:
        (tmp_path / "root" / folder).mkdir(parents=True)
    (tmp_path / "root" / "README.md").write_text("# Title\n\n[nowhere](docs/nowhere.md)\n")
    (tmp_path / "root" / "mkdocs.yml").write_text("site_name: test\nnav: [README.md]\n")
    monkeypatch.setattr(site, "ROOT", tmp_path / "root")
    (tmp_path / "site").mkdir()
    with pytest.raises(site.SiteError, match="page does not exist"):
        site.build(tmp_path / "site")
    assert (tmp_path / "site").exists()


def test_navigation_has_the_pages_that_there_are(tmp_path: Path) -> None:
    """In order of their numbers; a section without a page is none."""
    for name in ("D-10.md", "D-9.md", "other.md"):
        (tmp_path / name).touch()
    wanted = ["other.md", {"Decisions": ["D-*.md", "missing.md"]}, {"Empty": ["none/*.md"]}]
    assert site.navigation(wanted, tmp_path) == ["other.md", {"Decisions": ["D-9.md", "D-10.md"]}]
