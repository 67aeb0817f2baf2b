"""A real project in the place of the emulators: ``GGEN_LIVE_PROJECT=name pytest -m live``.

Everything of ours in the project's default database, its topics and its buckets is deleted before
each test: it must be a project nobody else needs. Credentials are those of the environment.
"""

import os
from secrets import token_hex

PROJECT = os.environ.get("GGEN_LIVE_PROJECT", "")
PUSH_URL = "https://ggen-live-test.example.com/v1/pubsub/signals"
"""Nobody listens there: what waits to be pushed there waits."""


def new_project() -> str:
    """A project nobody wrote to yet: a new name on emulators, the real one made empty."""
    if not PROJECT:
        return f"p-{token_hex(6)}"
    _empty_documents()
    _empty_topics()
    return PROJECT


def new_bucket() -> str:
    """A new bucket of the real project; its lifecycle deletes what tests leave."""
    from google.cloud import storage

    bucket = storage.Client(project=PROJECT).bucket(f"{PROJECT}-ggen-{token_hex(4)}")
    bucket.add_lifecycle_delete_rule(age=1)
    bucket.create(location="us-central1", timeout=30)
    return str(bucket.name)


def _empty_documents() -> None:
    from google.cloud import firestore

    client = firestore.Client(project=PROJECT)
    for collection in client.collections(timeout=30):
        client.recursive_delete(collection)
    client.close()


def _empty_topics() -> None:
    from google.pubsub_v1 import PublisherClient, SubscriberClient

    project = {"project": f"projects/{PROJECT}"}
    subscriber, publisher = SubscriberClient(), PublisherClient()
    for subscription in subscriber.list_subscriptions(request=project, timeout=30):
        if subscription.labels.get("managed-by") == "ggen-governor":
            name = {"subscription": subscription.name}
            subscriber.delete_subscription(request=name, timeout=30)
    for topic in publisher.list_topics(request=project, timeout=30):
        if topic.labels.get("managed-by") == "ggen-governor":
            publisher.delete_topic(request={"topic": topic.name}, timeout=30)
