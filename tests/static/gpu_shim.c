// A pretended GPU for Mesa's Vulkan drivers, so that their real shader compilers run where there is no GPU. It lists
// one DRM device, answers the few kernel requests that making a VkDevice and a pipeline takes, and swallows all work:
// kernels compile, nothing executes. Debian 12 on x86-64 with the Mesa 26 of `xtask/drivers.sh 26 DIR`.
//   gcc -O1 -shared -fPIC -o gpu_shim.so gpu_shim.c
//   GPU_SHIM=nouveau:0x192 VK_DRIVER_FILES=DIR/nouveau.json DIR/run --preload $PWD/gpu_shim.so ./kernel_stats ...
// GPU_SHIM          VK_DRIVER_FILES  chips seen working (Mesa 26.1)
// nouveau:CHIPSET   nouveau.json     NVIDIA: 0x120 Maxwell, 0x132 Pascal, 0x140 Volta, 0x162 Turing, 0x170 A100, 0x172
//                                    RTX 30, 0x192 RTX 40, 0x1b2 RTX 50; 0x17b Jetson Orin, 0x180 H100 and 0x1a2 B200
//                                    also need NVK_I_WANT_A_BROKEN_VULKAN_DRIVER=1
// msm:CHIPID        freedreno.json   Adreno: 0x00ac06030500 643, 0x06060001 660, 0x07030001 730, 0x43050a01 740,
//                                    0x43051401 750, 0x44050001 830
// xe:PCIID          intel.json       Intel: 0x9a49 Tiger Lake, 0x46a6 Alder Lake, 0x56a0 Arc A770, 0x7d55 Meteor Lake,
//                                    0x7d51 Arrow Lake H, 0x64a0 Lunar Lake, 0xe20b Arc B580, 0xb080 Panther Lake
// asahi:GENERATION  asahi.json       Apple: 13G M1, 13S M1 Pro, 14G M2 (Mesa's compiler, not Apple's)
// The counts of cores, memory sizes and clocks given to the drivers are rough; what the compilers use of a chip (its
// generation, registers, warps) comes from the drivers' own tables. GPU_SHIM_TRACE=1 lists every request.
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

typedef uint8_t u8;
typedef uint16_t u16;
typedef uint32_t u32;
typedef uint64_t u64;
#define LEN(a) (sizeof(a) / sizeof *(a))
#define NODE "/dev/full" /* stands for the render node: a character device that stat() finds everywhere */

/* ---- which chip ---- */
enum { NOUVEAU, MSM, XE, ASAHI, NONE };
static const char *names[] = { "nouveau", "msm", "xe", "asahi" };
static int driver = NONE, trace;
static u64 chip;
static char variant; /* the last letter: asahi's 13G */
static void setup(void) {
  if (driver != NONE) return;
  const char *e = getenv("GPU_SHIM"), *c = e ? strchr(e, ':') : 0;
  int d = 0;
  while (c && d < NONE && (strlen(names[d]) != (size_t)(c - e) || strncmp(names[d], e, c - e))) d++;
  if (!c || d == NONE) {
    fprintf(stderr, "gpu_shim: GPU_SHIM=nouveau:CHIPSET, msm:CHIPID, xe:PCIID or asahi:GENERATION\n");
    exit(2);
  }
  chip = strtoull(c + 1, 0, 0);
  variant = c[strlen(c) - 1];
  trace = !!getenv("GPU_SHIM_TRACE");
  driver = d;
}

/* ---- the one device, as libdrm lists it ---- */
typedef struct {
  char **nodes;
  int available, bustype;
  void *bus, *info;
} Dev;
static Dev *device(void) {
  setup();
  struct {
    Dev d;
    char *nodes[3], **compatible, *names[2], fullname[512];
    struct {
      u16 domain;
      u8 bus, dev, func;
    } pci;
    struct {
      u16 vendor, device, sv, sd;
      u8 rev;
    } id;
  } *a = calloc(1, sizeof *a);
  a->nodes[2] = NODE;
  a->d = (Dev){ a->nodes, 1 << 2, 0, &a->pci, &a->id }; /* a render node, on PCI */
  a->id.vendor = driver == XE ? 0x8086 : 0x10de;
  a->id.device = driver == XE ? chip : 1;
  if (driver == MSM || driver == ASAHI) { /* on the chip itself */
    a->names[0] = driver == MSM ? "qcom,adreno" : "apple,agx";
    a->compatible = a->names;
    a->d.bustype = 2;
    a->d.bus = a->fullname;
    a->d.info = &a->compatible;
  }
  return &a->d;
}
int drmGetDevices2(u32 flags, Dev **out, int max) {
  if (out && max > 0) *out = device();
  return 1;
}
int drmGetDevice2(int fd, u32 flags, Dev **out) {
  *out = device();
  return 0;
}
int drmGetDeviceFromDevId(dev_t id, u32 flags, Dev **out) {
  *out = device();
  return 0;
}
void drmFreeDevice(Dev **d) {
  if (d) free(*d), *d = 0;
}
void drmFreeDevices(Dev **d, int n) {
  for (int i = 0; i < n; i++) drmFreeDevice(d + i);
}

