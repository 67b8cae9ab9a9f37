#!/bin/sh
# Runs a command, and prints how long it took: sh tests/timed.sh COMMAND...
start=$(date +%s)
status=0
"$@" || status=$?
printf '== %s: %s s%s\n' "$*" "$(($(date +%s) - start))" "$([ $status -eq 0 ] || printf ', FAILED (%s)' $status)"
exit $status
