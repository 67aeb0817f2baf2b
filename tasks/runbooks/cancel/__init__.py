"""The steps of Runbook 7: what each reads, brings about, and leaves for the steps after it.

Each finds what it removes gone already, and goes on. What concerns topic, key and governor happens
only with an account's last entitlement.
"""
