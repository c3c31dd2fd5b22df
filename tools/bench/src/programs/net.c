/* net up|down|tcp|udp PORT COUNT: traffic with 10.0.2.2 from inside a guest, timed by the guest's own clock; prints ticks of 10 MHz.
 * up, down: COUNT bytes of TCP; tcp, udp: the median of the last 2048 of COUNT round trips of one byte. No libc: raw system calls of Linux (riscv). */
typedef unsigned long u64;
typedef unsigned char u8;

static long call(long n, long a, long b, long c, long d, long e, long f) {
  register long a0 __asm__("a0") = a, a1 __asm__("a1") = b, a2 __asm__("a2") = c, a3 __asm__("a3") = d, a4 __asm__("a4") = e, a5 __asm__("a5") = f, a7 __asm__("a7") = n;
  __asm__ volatile("ecall" : "+r"(a0) : "r"(a1), "r"(a2), "r"(a3), "r"(a4), "r"(a5), "r"(a7) : "memory");
  return a0;
}
enum { READ = 63, WRITE = 64, EXIT = 93, SOCKET = 198, CONNECT = 203, SETSOCKOPT = 208 };
static u64 ticks(void) { u64 t; __asm__ volatile("rdtime %0" : "=r"(t)); return t; }
static u64 number(const char *s) { u64 n = 0; while (*s) n = n * 10 + (u64)(*s++ - '0'); return n; }
static void fail(const char *what) { u64 n = 0; while (what[n]) n++; call(WRITE, 2, (long)what, (long)n, 0, 0, 0); call(EXIT, 1, 0, 0, 0, 0, 0); }

static u8 buffer[65536];
enum { KEPT = 2048 };
static u64 samples[KEPT];

static void print(u64 value) {
  char text[24]; int at = 24; text[--at] = '\n';
  do { text[--at] = (char)('0' + value % 10); value /= 10; } while (value);
  call(WRITE, 1, (long)(text + at), 24 - at, 0, 0, 0);
}

void run(u64 *stack) {
  char **argv = (char **)(stack + 1);
  if (stack[0] != 4) fail("net up|down|tcp|udp PORT COUNT\n");
  const char mode = argv[1][0], second = argv[1][1];
  const u64 port = number(argv[2]), count = number(argv[3]);
  const int datagrams = mode == 'u' && second == 'd';
  u8 address[16] = { 2, 0, (u8)(port >> 8), (u8)port, 10, 0, 2, 2 };
  const long fd = call(SOCKET, 2, datagrams ? 2 : 1, 0, 0, 0, 0);
  int one = 1;
  if (!datagrams) call(SETSOCKOPT, fd, 6, 1, (long)&one, 4, 0); /* TCP_NODELAY */
  if (fd < 0 || call(CONNECT, fd, (long)address, 16, 0, 0, 0) < 0) fail("net: cannot connect\n");
  const u64 begun = ticks();
  if (mode == 'd' || (mode == 'u' && second == 'p')) {
    const u8 order[9] = { (u8)(mode == 'd' ? 'D' : 'U'), (u8)(count >> 56), (u8)(count >> 48), (u8)(count >> 40), (u8)(count >> 32), (u8)(count >> 24), (u8)(count >> 16), (u8)(count >> 8), (u8)count };
    call(WRITE, fd, (long)order, 9, 0, 0, 0);
    for (u64 left = count; left > 0;) {
      const long n = call(mode == 'd' ? READ : WRITE, fd, (long)buffer, left < sizeof buffer ? (long)left : (long)sizeof buffer, 0, 0, 0);
      if (n <= 0) fail("net: the connection ended\n");
      left -= (u64)n;
    }
    if (mode == 'u' && call(READ, fd, (long)buffer, 1, 0, 0, 0) != 1) fail("net: no acknowledgment\n"); /* the server has all */
    print(ticks() - begun);
  } else {
    if (mode == 't') call(WRITE, fd, (long)"E", 1, 0, 0, 0);
    const u64 kept = count < KEPT ? count : KEPT;
    for (u64 round = 0; round < count; round++) {
      const u64 start = ticks();
      call(WRITE, fd, (long)buffer, 1, 0, 0, 0);
      if (call(READ, fd, (long)buffer, sizeof buffer, 0, 0, 0) <= 0) fail("net: no answer\n");
      const u64 took = ticks() - start;
      if (round < count - kept) continue;
      u64 at = round - (count - kept);
      for (; at > 0 && samples[at - 1] > took; at--) samples[at] = samples[at - 1];
      samples[at] = took;
    }
    print(samples[kept / 2]);
  }
  call(EXIT, 0, 0, 0, 0, 0, 0);
}
__asm__(".globl _start\n_start: mv a0, sp\n call run\n");
