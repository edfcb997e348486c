#!/usr/bin/env python3
"""Both kinds of signatures on one message: HMAC (v1) as the official libraries check it, Ed25519 (v1a) by hand.

A node whose endpoint has `secrets = [whsec_new, whsk_.., whsec_old]` sends tests, batches and an event. The libraries
of PyPI and npm take them with either HMAC secret and pass over v1a; Python's `cryptography` and Node's `crypto` take v1a
with the public key. Once a reload has removed the old secret, it fits no more. Without npm its part is skipped aloud.
"""

import base64
import json
import os
import shutil
import subprocess
from pathlib import Path

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from standardwebhooks import Webhook, WebhookVerificationError

from caller import Caller
from ringproof import ROOT, Api, Metrics, Node, check, find_binary, mobile, run_main, wait_for, webhook_secret
from webhooks import Receiver

PACKAGE = "standardwebhooks@1.0.0"
SKIPPED = 77

# Asks on standard input, a JSON list of questions; answers with a list of yes and no.
SCRIPT = """
const { Webhook } = require("standardwebhooks");
const crypto = require("node:crypto");
const asked = JSON.parse(require("node:fs").readFileSync(0, "utf8"));
const answers = asked.map(({ secret, headers, body }) => {
  if (secret.startsWith("whsec_")) {
    try { new Webhook(secret).verify(body, headers); return true; }
    catch (error) { if (error.name === "WebhookVerificationError") return false; throw error; }
  }
  const x = Buffer.from(secret.slice("whpk_".length), "base64").toString("base64url");
  const key = crypto.createPublicKey({ key: { kty: "OKP", crv: "Ed25519", x }, format: "jwk" });
  const message = Buffer.from(`${headers["webhook-id"]}.${headers["webhook-timestamp"]}.${body}`);
  const signatures = headers["webhook-signature"].split(" ").filter((one) => one.startsWith("v1a,"));
  return signatures.some((one) => crypto.verify(null, message, key, Buffer.from(one.slice(4), "base64")));
});
console.log(JSON.stringify(answers));
"""


def install():
    """Where the library of npm is, installed where it is missing; `None` where there is no npm."""
    if not shutil.which("npm") or not shutil.which("node"):
        return None
    folder = Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target")).resolve() / "npm"
    manifest = folder / "node_modules" / "standardwebhooks" / "package.json"
    wanted = PACKAGE.split("@")[1]
    if not manifest.exists() or json.loads(manifest.read_text())["version"] != wanted:
        folder.mkdir(parents=True, exist_ok=True)
        command = ["npm", "install", "--silent", "--no-audit", "--no-fund", "--prefix", str(folder), PACKAGE]
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=50)
        check(done.returncode == 0, f"npm cannot install {PACKAGE}: {done.stdout}{done.stderr}")
    return folder


def by_python(secret, delivery, body):
    """Whether the library of PyPI takes it, or `cryptography` where the secret is a public key."""
    headers = delivery.headers
    if secret.startswith("whsec_"):
        try:
            Webhook(secret).verify(body, headers)
        except WebhookVerificationError:
            return False
        return True
    key = Ed25519PublicKey.from_public_bytes(base64.b64decode(secret.removeprefix("whpk_")))
    message = f"{headers['webhook-id']}.{headers['webhook-timestamp']}.".encode() + body
    for signature in headers["webhook-signature"].split(" "):
        if signature.startswith("v1a,"):
            try:
                key.verify(base64.b64decode(signature.removeprefix("v1a,")), message)
            except InvalidSignature:
                continue
            return True
    return False


def by_node(folder, questions):
    """What the library of npm says, and Node's crypto where the secret is a public key."""
    asked = [
        {"secret": secret, "headers": delivery.headers, "body": body.decode()} for secret, delivery, body in questions
    ]
    done = subprocess.run(
        ["node", "-e", SCRIPT], input=json.dumps(asked), capture_output=True, text=True, check=False, timeout=30,
        cwd=folder,
    )
    check(done.returncode == 0, f"node ended with {done.returncode}: {done.stderr}")
    return json.loads(done.stdout)


