# A recursive function: the inner call jumps to the start, the return compares with where it may go.
function:
  beqz a0, done
  addi sp, sp, -16
  sd ra, 0(sp)
  addi a0, a0, -1
  call function
  ld ra, 0(sp)
  addi sp, sp, 16
done:
  ret
