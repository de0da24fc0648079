"""Data sets as sharded records: each sub-package is one TFDS builder, written without TensorFlow.

`build` is the command, `records` how records are read. `record_builder` is the base of every
builder and `checked_builder` that of the builders of real scans. Their `workers` leave
`case_parts`, of which shards are made; `label_checks`, `build_report` and `contact_sheet` say what
was found. This package knows nothing of networks or training. Of `attn_unet_jax` it imports only
`volumes` and `runtime`.
"""
