"""What GitHub and git make of the repository: issue forms, and the hooks before a commit."""

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.unit import test_lint

ROOT = Path(__file__).parents[2]
FORMS = sorted(set(ROOT.glob(".github/ISSUE_TEMPLATE/*.yml")) - {*ROOT.glob("**/config.yml")})
INPUTS = {"checkboxes", "dropdown", "input", "textarea"}


def loaded(path: Path) -> Any:
    return yaml.safe_load(path.read_text())


@pytest.mark.parametrize("form", FORMS, ids=lambda path: path.name)
def test_forms_are_forms(form: Path) -> None:
    """As GitHub's syntax of issue forms has it; one that is not is left out without a word."""
    content = loaded(form)
    assert {"name", "description", "body"} <= content.keys()
    inputs = [each for each in content["body"] if each["type"] != "markdown"]
    assert {each["type"] for each in inputs} <= INPUTS
    assert all(each["attributes"]["label"] for each in inputs)
    names = [each["id"] for each in inputs]
    assert len(names) == len(set(names))
    assert all(re.fullmatch(r"[\w-]+", name) for name in names)


def test_who_reports_a_fault_says_what_the_node_is_like() -> None:
    """`cni-netkit doctor --json` is asked for by every form, and must be answered for a fault."""
    assert {each.stem for each in FORMS} == {"fault", "nic", "wish"}
    for form in FORMS:
        (doctor,) = (each for each in loaded(form)["body"] if each.get("id") == "doctor")
        assert doctor["attributes"]["label"] == "cni-netkit doctor --json"
        assert form.stem == "wish" or doctor["validations"]["required"] is True


def test_links_of_forms_are_the_repositorys() -> None:
    """From the page on which a form is, OWNER/NAME/issues/new, to files that there are."""
    links = {link for form in FORMS for link in re.findall(r"\]\((.+?)\)", form.read_text())}
    assert "../security/policy" in links
    for link in links - {"../security/policy"}:
        assert (ROOT / link.removeprefix("../blob/HEAD/")).exists()


def test_hooks_are_the_linters_of_the_tests() -> None:
    """Each of them, in the tests' own environment."""
    (local,) = loaded(ROOT / ".pre-commit-config.yaml")["repos"]
    assert local["repo"] == "local"
    entries = {hook["entry"] for hook in local["hooks"]}
    assert all(hook["language"] == "system" for hook in local["hooks"])
    assert entries - {each for each in entries if each.startswith(".venv/bin/")} == {
        "shellcheck --external-sources"
    }
    for command in test_lint.LINTERS:
        words = [
            each for each in command if each not in ("--check", "--no-cache", "--no-incremental")
        ]
        assert " ".join([f".venv/bin/{words[0]}", *words[1:]]) in entries
