# shellcheck shell=bash
# Starts and stops the real servers for `with`, `up` and `down`. Sourced after lib.sh, never run.
#
# Everything a run writes lies in one folder, $state:
#   run      the run's mark: every process of the run carries HOLDFAST_TEST_RUN=<mark> in its environment
#   pids     one "NAME PID" line a server, in the order they were started
#   env      what tests are told, as KEY=VALUE lines
#   NAME.log, s3/, kube/, node-1/

# shellcheck source=tests/real/versions.sh
source "$real/versions.sh"
# shellcheck source=tests/real/nodes.sh
source "$real/nodes.sh"

listen_ip=127.0.0.1 # with nodes, the address by which pods reach this machine
ready_seconds_max=180 # a loaded machine takes long; a server that dies is noticed at once

# ---- a run -------------------------------------------------------------------------------------------------

begin_run() { # STATE: an empty or new folder
  state=$1
  mkdir -p "$state"
  state=$(cd "$state" && pwd)
  [[ -z $(ls -A "$state") ]] || die "$state is not empty: give --state a new folder"
  HOLDFAST_TEST_RUN=$(basename "$state")-$$-$RANDOM$RANDOM
  HOLDFAST_TEST_STATE=$state
  export HOLDFAST_TEST_RUN HOLDFAST_TEST_STATE
  echo "$HOLDFAST_TEST_RUN" >"$state/run"
  : >"$state/pids"
  tell HOLDFAST_TEST_STATE "$state"
}

# Notes a variable for whoever runs the tests, and exports it.
tell() { # KEY VALUE
  printf '%s=%s\n' "$1" "$2" >>"$state/env"
  export "$1=$2"
}

# Starts one server in the background, away from the terminal's Ctrl-C. With $leash set the kernel kills
# the server when this shell dies, however it dies. Call it from the main shell: the leash is tied to its process.
serve() { # NAME COMMAND...
  local name=$1
  shift
  # The run's life line (see `with`) must not be held open by a server.
  setsid ${leash:+setpriv --pdeathsig KILL --} "$@" >>"$state/$name.log" 2>&1 </dev/null {life}>&- &
  echo "$name $!" >>"$state/pids"
  disown # or bash announces its end
}
life=${life:-9}

pid_of() { sed -n "s/^$1 //p" "$state/pids" | tail -n 1; } # NAME
alive() { kill -0 "$(pid_of "$1")" 2>/dev/null; }            # NAME

# Waits until a command succeeds. A server that has ended, or takes too long, ends the run with its log's last lines.
wait_for() { # SERVER WHAT COMMAND...
  local server=$1 what=$2 until=$((SECONDS + ready_seconds_max))
  shift 2
  until "$@" >/dev/null 2>&1; do
    if ! alive "$server" || ((SECONDS > until)); then
      tail -n 30 "$state/$server.log" >&2
      alive "$server" || die "$server ended before $what; the end of its log is above"
      die "$what took longer than $ready_seconds_max s; the end of $server's log is above"
    fi
    sleep 0.1
  done
}

