/* A processor without AVX-512, VNNI, bfloat16 and AMX, for libraries whose CPUID instructions were
   replaced by a breakpoint and a NOP (0F A2 -> CC 90), and for who reads /proc/cpuinfo. */
#define _GNU_SOURCE
#include <cpuid.h>
#include <dlfcn.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <ucontext.h>

#define BIT(n) (1u << (n))

static void answer(int signal_, siginfo_t *info, void *context) {
    greg_t *r = ((ucontext_t *)context)->uc_mcontext.gregs;
    const unsigned char *next = (const unsigned char *)r[REG_RIP];
    unsigned a, b, c, d;
    (void)info;
    if (next[-1] != 0xcc || next[0] != 0x90) { /* a breakpoint of somebody else's */
        signal(signal_, SIG_DFL);
        raise(signal_);
        return;
    }
    unsigned leaf = r[REG_RAX], part = r[REG_RCX];
    __cpuid_count(leaf, part, a, b, c, d);
    if (leaf == 7 && part == 0) {
        b &= ~(BIT(16) | BIT(17) | BIT(21) | BIT(26) | BIT(27) | BIT(28) | BIT(30) | BIT(31));
        c &= ~(BIT(1) | BIT(6) | BIT(11) | BIT(12) | BIT(14));
        d &= ~(BIT(2) | BIT(3) | BIT(8) | BIT(22) | BIT(23) | BIT(24) | BIT(25));
    } else if (leaf == 7 && part == 1) { /* AVX-VNNI, AVX512-BF16, AMX-FP16, AVX-IFMA, AVX10 */
        a &= ~(BIT(4) | BIT(5) | BIT(21) | BIT(23));
        d &= ~(BIT(4) | BIT(5) | BIT(10) | BIT(19));
    }
    r[REG_RAX] = a;
    r[REG_RBX] = b;
    r[REG_RCX] = c;
    r[REG_RDX] = d;
}

typedef int (*Sigaction)(int, const struct sigaction *, struct sigaction *);

static int own_sigaction(int which, const struct sigaction *new, struct sigaction *old) {
    return ((Sigaction)dlsym(RTLD_NEXT, "sigaction"))(which, new, old);
}

/* Ray's workers take over every signal that ends a process. */
int sigaction(int which, const struct sigaction *new, struct sigaction *old) {
    return own_sigaction(which, which == SIGTRAP ? NULL : new, old);
}

__attribute__((constructor)) static void install(void) {
    struct sigaction action;
    memset(&action, 0, sizeof action);
    action.sa_sigaction = answer;
    action.sa_flags = SA_SIGINFO | SA_NODEFER | SA_ONSTACK;
    own_sigaction(SIGTRAP, &action, NULL);
}

static const char *instead(const char *path) {
    return path && !strcmp(path, "/proc/cpuinfo") ? getenv("MASKED_CPUINFO") : path;
}

#define OPEN(name)                                                     \
    int name(const char *path, int flags, ...) {                       \
        va_list rest;                                                  \
        va_start(rest, flags);                                         \
        int mode = va_arg(rest, int);                                  \
        va_end(rest);                                                  \
        int (*own)(const char *, int, ...) = dlsym(RTLD_NEXT, #name);  \
        return own(instead(path), flags, mode);                        \
    }
OPEN(open)
OPEN(open64)

FILE *fopen(const char *path, const char *mode) {
    FILE *(*own)(const char *, const char *) = dlsym(RTLD_NEXT, "fopen");
    return own(instead(path), mode);
}
