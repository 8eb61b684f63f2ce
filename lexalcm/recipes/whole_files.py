"""YAML files of a run's folder that are there whole or not at all, whenever the process is killed."""

from __future__ import annotations

import os
from pathlib import Path
from typing import IO, final

from fairseq2.file_system import FileSystem
from fairseq2.utils.yaml import RuamelYamlDumper, YamlDumper
from typing_extensions import override


@final
class WholeYamlDumper(YamlDumper):
    """fairseq2's, which writes in place, but written aside and renamed."""

    def __init__(self, file_system: FileSystem) -> None:
        self._dumper = RuamelYamlDumper(file_system)

    @override
    def dump(self, obj: object, output: Path | IO[str]) -> None:
        if not isinstance(output, Path):
            self._dumper.dump(obj, output)
            return
        partial = output.with_name(f"{output.name}.partial")
        self._dumper.dump(obj, partial)
        os.replace(partial, output)
