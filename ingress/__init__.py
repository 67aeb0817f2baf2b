"""HTTP in: webhooks, signals and reads. It checks, starts work, and answers; it never does it."""
