// Counts a process's calls of CUDA's runtime: LD_PRELOAD this, with SEGDIST_CALLCOUNT naming the file for the counts.
//
// They are in the file at any time, one line a function, so that a process may end as it likes. A step's share is the
// difference of two runs of different length. What libraries launch by the driver's own functions is not seen.

#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

typedef struct {
  unsigned x, y, z;
} Dim3;

enum { NAME = 40, LINE = NAME + 20, LINES = 16 };

static char *lines;
static uint64_t counts[LINES];

// The file is LINES lines of LINE bytes; mapped, so that whatever ends the process, the kernel keeps them.
__attribute__((constructor)) static void start(void) {
  const char *path = getenv("SEGDIST_CALLCOUNT");
  int file = path ? open(path, O_RDWR | O_CREAT | O_TRUNC, 0644) : -1;
  if (file < 0 || ftruncate(file, LINES * LINE)) return;
  char *mapped = mmap(NULL, LINES * LINE, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
  close(file);
  if (mapped == MAP_FAILED) return;
  memset(mapped, '\n', LINES * LINE);
  lines = mapped;
}

static void count(int line, const char *name) {
  uint64_t now = __atomic_add_fetch(&counts[line], 1, __ATOMIC_RELAXED);
  if (lines) {
    char text[LINE + 1];
    snprintf(text, sizeof text, "%-*s %18llu\n", NAME, name, (unsigned long long)now);
    memcpy(lines + line * LINE, text, LINE);
  }
}

static void *next(const char *name) {
  void *found = dlsym(RTLD_NEXT, name);
  // libtorch's copy is loaded for it alone where the program has none.
  if (!found) found = dlsym(dlopen("libcudart.so.13", RTLD_LAZY), name);
  if (!found) abort();
  return found;
}

#define COUNTED(line, name, parameters, arguments)                                                                       \
  int name parameters {                                                                                                  \
    static int(*real) parameters;                                                                                        \
    if (!real) real = (int(*) parameters)next(#name);                                                                    \
    count(line, #name);                                                                                                  \
    return real arguments;                                                                                               \
  }

COUNTED(0, cudaStreamSynchronize, (void *stream), (stream))
COUNTED(1, cudaDeviceSynchronize, (void), ())
COUNTED(2, cudaEventSynchronize, (void *event), (event))
COUNTED(3, cudaEventQuery, (void *event), (event))
COUNTED(4, cudaMemcpy, (void *to, const void *from, size_t bytes, int kind), (to, from, bytes, kind))
COUNTED(5, cudaMemcpyAsync, (void *to, const void *from, size_t bytes, int kind, void *stream),
        (to, from, bytes, kind, stream))
COUNTED(6, cudaMemsetAsync, (void *to, int value, size_t bytes, void *stream), (to, value, bytes, stream))
COUNTED(7, cudaLaunchKernel, (const void *kernel, Dim3 grid, Dim3 block, void **arguments, size_t shared, void *stream),
        (kernel, grid, block, arguments, shared, stream))
COUNTED(8, cudaLaunchKernelExC, (const void *config, const void *kernel, void **arguments), (config, kernel, arguments))
COUNTED(9, cudaMalloc, (void **to, size_t bytes), (to, bytes))
