#!/usr/bin/env bash
# usage: start_ceph.sh FOLDER MONITOR_PORT GATEWAY_PORT
# A Ceph of one monitor and one store in memory, and its S3 gateway; pids are in FOLDER/run.
set -euo pipefail
folder=$1 monitor=$2 gateway=$3
export CEPH_CONF=$folder/ceph.conf
mkdir -p "$folder/mon" "$folder/osd" "$folder/run"
fsid=$(cat /proc/sys/kernel/random/uuid)
cat > "$CEPH_CONF" <<END
[global]
fsid = $fsid
mon host = v1:127.0.0.1:$monitor
mon initial members = a
auth cluster required = none
auth service required = none
auth client required = none
keyring = $folder/keyring
run dir = $folder/run
pid file = $folder/run/\$name.pid
admin socket = $folder/run/\$name.asok
log file = $folder/\$name.log
crash dir = $folder
ms bind msgr2 = false
public addr = 127.0.0.1
cluster addr = 127.0.0.1
osd pool default size = 1
osd pool default min size = 1
osd pool default pg num = 8
osd pool default pg autoscale mode = off
osd crush chooseleaf type = 0
osd objectstore = memstore
memstore device bytes = 1073741824
mon allow pool size one = true
mon max pg per osd = 1000
[mon.a]
mon data = $folder/mon
[osd.0]
osd data = $folder/osd
[client.rgw]
rgw frontends = beast endpoint=127.0.0.1:$gateway
rgw data = $folder/rgw
rgw override bucket index max shards = 1
rgw thread pool size = 16
END
ceph-authtool --create-keyring "$folder/keyring" --gen-key -n mon. --cap mon 'allow *'
ceph-authtool "$folder/keyring" --gen-key -n client.admin --cap mon 'allow *' --cap osd 'allow *'
monmaptool --create --addv a "[v1:127.0.0.1:$monitor]" --fsid "$fsid" "$folder/monmap"
ceph-mon --mkfs -i a --monmap "$folder/monmap" --keyring "$folder/keyring"
ceph-mon -i a
osd=$(cat /proc/sys/kernel/random/uuid)
timeout 20 ceph osd new "$osd"
ceph-osd -i 0 --mkfs --osd-uuid "$osd"
for _ in 1 2 3 4 5; do  # its monitor may not know yet who it is
  ceph-osd -i 0 && break
  sleep 0.5
done
for _ in $(seq 100); do timeout 10 ceph osd stat | grep -q '1 up' && break; sleep 0.1; done
timeout 60 radosgw-admin user create --uid=hanse --display-name=hanse \
  --access-key=testkey --secret=testsecret
radosgw -n client.rgw
for _ in $(seq 300); do
  (exec 3<> "/dev/tcp/127.0.0.1/$gateway") 2> /dev/null && exit
  sleep 0.1
done
exit 1
