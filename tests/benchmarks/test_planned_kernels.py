"""Kernels and what they move, from the text of a compiled program."""

from benchmarks.planned_kernels import list_kernels

PROGRAM = """HloModule step

%fused (p: f32[8]) -> f32[8] {
  ROOT %p = f32[8]{0} parameter(0)
}

ENTRY %main (a: bf16[2,4], b: f32[8]) -> (f32[8], pred[3]) {
  %a = bf16[2,4]{1,0} parameter(0)
  %b = f32[8]{0} parameter(1)
  %wide.1 = f32[8]{0} fusion(%a, %b), kind=kLoop, calls=%fused
  %flat = f32[8]{0} bitcast(%wide.1)
  %two = (f32[8]{0}, pred[3]{0}) custom-call(%flat), custom_call_target="x"
  ROOT %out = f32[8]{0} get-tuple-element(%two), index=0
}
"""


def test_kernels_and_what_they_move_are_read_from_a_program():
  assert list_kernels(PROGRAM) == {"wide.1": 16 + 32 + 32, "two": 32 + 32 + 3}
