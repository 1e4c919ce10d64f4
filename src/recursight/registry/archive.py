"""Checks an exported program before torch opens it: torch unpickles some entries, evaluates strings, and generates code
from names.

Only what `registry.export` writes is allowed: the entries of the archive by name, and every string in its JSON by what
may stand there.
"""

import json
import re
import zipfile
from pathlib import Path
from typing import Any

SAMPLES = "data/sample_inputs/model.pt"  # always empty: torch unpickles it
DESCRIPTIONS = (
    "data/weights/model_weights_config.json",
    "data/constants/model_constants_config.json",
    "models/model.json",
)
ENTRY = re.compile(
    "|".join([*map(re.escape, (SAMPLES, *DESCRIPTIONS)), r"data/weights/weight_\d+", r"data/constants/tensor_\d+"])
    + r"|archive_format|archive_version|byteorder|\.data/version|\.data/serialization_id"
)
NAME = re.compile(r"[\w.]*")  # torch generates Python from names: nothing that could call or assign
OPERATOR = re.compile(
    r"torch\.ops\.aten\.(?!from_file\.|save\.)\w+\.\w+|torch\.ops\.recursight\.\w+\.default"
    r"|_operator\.(?:add|sub|mul|floordiv|truediv|mod|neg|eq|ne|lt|le|gt|ge|getitem)"
)
# A symbolic size in sympy's srepr, which torch evaluates as Python.
SIZE = re.compile(
    r"(?:(?:Integer|Symbol|Add|Mul|Max|Min|FloorDiv|Mod|PythonMod|CeilDiv)\("
    r"|'[su]\d{1,6}'|(?:integer|positive|nonnegative)=True|-?\d{1,18}|[(), ])*"
)
# Nested arguments; torch imports the module of any other type.
STRUCTURE = re.compile(
    r'(?:"(?:type|context|children_spec)"|"builtins\.(?:tuple|list|dict)"|"null"|"\[\]"|null|\d|[\[\]{}:, ])*'
)
WORDS = re.compile(r"[\w .,+>-]*")
NOTHING = re.compile(r"(?!)")
ALLOWED = {
    "as_operator": OPERATOR,
    "as_string": WORDS,
    "expr_str": SIZE,
    "guards_code": NOTHING,
    "in_spec": STRUCTURE,
    "out_spec": STRUCTURE,
    "path_name": re.compile(r"(?:weight|tensor)_\d+"),
    "target": OPERATOR,
    "torch_version": WORDS,
}
COMMENTS = {"stack_trace", "nn_module_stack", "torch_fn"}  # of a node's metadata: kept as text


def check_archive(path: Path) -> None:
    """Refuses a file that holds anything but tensors and a graph of known operators.

    Raises:
        ValueError: naming what is not allowed.
    """
    from torch.export.pt2_archive import PT2ArchiveReader  # slow to import

    with zipfile.ZipFile(path) as archive:
        listed = [entry.filename.partition("/")[2] for entry in archive.infolist()]
    reader = PT2ArchiveReader(str(path))  # both readers are torch's, and may find other entries in a forged file
    names = reader.get_file_names()
    if sorted(names) != sorted(listed) or len(set(names)) != len(names):
        raise ValueError(f"{path.name} is not a well-formed archive.")
    for name in names:
        if not ENTRY.fullmatch(name):  # lower case only: torch's look-up ignores case
            raise ValueError(f"{path.name}: the entry {name!r} is not allowed, since torch could run code from it.")
    if reader.read_bytes(SAMPLES):
        raise ValueError(f"{path.name}: {SAMPLES} is pickled; such a model is not loaded.")
    for name in DESCRIPTIONS:
        _check(f"{path.name}: {name}", json.loads(reader.read_string(name)), "")


def _check(where: str, content: Any, key: str) -> None:
    """Checks a value of the JSON and everything in it.

    Args:
        where: file and entry, for the message.
        content: the value.
        key: under which it stands.
    """
    if isinstance(content, dict):
        for inner, value in content.items():
            if key == "metadata" and inner in COMMENTS and isinstance(value, str):
                continue
            if key == "metadata" or not NAME.fullmatch(inner):
                raise ValueError(f"{where}: the key {inner[:80]!r} is not allowed.")
            _check(where, value, inner)
    elif isinstance(content, list):
        for value in content:
            _check(where, value, key)
    elif key == "use_pickle" and content is not False:
        raise ValueError(f"{where}: a tensor is pickled; such a model is not loaded.")
    elif isinstance(content, str) and not ALLOWED.get(key, NAME).fullmatch(content):
        raise ValueError(f"{where}: {key} {content[:80]!r} is not allowed, since torch could run it.")
