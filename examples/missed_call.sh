#!/bin/sh
# One verification from beginning to end: create it, place the call, ask until it is verified.
#
#   RINGPROOF_KEY=rp_test_.. examples/missed_call.sh [PHONE]
#
#   RINGPROOF_KEY   API key of a sandbox application (required)
#   RINGPROOF_API   the API                  (http://127.0.0.1:8080)
#   RINGPROOF_SIP   where calls go, or tcp:.. (udp:127.0.0.1:5060)
#   RINGPROOF       the program              (target/release/ringproof)
set -eu

: "${RINGPROOF_KEY:?set it to an API key, rp_test_..}"
api=${RINGPROOF_API:-http://127.0.0.1:8080}
sip=${RINGPROOF_SIP:-udp:127.0.0.1:5060}
program=${RINGPROOF:-target/release/ringproof}
phone=${1:-+966512345678}

# The text of a field in a JSON answer on one line.
field() {
  printf '%s' "$2" | sed -n "s/.*\"$1\":\"\([^\"]*\)\".*/\1/p"
}

request() {
  curl --silent --show-error --fail-with-body --max-time 10 --header "Authorization: Bearer $RINGPROOF_KEY" "$@"
}

created=$(request "$api/v1/verifications" --header 'Content-Type: application/json' \
  --data "{\"phone\":\"$phone\",\"purpose\":\"login\"}") || { echo "$created" >&2; exit 1; }
id=$(field id "$created")
number=$(field number "$created")
echo "$id: $phone has to call $number"

"$program" call --from "$phone" --to "$number" --via "$sip"

tries=0
while [ "$tries" -lt 20 ]; do
  status=$(field status "$(request "$api/v1/verifications/$id")")
  echo "$id: $status"
  case $status in
    verified) exit 0 ;;
    pending) ;;
    *) exit 1 ;;
  esac
  tries=$((tries + 1))
  sleep 0.5
done
echo "$id: not verified after 10 s" >&2
exit 1
