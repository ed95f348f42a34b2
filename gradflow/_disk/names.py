"""Names of any kind as names of files."""

import hashlib
import re
from pathlib import Path
from urllib.parse import unquote_to_bytes

# Of the 255 bytes that file systems give to a name.
_LONGEST = 200
_UNSAFE = re.compile(rb"[^a-z0-9_.-]|^\.")


def to_file_name(name: str) -> str:
    """Another file name for each name, which stays readable where it is of small
    letters, digits, `_`, `-` and `.`; all else becomes `%` and its bytes.

    Capitals too, since there are disks to which `Rho` and `rho` are the same. A name
    that is too long for a file ends with a hash instead, which cannot be undone.
    """
    data = name.encode("utf-8", "surrogatepass")
    encoded = _UNSAFE.sub(lambda match: b"%%%02x" % match[0][0], data).decode("ascii")
    if len(encoded) > _LONGEST:
        return f"{encoded[:150]}%-{hashlib.sha256(data).hexdigest()[:32]}"
    return encoded or "%"


def to_path(name: str, suffix: str) -> Path:
    """Another relative path for each name: what comes before a slash is a folder."""
    *folders, last = map(to_file_name, name.split("/"))
    # So that no folder has the name of a file.
    folders = [folder.replace(".", "%2e") for folder in folders]
    return Path(*folders, f"{last}{suffix}")


def from_path(path: Path, suffix: str) -> str:
    """The name whose path it is."""
    parts = (*path.parts[:-1], path.name.removesuffix(suffix))
    return "/".join(map(from_file_name, parts))


def from_file_name(encoded: str) -> str:
    """The name whose file it is; what is left of it, where it was too long."""
    if encoded == "%":
        return ""
    if "%-" in encoded:
        return encoded
    return unquote_to_bytes(encoded).decode("utf-8", "surrogatepass")
