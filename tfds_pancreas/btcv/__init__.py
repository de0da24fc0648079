"""BTCV, the abdominal part of Beyond the Cranial Vault: thirteen organs on portal-venous CT."""