def hold(folder, deliveries, fitting, foreign):
    """Every delivery fits each of these secrets, none of the foreign ones, and no more once its body is changed."""
    questions, wanted = [], []
    for delivery in deliveries:
        changed = delivery.body.replace(b"}", b" }", 1)
        for secret in (*fitting, *foreign):
            questions += [(secret, delivery, delivery.body), (secret, delivery, changed)]
            wanted += [secret in fitting, False]
    said = {"Python": [by_python(*question) for question in questions]}
    if folder:
        said["Node"] = by_node(folder, questions)
    for name, answers in said.items():
        for (secret, delivery, _), answer, right in zip(questions, answers, wanted):
            check(
                answer == right,
                f"{name} says {answer}, not {right}, of {delivery.webhook_id} with {secret[:10]}..: "
                f"{delivery.headers['webhook-signature']}",
            )
    print(f"{len(deliveries)} requests, {len(fitting)} keys that fit, {len(foreign)} that do not: {', '.join(said)}")


def minted(*options):
    """What `ringproof key webhook` prints: the secret, and the public key where there is one."""
    command = [str(find_binary()), "key", "webhook", *options]
    words = subprocess.run(command, capture_output=True, text=True, check=True, timeout=10).stdout.split()
    return [word for word in words if word.startswith(("whsec_", "whsk_", "whpk_"))]


def send_test(api, endpoint):
    """Has a test sent, which the receiver has to take."""
    status, answer = api.request("POST", f"/v1/endpoints/{endpoint}/test")
    check(status == 200 and answer["delivered"], f"the test answered {status}: {answer}")


def main():
    """A test and an event, each also as a batch; then a test behind the rotation."""
    folder = install()
    (new,), (old,) = minted(), minted()
    private, public = minted("--ed25519")
    other = minted("--ed25519")[1]
    secrets = [new, private, old]
    with (
        Receiver([new], keep=True) as receiver, Receiver([new], keep=True) as batches,
        Node(receiver.url, secrets, more_webhooks=[(batches.url, "batch = 10")]) as node,
    ):
        node.start()
        api = Api(node)
        _, listed = api.request("GET", "/v1/endpoints")
        single, batched = [endpoint["id"] for endpoint in listed["data"]]
        send_test(api, single)
        send_test(api, batched)
        status, created = api.create(mobile(1), ttl_seconds=60)
        check(status == 201, f"create answered {status}: {created}")
        with Caller(node.sip) as caller:
            call = caller.place(mobile(1), created["dial"]["number"])
            wait_for(lambda: call.over, 35, "the call's final response")
        wait_for(lambda: receiver.received >= 2 and batches.received >= 2, 15, "the event")
        deliveries = [*receiver.deliveries, *batches.deliveries]
        types = [delivery.event["type"] for delivery in deliveries]
        wanted = ["endpoint.test", "verification.verified", "event.batch", "event.batch"]
        check(types == wanted, f"what came is {types}")
        for delivery in deliveries:
            schemes = [one.split(",")[0] for one in delivery.headers["webhook-signature"].split(" ")]
            check(schemes == ["v1", "v1a", "v1"], f"the signatures are {schemes}")
        hold(folder, deliveries, [new, old, public], [webhook_secret(), other])

        _, events = api.request("GET", "/v1/events")
        told = [event["type"] for event in events["data"]]
        check(told == ["verification.created", "verification.verified"], f"the feed has {told}")
        node.reload(node.config.read_text().replace(f', "{old}"', ""))
        wait_for(lambda: Metrics.read(node).total("ringproof_config_reloads_total", result="ok"), 10, "the reload")
        send_test(api, single)
        hold(folder, receiver.deliveries[-1:], [new, public], [old, other])
        check(not receiver.rejected + batches.rejected, f"refused: {receiver.rejected + batches.rejected}")
        api.disconnect()
        check(node.stop() == 0, "ringproof did not end with 0 on SIGTERM")
    if not folder:
        print(f"no npm here: {PACKAGE} and Node's crypto have checked nothing", flush=True)
        raise SystemExit(SKIPPED)


if __name__ == "__main__":
    run_main(main)
