/*
 * The compute suite: six programs as of compilers' and emulators' benchmarks, without a C library. Built twice: for a bare
 * machine in M-mode (-DBARE, behind start.s) and as a static Linux program. Prints `name ticks checksum`, hexadecimal;
 * ticks are those of the 10 MHz timebase.
 */
typedef unsigned long u64;
typedef unsigned int u32;
typedef unsigned char u8;

static u64 ticks(void) {
  u64 t;
  __asm__ volatile("rdtime %0" : "=r"(t));
  return t;
}

/* Sieve of Eratosthenes: strided byte stores. */
static u8 flags[2000000];
static u64 sieve(void) {
  u64 sum = 0;
  for (int round = 0; round < 24; round++) {
    for (u64 i = 0; i < sizeof flags; i++) flags[i] = 1;
    for (u64 i = 2; i * i < sizeof flags; i++)
      if (flags[i])
        for (u64 j = i * i; j < sizeof flags; j += i) flags[j] = 0;
    for (u64 i = 2; i < sizeof flags; i++) sum += flags[i];
  }
  return sum;
}

/* Like CoreMark: linked list, matrix, state machine, CRC. */
struct node { struct node *next; short data; short index; };
static struct node nodes[256];
static short matrix_a[40 * 40], matrix_b[40 * 40];
static int matrix_c[40 * 40];
static u32 crc16(u32 value, u32 crc) {
  for (int i = 0; i < 16; i++) {
    u32 bit = (value ^ crc) & 1;
    value >>= 1;
    crc >>= 1;
    if (bit) crc ^= 0xa001;
  }
  return crc;
}
static struct node *merge_sort(struct node *list, int by_index) {
  int size = 1, merges;
  do {
    struct node *p = list, *tail = 0;
    list = 0;
    merges = 0;
    while (p) {
      struct node *q = p;
      int p_size = 0, q_size = size;
      merges++;
      while (p_size < size && q) { p_size++; q = q->next; }
      while (p_size > 0 || (q_size > 0 && q)) {
        struct node *e;
        int take_q = p_size == 0 ? 1 : q_size == 0 || !q ? 0 : by_index ? q->index < p->index : q->data < p->data;
        if (take_q) { e = q; q = q->next; q_size--; } else { e = p; p = p->next; p_size--; }
        if (tail) tail->next = e; else list = e;
        tail = e;
      }
      p = q;
    }
    tail->next = 0;
    size *= 2;
  } while (merges > 1);
  return list;
}
static u32 state_machine(const char *text) {
  u32 counts[8] = {0}, state = 0;
  for (; *text; text++) {
    switch (state) {
      case 0: state = *text >= '0' && *text <= '9' ? 1 : *text == '-' || *text == '+' ? 2 : *text == '.' ? 3 : 7; break;
      case 1: state = *text == '.' ? 3 : *text == ',' ? 0 : *text >= '0' && *text <= '9' ? 1 : 7; break;
      case 2: state = *text >= '0' && *text <= '9' ? 1 : *text == '.' ? 3 : 7; break;
      case 3: state = *text == 'e' || *text == 'E' ? 4 : *text == ',' ? 0 : *text >= '0' && *text <= '9' ? 3 : 7; break;
      case 4: state = *text == '-' || *text == '+' ? 5 : 7; break;
      case 5: state = *text >= '0' && *text <= '9' ? 6 : 7; break;
      case 6: state = *text >= '0' && *text <= '9' ? 6 : *text == ',' ? 0 : 7; break;
      default: state = *text == ',' ? 0 : 7;
    }
    counts[state]++;
  }
  u32 crc = 0;
  for (int i = 0; i < 8; i++) crc = crc16(counts[i], crc);
  return crc;
}
static u64 coremix(void) {
  u64 crc = 0;
  for (int i = 0; i < 1600; i++) { matrix_a[i] = i * 7 % 127; matrix_b[i] = i * 13 % 251; }
  for (int round = 0; round < 1500; round++) {
    for (int i = 0; i < 256; i++) {
      nodes[i].next = i < 255 ? &nodes[i + 1] : 0;
      nodes[i].data = (i * 7919 + round) % 251;
      nodes[i].index = i;
    }
    struct node *list = merge_sort(nodes, 0);
    for (struct node *n = list; n; n = n->next) crc = crc16(n->data, crc);
    list = merge_sort(list, 1);
    for (struct node *n = list; n; n = n->next) crc = crc16(n->index, crc);
    for (int i = 0; i < 40; i++)
      for (int j = 0; j < 40; j++) {
        int sum = 0;
        for (int k = 0; k < 40; k++) sum += matrix_a[i * 40 + k] * matrix_b[k * 40 + j];
        matrix_c[i * 40 + j] = sum >> 3;
      }
    for (int i = 0; i < 1600; i += 7) crc = crc16(matrix_c[i], crc);
    crc ^= state_machine("5012,1234,-874,+122,.34e+7,-.12e-9,35.54400,.1234500,-110.700,+0.64400,5.500e+3,-.123e-2,-87e+832,+0.6e-12,T0.3e-1F,-T.T++Tq,1T3.4e4z");
  }
  return crc;
}

