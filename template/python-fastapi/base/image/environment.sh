#!/bin/sh
# Make /opt/NAME, an environment that sees the base's packages behind its own, and install the given requirements.
# Only what the base lacks, or has in another version, is in it: images of many functions share the base's layers.
set -eu
# The image's own Python has pip; the environments have none.
python=$(/opt/venv/bin/python3 -c 'import sys; print(sys._base_executable)')
name=$1
shift
/opt/venv/bin/python3 -m venv --without-pip "/opt/$name"
packages=$(cd "/opt/$name" && echo lib/python3*/site-packages)
# The tools of tests are there in the test stage only; a folder that is missing is passed over.
printf '%s\n' "/opt/venv/$packages" "/opt/testing/$packages" > "/opt/$name/$packages/base.pth"
# Nobody is there to be asked for a password.
"$python" -m pip --python "/opt/$name/bin/python3" install --no-input --no-compile "$@"
# Packages bring templates and samples that are not this Python, which pip lets pass as well.
python3 -m compileall -qq -f -j 0 --invalidation-mode unchecked-hash "/opt/$name/lib" || true
chmod -R u=rwX,go=rX "/opt/$name"
find "/opt/$name" -exec touch -hd @0 {} +
