"""Prints for which GPUs a shared library holds machine code, one `sm_NN` a line. (The toolkit's cuobjdump is often absent.)

    python tools/cuda_architectures.py LIBRARY

Reads the "fat binaries" that nvcc embeds: a header of 16 bytes (magic, version, its own size, the size of what follows),
then entries, each a header (kind: 1 is PTX, 2 machine code; its own size at byte 4, its data's at 8, the architecture at 28,
flags at 40, one of which is the `a` of sm_90a) and its data.
"""

from __future__ import annotations

import struct
import sys
from pathlib import Path

# The version and the header's size belong to the mark: the first word alone may also stand in somebody's code.
MAGIC = struct.pack("<IHH", 0xBA55ED50, 1, 16)
MACHINE_CODE = 2
SPECIFIC = 1 << 20


def architectures(binary: bytes) -> set[str]:
    """The architectures, as sm_90a, for which all the fat binaries of a library hold machine code."""
    found = None
    at = binary.find(MAGIC)
    while at >= 0:
        entry = at + 16
        end = entry + struct.unpack_from("<Q", binary, at + 8)[0]
        here = set()
        while entry < end:
            kind, _, entry_header, data = struct.unpack_from("<HHIQ", binary, entry)
            if kind == MACHINE_CODE:
                (number,), (flags,) = (struct.unpack_from("<I", binary, entry + offset) for offset in (28, 40))
                here.add(f"sm_{number}{'a' if flags & SPECIFIC else ''}")
            entry += entry_header + data
        found = here if found is None else found & here
        at = binary.find(MAGIC, end)
    return found or set()


if __name__ == "__main__":
    for architecture in sorted(architectures(Path(sys.argv[1]).read_bytes())):
        print(architecture)