/* Recursive calls. */
static __attribute__((noinline)) u64 fib(u64 n) { return n < 2 ? n : fib(n - 1) + fib(n - 2); }
static __attribute__((noinline)) u64 ackermann(u64 m, u64 n) { return m == 0 ? n + 1 : n == 0 ? ackermann(m - 1, 1) : ackermann(m - 1, ackermann(m, n - 1)); }
static u64 calls(void) { return fib(35) * 31 + ackermann(2, 1200); }

/* Memory and string functions on small and middling blocks. */
static char text_a[65536], text_b[65536];
static __attribute__((noinline)) void copy(char *to, const char *from, u64 n) {
  for (; n >= 8; n -= 8, to += 8, from += 8) *(u64 *)to = *(const u64 *)from;
  while (n--) *to++ = *from++;
}
static __attribute__((noinline)) u64 length(const char *s) { const char *p = s; while (*p) p++; return p - s; }
static __attribute__((noinline)) int compare(const char *a, const char *b) { while (*a && *a == *b) { a++; b++; } return *(u8 *)a - *(u8 *)b; }
static u64 memstr(void) {
  u64 sum = 0;
  for (u64 i = 0; i < sizeof text_a - 1; i++) text_a[i] = 'a' + i % 25;
  for (int round = 0; round < 1500; round++) {
    copy(text_b, text_a, sizeof text_a);
    for (u64 i = 0; i < sizeof text_a - 64; i += 61) {
      copy(text_b + i + 8, text_a + i, 24);
      sum += compare(text_a + i, text_b + i) & 15;
    }
    sum += length(text_b);
    for (u64 i = 0; i < sizeof text_a; i++) sum = sum * 31 + (u8)text_b[i];
  }
  return sum;
}

/* An interpreter of bytecode: indirect jumps. */
enum { PUSH, ADD, SUB, MUL, DUP, SWAP, JNZ, LOAD, STORE, LESS, HALT };
static u64 bytecode(void) {
  /* s = 0; for (i = n; i; i--) s = s * 3 + i - (s < i) */
  static const int program[] = {
    PUSH, 2000000, STORE, 0, PUSH, 0, STORE, 1,
    LOAD, 1, PUSH, 3, MUL, LOAD, 0, ADD, LOAD, 1, LOAD, 0, LESS, SUB, STORE, 1,
    LOAD, 0, PUSH, 1, SUB, DUP, STORE, 0, JNZ, 8, HALT,
  };
  static const void *const handlers[] = { &&push, &&add, &&sub, &&mul, &&dup, &&swap, &&jnz, &&load, &&store, &&less, &&halt };
  u64 stack[16], *sp = stack, variables[2];
  const int *pc = program;
#define NEXT goto *handlers[*pc++]
  NEXT;
push: *sp++ = *pc++; NEXT;
add: sp--; sp[-1] += sp[0]; NEXT;
sub: sp--; sp[-1] -= sp[0]; NEXT;
mul: sp--; sp[-1] *= sp[0]; NEXT;
dup: sp[0] = sp[-1]; sp++; NEXT;
swap: { u64 t = sp[-1]; sp[-1] = sp[-2]; sp[-2] = t; } NEXT;
less: sp--; sp[-1] = sp[-1] < sp[0]; NEXT;
load: *sp++ = variables[*pc++]; NEXT;
store: variables[*pc++] = *--sp; NEXT;
jnz: { int to = *pc++; if (*--sp) pc = program + to; } NEXT;
halt: return variables[1];
}

