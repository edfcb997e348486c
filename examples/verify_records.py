#!/usr/bin/env python3
"""Checks what a ringproof node has signed, away from it: a receipt, or an export of its audit log.

    python3 -m pip install pyjwt==2.15.1 cryptography==50.0.2
    curl -sS https://verify.example/.well-known/jwks.json > jwks.json
    python3 examples/verify_records.py jwks.json receipt receipt.json
    python3 examples/verify_records.py jwks.json audit audit.jsonl checkpoints.jws

`receipt.json` is the answer of `GET /v1/verifications/{id}/receipt`, or its `jws` alone; `audit.jsonl` is what
`ringproof audit export` printed, all kinds of it, and `checkpoints.jws` what `ringproof audit checkpoints` did, kept
where the node cannot write. Exit code 1 with a sentence where something is wrong.
"""

import hashlib
import hmac
import json
import sys
from pathlib import Path

import jwt


def signed(keys, use, text):
    """The payload of a compact JSON Web Signature that one of the keys made for this use."""
    try:
        kid = jwt.get_unverified_header(text).get("kid")
        key = next((key for key in keys.keys if key.key_id == kid), None)
        if key is None:
            sys.exit(f"the {use} was signed with the key {kid}, which is not in the file: fetch jwks.json again")
        whole = jwt.decode_complete(text, key, algorithms=["EdDSA"], options={"verify_iat": False})
    except jwt.InvalidTokenError as error:
        sys.exit(f"the {use} is not genuine: {error}")
    if whole["header"].get("typ") != f"ringproof-{use}+jwt":
        sys.exit(f"the {use} is something else that was signed: a {whole['header'].get('typ')}")
    return whole["payload"]


def receipt(keys, path):
    """A receipt, and the phone in it where one was disclosed."""
    text = Path(path).read_text().strip()
    statement = signed(keys, "receipt", json.loads(text)["jws"] if text.startswith("{") else text)
    if "phone" in statement:
        key, phone = bytes.fromhex(statement["phone_key"]), statement["phone"].encode()
        if not hmac.compare_digest(hmac.digest(key, phone, "sha256").hex(), statement["phone_hmac"]):
            sys.exit("the receipt names a phone that its phone_hmac is not of")
    print(json.dumps(statement, indent=2))


def audit(keys, path, checkpoints):
    """An export: the hash of each entry, the chain that they are, and what was signed of it."""
    hashes = {}
    for line in Path(checkpoints).read_text().split():
        point = signed(keys, "checkpoint", line)
        if hashes.setdefault(point["seq"], point["hash"]) != point["hash"]:
            sys.exit(f"two checkpoints of entry {point['seq']} contradict each other")
    place, before = 0, "0" * 64
    for number, line in enumerate(Path(path).read_text(encoding="utf-8").rstrip("\n").split("\n"), 1):
        members, _, rest = line.rpartition(',"hash":"')
        text, kept = members + "}", rest.partition('"')[0]
        if hashlib.sha256(text.encode()).hexdigest() != kept:
            sys.exit(f"the entry in line {number} was changed: its hash does not fit its text")
        entry = json.loads(text)
        if number == 1 and entry["seq"] - 1 in hashes:
            # Age has removed the beginning, up to an entry that was signed.
            place, before = entry["seq"] - 1, hashes[entry["seq"] - 1]
        if (entry["seq"], entry["previous"]) != (place + 1, before):
            sys.exit(f"entry {place + 1} is not there, or is not the one behind entry {place}: line {number}")
        place, before = entry["seq"], kept
        if hashes.get(place, kept) != kept:
            sys.exit(f"entry {place} is not the one that a checkpoint signed")
    if max(hashes, default=0) > place:
        sys.exit(f"entries {place + 1} to {max(hashes)} were signed and are not there")
    print(f"the log is whole up to entry {place}, and signed up to entry {max(hashes, default=0)}")


if __name__ == "__main__":
    checks = {("receipt", 4): receipt, ("audit", 5): audit}
    check = checks.get((sys.argv[2] if len(sys.argv) > 2 else "", len(sys.argv)))
    if check is None:
        sys.exit(__doc__)
    try:
        check(jwt.PyJWKSet.from_json(Path(sys.argv[1]).read_text()), *sys.argv[3:])
    except (jwt.PyJWTError, OSError, ValueError, KeyError) as error:
        sys.exit(f"cannot be read: {error!r}")
