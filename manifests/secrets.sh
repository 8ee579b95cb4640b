#!/usr/bin/env bash
# Make the secrets that staging and production need, with keys that nobody knows:
#
#   manifests/secrets.sh [NAMESPACE] [URL_OF_PAGER URL_OF_TICKETS URL_OF_REVIEW]
#
# Secrets that are there already stay as they are, so it can be run again. A team that keeps
# its secrets elsewhere makes the same ones; the names and keys are what counts.
set -euo pipefail
NAMESPACE=${1:-tokiwa}
PAGER=${2:-http://localhost/} TICKETS=${3:-http://localhost/} REVIEW=${4:-http://localhost/}

random() { head -c 24 /dev/urandom | base64 | tr -d '+/=' | head -c 30; }

# Literals come from standard input: an argument can be read by every process of the machine.
make() {
  local name=$1
  if kubectl -n "$NAMESPACE" get secret "$name" >/dev/null 2>&1; then
    echo "$name is there already"
  else
    kubectl -n "$NAMESPACE" create secret generic "$name" --from-env-file=/dev/stdin
  fi
}

keys() { printf 'AWS_ACCESS_KEY_ID=%s\nAWS_SECRET_ACCESS_KEY=%s\n' "$1" "$2"; }

kubectl get namespace "$NAMESPACE" >/dev/null || {
  echo "there is no namespace $NAMESPACE yet: apply an overlay first" >&2
  exit 1
}

if kubectl -n "$NAMESPACE" get secret tokiwa-identities >/dev/null 2>&1; then
  echo "tokiwa-identities is there already, and so its keys stay"
else
  admin=$(random) steps=$(random) server=$(random) mlflow=$(random)
  umask 077
  identities=$(mktemp)
  trap 'rm -f "$identities"' EXIT
  cat > "$identities" <<JSON
{"identities": [
  {"name": "admin", "credentials": [{"accessKey": "admin", "secretKey": "$admin"}],
   "actions": ["Admin", "Read", "Write", "List", "Tagging"]},
  {"name": "steps", "credentials": [{"accessKey": "steps", "secretKey": "$steps"}],
   "actions": ["Read:tokiwa", "Write:tokiwa", "List:tokiwa", "Tagging:tokiwa"]},
  {"name": "server", "credentials": [{"accessKey": "server", "secretKey": "$server"}],
   "actions": ["Read:tokiwa", "List:tokiwa", "Write:tokiwa/projects/*"]},
  {"name": "mlflow", "credentials": [{"accessKey": "mlflow", "secretKey": "$mlflow"}],
   "actions": ["Read:tokiwa-mlflow", "Write:tokiwa-mlflow", "List:tokiwa-mlflow"]}
]}
JSON
  keys admin "$admin" | make tokiwa-s3-admin
  keys steps "$steps" | make tokiwa-store
  keys server "$server" | make tokiwa-s3-server
  keys mlflow "$mlflow" | make tokiwa-s3-mlflow
  # Last, because it says that the others are made.
  kubectl -n "$NAMESPACE" create secret generic tokiwa-identities --from-file=s3.json="$identities"
fi

password=$(random)
printf 'password=%s\nuri=postgresql://mlflow:%s@tokiwa-postgres:5432/mlflow\n' \
  "$password" "$password" | make tokiwa-postgres
printf 'pager=%s\nticket=%s\nreview=%s\n' "$PAGER" "$TICKETS" "$REVIEW" | make tokiwa-alerts