/* Floating point: planets. */
struct body { double x, y, z, vx, vy, vz, mass; };
static double root(double x) { double r; __asm__("fsqrt.d %0, %1" : "=f"(r) : "f"(x)); return r; }
static u64 nbody(void) {
  struct body b[5] = {
    {0, 0, 0, 0, 0, 0, 39.47841760435743},
    {4.84143144246472090, -1.16032004402742839, -.103622044471123109, .606326392995832, 2.81198684491626, -.02521836165988763, .03769367487038949},
    {8.34336671824457987, 4.12479856412430479, -.403523417114321381, -1.01077434617879, 1.82566237123041, .008415761376584154, .011286326131968767},
    {12.8943695621391310, -15.1111514016986312, -.223307578892655734, 1.08279100644153, .868713018169608, -.010832637401363636, .0017237240570597112},
    {15.3796971148509165, -25.9193146099879641, .179258772950371181, .979090732243898, .594698998647676, -.034755955549078944, .0020336868699246304},
  };
  for (int step = 0; step < 200000; step++) {
    for (int i = 0; i < 5; i++)
      for (int j = i + 1; j < 5; j++) {
        double dx = b[i].x - b[j].x, dy = b[i].y - b[j].y, dz = b[i].z - b[j].z;
        double d2 = dx * dx + dy * dy + dz * dz, mag = .01 / (d2 * root(d2));
        b[i].vx -= dx * b[j].mass * mag; b[i].vy -= dy * b[j].mass * mag; b[i].vz -= dz * b[j].mass * mag;
        b[j].vx += dx * b[i].mass * mag; b[j].vy += dy * b[i].mass * mag; b[j].vz += dz * b[i].mass * mag;
      }
    for (int i = 0; i < 5; i++) { b[i].x += .01 * b[i].vx; b[i].y += .01 * b[i].vy; b[i].z += .01 * b[i].vz; }
  }
  double e = 0;
  for (int i = 0; i < 5; i++) e += b[i].x + b[i].vy;
  return (u64)(long)(e * 1e9);
}

static void put(const char *text, u64 bytes);
/* Which program to run; all of them when null. */
static const char *only;
static void report(const char *name, u64 (*program)(void)) {
  char line[64], *p = line;
  if (only && compare(only, name)) return;
  u64 begun = ticks(), sum = program(), numbers[2] = { ticks() - begun, sum };
  while (*name) *p++ = *name++;
  for (int n = 0; n < 2; n++) {
    *p++ = ' ';
    for (int shift = 60; shift >= 0; shift -= 4) *p++ = "0123456789abcdef"[numbers[n] >> shift & 15];
  }
  *p++ = '\n';
  put(line, p - line);
}
static void run_all(void) {
  report("sieve", sieve);
  report("coremix", coremix);
  report("calls", calls);
  report("memstr", memstr);
  report("bytecode", bytecode);
  report("nbody", nbody);
}

#ifdef BARE
static void put(const char *text, u64 bytes) {
  volatile u8 *uart = (u8 *)0x10000000;
  while (bytes--) {
    while (!(uart[5] & 0x20)) {}
    *uart = *text++;
  }
}
void bare_main(void) {
  run_all();
  *(volatile u32 *)0x100000 = 0x5555; /* test finisher: power off */
  for (;;) {}
}
__asm__(
  ".section .text.start\n .globl _start\n_start: csrr t0, mhartid\n1: bnez t0, 1b\n"
  " la sp, stack_top\n li t0, 0x6000\n csrs mstatus, t0\n call bare_main\n"
  ".bss\n .align 4\n .space 65536\nstack_top:\n.text\n");
