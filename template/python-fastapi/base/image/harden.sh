#!/bin/sh
# Take away what a function never needs: programs that change the user, and paths that everyone can write.
set -eu
find / -xdev -type f -perm /6000 -exec chmod ug-s {} +
find / -xdev ! -type l -perm -0002 ! -path /tmp -exec chmod o-w {} +
