#!/usr/bin/env bash
# Certificates of a development authority for docker-compose.yml, into ./certificates or the folder given.
# `mien certificates` makes each; in production your own authority issues the same.
#   deploy/certificates.sh [FOLDER]
set -euo pipefail
folder=${1:-certificates}

if ! mien certificates --help >/dev/null 2>&1; then
  echo "this version of mien has no \`mien certificates\`" >&2
  exit 1
fi
if [ -e "$folder" ]; then
  echo "$folder is there already: give another folder, or remove it to begin anew" >&2
  exit 1
fi

mien certificates --folder "$folder" ca
# After its name, the hosts that devices dial it by.
mien certificates --folder "$folder" server cloud cloud recognizer localhost 127.0.0.1
mien certificates --folder "$folder" device demo
mien certificates --folder "$folder" consumer watcher
mien certificates --folder "$folder" operator health

# The containers' user must be able to read the keys.
if [ "$(id -u)" = 0 ]; then
  chown -R 10001 "$folder"
else
  echo "now: sudo chown -R 10001 $folder"
fi
