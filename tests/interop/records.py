#!/usr/bin/env python3
"""What a node keeps for others to rely on, checked away from it: receipts, the audit log, backups, what erasing leaves.

With calls coming all the while: receipts hold before and after the signing key is rotated, a backup is one moment of a
node at work, and an erased phone is in no file and no answer any more, nor after the backup is put back. The log is
checked by `examples/verify_records.py`, which knows nothing of the program, and by `ringproof audit verify`; both find
what was changed, removed, moved or cut off in a copy of the database.
"""

import base64
import csv
import hashlib
import io
import itertools
import json
import shutil
import sqlite3
import subprocess
import sys
import threading
import time
from pathlib import Path

from caller import Caller
from ringproof import ROOT, Api, Node, check, mobile, run_main, wait_for, webhook_secret
from webhooks import Receiver

EXAMPLE = ROOT / "examples" / "verify_records.py"
CONSENT = {"purpose": "consent", "consent": {"document": "Terms of 2026-11-01", "sha256": "9f" * 32}}
# Phones of the traffic begin behind those that are named here.
FIRST_OF_TRAFFIC = 1_000
ERASED, ERASED_BY_COMMAND, ERASED_PENDING, KEPT, UNBACKED = 1, 2, 3, 4, 5
LIMITS = "limits = { creates_per_phone = 0, pending_per_phone = 100 }\n"


class Traffic:
    """Verifications that are begun and called, one after the other, until it is closed."""

    def __init__(self, node):
        self.api = Api(node)
        self.caller = Caller(node.sip)
        self.calls = {}
        self.faults = []
        self._indexes = itertools.count(FIRST_OF_TRAFFIC)
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self):
        try:
            while not self._over.wait(0.008):
                phone = mobile(next(self._indexes))
                status, created = self.api.create(phone, ttl_seconds=300)
                check(status == 201, f"create answered {status}: {created}")
                self.calls[created["id"]] = self.caller.place(phone, created["dial"]["number"])
        except Exception as error:  # pylint: disable=broad-except
            self.faults.append(f"{type(error).__name__}: {error}")

    def finish(self):
        """No more of them; every call gets its answer."""
        self._over.set()
        self._thread.join(10)
        wait_for(lambda: not self.caller.open(), 35, "the answers to all calls")
        self.caller.close()
        check(not self.faults, f"the traffic met {self.faults}")
        codes = {call.code for call in self.calls.values()}
        check(codes == {486}, f"calls were answered {codes}")


class Records:
    """A node and the tools that look at what it has signed."""

    def __init__(self, node):
        self.node = node
        self.api = Api(node)
        self.jwks = node.directory / "jwks.json"

    def file(self, name, text):
        """Writes a file beside the node's."""
        path = self.node.directory / name
        path.write_text(text)
        return path

    def fetch_keys(self):
        """Fetches the public keys as anybody may, without an API key."""
        status, keys = self.api.request("GET", "/.well-known/jwks.json")
        check(status == 200, f"jwks.json answered {status}")
        self.jwks.write_text(json.dumps(keys))
        return [key["kid"] for key in keys["keys"]]

    def run(self, *arguments, config=None, code=0):
        """Runs a command of the program; gives what it said."""
        config = config or self.node.config
        command = [str(self.node.binary), *map(str, arguments), "-c", str(config)]
        # Not as text: lines of CSV end with CRLF, which is to be seen.
        done = subprocess.run(command, capture_output=True, check=False, timeout=30, cwd=self.node.directory)
        said = done.stdout.decode(), done.stderr.decode()
        check(done.returncode == code, f"{arguments} ended with {done.returncode}, not {code}: {said[0]}{said[1]}")
        return said[0] if code == 0 else "".join(said)

    def example(self, *arguments, code=0, keys=None):
        """Runs the example; gives what it said."""
        command = [sys.executable, str(EXAMPLE), str(keys or self.jwks), *map(str, arguments)]
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=30)
        said = done.stdout + done.stderr
        check(done.returncode == code, f"the example ended with {done.returncode}, not {code}: {said}")
        check("Traceback" not in said, f"the example broke off: {said}")
        return said

    def verify(self, caller, index, **fields):
        """Has a phone verified; gives the verification's id."""
        phone = mobile(index)
        status, created = self.api.create(phone, **fields)
        check(status == 201, f"create answered {status}: {created}")
        call = caller.place(phone, created["dial"]["number"])
        wait_for(lambda: call.over, 35, "the call's final response")
        check(call.code == 486, f"the call was answered {call.code}, not 486")
        return created["id"]

    def receipt(self, identifier, with_phone=False):
        """The receipt, which has to be there."""
        query = "?phone=true" if with_phone else ""
        status, answer = self.api.request("GET", f"/v1/verifications/{identifier}/receipt{query}")
        check(status == 200, f"the receipt answered {status}: {answer}")
        return answer

    def refused(self, path, status, code):
        """A request has to be refused like this."""
        got, problem = self.api.request("GET", path)
        check((got, problem.get("code")) == (status, code), f"{path} answered {got}: {problem}")

    def erase(self, index):
        """Erases a phone over the API."""
        status, answer = self.api.request("POST", "/v1/erasures", {"phone": mobile(index)})
        check(status == 200 and answer["log_emptied"], f"the erasure answered {status}: {answer}")
        return answer["erased"]


