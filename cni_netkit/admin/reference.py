"""docs/reference.md: every key of the configurations, from the models that believe them.

`python -m cni_netkit.admin.reference >docs/reference.md` writes it.
"""

import json
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from cni_netkit.admin import descriptions
from cni_netkit.spec.accepted import Accepted
from cni_netkit.spec.claims import Parameters
from cni_netkit.spec.config import FOREIGN_KEYS, NetConf
from cni_netkit.spec.ipam import HostLocalConf
from cni_netkit.spec.nics import Nics
from cni_netkit.spec.static import StaticConf

HEAD = """\
<!-- Made by python -m cni_netkit.admin.reference of models in cni_netkit/spec: change those. -->

# Configuration reference

Every key of a network configuration of type `netkit`, of its `ipam`, of `nics.json`, and of what
a ResourceClaim says to the driver `queues.cni-netkit`. A key that is absent, or null, has its
default. Unknown keys are refused, and all faults of a configuration are told at once. The column
Linux has the release that has something first; what else a key needs stands at the end of its
meaning. `cni-netkit schema`, `cni-netkit schema nics` and `cni-netkit schema claim` print the same
for programs. In a path, `[]` stands for each entry of a list.
"""

CONFIGURATION = """\
What stands in a file under `/etc/cni/net.d` beside `"type": "netkit"`. Passed over, since the
specification, libcni or runtimes put them there:
{foreign}, and keys that begin with `cni.dev/`.
"""

IPAM = """\
Keys are taken in any case, as by the reference plugin, whose configurations and files these are.
"""

RUNTIME = """\
{text} The runtime writes it, of what
it knows of the container, where the plugin declares the capability (`"capabilities": {{"mac":
true}}`). Keys are taken in any case; what is not listed here is passed over.
"""

KINDS = {bool: "true or false", int: "number", str: "string", tuple: "list"}
SAYS_NO_MORE = {"a string", "true or false", "an object"}
COLUMNS = ("key", "type", "values", "default", "Linux", "meaning")


@dataclass(frozen=True)
class Section:
    """A model and the path of its keys, "" for those of a whole file."""

    model: type[BaseModel]
    path: str = ""

    def rows(self) -> Iterator[Sequence[str]]:
        """One for each key."""
        described = descriptions.of(self.model)
        for name, field in self.model.model_fields.items():
            about, accepted = described[name], _accepted(field)
            values = accepted.words
            yield (
                f"`{self._within(field.alias or name)}`",
                " or ".join(dict.fromkeys(_kinds(accepted))),
                "" if values in SAYS_NO_MORE else values,
                _default(field),
                about.linux,
                about.text + (f" **Needs** {about.needs}." if about.needs else ""),
            )

    def inner(self) -> Iterator["Section"]:
        """Those of the objects in it, in order."""
        for name, field in self.model.model_fields.items():
            for model, more in _models(_accepted(field)):
                yield Section(model, self._within(field.alias or name) + more)

    def _within(self, key: str) -> str:
        return f"{self.path}.{key}" if self.path else key


def text() -> str:
    """The whole page."""
    configuration = CONFIGURATION.format(
        foreign=", ".join(f"`{key}`" for key in sorted(FOREIGN_KEYS))
    )
    return "\n".join(
        (
            HEAD,
            *_page("The network configuration", Section(NetConf), configuration),
            *_page("`ipam` of type `host-local`", Section(HostLocalConf, "ipam"), IPAM),
            *_page("`ipam` of type `static`", Section(StaticConf, "ipam"), IPAM),
            *_page("`/etc/cni-netkit/nics.json`", Section(Nics)),
            *_page("ResourceClaims", Section(Parameters, "opaque.parameters")),
        )
    )


def _page(title: str, section: Section, intro: str = "") -> Iterator[str]:
    """A chapter: a section, and below it those of the objects in it."""
    yield from (f"## {title}\n", intro or _intro(section), _table(section))
    yield from _subsections(section)


def _subsections(section: Section) -> Iterator[str]:
    for each in section.inner():
        yield from (f"### `{each.path}`\n", _intro(each), _table(each))
        yield from _subsections(each)


def _intro(section: Section) -> str:
    said = (section.model.__doc__ or "").partition("\n")[0]
    return RUNTIME.format(text=said) if section.path == "runtimeConfig" else f"{said}\n"


def _table(section: Section) -> str:
    lines = [COLUMNS, ["---"] * len(COLUMNS), *section.rows()]
    return "".join(f"| {' | '.join(_cell(each) for each in line)} |\n" for line in lines)


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


def _accepted(field: FieldInfo) -> Accepted:
    return Accepted.of(field.annotation, tuple(field.metadata))


def _kinds(accepted: Accepted) -> Iterator[str]:
    """The types of JSON."""
    if accepted.form and accepted.form.reads:
        schema: Any = accepted.form.schema
        names = {"array": "list", "string": "string"}
        yield from (names[each["type"]] for each in schema.get("anyOf", [schema]))
        return
    for each in accepted.alternatives:
        if get_origin(each.type) is Literal:
            yield from (KINDS[type(value)] for value in get_args(each.type))
        elif each.type is Any:
            yield ""
        else:
            yield KINDS.get(get_origin(each.type) or each.type, "object")


def _default(field: FieldInfo) -> str:
    """As JSON; nothing where the key says something only where it is there."""
    if field.is_required():
        return "required"
    value = field.default
    if value in (None, "", ()) or isinstance(value, BaseModel):
        return ""
    return f"`{json.dumps(value)}`"


def _models(accepted: Accepted) -> Iterator[tuple[type[BaseModel], str]]:
    """The objects that a value is or has in it, and the brackets of the lists around them."""
    for each in accepted.alternatives:
        if get_origin(each.type) is tuple and not accepted.reads:
            yield from ((model, f"[]{more}") for model, more in _models(each.item))
        elif isinstance(each.type, type) and issubclass(each.type, BaseModel):
            yield each.type, ""


if __name__ == "__main__":
    sys.stdout.write(text())
