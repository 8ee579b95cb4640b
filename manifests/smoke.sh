#!/usr/bin/env bash
# Prove a real cluster in about an hour: install, run, canary, drift, retrain, uninstall.
#
#   manifests/smoke.sh [--keep] [IMAGE_REGISTRY]
#
# In the current context there must be Kubeflow with profiles, Pipelines and KServe
# (docs/kubeflow.md), and the images, built with DATA=requirements-demo.txt, where the nodes can
# pull them; for kind:
#
#   kind load docker-image tokiwa-python-{base,train,serve,mlflow}:0.1.0
#
# Kubeflow Pipelines is asked through a forwarded port, as the profile's own account
# default-editor; set KF_PIPELINES_ENDPOINT and TOKIWA_KFP_TOKEN or TOKIWA_KFP_COOKIE to come in
# by another door.
#
# It works in the namespace `tokiwa`, which must not exist before, and deletes it at the end;
# --keep leaves everything for a look. The last line is SMOKE PASSED, or what failed.
set -euo pipefail
cd "$(dirname "$0")/.."

KEEP=false
[ "${1:-}" = --keep ] && KEEP=true && shift
export TOKIWA_IMAGE_REGISTRY=${1:-}
TOKIWA=${TOKIWA:-.venv/bin/tokiwa}
NAMESPACE=tokiwa
OVERLAY=manifests/overlays/local
WORK=$(mktemp -d)
STARTED=$SECONDS
FORWARDS=()

say() { printf '== %4d s  %s\n' $((SECONDS - STARTED)) "$*"; }
fail() { say "SMOKE FAILED: $*"; exit 1; }
k() { kubectl -n "$NAMESPACE" "$@"; }

# await SECONDS WHAT COMMAND...: repeat a command until it succeeds.
await() {
  local limit=$1 what=$2 begin=$SECONDS
  shift 2
  say "waiting for $what (at most $limit s)"
  until "$@" >"$WORK/last" 2>&1; do
    if ((SECONDS - begin > limit)); then
      cat "$WORK/last" >&2
      k get pods >&2 || true
      fail "$what did not come within $limit s"
    fi
    sleep 5
  done
}

# forward NAMESPACE WHAT PORTS: a forward that breaks is made again.
forward() {
  (
    trap 'kill "$!" 2>/dev/null || true; exit' TERM
    while :; do
      kubectl -n "$1" port-forward "$2" "$3" >"$WORK/forward-${3%%:*}" 2>&1 &
      wait "$!" || true
      sleep 1
    done
  ) &
  FORWARDS+=("$!")
}

leave() {
  for process in "${FORWARDS[@]:-}"; do [ -z "$process" ] || kill "$process" 2>/dev/null || true; done
  if $KEEP || ! [ -e "$WORK/installed" ]; then
    say "left as it is; remove it with: kubectl delete -k $OVERLAY"
  else
    say "uninstalling"
    kubectl delete -k "$OVERLAY" --ignore-not-found --wait=false >/dev/null || true
    kubectl wait --for=delete "namespace/$NAMESPACE" --timeout=300s >/dev/null || true
  fi
  rm -rf "$WORK"
}
trap leave EXIT

# --- 0. what must be there

for tool in kubectl curl python3; do
  command -v "$tool" >/dev/null || fail "there is no $tool"
done
[ -x "$TOKIWA" ] || command -v "$TOKIWA" >/dev/null || fail "there is no $TOKIWA; run: make install"
kubectl version >/dev/null || fail "no cluster answers in the context $(kubectl config current-context)"
for crd in inferenceservices.serving.kserve.io servingruntimes.serving.kserve.io workflows.argoproj.io profiles.kubeflow.org; do
  kubectl get crd "$crd" >/dev/null || fail "the cluster has no $crd"
done
! kubectl get namespace "$NAMESPACE" >/dev/null 2>&1 || fail "there is a namespace $NAMESPACE already"

# --- 1. install

say "installing $OVERLAY"
touch "$WORK/installed"
if [ -n "$TOKIWA_IMAGE_REGISTRY" ]; then
  kubectl kustomize "$OVERLAY" \
    | sed "s|image: tokiwa-python|image: $TOKIWA_IMAGE_REGISTRY/tokiwa-python|" > "$WORK/all.yaml"
else
  kubectl kustomize "$OVERLAY" > "$WORK/all.yaml"
fi
await 60 "all objects to be taken" kubectl apply --server-side -f "$WORK/all.yaml"
k rollout status statefulset/tokiwa-store --timeout=300s
k rollout status statefulset/tokiwa-postgres --timeout=300s
k rollout status deployment/tokiwa-mlflow --timeout=300s
await 300 "the buckets" k wait --for=condition=complete job/tokiwa-buckets --timeout=5s

# --- 2. the standard and the network hold

if k run forbidden --image=busybox:1.37 --restart=Never -- true >"$WORK/forbidden" 2>&1; then
  fail "a pod that may run as root was let in"
fi
grep -q restricted "$WORK/forbidden" || fail "a pod was refused, but not for the standard"
say "a pod that may run as root is refused"

