"""Data sets as sharded records: each sub-package is one TFDS builder, written without TensorFlow.

`build` is the command, `records` how records are read. `record_builder` is the base of every
builder and `checked_builder` that of those of real scans; their `workers` leave `parts`, of which
shards are made; `report` and `contact_sheet` say what was found. This package knows nothing of
networks or training; it imports from `attn_unet_jax` only `volumes`, `errors` and the frame of a
command.
"""
