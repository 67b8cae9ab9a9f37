#!/bin/sh
# Prints the folder for the temporary files of tests: one in memory if the machine has one that is writable, may hold
# programs and has 4 GiB free, else the usual one. Each test creates a database of some 300 files, and on a disk these
# take half of the time of all tests.
usual=${TMPDIR:-/tmp}
memory=/dev/shm
[ -z "${TMPDIR:-}" ] && [ -w "$memory" ] || { echo "$usual"; exit; }
free=$(df -Pk "$memory" | awk 'NR == 2 { print $4 }')
probe=$(mktemp "$memory/graphile-worker.XXXXXX") || { echo "$usual"; exit; }
printf '#!/bin/sh\n' >"$probe"
chmod +x "$probe"
if [ "${free:-0}" -ge 4194304 ] && "$probe" 2>/dev/null; then echo "$memory"; else echo "$usual"; fi
rm -f "$probe"
