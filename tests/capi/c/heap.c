/* Counts the bytes that the library holds, and those that others hold (drivers above all): every allocation of the
 * process comes by here, and is told by its caller. */
#include "heap.h"

#include <link.h>
#include <pthread.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

void *__libc_malloc(size_t);
void *__libc_calloc(size_t, size_t);
void *__libc_realloc(void *, size_t);
void *__libc_memalign(size_t, size_t);
void __libc_free(void *);

/* Blocks by address: a table with linear probing, large enough to stay mostly empty. */
#define PLACES (1u << 20)
static struct {
    uintptr_t address;
    size_t size; /* doubled; the lowest bit: the library's */
} table[PLACES];
static size_t filled;
static pthread_mutex_t turn = PTHREAD_MUTEX_INITIALIZER;
static uintptr_t from, to;
static long ours, theirs;

static int find(struct dl_phdr_info *info, size_t size, void *unused)
{
    int i;

    (void)size;
    (void)unused;
    if (strstr(info->dlpi_name, "libhealthgpt") == NULL)
        return 0;
    for (i = 0; i < info->dlpi_phnum; ++i) {
        if (info->dlpi_phdr[i].p_type == PT_LOAD && info->dlpi_phdr[i].p_flags & PF_X) {
            from = info->dlpi_addr + info->dlpi_phdr[i].p_vaddr;
            to = from + info->dlpi_phdr[i].p_memsz;
        }
    }
    return 1;
}

static size_t home(uintptr_t address)
{
    return (address / 16 * 2654435761u) % PLACES;
}

static void *came(void *block, size_t size, void *caller)
{
    uintptr_t address = (uintptr_t)block;
    size_t own = (uintptr_t)caller >= from && (uintptr_t)caller < to, at;

    if (block == NULL || to == 0)
        return block;
    pthread_mutex_lock(&turn);
    if (++filled == PLACES / 2)
        abort();
    for (at = home(address); table[at].address != 0; at = (at + 1) % PLACES)
        ;
    table[at].address = address;
    table[at].size = size << 1 | own;
    *(own ? &ours : &theirs) += (long)size;
    pthread_mutex_unlock(&turn);
    return block;
}

static void goes(void *block)
{
    uintptr_t address = (uintptr_t)block;
    size_t hole, at;

    if (block == NULL || to == 0)
        return;
    pthread_mutex_lock(&turn);
    for (hole = home(address); table[hole].address != 0 && table[hole].address != address;)
        hole = (hole + 1) % PLACES;
    /* One from before the counting is not there. */
    if (table[hole].address != 0) {
        *(table[hole].size & 1 ? &ours : &theirs) -= (long)(table[hole].size >> 1);
        --filled;
        /* What was put further on for want of this place moves up. */
        for (at = (hole + 1) % PLACES; table[at].address != 0; at = (at + 1) % PLACES) {
            size_t wanted = home(table[at].address);
            if ((at - wanted) % PLACES >= (at - hole) % PLACES) {
                table[hole] = table[at];
                hole = at;
            }
        }
        table[hole].address = 0;
    }
    pthread_mutex_unlock(&turn);
}

void heap_begin(void)
{
    /* So that the table's own pages are there from the start. */
    memset(table, 1, sizeof table);
    memset(table, 0, sizeof table);
    dl_iterate_phdr(find, NULL);
}

long heap_ours(void)
{
    return ours;
}

long heap_theirs(void)
{
    return theirs;
}

void *malloc(size_t size)
{
    return came(__libc_malloc(size), size, __builtin_return_address(0));
}

void *calloc(size_t count, size_t size)
{
    return came(__libc_calloc(count, size), count * size, __builtin_return_address(0));
}

void *realloc(void *block, size_t size)
{
    goes(block);
    return came(__libc_realloc(block, size), size, __builtin_return_address(0));
}

void *memalign(size_t alignment, size_t size)
{
    return came(__libc_memalign(alignment, size), size, __builtin_return_address(0));
}

void *aligned_alloc(size_t alignment, size_t size)
{
    return came(__libc_memalign(alignment, size), size, __builtin_return_address(0));
}

int posix_memalign(void **out, size_t alignment, size_t size)
{
    void *block = came(__libc_memalign(alignment, size), size, __builtin_return_address(0));

    if (block == NULL)
        return 12; /* ENOMEM */
    *out = block;
    return 0;
}

void free(void *block)
{
    goes(block);
    __libc_free(block);
}
