#!/bin/sh
# Run the function's tests, if it has any, on a copy of its code.
set -eu
case "$TEST_ENABLED" in false|0) echo "tests are switched off"; exit ;; esac
if [ -z "$(find function -name 'test_*.py' -o -name '*_test.py')" ]; then echo "the function has no tests"; exit; fi
cp -r /home/app /tmp/test
cd /tmp/test
eval "$TEST_COMMAND"
