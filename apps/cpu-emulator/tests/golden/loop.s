# Sum of an array of words: one block, one load, a backward branch with its look at the budget.
loop:
  lw a2, 0(a0)
  add a1, a1, a2
  addi a0, a0, 4
  bne a0, a3, loop
  ret