#else
static long system_call(long number, long a, long b, long c) {
  register long a0 __asm__("a0") = a, a1 __asm__("a1") = b, a2 __asm__("a2") = c, a7 __asm__("a7") = number;
  __asm__ volatile("ecall" : "+r"(a0) : "r"(a1), "r"(a2), "r"(a7) : "memory");
  return a0;
}
static void put(const char *text, u64 bytes) { system_call(64, 1, (long)text, bytes); }
/* What only exists with an operating system: traps, address spaces, pages. */
static char *map(u64 bytes) {
  register long a0 __asm__("a0") = 0, a1 __asm__("a1") = bytes, a2 __asm__("a2") = 3, a3 __asm__("a3") = 0x22, a4 __asm__("a4") = -1, a5 __asm__("a5") = 0, a7 __asm__("a7") = 222;
  __asm__ volatile("ecall" : "+r"(a0) : "r"(a1), "r"(a2), "r"(a3), "r"(a4), "r"(a5), "r"(a7) : "memory");
  return (char *)a0;
}
static u64 getppid_loop(void) {
  u64 same = 1;
  long parent = system_call(173, 0, 0, 0);
  for (int i = 0; i < 400000; i++) same &= system_call(173, 0, 0, 0) == parent;
  return same;
}
/* Every load depends on the one before and lies in another page: nothing but TLB and cache misses. */
static u64 chase(void) {
  enum { PAGES = 16384 };
  char *memory = map(PAGES * 4096UL);
  u64 page = 0, sum = 0;
  for (int i = 0; i < PAGES; i++) {
    u64 next = (page * 4093 + 7919) % PAGES;
    *(u64 *)(memory + page * 4096 + (page * 64 & 4032)) = next * 4096 + (next * 64 & 4032);
    page = next;
  }
  u64 at = 0;
  for (int i = 0; i < 3000000; i++) sum += at = *(u64 *)(memory + at);
  return sum;
}
static u64 copy_blocks(void) {
  enum { BYTES = 8 << 20 };
  char *from = map(BYTES), *to = map(BYTES);
  for (u64 i = 0; i < BYTES; i += 64) from[i] = i;
  for (int round = 0; round < 40; round++) copy(to, from, BYTES);
  return to[BYTES - 64];
}
static u64 fork_exec(void) {
  static const char *const arguments[] = { "/proc/self/exe", "exit", 0 };
  u64 done = 0;
  for (int i = 0; i < 200; i++) {
    register long a0 __asm__("a0") = 17, a1 __asm__("a1") = 0, a2 __asm__("a2") = 0, a3 __asm__("a3") = 0, a4 __asm__("a4") = 0, a7 __asm__("a7") = 220;
    __asm__ volatile("ecall" : "+r"(a0) : "r"(a1), "r"(a2), "r"(a3), "r"(a4), "r"(a7) : "memory");
    if (a0 == 0) {
      system_call(221, (long)arguments[0], (long)arguments, (long)&arguments[2]);
      system_call(93, 1, 0, 0);
    }
    int status = 1;
    register long w0 __asm__("a0") = a0, w1 __asm__("a1") = (long)&status, w2 __asm__("a2") = 0, w3 __asm__("a3") = 0, w7 __asm__("a7") = 260;
    __asm__ volatile("ecall" : "+r"(w0) : "r"(w1), "r"(w2), "r"(w3), "r"(w7) : "memory");
    done += status == 0;
  }
  return done;
}
void linux_main(long *stack) {
  only = stack[0] < 2 ? 0 : (const char *)stack[2];
  run_all();
  report("getppid", getppid_loop);
  report("chase", chase);
  report("memcpy", copy_blocks);
  report("fork+exec", fork_exec);
  system_call(93, 0, 0, 0);
}
__asm__(".globl _start\n_start: mv a0, sp\n andi sp, sp, -16\n call linux_main\n");
#endif
