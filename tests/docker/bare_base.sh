#!/usr/bin/env bash
# Make the two images that docker/Dockerfile can be built from without pulling any: Debian 12
# with its Python 3.11 (tokiwa-bare) and the same with pip and venv (tokiwa-build). Needs
# mmdebstrap and a Docker engine:
#
#   tests/docker/bare_base.sh
#   make images BASE_IMAGE=tokiwa-bare:12 BUILD_IMAGE=tokiwa-build:12
set -euo pipefail
DOCKER=${DOCKER:-docker}
MIRROR=${MIRROR:-$(awk '/^URIs:/ { print $2; exit }' /etc/apt/sources.list.d/debian.sources)}

bare() {
  mmdebstrap --quiet --variant=minbase --include="$2" bookworm - "$MIRROR" | "$DOCKER" import - "$1"
}

bare tokiwa-bare:12 python3,ca-certificates
bare tokiwa-build:12 python3,ca-certificates,python3-venv,python3-pip