/* ---- opening it gives a large sparse memory file, so that mmap at a buffer's offset just works ---- */
static int do_open(const char *p, int flags, va_list v) {
  int mode = flags & (O_CREAT | __O_TMPFILE) ? va_arg(v, int) : 0;
  if (strcmp(p, NODE)) return syscall(SYS_openat, AT_FDCWD, p, flags, mode);
  int fd = memfd_create("gpu", MFD_CLOEXEC);
  return fd >= 0 && ftruncate(fd, 1ll << 46) ? -1 : fd;
}
int open(const char *p, int flags, ...) {
  va_list v;
  va_start(v, flags);
  int r = do_open(p, flags, v);
  va_end(v);
  return r;
}
int open64(const char *p, int flags, ...) {
  va_list v;
  va_start(v, flags);
  int r = do_open(p, flags, v);
  va_end(v);
  return r;
}

/* ---- buffers: a size and an offset in that file ---- */
static struct {
  u64 size, off;
} buffers[65536];
static u32 new_buffer(u64 size) {
  static u32 n;
  static u64 top = 1 << 20;
  u32 h = __atomic_add_fetch(&n, 1, __ATOMIC_SEQ_CST) & 65535;
  size = (size + 0xffff) & ~0xffffull;
  buffers[h].size = size;
  buffers[h].off = __atomic_fetch_add(&top, size, __ATOMIC_SEQ_CST);
  return h;
}

/* Each driver's requests get the request's number and its argument p, also seen as 32-bit d[] and 64-bit q[]. */
static u32 ids;

/* ---- nouveau (NVIDIA) ---- */
static const struct {
  u16 chip, graphics, compute, copy, tpc;
  u8 gpc, soc;
  const char *name;
} nvidia[] = {
  /* by chipset; object classes; core counts */
  { 0x120, 0xb197, 0xb1c0, 0xb0b5, 12, 6, 0, "GM200" }, { 0x130, 0xc097, 0xc0c0, 0xc0b5, 28, 6, 0, "GP100" },
  { 0x132, 0xc197, 0xc1c0, 0xc1b5, 28, 6, 0, "GP102" }, { 0x140, 0xc397, 0xc3c0, 0xc3b5, 40, 6, 0, "GV100" },
  { 0x160, 0xc597, 0xc5c0, 0xc5b5, 36, 6, 0, "TU102" }, { 0x170, 0xc697, 0xc6c0, 0xc6b5, 54, 7, 0, "GA100" },
  { 0x172, 0xc797, 0xc7c0, 0xc7b5, 41, 7, 0, "GA102" }, { 0x17b, 0xc797, 0xc7c0, 0xc7b5, 8, 2, 1, "GA10B" },
  { 0x180, 0xcb97, 0xcbc0, 0xc8b5, 66, 8, 0, "GH100" }, { 0x190, 0xc997, 0xc9c0, 0xc7b5, 64, 11, 0, "AD102" },
  { 0x1a0, 0xcd97, 0xcdc0, 0xc9b5, 74, 8, 0, "GB100" }, { 0x1b0, 0xce97, 0xcec0, 0xcab5, 85, 12, 0, "GB202" },
};
static int nouveau(unsigned nr, void *p) {
  u32 *d = p;
  u64 *q = p;
  u8 *b = p;
  unsigned c = 0;
  while (c + 1 < LEN(nvidia) && nvidia[c + 1].chip <= chip) c++;
  switch (nr) {
  case 0x00: /* get parameter q[0] */
    switch (q[0]) {
    case 3: q[1] = 0x10de; break;
    case 8: q[1] = 8ull << 30; break; /* memory */
    case 11: q[1] = chip; break;
    case 13: q[1] = nvidia[c].gpc | nvidia[c].tpc << 8; break;
    case 17: q[1] = 510; break; /* pushes in a submission */
    case 18: q[1] = 16ull << 30; break;
    case 19: q[1] = 4096; break;
    default: q[1] = 1; /* PCI device, has ... */
    }
    return 0;
  case 0x02: d[2] = 1; return 0; /* new channel */
  case 0x07: /* objects: a head of 24 bytes, then by b[1] ... */
    if (b[1] == 1) { /* ... the classes there are */
      u32 cl[] = { 0xa140, 0x902d, nvidia[c].copy, nvidia[c].graphics, nvidia[c].compute };
      b[25] = LEN(cl);
      for (unsigned i = 0; i < LEN(cl); i++) d[8 + 2 * i] = cl[i], d[9 + 2 * i] = ~0u;
    } else if (b[1] == 4) { /* ... the device */
      struct {
        u8 version, platform;
        u16 chipset;
        u8 rev, family, pad[2];
        u64 size, user;
        char chip[16], name[64];
      } *i = (void *)(b + 32);
      i->platform = nvidia[c].soc ? 4 : 3;
      i->chipset = chip;
      i->size = i->user = nvidia[c].soc ? 0 : 8ull << 30;
      strcpy(i->chip, nvidia[c].name);
      strcpy(i->name, nvidia[c].name);
    }
    return 0;
  case 0x13: memset(p, 0, 48); return 0;
  case 0x40:
    d[0] = new_buffer(q[1]); /* new buffer, or: */
    /* fall through */
  case 0x44:
    q[1] = buffers[d[0] & 65535].size;
    q[2] = q[3] = buffers[d[0] & 65535].off;
    return 0;
  case 0x03: case 0x10: case 0x11: case 0x12: case 0x41: case 0x42: case 0x43: return 0;
  }
  return ENOTTY;
}

