"""What an auditor does: verify a ledger or an archive, export one."""
