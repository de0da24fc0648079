"""Collectives read from the text of a program, against lines counted by hand."""

from benchmarks.collectives import Collective, collectives, purpose

TEXT = """
  %a = f32[3,4]{1,0} all-reduce(%x), channel_id=1, replica_groups={{0,1},{2,3}}, to_apply=%add
  %b = (f32[2]{0}, f64[5]{0}) all-reduce(%x, %y), replica_groups=[2,4]<=[8], to_apply=%add
  %c = bf16[1,1,16]{2,1,0} collective-permute(%x), source_target_pairs={{0,1},{1,2}}
  %d = f32[8]{0} all-gather(%x), replica_groups=mesh['p'=4,'q'=2,'r'=1] {'p','q'}, dimensions={0}
  %e = f32[] all-reduce(%x), replica_groups=mesh['p'=4,'q'=2] {'p':(1)2}, to_apply=%add
  %f = s8[6]{0} all-to-all(%x), replica_groups={}
  %g = f32[3]{0} add(%all-reduce.1, %a), metadata={op_name="all-reduce"}
"""


# Of a GPU and of a TPU: a start and an end.
SPLIT = """
  %a = f32[3,4]{1,0} all-reduce-start(%x), replica_groups={{0,1},{2,3}}, to_apply=%add
  %b = f32[3,4]{1,0} all-reduce-done(%a)
  %c = (bf16[5,16]{1,0}, bf16[5,16]{1,0}) collective-permute-start(%x), source_target_pairs={{0,1}}
  %d = bf16[5,16]{1,0} collective-permute-done(%c)
  %e = (f32[8]{0}, f32[8]{0}, u32[]{:S(2)}, u32[]{:S(2)}) collective-permute-start(%x), channel_id=1
  %f = (f32[2]{0}, f32[8]{0}) all-gather-start(%x), replica_groups=[2,4]<=[8], dimensions={0}
"""


def test_what_is_split_into_start_and_end_is_counted_once():
  found = [(x.kind, x.group, x.bytes) for x in collectives(SPLIT, 8)]
  assert found == [
    ("all-reduce", 2, 48),
    ("collective-permute", 2, 160),
    ("collective-permute", 2, 32),
    ("all-gather", 4, 32),
  ]


def test_kinds_groups_and_bytes_by_hand():
  found = collectives(TEXT, 8)
  assert [(x.kind, x.group, x.elements, x.bytes) for x in found] == [
    ("all-reduce", 2, 12, 48),
    ("all-reduce", 4, 7, 8 + 40),
    ("collective-permute", 2, 16, 32),
    ("all-gather", 8, 8, 32),
    ("all-reduce", 2, 1, 4),
    ("all-to-all", 8, 6, 6),
  ]
  assert found[1] == Collective("all-reduce", 4, (("f32", (2,)), ("f64", (5,))))


def test_what_a_collective_is_for():
  def of(kind, *shapes):
    return purpose(Collective(kind, 8, tuple(("f32", shape) for shape in shapes)))

  assert of("all-reduce", (3, 3, 3, 16, 16), (16,)) == "gradients"
  assert of("all-reduce", (6_472_784,)) == "gradients"  # all of them in a row
  assert of("all-reduce", (512,), (512,), ()) == "statistics"
  assert of("collective-permute", (1, 1, 160, 96, 16)) == "halo"
  assert of("all-gather", (8,)) == "other"
