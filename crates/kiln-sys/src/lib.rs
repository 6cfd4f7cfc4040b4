//! Safe wrappers for Linux: mounts, namespaces, path-safe roots, capabilities, seccomp, pidfds.