def kid_of(answer):
    """Name of the key that a receipt was signed with."""
    header = answer["jws"].split(".")[0]
    return json.loads(base64.urlsafe_b64decode(header + "=" * (-len(header) % 4)))["kid"]


def forged(answer):
    """The receipt with another status, its signature kept."""
    header, payload, signature = answer["jws"].split(".")
    text = base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)).replace(b'"canceled"', b'"verified"')
    return ".".join((header, base64.urlsafe_b64encode(text).decode().rstrip("="), signature))


def check_receipts(records, caller):
    """Receipts tell what happened, prove the phone to whom it is told, and outlive their key."""
    api = records.api
    verified = [records.verify(caller, index, reference=f"customer-{index}", **CONSENT) for index in (ERASED, KEPT)]
    canceled = api.create(mobile(10))[1]["id"]
    records.refused(f"/v1/verifications/{canceled}/receipt", 409, "verification_pending")
    api.request("POST", f"/v1/verifications/{canceled}/cancel")
    records.fetch_keys()

    old = [records.receipt(identifier, with_phone=True) for identifier in verified]
    plain = records.receipt(verified[1])
    check(mobile(KEPT) not in json.dumps(plain), "a receipt names the phone unasked")
    statement = old[1]["statement"]
    for name, wanted in {
        "jti": verified[1], "verification": verified[1], "application": "interop", "livemode": False, "iss": "interop",
        "status": "verified", "assurance": "B", "purpose": "consent", "consent_sha256": "9f" * 32,
        "phone": mobile(KEPT), "key": hashlib.sha256(records.node.key.encode()).hexdigest()[:8],
    }.items():
        check(statement.get(name) == wanted, f"the statement's {name} is {statement.get(name)!r}, not {wanted!r}")
    for answer in (*old, plain):
        shown = json.loads(records.example("receipt", records.file("receipt.json", json.dumps(answer))))
        check(shown == answer["statement"], "the signature is over another statement than the answer shows")
    records.run("receipt", "verify", records.file("receipt.jws", old[0]["jws"] + "\n"), "--keys", records.jwks)

    forgery = records.file("forged.jws", forged(records.receipt(canceled)))
    check("not genuine" in records.example("receipt", forgery, code=1), "the example takes a forged receipt")
    check("does not fit" in records.run("receipt", "verify", forgery, code=1), "a forged receipt is taken")

    first = kid_of(plain)
    records.run("key", "rotate")
    check(records.fetch_keys() == [first], "the node took a key up before its reload")
    former = records.file("jwks-former.json", records.jwks.read_text())
    records.node.reload(records.node.config.read_text())
    wait_for(lambda: len(records.fetch_keys()) == 2, 10, "the new signing key")
    again = records.receipt(verified[1])
    check(kid_of(again) != first, "the old key signs on")
    check(again["statement"] == plain["statement"], "another key signs another statement")
    for answer in (*old, again):
        path = records.file("receipt.json", json.dumps(answer))
        records.example("receipt", path)
        records.run("receipt", "verify", path)
    check("fetch jwks.json again" in records.example("receipt", path, code=1, keys=former), "an unknown key is taken")
    print("receipts: 2 phones disclosed, a forgery found, the key rotated and the old receipts still good")
    return verified[0]


def holders(directory, index):
    """The files below a directory that hold a phone: its digits, or the integer that the database keeps."""
    digits = mobile(index).removeprefix("+")
    needles = digits.encode(), int(digits).to_bytes(6, "big")
    files = [path for path in Path(directory).rglob("*") if path.is_file()]
    return [str(path) for path in files if any(needle in path.read_bytes() for needle in needles)]


