"""A relay between a marketplace and ggen governor: it translates, signs, and delivers until taken.

    WEBHOOK_KEY=$(head -1 .ggen/secrets/webhook.key) python marketplace_relay.py < event.json
Adapt ``PLANS`` and ``ACCOUNTS``: only you know which of your accounts a marketplace means.
"""

import hashlib
import hmac
import json
import os
import sys
import time
import urllib.error
import urllib.request
from typing import Any

URL = os.environ.get("GGEN_URL", "http://127.0.0.1:8080") + "/v1/webhooks/marketplace"
PLANS = {"pro-monthly": "professional"}
ACCOUNTS: dict[str, str] = {}
CREATED = ("ENTITLEMENT_ACTIVE", "License Updated - Manufacturer", "Subscribe")
CHANGED = ("ENTITLEMENT_PLAN_CHANGED", "ChangePlan")


def translate(event: dict[str, Any]) -> dict[str, Any] | None:
    """The event as ggen governor takes it; None for one that is not for it."""
    detail = event.get("entitlement") or event.get("detail") or event
    kind = event.get("eventType") or event.get("detail-type") or event.get("action")
    if kind not in CREATED + CHANGED:
        return None
    entitlement = str(detail.get("id") or detail.get("licenseArn") or detail.get("subscriptionId"))
    product = detail.get("product") or detail.get("productCode") or detail.get("offerId")
    plan = detail.get("plan") or detail.get("newPlan") or detail.get("planId") or "starter"
    return {
        "event_type": "entitlement.created" if kind in CREATED else "entitlement.plan_changed",
        "event_id": str(event.get("eventId") or event.get("id")),
        "event_time": detail.get("updateTime") or event.get("time") or event.get("timeStamp"),
        "account_id": ACCOUNTS.get(entitlement, entitlement.replace(".", "-").replace(":", "-")),
        "sku_id": product,
        "plan_type": PLANS.get(plan, plan),
    }


def deliver(event: dict[str, Any]) -> int:
    """Deliver until it is accepted or refused permanently; the last status."""
    body = json.dumps({k: v for k, v in event.items() if v}).encode()
    digest = hmac.new(os.environ["WEBHOOK_KEY"].encode(), body, hashlib.sha256).hexdigest()
    request = urllib.request.Request(URL, body, {"X-Entitlement-Signature": f"sha256={digest}"})
    while True:
        try:
            with urllib.request.urlopen(request) as answer:
                return int(answer.status)
        except urllib.error.HTTPError as error:
            if error.code not in (429, 503):
                return error.code
            time.sleep(int(error.headers.get("Retry-After") or 5))


if __name__ == "__main__":
    found = translate(json.load(sys.stdin))
    sys.exit(deliver(found) >= 300 if found else "not for a governor")
