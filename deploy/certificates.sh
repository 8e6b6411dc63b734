#!/usr/bin/env bash
# What deploy/compose.tls.yml mounts: a folder for each container, with certificates of a development
# authority in the layout of cert-manager (ca.crt, tls.crt, tls.key), and a password for Grafana; and
# one for people, to watch and to look. Each is its owner's alone.
# `mien certificates` makes each certificate; in production your own authority issues the same.
#   deploy/certificates.sh [FOLDER]
set -euo pipefail
umask 077
folder=${1:-certificates}

if [ -e "$folder" ]; then
  echo "$folder is there already: give another folder, or remove it to begin anew" >&2
  exit 1
fi
authority=$folder/authority
mien certificates --folder "$authority" ca

# give FOLDER KIND NAME [HOST …]: a certificate, into a folder of its own.
give() {
  local to=$folder/$1 issued=$authority/$2-$3
  mien certificates --folder "$authority" "${@:2}"
  mkdir "$to"
  cp "$authority/ca.pem" "$to/ca.crt"
  mv "$issued.pem" "$to/tls.crt"
  mv "$issued-key.pem" "$to/tls.key"
}

# After its name, the hosts that it is dialled by: in compose's network, and from this machine.
give recognizer server cloud cloud recognizer envoy localhost 127.0.0.1
# By the names of their services, which are their ids.
give edge device edge
give camera device camera
give watcher consumer watcher
give operator operator operator

mkdir "$folder/grafana"
head --bytes 24 /dev/urandom | base64 | tr -d '\n' >"$folder/grafana/admin_password"

# Each container runs as a user of its own, who must be able to read its folder, and nothing else.
chmod 711 "$folder"
if [ "$(id -u)" = 0 ]; then
  chown -R 10001 "$folder"/{recognizer,edge,camera}
  chown -R 472 "$folder/grafana"
else
  echo "now: sudo chown -R 10001 $folder/{recognizer,edge,camera}; sudo chown -R 472 $folder/grafana"
fi