def check_erasures(records, caller, erased_before, backup):
    """A backup under load; then phones are erased, and are in no file and no answer."""
    records.verify(caller, ERASED_BY_COMMAND)
    pending = records.api.create(mobile(ERASED_PENDING), ttl_seconds=300)[1]["id"]
    indexes = (ERASED, ERASED_BY_COMMAND, ERASED_PENDING)
    records.run("backup", backup)
    records.run("backup", backup, code=1)
    names = sorted(path.name for path in backup.iterdir())
    wanted = ["manifest.json", "node.secret", "ringproof.db", "signing.json"]
    check(names == wanted, f"the backup holds {names}")
    unbacked = records.verify(caller, UNBACKED)
    data_dir = records.node.data_dir
    for index in indexes:
        check(holders(backup, index), f"phone {index} is not in the backup")
        check(holders(data_dir, index), f"phone {index} is not in the files")

    counts = records.erase(ERASED)
    check(counts["verifications"] == 1 and counts["calls"] == 1 and counts["events"] == 2, f"erased {counts}")
    check(records.erase(ERASED_PENDING)["ended"] == 1, "the pending one was not ended")
    said = dict(line.split() for line in records.run("erase", "--phone", mobile(ERASED_BY_COMMAND)).splitlines())
    check(said["verifications"] == "1", f"the command erased {said}")
    check(not any(records.erase(ERASED).values()), "something was left to erase")
    for index in indexes:
        check(not holders(data_dir, index), f"phone {index} is still in {holders(data_dir, index)}")
        check(not holders(records.node.directory / "stderr.log", index), f"phone {index} is in the log")
    check(holders(data_dir, KEPT), "a phone is gone that nobody erased")

    records.refused(f"/v1/verifications/{erased_before}", 404, "not_found")
    records.refused(f"/v1/verifications/{pending}", 404, "not_found")
    records.refused(f"/v1/verifications/{erased_before}/receipt?phone=true", 410, "phone_gone")
    receipt = records.receipt(erased_before)
    check(receipt["statement"]["status"] == "verified", "the receipt tells another outcome after the erasure")
    records.example("receipt", records.file("receipt.json", json.dumps(receipt)))
    ended = records.receipt(pending)["statement"]
    check((ended["status"], ended["reasons"]) == ("canceled", ["erased"]), f"the pending one ended as {ended}")
    print("erasures: 3 phones in no file and no answer, their outcomes still told; a backup made before, under load")
    return unbacked


def ended_in(export):
    """The entry of each verification that an export tells the end of."""
    entries = [json.loads(line) for line in export.read_text().splitlines()]
    return {entry["data"]["verification"]: entry["data"] for entry in entries if entry["kind"] == "verification.ended"}


def check_log(records, traffic, receiver):
    """The log holds every outcome, and both checkers find it whole."""
    export = records.file("audit.jsonl", records.run("audit", "export", "--timezone", "Asia/Riyadh"))
    checkpoints = records.file("checkpoints.jws", records.run("audit", "checkpoints"))
    told = ended_in(export)
    check(traffic.calls.keys() <= told.keys(), "an outcome is not in the log")
    wrong = [identifier for identifier in traffic.calls if told[identifier]["status"] != "verified"]
    check(not wrong, f"{len(wrong)} outcomes are told as something else than verified")
    check(receiver.verified() <= told.keys(), "a receiver was told what the log does not hold")
    check(not receiver.rejected, f"the library refused a delivery: {receiver.rejected[:1]}")
    check("the log is whole" in records.run("audit", "verify", "--against", checkpoints), "the log is not whole")
    away = ("--log", export, "--against", checkpoints, "--keys", records.jwks)
    check("the log is whole" in records.run("audit", "verify", *away), "the export is not whole")
    check("the log is whole" in records.example("audit", export, checkpoints), "the export is not whole")

    lines = [json.loads(line) for line in export.read_text().splitlines()]
    check(all(line["local"].endswith("+03:00") for line in lines), "the local time is another place's")
    rows = list(csv.DictReader(io.StringIO(records.run("audit", "export", "--format", "csv"), newline="")))
    check(len(rows) == len(lines), f"{len(rows)} rows for {len(lines)} entries")
    for row, line in zip(rows, lines):
        read = {**row, "seq": int(row["seq"]), "data": json.loads(row["data"]), "local": line["local"]}
        check(read == line, f"the row {row} is not the entry {line}")
    kinds = {line["kind"] for line in lines}
    wanted = {
        "node.started", "config.loaded", "key.used", "verification.ended", "phone.erased", "backup.made",
        "signing_key.rotated", "node.stopped",
    }
    check(wanted <= kinds, f"the log tells nothing of {wanted - kinds}")
    print(f"audit log: {len(lines)} entries, {len(told)} outcomes, whole by both checkers; CSV reads as the same")
    return export, checkpoints, lines


