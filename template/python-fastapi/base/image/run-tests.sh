#!/bin/sh
# Run the function's tests, if it has any, on a copy of its code.
set -eu
case "$TEST_ENABLED" in [Ff]alse | FALSE | 0) echo "tests are switched off"; exit ;; esac
# pytest stands in an environment of its own: as a program it would not see the function's packages.
pytest() { python3 -m pytest "$@"; }
usual="python3 -m pytest -q function"
command=${TEST_COMMAND:-$usual}
# A command of the user's own runs always: it may look for tests of any name.
if [ "$command" = "$usual" ] && [ -z "$(find function -name 'test_*.py' -o -name '*_test.py')" ]; then
  echo "the function has no tests"
  exit
fi
cp -r /home/app /tmp/test
cd /tmp/test
[ "$command" = "$usual" ] || { eval "$command"; exit; }
status=0
eval "$command" || status=$?
# 5: files that only look like tests.
[ "$status" = 5 ] || exit "$status"
