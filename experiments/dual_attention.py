r"""U-Net with spatial and channel attention and parallel skips, on pancreas CT.

A composed system, see attn_unet_jax/models/dual_attention.py; data: Pancreas-CT, or any folder of
images and labels:

  python -m attn_unet_jax.main --config=experiments/dual_attention.py \
    --config.data.folder=DATA --workdir=runs/dual_attention

  dual_attention.py:phantom   narrower, on the embedded phantoms, with the demo's patches:
    python -m tfds_pancreas.build --dataset=phantom_ct/demo --data_dir=data
    python -m attn_unet_jax.main --config=experiments/dual_attention.py:phantom \
      --workdir=runs/dual_attention_phantom

Data and training are Attention U-Net's (pancreas.py). The loss is lambda1 Dice + lambda2 CE, both
1: --config.loss.dice and --config.loss.ce; with binary cross-entropy: loss.ce=0, loss.bce=1.
dual_attention.py:phantom reached DSC 0.835 ± 0.035 on 12 test phantoms in 44 min beside other work;
the full recipe was not trained.
"""

import functools

from ml_collections import ConfigDict

from attn_unet_jax.config.variants import choose_variant, set_loss
from experiments import pancreas


def get_config(arg: str = "") -> ConfigDict:
  """The config that `arg` names; see above."""
  variants = {name: functools.partial(_joint_attention, name) for name in ("", "phantom")}
  return choose_variant("dual_attention.py", arg, variants)


def _joint_attention(variant: str) -> ConfigDict:
  config = pancreas.get_config(variant)
  config.model.name = "dual_attention"
  set_loss(config, dice=1.0, ce=1.0)
  return config