class Copies:
    """Copies of the data directory, each to be tampered with."""

    def __init__(self, records, checkpoints):
        self._records = records
        self._checkpoints = checkpoints
        self._count = itertools.count()

    def tampered(self, name, wanted, *statements, rewrite=None):
        """Changes a copy; `audit verify` has to say each sentence, and the example that something is wrong."""
        directory = self._records.node.directory / f"copy-{next(self._count)}"
        shutil.copytree(self._records.node.data_dir, directory)
        database = sqlite3.connect(directory / "ringproof.db")
        with database:
            if rewrite:
                rewrite(database)
            for statement in statements:
                database.execute(statement)
        database.close()
        data_dir = str(self._records.node.data_dir)
        text = self._records.node.config.read_text().replace(data_dir, str(directory))
        config = self._records.file(f"{directory.name}.toml", text)
        said = self._records.run("audit", "verify", "--against", self._checkpoints, config=config, code=1)
        for sentence in wanted:
            check(sentence in said, f"{name}: {sentence!r} is not in {said}")
        export = self._records.file("tampered.jsonl", self._records.run("audit", "export", config=config))
        sentence = self._records.example("audit", export, self._checkpoints, code=1)
        print(f"  {name}: {wanted[0]}; the example: {sentence.strip()}")
        shutil.rmtree(directory)


def rewritten(database, seq, text):
    """Another text for an entry, and every hash behind it set right, as whoever has the file but no key could."""
    entries = database.execute("SELECT seq, text FROM audit WHERE seq >= ? ORDER BY seq", (seq,)).fetchall()
    previous = json.loads(entries[0][1])["previous"]
    for place, old in entries:
        members = text if place == seq else old
        members = members[: members.rindex(',"previous":')]
        new = f'{members},"previous":"{previous}"}}'
        digest = hashlib.sha256(new.encode()).digest()
        database.execute("UPDATE audit SET text = ?, hash = ? WHERE seq = ?", (new, digest, place))
        previous = digest.hex()