# Ports that are free, and whose number + 10000 is free too (SeaweedFS takes that one for gRPC), below the range
# the kernel hands out by itself. Each is held by a lock on a file as long as any process of this run lives, so runs
# side by side never pick the same.
free_ports() { # COUNT; sets $ports
  local port fd
  ports=()
  mkdir -p "${TMPDIR:-/tmp}/holdfast-ports"
  while ((${#ports[@]} < $1)); do
    port=$((11000 + (RANDOM * 32768 + RANDOM) % 10000))
    exec {fd}>"${TMPDIR:-/tmp}/holdfast-ports/$port"
    if flock -n "$fd" && ! listening "$port" && ! listening $((port + 10000)); then
      ports+=("$port")
    else
      exec {fd}>&-
    fi
  done
}
listening() { grep -qi "^ *[0-9]*: [0-9A-F]*:$(printf %04X "$1") [0-9A-F:]* 0A" /proc/net/tcp /proc/net/tcp6; } # PORT

# Stops the servers of $state, the last started first: an API server that loses its etcd lingers for minutes.
end_run() {
  local name pid signal
  while read -r name pid; do
    ours "$pid" || continue
    # SeaweedFS takes seconds to say goodbye, for the good of data that nobody wants any more, and a node would never.
    case $name in s3 | node-* | hub) signal=KILL ;; *) signal=TERM ;; esac
    kill -$signal "$pid" 2>/dev/null || true
    local until=$((SECONDS + 10))
    while ours "$pid" && ((SECONDS < until)); do sleep 0.05; done
    if ours "$pid"; then
      say "$name did not stop within 10 s; killing it"
      kill -KILL "$pid" 2>/dev/null || true
    fi
  done < <(tac "$state/pids")
  kill_marked "$(<"$state/run")"
}

# Whether a process is one of this run: a number alone may have been given to somebody else meanwhile.
ours() { grep -qzx "HOLDFAST_TEST_RUN=$(<"$state/run")" "/proc/$1/environ" 2>/dev/null; } # PID

# Kills whatever of the run in $state still lives, servers and left-over children of the command alike, but not this shell.
# Removes the control groups of its nodes.
kill_marked() { # MARK
  local file pid left=0 until=$((SECONDS + 10))
  while ((SECONDS < until)); do
    left=0
    for file in "$state"/node-*; do [[ ! -d $file ]] || thaw "$file"; done
    while read -r file; do
      pid=${file#/proc/}
      pid=${pid%/environ}
      [[ $pid == "$$" || $pid == "$BASHPID" ]] && continue
      [[ -r /proc/$pid/stat && $(<"/proc/$pid/stat") != *") Z "* ]] || continue
      kill -KILL "$pid" 2>/dev/null && left=1
    done < <(grep -slzx "HOLDFAST_TEST_RUN=$1" /proc/[0-9]*/environ)
    ((left)) || break
    sleep 0.1
  done 2>/dev/null
  remove_cgroups "$1-node-"
  ((left == 0)) || say "some processes of run $1 cannot be killed"
}

# ---- S3 ----------------------------------------------------------------------------------------------------

start_s3() {
  apt_install curl
  "$real/get" s3 >/dev/null
  local key=holdfast-test secret=holdfast-test-secret bucket=holdfast-test ports
  free_ports 5
  mkdir -p "$state/s3/data"
  # Besides the one that may do everything, one for each role of a repository: they may do what a bucket's policy allows them.
  local role roles=''
  for role in put node list read gc; do
    roles+=",{\"name\":\"$role\",\"credentials\":[{\"accessKey\":\"$key-$role\",\"secretKey\":\"$secret-$role\"}],\"actions\":[]}"
  done
  cat >"$state/s3/identities.json" <<EOF
{"identities":[{"name":"test","credentials":[{"accessKey":"$key","secretKey":"$secret"}],
 "actions":["Admin","Read","Write","List","Tagging"]}$roles]}
EOF
  # Every bucket takes volumes of its own; left to itself the server makes fewer the fuller the disk is, and then answers 500.
  serve s3 "$s3_dir/weed" mini -dir="$state/s3/data" -ip="$listen_ip" -ip.bind="$listen_ip" \
    -s3.config="$state/s3/identities.json" -s3.port="${ports[0]}" -master.port="${ports[1]}" \
    -filer.port="${ports[2]}" -volume.port="${ports[3]}" -volume.max=10000 -admin.port="${ports[4]}" \
    -filer.localSocket="$state/s3/filer.sock" -s3.localSocket="$state/s3/s3.sock" \
    -s3.port.iceberg=0 -s3.port.lance=0 -webdav=false -admin.ui=false -master.telemetry=false
  tell HOLDFAST_TEST_S3_ENDPOINT "http://$listen_ip:${ports[0]}"
  tell HOLDFAST_TEST_S3_BUCKET "$bucket"
  tell AWS_ACCESS_KEY_ID "$key"
  tell AWS_SECRET_ACCESS_KEY "$secret"
  tell AWS_REGION us-east-1
  # Ready is when an object can be written: the gateway answers before there is a volume to write to.
  wait_for s3 "S3 answered" s3_request PUT "$bucket"
  wait_for s3 "S3 took an object" s3_request PUT "$bucket/ready" --data-binary ready
  s3_request DELETE "$bucket/ready"
}

# Two servers that do less, to see that it is noticed. Both are for the tests of the store alone.
start_moto() {
  apt_install curl
  "$real/get" moto >/dev/null
  local ports
  free_ports 1
  serve moto "$moto_dir/moto_server" -H 127.0.0.1 -p "${ports[0]}"
  tell HOLDFAST_TEST_MOTO_ENDPOINT "http://127.0.0.1:${ports[0]}"
  wait_for moto "moto answered" curl -sS --fail --max-time 5 "$HOLDFAST_TEST_MOTO_ENDPOINT/"
}

start_rclone() {
  apt_install curl
  "$real/get" rclone >/dev/null
  local ports
  free_ports 1
  mkdir -p "$state/rclone"
  serve rclone "$rclone_dir/rclone" --config /dev/null serve s3 --addr "127.0.0.1:${ports[0]}" \
    --auth-key holdfast-test,holdfast-test-secret "$state/rclone"
  tell HOLDFAST_TEST_RCLONE_ENDPOINT "http://127.0.0.1:${ports[0]}"
  wait_for rclone "rclone answered" listening "${ports[0]}"
}

start_azurite() {
  apt_install curl openssl
  "$real/get" azurite >/dev/null
  local ports
  free_ports 1
  # The account, the key and the name are Azurite's own and known to everybody.
  tell HOLDFAST_TEST_AZURE_ENDPOINT "http://127.0.0.1:${ports[0]}/devstoreaccount1"
  serve azurite "$azurite_dir/node_modules/.bin/azurite-blob" --blobHost 127.0.0.1 --blobPort "${ports[0]}" \
    --inMemoryPersistence --silent --disableTelemetry --skipApiVersionCheck
  wait_for azurite "Azurite answered" listening "${ports[0]}"
  # A container, by a request signed as Azure wants it.
  local key=Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw== date hex text
  date=$(LC_ALL=C date -u '+%a, %d %b %Y %H:%M:%S GMT')
  hex=$(base64 -d <<<"$key" | od -An -tx1 | tr -d ' \n')
  text="PUT\n\n\n\n\n\n\n\n\n\n\n\nx-ms-date:$date\nx-ms-version:2021-12-02\n/devstoreaccount1/devstoreaccount1/holdfast-test\nrestype:container"
  tell HOLDFAST_TEST_AZURE_KEY "$key"
  curl -sS --fail --max-time 10 -X PUT -H "x-ms-date: $date" -H "x-ms-version: 2021-12-02" -H 'content-length: 0' \
    -H "Authorization: SharedKey devstoreaccount1:$(printf "$text" | openssl dgst -sha256 -mac HMAC -macopt "hexkey:$hex" -binary | base64 -w0)" \
    "$HOLDFAST_TEST_AZURE_ENDPOINT/holdfast-test?restype=container"
}

start_gcs() {
  apt_install curl
  "$real/get" gcs >/dev/null
  local ports
  free_ports 1
  tell HOLDFAST_TEST_GCS_ENDPOINT "http://127.0.0.1:${ports[0]}"
  # It tells requests to the XML API by their host.
  serve gcs "$gcs_dir/fake-gcs-server" -scheme http -host 127.0.0.1 -port "${ports[0]}" -backend memory \
    -public-host "127.0.0.1:${ports[0]}"
  wait_for gcs "fake-gcs-server answered" listening "${ports[0]}"
  curl -sS --fail --max-time 10 -o /dev/null -H 'Content-Type: application/json' -d '{"name":"holdfast-test"}' \
    "$HOLDFAST_TEST_GCS_ENDPOINT/storage/v1/b"
}

s3_request() { # METHOD KEY CURL-OPTION...
  local method=$1 key=$2
  shift 2
  # curl signs a body it does not name; SeaweedFS wants the name.
  curl -sS --fail --max-time 30 -X "$method" -H "x-amz-content-sha256: UNSIGNED-PAYLOAD" --aws-sigv4 "aws:amz:$AWS_REGION:s3" \
    --user "$AWS_ACCESS_KEY_ID:$AWS_SECRET_ACCESS_KEY" "$@" "$HOLDFAST_TEST_S3_ENDPOINT/$key"
}

# ---- Kubernetes --------------------------------------------------------------------------------------------

start_kube() { # [NODES]
  apt_install curl openssl
  "$real/get" kube kubectl >"$state/programs"
  local kubectl ports d=$state/kube
  kubectl=$(sed -n 's/^kubectl=//p' "$state/programs")
  [[ $(type -P kubectl) == "$kubectl" ]] || tell PATH "$(dirname "$kubectl"):$PATH"
  mkdir -p "$d/pki"
  make_pki "$d/pki"
  free_ports 3
  local api=https://$listen_ip:${ports[2]}
  echo "$api" >"$d/server"

  serve etcd "$etcd_dir/usr/bin/etcd" --name=default --data-dir="$d/etcd" --unsafe-no-fsync \
    --listen-client-urls="http://127.0.0.1:${ports[0]}" --advertise-client-urls="http://127.0.0.1:${ports[0]}" \
    --listen-peer-urls="http://127.0.0.1:${ports[1]}" --initial-advertise-peer-urls="http://127.0.0.1:${ports[1]}" \
    --initial-cluster="default=http://127.0.0.1:${ports[1]}" --log-level=warn

  # Without nodes nothing needs the endpoints of the service `kubernetes`, and a loopback address is not allowed there.
  # With nodes this machine has no way to the addresses of services, but one to the pods behind them.
  local nodes=(--endpoint-reconciler-type=none)
  if [[ ${1:-} ]]; then
    make_cert "$d/pki" kubelet-client /O=system:masters/CN=kube-apiserver extendedKeyUsage=clientAuth
    nodes=(--kubelet-certificate-authority="$d/pki/ca.crt" --kubelet-client-certificate="$d/pki/kubelet-client.crt"
      --kubelet-client-key="$d/pki/kubelet-client.key" --kubelet-preferred-address-types=InternalIP --enable-aggregator-routing)
  fi
  serve apiserver "$(kube_dir kube-apiserver)/kube-apiserver" --etcd-servers="http://127.0.0.1:${ports[0]}" \
    --bind-address="$listen_ip" --advertise-address="$listen_ip" --secure-port="${ports[2]}" "${nodes[@]}" \
    --client-ca-file="$d/pki/ca.crt" --tls-cert-file="$d/pki/apiserver.crt" --tls-private-key-file="$d/pki/apiserver.key" \
    --anonymous-auth=false --authorization-mode=Node,RBAC --enable-admission-plugins=NodeRestriction \
    --service-account-issuer=https://kubernetes.default.svc --api-audiences=https://kubernetes.default.svc \
    --service-account-signing-key-file="$d/pki/sa.key" --service-account-key-file="$d/pki/sa.key" \
    --service-cluster-ip-range=10.96.0.0/16 --allow-privileged=true --profiling=false

  write_kubeconfig "$d" admin kubernetes-admin system:masters >"$d/admin.kubeconfig"
  write_kubeconfig "$d" controller-manager system:kube-controller-manager >"$d/controller-manager.kubeconfig"
  wait_for apiserver "the API server was ready" kube_get /readyz

  # Faster towards the API server than its default of 20 requests a second: emptying a namespace waits for it.
  serve controller-manager "$(kube_dir kube-controller-manager)/kube-controller-manager" \
    --kubeconfig="$d/controller-manager.kubeconfig" --use-service-account-credentials --leader-elect=false \
    --port=0 --secure-port=0 --kube-api-qps=300 --kube-api-burst=600 --profiling=false --flex-volume-plugin-dir="$d/volume-plugins" \
    --root-ca-file="$d/pki/ca.crt" --service-account-private-key-file="$d/pki/sa.key" \
    --cluster-signing-cert-file="$d/pki/ca.crt" --cluster-signing-key-file="$d/pki/ca.key"
  [[ ! ${1:-} ]] || boot_nodes "$1"
  wait_for controller-manager "the controllers had caught up" kube_settled

  tell KUBECONFIG "$d/admin.kubeconfig"
  tell KUBECACHEDIR "$d/cache" # where kubectl keeps what it learned; not the user's
  tell HOLDFAST_TEST_KUBECONFIG "$d/admin.kubeconfig"
}

kube_get() { # PATH
  curl -sS --fail --max-time 10 --cacert "$state/kube/pki/ca.crt" --cert "$state/kube/pki/admin.crt" \
    --key "$state/kube/pki/admin.key" "$(<"$state/kube/server")$1"
}
# The controllers run when the first namespace has its service account with a token (a pod would be refused before),
# and when the roles admin, edit and view, which start empty, have been put together from their parts.
kube_settled() {
  kube_get /api/v1/namespaces/default/serviceaccounts/default | grep default-token >/dev/null &&
    kube_get /apis/rbac.authorization.k8s.io/v1/clusterroles/admin | grep '"deployments"' >/dev/null
}

make_pki() { # DIR
  openssl ecparam -genkey -name prime256v1 -noout -out "$1/ca.key"
  openssl req -x509 -new -key "$1/ca.key" -subj /CN=holdfast-test-ca -days 30 -out "$1/ca.crt"
  openssl ecparam -genkey -name prime256v1 -noout -out "$1/sa.key"
  make_cert "$1" apiserver /CN=kube-apiserver 'extendedKeyUsage=serverAuth
subjectAltName=IP:'"$listen_ip"',IP:10.96.0.1,DNS:localhost,DNS:kubernetes,DNS:kubernetes.default,DNS:kubernetes.default.svc'
}

make_cert() { # DIR NAME SUBJECT EXTENSIONS
  openssl ecparam -genkey -name prime256v1 -noout -out "$1/$2.key"
  openssl req -new -key "$1/$2.key" -subj "$3" -out "$1/$2.csr"
  openssl x509 -req -in "$1/$2.csr" -CA "$1/ca.crt" -CAkey "$1/ca.key" -set_serial "0x$(openssl rand -hex 16)" \
    -days 30 -extfile <(printf '%s\n' "$4") -out "$1/$2.crt" 2>/dev/null
}

# A kubeconfig that needs no other file, for a client certificate made for it.
write_kubeconfig() { # KUBE-DIR NAME USER GROUP...
  local d=$1 name=$2 subject="/CN=$3" group
  shift 3
  for group in "$@"; do subject="/O=$group$subject"; done
  make_cert "$d/pki" "$name" "$subject" extendedKeyUsage=clientAuth
  cat <<EOF
apiVersion: v1
kind: Config
clusters:
- name: test
  cluster:
    server: $(<"$d/server")
    certificate-authority-data: $(base64 -w0 "$d/pki/ca.crt")
users:
- name: $name
  user:
    client-certificate-data: $(base64 -w0 "$d/pki/$name.crt")
    client-key-data: $(base64 -w0 "$d/pki/$name.key")
contexts:
- name: test
  context: {cluster: test, user: $name}
current-context: test
EOF
}

start_servers() { # kube,s3,…
  local server servers
  IFS=, read -ra servers <<<"$1"
  # First the network of the nodes, for other servers are to be reached from pods.
  for server in "${servers[@]}"; do
    case $server in node | node:[1-9]) start_hub ;; esac
  done
  for server in "${servers[@]}"; do
    case $server in
      node | node:[1-9])
        [[ ,$1, != *,kube,* ]] || die "kube is a cluster without nodes and node one with: name one of them"
        server=${server#node}
        server=${server#:}
        start_node "${server:-1}" ;;
      kube | s3 | moto | rclone | azurite | gcs) "start_$server" ;;
      *) die "unknown server $server: there are kube, node (or node:3), s3, moto, rclone, azurite and gcs" ;;
    esac
  done
}
