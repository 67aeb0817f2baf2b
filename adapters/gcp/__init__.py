"""Google Cloud: Firestore, Cloud Storage, Pub/Sub, and how each is called."""
