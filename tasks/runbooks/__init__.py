"""The seven runbooks: what each does, step by step; no mechanism. Their numbers are the contract's.

1 deploy_sku, 2 upgrade_policy, 3 scale_governor, 4 degrade_to_safe_mode, 5 recover_action,
6 entitlement_lifecycle, 7 customer_cancels.
"""
