# Floating point: the state is looked at once, NX by an error term while it is not set.
  fadd.d fa0, fa0, fa1
  fmul.d fa0, fa0, fa2
  ret