# --- 3. Kubeflow lets us in

# The shipped project, on this cluster; $1 is more of the file.
project() {
  sed '/^\(cluster\|schedules\):/,$d' pipelines/projects/sentiment.yaml
  printf 'cluster: {namespace: %s, service_account: tokiwa-steps}\n%s\n' "$NAMESPACE" "${1:-}"
}
project > "$WORK/sentiment.yaml"
if [ -z "${KF_PIPELINES_ENDPOINT:-}" ]; then
  forward kubeflow svc/ml-pipeline 18888:8888
  export KF_PIPELINES_ENDPOINT=http://127.0.0.1:18888
  await 120 "the profile's account" k get serviceaccount default-editor
  TOKIWA_KFP_TOKEN=$(k create token default-editor --audience=pipelines.kubeflow.org --duration=3h)
  export TOKIWA_KFP_TOKEN
fi
await 180 "Kubeflow Pipelines to let us in" "$TOKIWA" runs "$WORK/sentiment.yaml"

# --- 4. the first run

say "training on the first window"
"$TOKIWA" submit "$WORK/sentiment.yaml" --window 2026-01-05 --wait || fail "the first run"
forward "$NAMESPACE" svc/tokiwa-store 18333:8333
await 60 "the store's port" bash -c 'exec 3<>/dev/tcp/127.0.0.1/18333'
export TOKIWA_STORE=s3://tokiwa AWS_ENDPOINT_URL_S3=http://127.0.0.1:18333
export AWS_ACCESS_KEY_ID=steps AWS_SECRET_ACCESS_KEY=local-only-steps AWS_DEFAULT_REGION=us-east-1
generation() {
  "$TOKIWA" history "$WORK/sentiment.yaml" --json \
    | python3 -c 'import json, sys; print(len(json.load(sys.stdin)))'
}
[ "$(generation)" = 1 ] || fail "the first run promoted nothing"

# --- 5. the server follows

await 600 "the server" k wait --for=condition=Ready inferenceservice/sentiment --timeout=5s
forward "$NAMESPACE" svc/sentiment-predictor 18080:80
answer() {
  curl -sf "http://127.0.0.1:18080/v1/models/sentiment:predict" \
    -H 'Content-Type: application/json' -d '{"instances": ["what a lovely day"]}'
}
serves() { answer | grep -q "\"generation\": *$1\b"; }
await 120 "an answer of generation 1" serves 1
say "it says: $(answer)"

# --- 6. what does not move does not retrain, what moves does

say "monitoring a quiet window"
"$TOKIWA" submit "$WORK/sentiment.yaml" --graph monitoring --window 2026-01-12 --wait \
  || fail "the monitoring of a quiet window"
[ "$(generation)" = 1 ] || fail "a quiet window led to a promotion"
say "monitoring the window in which tweets come"
# Loose limits: what is proved is the way, on a machine that others use.
project 'deploy: {rollout: {stages: [{kind: canary, share: 0.5, requests: 40}], max_slowdown: 9.0, max_disagreement: 0.9, deadline_ms: 10000}}' \
  > "$WORK/sentiment.yaml"
"$TOKIWA" submit "$WORK/sentiment.yaml" --graph monitoring --window 2026-01-19 --wait \
  || fail "the monitoring of the tweets"
"$TOKIWA" rollout "$WORK/sentiment.yaml" || fail "drift led to no challenger that was let in"
[ "$(generation)" = 1 ] || fail "the challenger was promoted without a canary: has a server given a sign of life?"

# --- 7. a canary on real requests, while the old champion answers the others

canary_is_over() {
  for _ in $(seq 20); do answer >/dev/null || return 1; done
  [ "$(generation)" = 2 ]
}
await 900 "the canary to be promoted" canary_is_over
"$TOKIWA" rollout "$WORK/sentiment.yaml"
await 300 "an answer of generation 2" serves 2
say "the server answers with generation 2, and was never restarted:"
k get pods -l serving.kserve.io/inferenceservice=sentiment
restarts=$(k get pods -l serving.kserve.io/inferenceservice=sentiment \
  -o jsonpath='{.items[*].status.containerStatuses[*].restartCount}')
[ -z "${restarts//[0 ]/}" ] || fail "a server was restarted"

# --- 8. schedules

say "scheduling, twice: the second time must change nothing"
project 'schedules: {training: {cron: "0 0 6 * * MON"}, monitoring: {cron: "0 0 * * * *"}}' \
  > "$WORK/sentiment.yaml"
"$TOKIWA" apply "$WORK/sentiment.yaml" || fail "apply"
"$TOKIWA" apply "$WORK/sentiment.yaml" --dry-run --json > "$WORK/again"
! grep -qE '"action": *"(create|delete)"' "$WORK/again" || fail "apply is not idempotent"
project > "$WORK/sentiment.yaml"
"$TOKIWA" apply "$WORK/sentiment.yaml" --prune || fail "apply --prune"

say "SMOKE PASSED"
