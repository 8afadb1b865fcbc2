"""
Install Debian packages: all that is asked for where a function is built, and what runs where it is shipped.

``packages.py build`` installs $ADDITIONAL_PACKAGE, ``packages.py list`` then writes which packages the function needs
to run, and ``packages.py run`` installs those in the image that is shipped.  $UPGRADE_PACKAGES=true upgrades the
image's own packages both times.
"""

import os
import re
import subprocess
import sys
from pathlib import Path

BEFORE = Path("/opt/packages-before.txt")
LIST = Path("/opt/packages.txt")
BUILD_SECTIONS = {"debug", "devel", "golang", "libdevel", "rust", "vcs"}
"""Sections of Debian whose packages make programs and do not run them."""


def main() -> None:
    {"build": install_for_build, "list": write_list, "run": install_for_run}[sys.argv[1]]()


def install_for_build() -> None:
    BEFORE.write_text("\n".join(sorted(installed())))
    apt_install(os.environ.get("ADDITIONAL_PACKAGE", "").split())


def write_list() -> None:
    wanted = os.environ.get("ADDITIONAL_PACKAGE", "").split()
    running = {name for name in wanted if not builds(name)}
    running |= {library for name in wanted if builds(name) for library in libraries_of(name)}
    running |= owners(linked_files(Path("/opt/function")))
    LIST.write_text("".join(f"{name}\n" for name in sorted(running - set(BEFORE.read_text().split()))))


def install_for_run() -> None:
    if apt_install(LIST.read_text().split()):
        run("sh", "/opt/faasbase/image/harden.sh")


def apt_install(packages: list[str]) -> bool:
    """Install *packages*, upgrade if asked to, and leave no lists, archives and logs behind."""
    upgrade = os.environ.get("UPGRADE_PACKAGES", "").lower() in ("true", "1")
    if not packages and not upgrade:
        return False
    apt("update")
    if upgrade:
        apt("upgrade")
    if packages:
        apt("install", *packages)
    run("apt-get", "clean")
    run("sh", "-c", "rm -rf /var/lib/apt/lists/* /var/log/* /var/cache/ldconfig/*")
    return True


def apt(*arguments: str) -> None:
    os.environ["DEBIAN_FRONTEND"] = "noninteractive"
    run("apt-get", "-qq", "-y", "--no-install-recommends", "-o", "Acquire::Retries=3", *arguments)


def builds(package: str) -> bool:
    """Tell compilers, headers and version control from what runs."""
    name = bare_name(package)
    return name.endswith("-dev") or field(name, "Section").rpartition("/")[2] in BUILD_SECTIONS


def libraries_of(package: str) -> set[str]:
    """Return the libraries whose headers *package* brings: what is loaded by name at run time is linked nowhere."""
    depends = re.split(r"[,|]", field(bare_name(package), "Depends"))
    names = {re.split(r"[ (:]", dependency.strip())[0] for dependency in depends} - {""}
    return {name for name in names if field(name, "Section").rpartition("/")[2] == "libs"}


def linked_files(folder: Path) -> set[Path]:
    """Return the shared libraries outside of *folder* that what is in it is linked with."""
    modules = [str(path) for path in folder.rglob("*.so*") if path.is_file() and not path.is_symlink()]
    listed = subprocess.run(["ldd", *modules], capture_output=True, text=True, check=False).stdout if modules else ""
    found = {Path(path).resolve() for path in re.findall(r"=> (/\S+)", listed)}
    return {path for path in found if not path.is_relative_to(folder)}


def owners(files: set[Path]) -> set[str]:
    """Return the packages that *files* come from; what comes from none is the image's own."""
    if not files:
        return set()
    listed = subprocess.run(["dpkg-query", "-S", *map(str, files)], capture_output=True, text=True, check=False).stdout
    return {line.split(":")[0] for line in listed.splitlines() if not line.startswith("diversion ")}


def installed() -> list[str]:
    return output("dpkg-query", "-W", "-f", "${Package}\n").split()


def field(package: str, name: str) -> str:
    """Return a field of an installed package, empty for one that is only provided by others."""
    return subprocess.run(
        ["dpkg-query", "-W", "-f", f"${{{name}}}\n", package], capture_output=True, text=True, check=False
    ).stdout.partition("\n")[0]


def bare_name(package: str) -> str:
    """Return the name of *package* without version, release and architecture, as apt-get takes them."""
    return re.split(r"[=/:]", package)[0]


def output(*command: str) -> str:
    return subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout


def run(*command: str) -> None:
    subprocess.run(command, check=True)


if __name__ == "__main__":
    main()
