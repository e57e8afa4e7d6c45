"""The documentation as a site: `python -m tests.site FOLDER`.

Pages are those of the repository, README and all, so that links are right in both. Warnings are errors.
"""

import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parents[1]
FOLDERS = ("conf", "docs", "examples")
"""What pages of these and of the root show, and link to."""


class SiteError(Exception):
    """The site cannot be built; the text is what the builder says."""


def build(into: Path) -> None:
    """Build the site into a folder, which is replaced. Raises `SiteError`, for warnings too."""
    with tempfile.TemporaryDirectory(prefix="cni-netkit-site-") as name:
        project = Path(name)
        pages = project / "pages"
        for folder in FOLDERS:
            shutil.copytree(ROOT / folder, pages / folder)
        for page in ROOT.glob("*.md"):
            shutil.copy(page, pages)
        settings = yaml.safe_load((ROOT / "mkdocs.yml").read_text())
        settings["nav"] = navigation(settings["nav"], pages)
        settings |= {"docs_dir": "pages", "site_dir": "site"}
        (project / "mkdocs.yml").write_text(yaml.safe_dump(settings))
        _zensical(project)
        shutil.rmtree(into, ignore_errors=True)
        shutil.copytree(project / "site", into)


def navigation(entries: list[Any], pages: Path) -> list[Any]:
    """The navigation with pages in place of patterns, and without sections that have none."""
    found: list[Any] = []
    for entry in entries:
        if isinstance(entry, str):
            found += [str(each.relative_to(pages)) for each in sorted(pages.glob(entry), key=_key)]
        else:
            ((title, inside),) = entry.items()
            if section := navigation(inside, pages):
                found.append({title: section})
    return found


def _key(page: Path) -> list[int | str]:
    """For D-9 to come before D-10."""
    return [int(each) if each.isdigit() else each for each in re.split(r"(\d+)", page.name)]


def _zensical(project: Path) -> None:
    command = [sys.executable, "-m", "zensical", "build", "--strict"]
    done = subprocess.run(command, cwd=project, capture_output=True, text=True)
    said = re.sub(r"\x1b\[[0-9;]*m", "", done.stdout + done.stderr)
    if done.returncode != 0 or "Warning" in said:
        raise SiteError(said)


if __name__ == "__main__":
    try:
        build(Path(sys.argv[1]))
    except SiteError as error:
        sys.exit(str(error))