/* ---- msm (Adreno) ---- */
static int msm(unsigned nr, void *p) {
  u32 *d = p;
  u64 *q = p;
  switch (nr) {
  case 0x00: /* get parameter d[1] */
    switch (d[1]) {
    case 0x02: q[1] = 2 << 20; break; /* tile memory */
    case 0x03: q[1] = chip; break;
    case 0x04: q[1] = 1000000; break;
    case 0x06: q[1] = 1 << 20; break;
    case 0x07: q[1] = 3; break;
    case 0x0e: q[1] = 1ull << 32; break; /* address space: start, size */
    case 0x0f: q[1] = 1ull << 36; break;
    case 0x11: q[1] = 1; break;
    case 0x01: case 0x05: case 0x09: case 0x0a: q[1] = 0; break; /* GPU number 0: go by the chip id */
    default: return EINVAL;
    }
    return 0;
  case 0x01: return d[1] == 0x16 ? EINVAL : 0;
  case 0x02: d[3] = new_buffer(q[0]); return 0;
  case 0x03:
    if (d[1] < 2) q[1] = buffers[d[0] & 65535].off;
    return 0;
  case 0x08: d[2] = 1; return 0;
  case 0x0a: d[2] = ++ids; return 0;
  case 0x04: case 0x05: case 0x06: case 0x07: case 0x0b: case 0x0c: return 0;
  }
  return ENOTTY;
}

/* ---- xe (Intel) ---- */
static const struct {
  u16 id, cores, eu, major, minor, vram;
} intel[] = {
  /* Xe cores, EUs in each, graphics version */
  { 0x9a49, 6, 16, 12, 0, 0 },  { 0x46a6, 6, 16, 12, 0, 0 },  { 0x56a0, 32, 16, 12, 55, 1 },
  { 0x7d55, 8, 16, 12, 71, 0 }, { 0x7d51, 8, 16, 12, 74, 0 }, { 0x64a0, 8, 8, 20, 4, 0 },
  { 0xe20b, 20, 8, 20, 1, 1 },  { 0xb080, 12, 8, 30, 0, 0 },
};
static int xe(unsigned nr, void *p) {
  u32 *d = p;
  u64 *q = p;
  unsigned c = 0;
  while (c < LEN(intel) && intel[c].id != chip) c++;
  if (c == LEN(intel)) {
    fprintf(stderr, "gpu_shim: xe:%#llx is not in the table\n", (unsigned long long)chip);
    exit(2);
  }
  switch (nr) {
  case 0x00: { /* query d[2], size d[3], result at q[2] */
    u64 b[64] = { 0 };
    u32 *w = (u32 *)b;
    u16 *h = (u16 *)b;
    u8 *t = (u8 *)b;
    u32 len;
    switch (d[2]) {
    case 0: /* engines: render, copy, compute */
      w[0] = 3;
      h[20] = 1;
      h[36] = 4;
      len = 8 + 3 * 32;
      break;
    case 1: /* memories */
      w[0] = 1 + intel[c].vram;
      len = 8 + 88 * w[0];
      for (u32 i = 0; i < w[0]; i++) {
        h[4 + 44 * i] = h[5 + 44 * i] = i;
        w[3 + 22 * i] = i ? 65536 : 4096;
        b[2 + 11 * i] = b[4 + 11 * i] = 16ull << 30;
      }
      break;
    case 2: /* device */
      w[0] = 5;
      b[1] = chip | 4 << 16;
      b[2] = intel[c].vram;
      b[3] = intel[c].vram ? 65536 : 4096;
      b[4] = 48;
      b[5] = 2;
      len = 48;
      break;
    case 3: /* graphics units */
      w[0] = 1;
      w[5] = 19200000;
      b[3] = 1;
      h[20] = intel[c].major;
      h[21] = intel[c].minor;
      h[22] = intel[c].major >= 20 ? 4 : 0;
      len = 8 + 96;
      break;
    case 4: /* hardware table: one unknown entry */
      w[0] = 0x7fff;
      w[1] = 1;
      len = 12;
      break;
    case 5: /* masks of cores, L3 banks, EUs */
      len = 0;
      for (int i = 0; i < 4; i++) {
        u16 head[] = { 0, i < 3 ? i + 1 : intel[c].major >= 20 ? 5 : 4 };
        u32 n = i < 2 ? 8 : 4;
        u64 mask = i < 2 ? (1ull << intel[c].cores) - 1 : i < 3 ? 255 : (1u << intel[c].eu) - 1;
        memcpy(t + len, head, 4);
        memcpy(t + len + 4, &n, 4);
        memcpy(t + len + 8, &mask, n);
        len += 8 + n;
      }
      break;
    case 6: /* cycles of an engine */
      len = 48;
      if (d[3]) memcpy(b, (void *)q[2], 48);
      break;
    case 7: /* firmware version */
      w[2] = 1;
      w[3] = 20;
      len = 32;
      break;
    default: return ENODEV;
    }
    if (d[3]) memcpy((void *)q[2], b, d[3] < len ? d[3] : len);
    d[3] = len;
    return 0;
  }
  case 0x01: d[7] = new_buffer(q[1]); return 0;
  case 0x02: q[2] = buffers[d[2] & 65535].off; return 0;
  case 0x03: d[3] = ++ids; return 0;
  case 0x06: d[5] = ++ids; return 0;
  case 0x08: q[2] = 0; return 0;
  case 0x04: case 0x05: case 0x07: case 0x09: case 0x0a: return 0;
  }
  return ENOTTY;
}

