// Stands in for NCCL under its name: sums through memory that the ranks of one host share, by callbacks of the stream, or
// at once where there is no CUDA and the values are the host's.
//
// It proves order, streams, errors and counts of the calls that are made, and nothing about NCCL. Ranks whose calls differ
// in number, length or type are told so. Constants and types are those of nccl.h 2.28.

#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

enum { SUCCESS = 0, CUDA_ERROR = 1, SYSTEM_ERROR = 2, INVALID_ARGUMENT = 4, INVALID_USAGE = 5, REMOTE_ERROR = 6 };
enum { FLOAT32 = 7, FLOAT64 = 8, SUM = 0 };
enum { RANKS = 16, CHUNK = 1 << 20 };

typedef struct {
  char bytes[128];
} Id;

// What a rank is about to sum.
typedef struct {
  uint64_t number, count;
  int type;
} Call;

typedef struct {
  atomic_int arrived, round, failed, joined;
  Call calls[RANKS];
  char values[RANKS][CHUNK];
} Shared;

typedef struct {
  Shared *shared;
  int rank, size;
  uint64_t number;
  char *staging; // pinned, where there is CUDA
} Comm;

// One chunk on its way: filled in when the call is made, freed when it has run.
typedef struct {
  Comm *comm;
  Call call;
  size_t bytes;
  char *values;
} Work;

static __thread char last[256];

static int fail(int code, const char *text) {
  snprintf(last, sizeof last, "%s", text);
  return code;
}

static void *cuda(const char *name) { return dlsym(RTLD_DEFAULT, name); }

// Returns once all have arrived; not 0 where one has failed. Sleeps between looks, since ranks may share cores.
static int meet(Comm *comm) {
  Shared *shared = comm->shared;
  int round = atomic_load(&shared->round);
  if (atomic_fetch_add(&shared->arrived, 1) + 1 == comm->size) {
    atomic_store(&shared->arrived, 0);
    atomic_fetch_add(&shared->round, 1);
  }
  while (atomic_load(&shared->round) == round) {
    if (atomic_load(&shared->failed)) return 1;
    usleep(20);
  }
  return atomic_load(&shared->failed);
}

// Replaces the chunk by its sum, in the order of the ranks.
static void sum(void *argument) {
  Work *work = argument;
  Comm *comm = work->comm;
  Shared *shared = comm->shared;
  memcpy(&shared->calls[comm->rank], &work->call, sizeof(Call));
  memcpy(shared->values[comm->rank], work->values, work->bytes);
  if (meet(comm) == 0) {
    for (int rank = 0; rank < comm->size; ++rank)
      if (memcmp(&shared->calls[rank], &work->call, sizeof(Call))) atomic_store(&shared->failed, INVALID_USAGE);
    memset(work->values, 0, work->bytes);
    for (int rank = 0; rank < comm->size; ++rank) {
      if (work->call.type == FLOAT32) {
        const float *part = (const float *)shared->values[rank];
        for (size_t i = 0; i < work->bytes / sizeof(float); ++i) ((float *)work->values)[i] += part[i];
      } else {
        const double *part = (const double *)shared->values[rank];
        for (size_t i = 0; i < work->bytes / sizeof(double); ++i) ((double *)work->values)[i] += part[i];
      }
    }
    meet(comm);
  }
  free(work);
}

int ncclGetVersion(int *version) {
  *version = 22809;
  return SUCCESS;
}

const char *ncclGetErrorString(int code) {
  return code == SUCCESS ? "no error" : code == INVALID_USAGE ? "the ranks' calls differ" : "the stand-in failed";
}

const char *ncclGetLastError(void *comm) {
  (void)comm;
  return last;
}

int ncclGetUniqueId(Id *id) {
  memset(id, 0, sizeof *id);
  static atomic_int made;
  snprintf(id->bytes, sizeof id->bytes, "/segdist-standin-%d-%d", (int)getpid(), atomic_fetch_add(&made, 1));
  return SUCCESS;
}

int ncclCommInitRank(void **result, int size, Id id, int rank) {
  if (size < 1 || size > RANKS || rank < 0 || rank >= size) return fail(INVALID_ARGUMENT, "no such rank");
  int file = shm_open(id.bytes, O_RDWR | O_CREAT, 0600);
  if (file < 0 || ftruncate(file, sizeof(Shared))) return fail(SYSTEM_ERROR, "no shared memory");
  Shared *shared = mmap(NULL, sizeof(Shared), PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
  close(file);
  if (shared == MAP_FAILED) return fail(SYSTEM_ERROR, "no shared memory");
  Comm *comm = calloc(1, sizeof *comm);
  *comm = (Comm){.shared = shared, .rank = rank, .size = size};
  int (*pinned)(void **, size_t) = (int (*)(void **, size_t))cuda("cudaMallocHost");
  if (pinned && pinned((void **)&comm->staging, CHUNK)) comm->staging = NULL;
  atomic_fetch_add(&shared->joined, 1);
  while (atomic_load(&shared->joined) < size) usleep(100);
  // Whoever is last may take the name away: all have the memory.
  shm_unlink(id.bytes);
  *result = comm;
  return SUCCESS;
}

int ncclAllReduce(const void *from, void *to, size_t count, int type, int operation, void *handle, void *stream) {
  Comm *comm = handle;
  if (from != to || operation != SUM) return fail(INVALID_ARGUMENT, "only sums in place");
  if (type != FLOAT32 && type != FLOAT64) return fail(INVALID_ARGUMENT, "only f32 and f64");
  if (atomic_load(&comm->shared->failed)) return fail(REMOTE_ERROR, "a rank has failed");
  typedef int (*Copy)(void *, const void *, size_t, int, void *);
  typedef int (*Callback)(void *, void (*)(void *), void *);
  Copy copy = comm->staging ? (Copy)cuda("cudaMemcpyAsync") : NULL;
  Callback callback = comm->staging ? (Callback)cuda("cudaLaunchHostFunc") : NULL;
  size_t bytes = count * (type == FLOAT32 ? 4 : 8);
  comm->number += 1;
  for (size_t start = 0; start < bytes; start += CHUNK) {
    size_t length = bytes - start < CHUNK ? bytes - start : CHUNK;
    char *values = (char *)to + start;
    Work *work = malloc(sizeof *work);
    memset(work, 0, sizeof *work);
    work->comm = comm, work->bytes = length, work->values = comm->staging ? comm->staging : values;
    work->call.number = comm->number, work->call.count = count, work->call.type = type;
    if (!comm->staging) {
      sum(work);
      continue;
    }
    // Device to host, the sum when the stream comes to it, and back: 2 and 1 are cudaMemcpyKind's.
    int code = copy(comm->staging, values, length, 2, stream);
    if (!code) code = callback(stream, sum, work);
    if (!code) code = copy(values, comm->staging, length, 1, stream);
    if (code) return fail(CUDA_ERROR, "CUDA refuses a copy");
  }
  int failed = comm->staging ? 0 : atomic_load(&comm->shared->failed);
  return failed ? fail(failed, "a rank has failed or called something else") : SUCCESS;
}

int ncclCommGetAsyncError(void *handle, int *error) {
  *error = atomic_load(&((Comm *)handle)->shared->failed);
  return SUCCESS;
}

int ncclCommAbort(void *handle) {
  int none = SUCCESS;
  atomic_compare_exchange_strong(&((Comm *)handle)->shared->failed, &none, REMOTE_ERROR);
  return SUCCESS;
}
