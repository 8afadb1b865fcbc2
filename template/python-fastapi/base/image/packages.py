"""
Install Debian packages: all that is asked for where a function is built, and what runs where it is shipped.

``packages.py build`` installs $ADDITIONAL_PACKAGE and $RUNTIME_PACKAGE, ``packages.py list`` then writes which packages
the function needs to run: $RUNTIME_PACKAGE, whatever it is, and of the others what is no compiler, header or the like.
``packages.py run`` installs those in the image that is shipped; with $UPGRADE_PACKAGES=true it upgrades the others.
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
    apt_install([*asked_for("ADDITIONAL_PACKAGE"), *asked_for("RUNTIME_PACKAGE")])


def asked_for(build_arg: str) -> list[str]:
    return os.environ.get(build_arg, "").split()


def write_list() -> None:
    wanted = asked_for("ADDITIONAL_PACKAGE")
    running = {*asked_for("RUNTIME_PACKAGE"), *(name for name in wanted if not builds(name))}
    running |= {library for name in wanted if is_headers(name) for library in libraries_of(bare_name(name))}
    running |= owners(linked_files(Path("/opt/function")))
    LIST.write_text("".join(f"{name}\n" for name in sorted(running - set(BEFORE.read_text().split()))))
    # The same list makes the same layer, whatever else has been installed anew.
    os.utime(LIST, (0, 0))


def install_for_run() -> None:
    upgrade = os.environ.get("UPGRADE_PACKAGES", "").lower() in ("true", "1")
    if apt_install(LIST.read_text().split(), upgrade=upgrade):
        run("sh", "/opt/faasbase/image/harden.sh")


def apt_install(packages: list[str], *, upgrade: bool = False) -> bool:
    """Install *packages*, upgrade if asked to, and leave no lists, archives and logs behind."""
    if not packages and not upgrade:
        return False
    apt("update")
    if upgrade:
        apt("upgrade")
    if packages:
        apt("install", *packages)
    run("apt-get", "clean")
    run("sh", "-c", "rm -rf /var/lib/apt/lists/* /var/cache/apt/archives/* /var/log/* /var/cache/ldconfig/*")
    return True


def apt(*arguments: str) -> None:
    os.environ["DEBIAN_FRONTEND"] = "noninteractive"
    run("apt-get", "-qq", "-y", "--no-install-recommends", "-o", "Acquire::Retries=3", *arguments)


def builds(package: str) -> bool:
    """Tell compilers, headers and version control from what runs."""
    name = bare_name(package)
    if section(name) == "oldlibs":
        # A name that was given up brings what took its place.
        return all(map(builds, dependencies(name)))
    return is_headers(package) or section(name) in BUILD_SECTIONS


def is_headers(package: str) -> bool:
    return bare_name(package).endswith("-dev")


def libraries_of(package: str, seen: frozenset[str] = frozenset()) -> set[str]:
    """
    Return the libraries whose headers *package* brings: what is loaded by name at run time is linked nowhere.

    A package that only stands for other headers brings theirs.
    """
    names = dependencies(package) - seen
    libraries = {name for name in names if section(name) == "libs"}
    if libraries or not all(map(builds, names)):
        return libraries
    return set().union(*(libraries_of(name, seen | names) for name in names))


def dependencies(package: str) -> set[str]:
    alternatives = re.split(r"[,|]", field(package, "Depends"))
    return {re.split(r"[ (:]", name.strip())[0] for name in alternatives} - {""}


def section(package: str) -> str:
    return field(package, "Section").rpartition("/")[2]


def linked_files(folder: Path) -> set[Path]:
    """Return the shared libraries outside of *folder* that what is in it is linked with."""
    candidates = [*folder.rglob("*.so*"), *folder.glob("bin/*")]
    modules = [str(path) for path in candidates if path.is_file() and not path.is_symlink()]
    listed = subprocess.run(["ldd", *modules], capture_output=True, text=True, check=False).stdout if modules else ""
    found = {Path(path).resolve() for path in re.findall(r"=> (/\S+)", listed)}
    return {path for path in found if not path.is_relative_to(folder)}


def owners(files: set[Path]) -> set[str]:
    """Return the packages that *files* come from; what comes from none is the image's own."""
    if not files:
        return set()
    # Packages that are older than the merge of /lib into /usr know their files by the former place.
    places = [place for path in map(str, files) for place in (path, path.removeprefix("/usr"))]
    listed = subprocess.run(["dpkg-query", "-S", *places], capture_output=True, text=True, check=False).stdout
    return {line.split(":")[0] for line in listed.splitlines() if not line.startswith("diversion ")}


def installed() -> list[str]:
    listed = output("dpkg-query", "-W", "-f", "${db:Status-Status} ${Package}\n").splitlines()
    return [line.split()[1] for line in listed if line.startswith("installed ")]


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
    try:
        main()
    except subprocess.CalledProcessError as exc:
        # What apt-get has said stands above.
        sys.exit(f"{exc.cmd[0]} ended with {exc.returncode}")