/* ---- asahi (Apple) ---- */
static int asahi(unsigned nr, void *p) {
  u32 *d = p;
  u64 *q = p;
  switch (nr) {
  case 0x00: {
    struct {
      u64 features;
      u32 generation, variant, revision, chip, dies, clusters, cores, khz;
      u64 mask[64], start, end, kernel;
      u32 commands, attachments;
      u64 hz;
    } g = { 1,       chip,    variant, 0x11,       0x8103,     1,  1,  8,
            1278000, { 255 }, 0x4000,  1ull << 39, 1ull << 29, 64, 16, 1000000000 };
    if (q[2] > sizeof g) q[2] = sizeof g;
    memcpy((void *)q[1], &g, q[2]);
    return 0;
  }
  case 0x02: case 0x05: d[4] = nr == 2 ? ++ids : new_buffer(q[0]); return 0;
  case 0x06: q[1] = buffers[d[0] & 65535].off; return 0;
  case 0x07: d[8] = ++ids; return 0;
  case 0x08: d[3] = ++ids; return 0;
  case 0x01: case 0x03: case 0x04: case 0x09: case 0x0a: return 0;
  }
  return ENOTTY;
}

/* ---- requests that all drivers share; sync objects count as signalled at once ---- */
static int core(unsigned nr, void *p) {
  if (nr == 0x00) { /* version and name */
    struct {
      int v[3];
      size_t nl;
      char *n;
      size_t dl;
      char *d;
      size_t el;
      char *e;
    } *v = p;
    size_t l = strlen(names[driver]);
    v->v[0] = 1;
    v->v[1] = 12;
    v->v[2] = 1;
    if (v->n) memcpy(v->n, names[driver], l < v->nl ? l : v->nl);
    v->nl = l;
    v->dl = v->el = 0;
  } else if (nr == 0x0c)
    ((u64 *)p)[1] = *(u64 *)p == 5 ? 3 : 1; /* capabilities */
  else if (nr == 0xbf)
    *(u32 *)p = ++ids; /* new sync object */
  return 0;
}

/* ---- every request of type 'd' is ours, on whatever file ---- */
int ioctl(int fd, unsigned long req, ...) {
  va_list v;
  va_start(v, req);
  void *p = va_arg(v, void *);
  va_end(v);
  if ((req >> 8 & 255) != 'd') return syscall(SYS_ioctl, fd, req, p);
  setup();
  static int (*const handlers[])(unsigned, void *) = { nouveau, msm, xe, asahi };
  unsigned nr = req & 255;
  int r = nr < 0x40 || nr >= 0xa0 ? core(nr, p) : handlers[driver](nr - 0x40, p);
  if (trace) fprintf(stderr, "gpu_shim: request %#x, %lu bytes: %s\n", nr, req >> 16 & 0x3fff, r ? strerror(r) : "ok");
  if (r) errno = r;
  return r ? -1 : 0;
}
