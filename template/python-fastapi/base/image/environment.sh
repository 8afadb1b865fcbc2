#!/bin/sh
# Make /opt/NAME, an environment that sees the base's packages behind its own, and install the given requirements.
# Only what the base lacks, or has in another version, is in it: images of many functions share the base's layers.
set -eu
PATH=${PATH#/opt/function/bin:/opt/venv/bin:}
name=$1
shift
/opt/venv/bin/python3 -m venv --without-pip "/opt/$name"
packages=$(cd "/opt/$name" && echo lib/python3*/site-packages)
# The tools of tests are there in the test stage only; a folder that is missing is passed over.
printf '%s\n' "/opt/venv/$packages" "/opt/testing/$packages" > "/opt/$name/$packages/base.pth"
python3 -m pip --python "/opt/$name/bin/python3" install "$@"
python3 -m compileall -q -f -j 0 --invalidation-mode unchecked-hash "/opt/$name/lib"
chmod -R u=rwX,go=rX "/opt/$name"
find "/opt/$name" -exec touch -hd @0 {} +
