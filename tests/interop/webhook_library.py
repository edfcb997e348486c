#!/usr/bin/env python3
"""One verification whose webhook the official Standard Webhooks library accepts, also on a forced second try.

The receiver answers the first try with 500. The second must carry the same webhook-id and the same bytes, with a
signature of its own; with two secrets configured each of them alone verifies it. Then several events in one request.
"""

import json
import time

from standardwebhooks import Webhook, WebhookVerificationError

from caller import Caller
from ringproof import Api, Node, check, mobile, run_main, wait_for, webhook_secret
from webhooks import Receiver


def refuses(secret, delivery, **changed):
    """Whether the library refuses the delivery with something changed."""
    try:
        Webhook(secret).verify(changed.get("body", delivery.body), {**delivery.headers, **changed.get("headers", {})})
    except WebhookVerificationError:
        return True
    return False


def main():
    """Create, call, receive twice."""
    secrets = [webhook_secret(), webhook_secret()]
    phone = mobile(123)
    with Receiver(secrets, answers=[500], keep=True) as receiver, Node(receiver.url, secrets) as node:
        node.start()
        status, created = Api(node).create(phone, ttl_seconds=120, reference="interop-1", metadata={"step": "signup"})
        check(status == 201, f"create answered {status}: {created}")
        with Caller(node.sip) as caller:
            call = caller.place(phone, created["dial"]["number"])
            wait_for(lambda: call.over, 35, "the call's final response")
        check(call.code == 486, f"the call was answered {call.code}, not 486")
        wait_for(lambda: receiver.received >= 2, 15, "a second try after the 500")
        check(not receiver.rejected, f"the library refused a delivery: {receiver.rejected}")

        first, second = receiver.deliveries[:2]
        check(first.answered == 500 and second.answered == 204, "the tries were not answered 500 and 204")
        check(first.webhook_id == second.webhook_id, f"webhook-id changed: {first.webhook_id}, {second.webhook_id}")
        check(first.body == second.body, "the second try's body differs from the first's")
        check(len(first.body) < 20_000, f"the body has {len(first.body)} bytes")
        gap = int(second.headers["webhook-timestamp"]) - int(first.headers["webhook-timestamp"])
        check(0 <= gap <= 5, f"webhook-timestamp moved by {gap} s between the tries")
        check(abs(int(second.headers["webhook-timestamp"]) - time.time()) < 30, "webhook-timestamp is not now")
        kind = first.headers.get("content-type", "")
        check(kind.startswith("application/json"), f"content-type is {kind!r}")

        signatures = second.headers["webhook-signature"].split(" ")
        check(len(signatures) == 2, f"two secrets, but signatures {signatures}")
        for secret in secrets:
            check(not refuses(secret, second), "a secret alone does not verify the delivery")
        check(refuses(webhook_secret(), second), "a foreign secret verifies the delivery")
        check(refuses(secrets[0], second, body=second.body + b" "), "a changed body verifies")
        check(refuses(secrets[0], second, headers={"webhook-id": "evt_other"}), "a changed webhook-id verifies")

        event = second.event
        data = event["data"]
        check(event["type"] == "verification.verified", f"type is {event['type']!r}")
        check(data["id"] == created["id"] and data["status"] == "verified", f"data is {json.dumps(data)[:300]}")
        check(data["phone"] == phone and data["reference"] == "interop-1", f"data is {json.dumps(data)[:300]}")
        check(data["metadata"] == {"step": "signup"}, f"metadata is {data['metadata']}")
        check(isinstance(data["sequence"], int) and data["call"]["trunk"] == "local", "sequence or call is missing")
        _, now = Api(node).verification(created["id"])
        check(now["status"] == "verified", f"the verification reads as {now['status']}")
        print(f"webhook of {len(first.body)} bytes, 2 tries, 2 signatures: accepted by standardwebhooks")
        check(node.stop() == 0, "ringproof did not end with 0 on SIGTERM")
    batches(secrets)


def told(receiver):
    """The verifications that batches have told of which were taken."""
    taken = [delivery for delivery in list(receiver.deliveries) if delivery.answered == 204]
    return {event["data"]["id"] for delivery in taken for event in delivery.event["data"]["events"]}


def batches(secrets):
    """Several events in one request; the events of the first come again, for it is answered 503."""
    with (
        Receiver(secrets, answers=[503], keep=True) as receiver,
        Node(receiver.url, secrets, webhook_lines='batch = 10\nevents = ["*"]') as node,
    ):
        node.start()
        api = Api(node)
        ids = set()
        for index in range(20):
            status, created = api.create(mobile(index), ttl_seconds=120)
            check(status == 201, f"create answered {status}: {created}")
            ids.add(created["id"])
        wait_for(lambda: ids <= told(receiver), 15, "an event of each")
        check(not receiver.rejected, f"the library refused a batch: {receiver.rejected}")
        check(all(delivery.event["type"] == "event.batch" for delivery in receiver.deliveries), "not all are batches")
        check(all(delivery.webhook_id.startswith("bat_") for delivery in receiver.deliveries), "an id is none of a batch")
        print(f"20 events in {len(receiver.deliveries)} requests, one tried again: accepted by standardwebhooks")
        check(node.stop() == 0, "ringproof did not end with 0 on SIGTERM")


if __name__ == "__main__":
    run_main(main)
