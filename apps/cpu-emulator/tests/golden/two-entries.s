# A loop that is entered at two places: a selector goes in front.
start:
  bnez a0, second
first:
  addi a1, a1, -1
second:
  addi a2, a2, 1
  bnez a1, first
  ecall