def check_tampering(records, checkpoints, lines):
    """Whatever is done to the rows of a log is found and named."""
    copies = Copies(records, checkpoints)
    ends = [line["seq"] for line in lines if line["kind"] == "verification.ended"]
    one, other, last = ends[len(ends) // 3], ends[len(ends) // 2], lines[-1]["seq"]
    change = "replace(text, '\"status\":\"verified\"', '\"status\":\"canceled\"')"
    text = {line["seq"]: line for line in lines}[one]
    check(text["data"]["status"] == "verified", f"entry {one} is no verified one")

    def with_hash(database):
        database.create_function("sha256", 1, lambda text: hashlib.sha256(text.encode()).digest())
        database.execute(f"UPDATE audit SET text = {change}, hash = sha256({change}) WHERE seq = {one}")

    def whole_log(database):
        old = database.execute("SELECT text FROM audit WHERE seq = ?", (one,)).fetchone()[0]
        rewritten(database, one, old.replace('"status":"verified"', '"status":"canceled"'))

    swap = [
        f"UPDATE audit SET seq = -1 WHERE seq = {one}", f"UPDATE audit SET seq = {one} WHERE seq = {other}",
        f"UPDATE audit SET seq = {other} WHERE seq = -1",
    ]
    copies.tampered("changed", [f"entry {one} was changed"], f"UPDATE audit SET text = {change} WHERE seq = {one}")
    copies.tampered("changed with its hash", [f"entry {one} was replaced"], rewrite=with_hash)
    copies.tampered("removed", [f"entry {one} was removed"], f"DELETE FROM audit WHERE seq = {one}")
    copies.tampered("several removed", [f"entries {one} to {other} were removed"],
                    f"DELETE FROM audit WHERE seq BETWEEN {one} AND {other}")
    copies.tampered("swapped", [f"entry {other} was moved: it stands at the place of entry {one}",
                                f"entry {one} was moved: it stands at the place of entry {other}"], *swap)
    copies.tampered("tail cut off, its checkpoints too", [f"entries {other} to {last} were removed"],
                    f"DELETE FROM audit WHERE seq >= {other}", f"DELETE FROM audit_checkpoints WHERE seq >= {other}")
    copies.tampered("rewritten from there on", [f"entry {last} is not the one that a checkpoint signed"],
                    rewrite=whole_log)


def check_restored(records, config, data_dir, erased_before, unbacked):
    """What was erased is in no file of a state that was put back, and not in its answers."""
    for index in (ERASED, ERASED_BY_COMMAND, ERASED_PENDING):
        check(not holders(data_dir, index), f"phone {index} came back: {holders(data_dir, index)}")
    check(holders(data_dir, KEPT), "a phone is not in the backup that was in it")
    node = records.node
    own, node.config = node.config, config
    node.start()
    for index in (ERASED, ERASED_BY_COMMAND, ERASED_PENDING):
        status, listed = records.api.request("GET", f"/v1/verifications?phone=%2B{mobile(index)[1:]}")
        check(status == 200 and listed["data"] == [], f"phone {index} is listed again: {listed}")
    status, listed = records.api.request("GET", f"/v1/verifications?phone=%2B{mobile(KEPT)[1:]}")
    check(len(listed["data"]) == 1, f"the phone that was kept is listed as {listed}")
    records.refused(f"/v1/verifications/{erased_before}", 404, "not_found")
    # It was begun behind the backup, so it is as if it had never been.
    records.refused(f"/v1/verifications/{unbacked}", 404, "not_found")
    records.refused(f"/v1/verifications/{erased_before}/receipt?phone=true", 410, "phone_gone")
    receipt = records.file("receipt.json", json.dumps(records.receipt(erased_before)))
    records.fetch_keys()
    records.example("receipt", receipt)
    records.api.disconnect()
    check(node.stop() == 0, "ringproof did not end with 0 on SIGTERM")
    check("the log is whole" in records.run("audit", "verify", config=config), "the restored log is not whole")
    node.config = own


def check_restores(records, backup, export, checkpoints, erased_before, unbacked):
    """The backup elsewhere, with the log of the node that it is of, and in its place."""
    node = records.node
    elsewhere = node.directory / "elsewhere"
    config = records.file("elsewhere.toml", node.config.read_text().replace(str(node.data_dir), str(elsewhere)))
    said = records.run("restore", backup, "--audit", export, config=config)
    check("3 verifications erased again" in said, f"restore said {said}")
    check_restored(records, config, elsewhere, erased_before, unbacked)

    check("--replace" in records.run("restore", backup, code=1), "restore took the place of a state unasked")
    records.run("key", "rotate")
    said = records.run("restore", backup, "--replace")
    check("3 verifications erased again" in said, f"restore said {said}")
    check(len(list(node.data_dir.glob("before-restore-*/ringproof.db"))) == 1, "the state before is not set aside")
    check_restored(records, node.config, node.data_dir, erased_before, unbacked)
    check(len(json.loads(records.jwks.read_text())["keys"]) == 3, "a key that is newer than the backup is gone")
    told = json.loads(records.run("audit", "export", "--kind", "backup.restored"))["data"]
    newest = json.loads(export.read_text().splitlines()[-1])["seq"]
    check(told["replaced"] == newest and told["erased"]["verifications"] == 3, f"the log tells {told}")
    # What was signed behind the backup is not the log that was put back: a restore cannot be hidden.
    said = records.run("audit", "verify", "--against", checkpoints, code=1)
    check("the log is not as it was written" in said, f"the restore is not seen: {said}")

    (backup / "node.secret").write_bytes(b"x" * 32)
    said = records.run("restore", backup, "--replace", code=1)
    check("node.secret is not as it was" in said, f"a backup that was changed is taken: {said}")
    print("restores: elsewhere and in place, what was erased since is erased again and in no file")


def main():
    """One node's life, then what is left of it."""
    began = time.monotonic()
    secret = webhook_secret()
    with Receiver([secret]) as receiver, Node(receiver.url, [secret], application=LIMITS) as node:
        node.start()
        records = Records(node)
        backup = node.directory / "backup"
        traffic = Traffic(node)
        with Caller(node.sip) as caller:
            erased_before = check_receipts(records, caller)
            unbacked = check_erasures(records, caller, erased_before, backup)
        records.run("restore", backup, "--replace", code=1)
        traffic.finish()
        wait_for(lambda: traffic.calls.keys() <= receiver.verified(), 20, "the webhook of every verification")
        records.api.disconnect()
        check(node.stop() == 0, "ringproof did not end with 0 on SIGTERM")
        export, checkpoints, lines = check_log(records, traffic, receiver)
        check_tampering(records, checkpoints, lines)
        check_restores(records, backup, export, checkpoints, erased_before, unbacked)
    print(f"{time.monotonic() - began:.0f} s")


if __name__ == "__main__":
    run_main(main)
