"""Groups of commands, and how the front finds them.

Any distribution adds a group by an entry point in the group ``fairseq2.cli`` whose value is an object with two
attributes: ``help`` (one line) and ``commands`` (name to an object with ``module`` and ``help``). A command's module
exports ``add_arguments(parser)`` and ``run(args) -> int``; it is imported only when that command is chosen.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import import_module
from importlib.metadata import EntryPoint
from typing import Final

from lexalcm.errors import SetupError
from lexalcm.installation import DOCTOR, installed_entries

CLI_GROUP: Final = "fairseq2.cli"
_CONSOLE_SCRIPT: Final = "fairseq2"

_OWN: Final = EntryPoint("lcm", "lexalcm.cli.lcm:GROUP", CLI_GROUP)
"""Known without metadata: an installation that has lost them must still be able to say so."""


@dataclass(frozen=True)
class Command:
    """One command: where it lives, and what the list says of it."""

    module: str
    """The module that exports ``add_arguments(parser)`` and ``run(args) -> int``."""

    help: str
    """One line."""


@dataclass(frozen=True)
class Group:
    """A named set of commands."""

    help: str
    """One line."""

    commands: Mapping[str, Command]
    """The commands by name."""


BUILT_IN = {
    "assets": Group(
        help="list and show the assets in fairseq2's own store",
        commands={
            "list": Command("lexalcm.cli.fairseq2_assets_list", "list available assets"),
            "show": Command("lexalcm.cli.fairseq2_assets_show", "show one asset's card"),
        },
    )
}


class GroupTable:
    """The groups of this installation. Names come from metadata; a group's object is loaded when it is asked for."""

    def __init__(self, entries: Mapping[str, list[EntryPoint]]) -> None:
        self._entries = entries

    @classmethod
    def discover(cls) -> GroupTable:
        """Reads the entry points of every installed distribution."""
        entries: dict[str, list[EntryPoint]] = defaultdict(list)
        for entry in [*installed_entries(CLI_GROUP)[0], _OWN]:
            # An editable install beside stale metadata lists the same entry twice.
            if all(entry.value != other.value for other in entries[entry.name]):
                entries[entry.name].append(entry)
        return cls(dict(entries))

    @property
    def names(self) -> list[str]:
        """All group names, sorted."""
        return sorted({*BUILT_IN, *self._entries})

    def load(self, name: str) -> Group:
        """Returns the group ``name``.

        :raises SetupError: two distributions claim the name, or the group's module fails or holds none.
        """
        entries = self._entries.get(name, [])
        claims = [f"{_distribution(entry)} ({entry.value})" for entry in entries]
        if name in BUILT_IN:
            claims.insert(0, "lexalcm (built in)")
        if len(claims) > 1:
            raise SetupError(
                f'The command group "{name}" is claimed by {" and ".join(claims)}. Uninstall one of them.\n{DOCTOR}'
            )
        if name in BUILT_IN:
            return BUILT_IN[name]
        entry = entries[0]
        try:
            group = entry.load()
            if not isinstance(group.commands, Mapping) or not isinstance(group.help, str):
                raise TypeError("`commands` must be a mapping, and `help` a text.")
        # What another package does when it is imported may fail in any way, and may even try to end the process.
        except (Exception, SystemExit) as error:
            reason = str(error).strip().partition("\n")[0] or type(error).__name__
            raise SetupError(
                f'The command group "{name}" of {claims[0]} cannot be loaded: {reason}\n{DOCTOR}'
            ) from error
        return group


def _distribution(entry: EntryPoint) -> str:
    if entry.dist is None:
        return "lexalcm" if entry == _OWN else "an unknown distribution"
    return entry.dist.metadata["Name"] or "an unknown distribution"


def other_front() -> EntryPoint | None:
    """Returns the ``fairseq2`` console script of another distribution, if one is installed beside ours."""
    for entry in installed_entries("console_scripts")[0]:
        if entry.name == _CONSOLE_SCRIPT and not entry.value.startswith("lexalcm."):
            return entry
    return None


def load_commands(name: str) -> int:
    """Imports the modules of all commands of a group, and returns how many there are.

    :raises SetupError: As :meth:`GroupTable.load`.
    """
    commands = GroupTable.discover().load(name).commands
    for command in commands.values():
        import_module(command.module)
    return len(commands)
