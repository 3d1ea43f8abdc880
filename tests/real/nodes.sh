# shellcheck shell=bash
# The nodes of a real cluster: a network for them, and each node a tree of processes in namespaces of its own.
# Sourced by servers.sh, never run.
#
# A run with nodes has a network 10.R.0.0/16 for itself. Its hub is a network namespace with a bridge; the machine hangs on
# it with one interface and the address 10.R.0.1, node N with 10.R.0.(10+N), and node N's pods have 10.R.N.0/24. In the
# hub itself is the cluster's DNS, at 10.R.0.2, where it is in nobody's way. The hub
# lives as long as one `sleep` in it: when that is killed the kernel takes the interface, the addresses and the routes away.
#
# A node's first process is node-init. Killing it ends kubelet, containers and mounts at once, as a power cut does.

nodes_max=9

start_hub() {
  [[ $(id -u) == 0 ]] || die "nodes need namespaces, mounts and interfaces: run this as root"
  case $state/ in
    /run/* | /var/run/* | /var/lib/* | /var/log/*)
      die "a node sees its own /run, /var/lib and /var/log: give --state a folder elsewhere than $state" ;;
  esac
  apt_install iproute2
  local r free='' fd pid n
  mkdir -p "${TMPDIR:-/tmp}/holdfast-ports"
  for r in {200..239}; do
    exec {fd}>"${TMPDIR:-/tmp}/holdfast-ports/net-$r"
    if flock -n "$fd" && no_route_to "10.$r.0.0/16"; then
      free=$r
      break
    fi
    exec {fd}>&-
  done
  [[ $free ]] || die "there is no network for nodes: 10.200.0.0/16 to 10.239.0.0/16 are all in use"
  net=10.$free
  echo "$net" >"$state/net"

  serve hub unshare --net -- sleep infinity
  pid=$(pid_of hub)
  wait_for hub "the nodes' network was there" has_own_net "$pid"
  ip link add "hf$free" type veth peer name uplink netns "$pid"
  in_hub ip link add hub type bridge
  # Frames between nodes are the hub's own affair, whatever its tables say of packets.
  in_hub sh -c 'echo 0 >/proc/sys/net/bridge/bridge-nf-call-iptables' 2>/dev/null || true
  in_hub ip link set uplink master hub
  in_hub ip link set hub up
  in_hub ip link set uplink up
  in_hub ip addr add "$net.0.2/24" dev hub
  ip link set "hf$free" up
  ip addr add "$net.0.1/24" dev "hf$free"
  for ((n = 1; n <= nodes_max; n++)); do
    ip route add "$net.$n.0/24" via "$net.0.$((10 + n))" dev "hf$free"
    in_hub ip route add "$net.$n.0/24" via "$net.0.$((10 + n))" dev hub
  done
  # From now on servers listen where pods reach them, and nobody asks a proxy for them.
  listen_ip=$net.0.1
  tell NO_PROXY "${NO_PROXY:+$NO_PROXY,}$listen_ip"
  tell no_proxy "$NO_PROXY"
}
# Neither to a part of the network, nor to one that it is part of; the default route is no claim.
no_route_to() { ! grep -v '^default' < <(ip -4 route show root "$1" && ip -4 route show match "$1") >/dev/null; } # NETWORK
has_own_net() { [[ $(readlink "/proc/$1/ns/net") != "$(readlink /proc/self/ns/net)" ]]; }                      # PID
in_hub() { nsenter --net="/proc/$(pid_of hub)/ns/net" -- "$@"; }                                                # COMMAND...

start_node() { # COUNT
  local n
  "$real/get" node >/dev/null
  start_kube "$1"
  kubectl apply --validate=false -f "$real/node.yaml" >/dev/null
  for ((n = 1; n <= $1; n++)); do
    wait_for "node-$n" "the node was ready" node_ready "$n"
  done
  alive dns || die "the DNS of the cluster has ended: $(tail -n 3 "$state/dns.log")"
  tell HOLDFAST_TEST_NODES "$1"
}

# Once the API server answers. The kubelets take as long as the controllers to begin with: both at once.
boot_nodes() { # COUNT
  local n d=$state/kube
  write_kubeconfig "$d" scheduler system:kube-scheduler >"$d/scheduler.kubeconfig"
  write_kubeconfig "$d" proxy system:kube-proxy >"$d/proxy.kubeconfig"
  make_cert "$d/pki" volumes /CN=holdfast-test-volumes extendedKeyUsage=clientAuth
  make_cert "$d/pki" dns /CN=holdfast-test-dns extendedKeyUsage=clientAuth
  serve scheduler "$(kube_dir kube-scheduler)/kube-scheduler" --kubeconfig="$d/scheduler.kubeconfig" \
    --leader-elect=false --port=0 --secure-port=0 --profiling=false
  serve dns nsenter --net="/proc/$(pid_of hub)/ns/net" -- /usr/bin/python3 -B "$real/dns.py" "$net.0.2" "$(<"$d/server")" "$d/pki"
  for ((n = 1; n <= $1; n++)); do
    prepare_node "$n"
    boot_node "$n"
  done
}

# Ready by its own word since it was started: of a node that was killed the API server says so for a while.
node_ready() { # N
  local ready said
  [[ -e $state/node-$1/images-are-here ]] || return 1
  read -r ready said < <(kubectl get node "node-$1" \
    -o 'jsonpath={range .status.conditions[?(@.type=="Ready")]}{.status} {.lastHeartbeatTime}{"\n"}{end}')
  [[ $ready == True && $said > $(<"$state/node-$1/booted") ]]
}

# A node's folder: its settings, and what its disk holds.
prepare_node() { # N
  local name=node-$1 ip=$net.0.$((10 + $1)) d=$state/kube dir=$state/node-$1
  mkdir -p "$dir"/{lib,log,cni,volumes}
  write_kubeconfig "$d" "$name" "system:node:$name" system:nodes >"$dir/kubeconfig"
  make_cert "$d/pki" "$name-serving" "/CN=$name" "extendedKeyUsage=serverAuth
subjectAltName=IP:$ip,DNS:$name"
  : >"$dir/resolv.conf" # nothing but the cluster's own names is to be found
  cat >"$dir/containerd.toml" <<EOF
version = 2
oom_score = 0
[plugins."io.containerd.internal.v1.opt"]
  path = "/var/lib/containerd/opt"
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "localhost/pause:1"
  # Nobody lowers a process's score without CAP_SYS_RESOURCE, which root in a container may lack; runc would die of it.
  restrict_oom_score_adj = true
  disable_apparmor = true
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "$containerd_dir/usr/lib/cni"
    conf_dir = "$dir/cni"
  [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
    runtime_type = "io.containerd.runc.v2"
    [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
      BinaryName = "$containerd_dir/usr/sbin/runc"
      SystemdCgroup = false
EOF
  # Every pod has a wire of its own to the node, so all traffic passes the node's tables, where services are translated.
  cat >"$dir/cni/10-pods.conflist" <<EOF
{"cniVersion": "0.4.0", "name": "pods", "plugins": [
  {"type": "ptp", "ipam": {"type": "host-local", "dataDir": "/run/cni", "ranges": [[{"subnet": "$net.$1.0/24"}]],
    "routes": [{"dst": "0.0.0.0/0"}]}},
  {"type": "portmap", "capabilities": {"portMappings": true}}]}
EOF
  # The disk of a test machine may be as full as it likes: nothing is evicted and no image is collected for it.
  cat >"$dir/kubelet.yaml" <<EOF
apiVersion: kubelet.config.k8s.io/v1beta1
kind: KubeletConfiguration
authentication: {anonymous: {enabled: false}, webhook: {enabled: true}, x509: {clientCAFile: $d/pki/ca.crt}}
authorization: {mode: Webhook}
tlsCertFile: $d/pki/$name-serving.crt
tlsPrivateKeyFile: $d/pki/$name-serving.key
address: $ip
readOnlyPort: 0
cgroupDriver: cgroupfs
cgroupRoot: /$(<"$state/run")-$name
oomScoreAdj: 0
failSwapOn: false
protectKernelDefaults: true
resolvConf: $dir/resolv.conf
clusterDNS: [$net.0.2]
clusterDomain: cluster.local
evictionHard: {memory.available: 1%, nodefs.available: 1%, nodefs.inodesFree: 1%, imagefs.available: 1%}
imageGCHighThresholdPercent: 100
nodeStatusUpdateFrequency: 2s
EOF
  cat >"$dir/proxy.yaml" <<EOF
apiVersion: kubeproxy.config.k8s.io/v1alpha1
kind: KubeProxyConfiguration
clientConnection: {kubeconfig: $d/proxy.kubeconfig}
hostnameOverride: $name
mode: iptables
clusterCIDR: $net.0.0/16
# These are the machine's, and cannot be set from a node.
conntrack: {maxPerCore: 0, min: 0, tcpCloseWaitTimeout: 0s, tcpEstablishedTimeout: 0s}
healthzBindAddress: $ip:10256
metricsBindAddress: $ip:10249
EOF
}

# Starts a node, the first time or after it was killed.
boot_node() { # N
  local name=node-$1 dir=$state/node-$1 pid
  rm -f "$dir/pid" "$dir/images-are-here"
  date -u +%Y-%m-%dT%H:%M:%SZ >"$dir/booted"
  serve "$name" unshare --mount --net --uts --ipc --pid --propagation private --fork --kill-child -- \
    "$real/node-init" "$1" "$net" "$(<"$state/kube/server")"
  wait_for "$name" "the node's first process ran" test -s "$dir/pid"
  pid=$(<"$dir/pid")
  # The hub's end of the wire goes with the node. Should the kernel still be at it, this hurries it.
  in_hub ip link del "n$1" 2>/dev/null || true
  in_hub ip link add "n$1" type veth peer name eth0 netns "$pid"
  in_hub ip link set "n$1" master hub
  in_hub ip link set "n$1" up
}

# What a power cut does. Its processes and control groups are gone when this returns.
kill_node() { # N
  local name=node-$1 mark until=$((SECONDS + 20)) pid first
  mark=$(<"$state/run")
  pid=$(pid_of "$name") first=$(<"$state/node-$1/pid")
  if ours "$pid"; then kill -KILL "$pid"; fi
  while [[ -e /proc/$first/ns/pid || $(cgroups_of "$mark-$name") || $(loops_of "$state/$name") ]]; do
    thaw "$state/$name"
    remove_cgroups "$mark-$name"
    ((SECONDS < until)) || die "$name does not end"
    sleep 0.05
  done
}

# A frozen file system outlives its mounts, and whoever writes to it cannot be killed. Mounted once more, where nobody sees
# it, it is still the same and can be thawed, whether its node lives or not.
thaw() { # NODE-DIR
  local loop
  for loop in $(loops_of "$1"); do
    unshare --mount --propagation private -- sh -c 'mount "$1" /mnt && { fsfreeze --unfreeze /mnt; umount /mnt; }' sh "$loop" 2>/dev/null || true
  done
}
loops_of() { losetup --list --noheadings --output NAME,BACK-FILE | sed -n "s|^\([^ ]*\) *$1/volumes/.*|\1|p"; } # NODE-DIR

# The control groups of a node outlive it: to the kernel they are folders like any other.
cgroups_of() { find /sys/fs/cgroup -mindepth 1 -maxdepth 2 -type d -name "$1*" 2>/dev/null || true; } # PREFIX
remove_cgroups() { # PREFIX
  local groups until=$((SECONDS + 10))
  while mapfile -t groups < <(cgroups_of "$1") && ((${#groups[@]})); do
    # What is frozen cannot die.
    find "${groups[@]}" -name freezer.state -exec sh -c 'for f; do echo THAWED >"$f"; done' sh {} + 2>/dev/null || true
    find "${groups[@]}" -depth -type d -exec rmdir {} + 2>/dev/null || true
    ((SECONDS < until)) || break
    sleep 0.05
  done
}
