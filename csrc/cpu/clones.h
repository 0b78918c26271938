// One build serves every x86-64 CPU: the loader picks the version of a marked function that the CPU can run.
// Sanitizers instrument the function that picks, which runs before they are set up.
#pragma once

#if defined(__x86_64__) && defined(__GLIBC__) && !defined(__SANITIZE_THREAD__) && \
    !defined(__SANITIZE_ADDRESS__)
#define ALRP_CLONES __attribute__((target_clones("avx512f", "avx2", "default")))
#else
#define ALRP_CLONES
#endif
