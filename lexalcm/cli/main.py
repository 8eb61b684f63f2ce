"""The front: ``fairseq2 <group> <command> ...``. Finds the command, parses its arguments, runs it, reports failures."""

from __future__ import annotations

import os
import sys
import warnings
from collections.abc import Iterable, Sequence
from importlib import import_module

from lexalcm.cli.failures import report
from lexalcm.cli.groups import Group, GroupTable, other_front
from lexalcm.cli.lcm import GROUP
from lexalcm.cli.parser import CommandParser
from lexalcm.errors import LexalcmError, near_match
from lexalcm.installation import installed_version

_DEBUG_HELP = "show the full traceback of an error"


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command line ``argv`` (default: of this process) and returns its exit code.

    0: done. 1: the run failed. 2: something the user can mend. 130: interrupted.
    """
    words, debug = _take_debug(sys.argv[1:] if argv is None else argv)
    # Where in our code a warning about the user's data was raised tells the user nothing.
    warnings.formatwarning = lambda message, *_, **__: f"warning: {message}\n"
    try:
        return _dispatch(words, debug=debug)
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        # The reader of our output went away (`| head`): what Python still flushes at exit must go nowhere.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    except Exception as error:  # the border of the program: every error ends here as text and an exit code
        return report(error, debug=debug)


def _take_debug(argv: Sequence[str]) -> tuple[list[str], bool]:
    """Takes ``--debug`` out wherever it stands before a lone ``--``: it belongs to the front, not to a command."""
    end = list(argv).index("--") if "--" in argv else len(argv)
    words = [word for word in argv[:end] if word != "--debug"]
    return [*words, *argv[end:]], len(words) < end


def _dispatch(words: list[str], *, debug: bool) -> int:
    if words[:2] == ["lcm", "doctor"]:
        # Another distribution may claim the group: the command that tells so must run all the same.
        return _run_in_group("lcm", GROUP, words[1:], debug=debug)
    table = GroupTable.discover()
    if not words or words[0] in ("-h", "--help"):
        print(_overview(table))
        return 0
    if words[0] == "--version":
        print(_versions())
        return 0
    group_name, rest = words[0], words[1:]
    if group_name not in table.names:
        front = other_front()
        if front is not None:
            # Another distribution has a `fairseq2` command too: what is not ours is theirs.
            return int(front.load()() or 0)
        return _unknown("fairseq2", "group", group_name, table.names)
    return _run_in_group(group_name, table.load(group_name), rest, debug=debug)


def _run_in_group(group_name: str, group: Group, words: list[str], *, debug: bool) -> int:
    prog = f"fairseq2 {group_name}"
    if not words or words[0] in ("-h", "--help"):
        print(_listing(f"usage: {prog} COMMAND ...", group.help, {n: c.help for n, c in group.commands.items()}))
        print(f"\n{prog} COMMAND --help explains one of them.")
        return 0
    name, rest = words[0], words[1:]
    command = group.commands.get(name)
    if command is None:
        return _unknown(prog, "command", name, group.commands)
    module = import_module(command.module)
    parser = CommandParser(prog=f"{prog} {name}", description=module.__doc__)
    module.add_arguments(parser)
    parser.add_argument("--debug", action="store_true", help=_DEBUG_HELP)
    args = parser.parse_args(rest)
    args.debug = debug
    code = int(module.run(args) or 0)
    sys.stdout.flush()
    return code


def _unknown(prog: str, kind: str, name: str, known: Iterable[str]) -> int:
    known = sorted(known)
    sys.stderr.write(f'{prog}: error: "{name}" is not a known {kind}.{near_match(name, known)}\n')
    sys.stderr.write(f"Known: {', '.join(known)}. See {prog} --help\n")
    return 2


def _overview(table: GroupTable) -> str:
    rows: dict[str, str] = {}
    for name in table.names:
        try:
            rows[name] = table.load(name).help
        except LexalcmError as error:
            rows[name] = str(error).partition("\n")[0]
    text = _listing("usage: fairseq2 GROUP COMMAND ...", "Commands of fairseq2 and of packages built on it.", rows)
    front = other_front()
    if front is not None and front.dist is not None:
        text += f"\n\nOther words are passed on to the fairseq2 command of {front.dist.name}."
    options = {"--version": "show the versions installed", "--debug": _DEBUG_HELP}
    return f"{text}\n\n{_rows(options)}\n\nfairseq2 GROUP --help lists a group's commands."


def _listing(usage: str, about: str, rows: dict[str, str]) -> str:
    return f"{usage}\n\n{about}\n\n{_rows(rows)}"


def _rows(rows: dict[str, str]) -> str:
    width = max(len(name) for name in rows) + 2
    return "\n".join(f"  {name:<{width}}{text}" for name, text in rows.items())


def _versions() -> str:
    packages = ("lexalcm", "fairseq2", "fairseq2n", "torch")
    return ", ".join(f"{package} {installed_version(package) or '(not installed)'}" for package in packages)


if __name__ == "__main__":
    sys.exit(main())
