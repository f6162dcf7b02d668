/* Makes allocations of vector_ext fail: to be preloaded into a server. What is to fail is in a file that the test writes, whose
   name is in FAILING_MALLOC: the process; the first and the last of its allocations, from now on, that fail; who asks for
   them (0: anybody, 1: the backend's thread, 2: other threads). */
#define _GNU_SOURCE
#include <fcntl.h>
#include <link.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

extern void *__libc_malloc(size_t), *__libc_calloc(size_t, size_t), *__libc_realloc(void *, size_t);

static volatile struct { int64_t process, first, last, who, asked; } *order;
static uintptr_t from, to;

__attribute__((constructor)) static void open_order(void) {
    const char *name = getenv("FAILING_MALLOC");
    int file = name ? open(name, O_RDWR) : -1;
    void *at = file < 0 ? MAP_FAILED : mmap(0, sizeof *order, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
    if (at != MAP_FAILED) order = at;
}

static int find(struct dl_phdr_info *library, size_t size, void *unused) {
    if (!strstr(library->dlpi_name, "/vector_ext.so")) return 0;
    for (int i = 0; i < library->dlpi_phnum; i++)
        if (library->dlpi_phdr[i].p_type == PT_LOAD && library->dlpi_phdr[i].p_flags & PF_X) {
            from = library->dlpi_addr + library->dlpi_phdr[i].p_vaddr;
            to = from + library->dlpi_phdr[i].p_memsz;
        }
    return 1;
}

static int fails(void *caller) {
    if (!order || !order->first || order->process != getpid()) return 0;
    if (!from) dl_iterate_phdr(find, 0);
    if ((uintptr_t)caller < from || (uintptr_t)caller >= to) return 0;
    if (order->who && (order->who == 1) != (syscall(SYS_gettid) == getpid())) return 0;
    int64_t number = __sync_add_and_fetch(&order->asked, 1);
    return number >= order->first && number <= order->last;
}

void *malloc(size_t size) { return fails(__builtin_return_address(0)) ? 0 : __libc_malloc(size); }
void *calloc(size_t n, size_t size) { return fails(__builtin_return_address(0)) ? 0 : __libc_calloc(n, size); }
void *realloc(void *at, size_t size) { return fails(__builtin_return_address(0)) ? 0 : __libc_realloc(at, size); }
